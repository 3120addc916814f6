package admission_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/admission/admissiontest"
	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

const rails = `
scope:
  - {rule: people, types: [account], base: "ou=staff", operations: [create, update, enable, disable, delete, set_credential]}
  - {rule: groups, types: [group], base: "ou=groups", operations: [add_member, remove_member]}
attributes: [{name: displayName}]
protected: [{name: "login=ceo,ou=staff"}]
budgets: {plan: {losing_access: 1}}
client_signature: {operations: [enable]}
`

// fakeDirectory is the memory connector in this process, without a way to write.
type fakeDirectory struct {
	sdk.Instance
	broken bool
	more   []*connectorv1.Object // groups that it has beside those in memory
	// started is closed once it has types; nil is from the first.
	started chan struct{}
	asked   chan struct{} // gets a value from each Ready that waits
}

func (d *fakeDirectory) Ready(ctx context.Context) error {
	if d.started == nil {
		return nil
	}
	d.asked <- struct{}{}
	select {
	case <-d.started:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *fakeDirectory) Types() []*connectorv1.ObjectType {
	if d.started != nil {
		select {
		case <-d.started:
		default:
			return nil
		}
	}
	return d.Instance.Types()
}

func (d *fakeDirectory) CaseRule() connectorv1.CaseRule {
	return connectorv1.CaseRule_CASE_RULE_IGNORE
}

func (d *fakeDirectory) Read(ctx context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error) {
	if d.broken {
		return nil, errors.New("connection refused")
	}
	return d.Instance.Read(ctx, refs)
}

func (d *fakeDirectory) Groups(ctx context.Context) (out []*connectorv1.Object, err error) {
	_, err = d.Observe(ctx, func(o *connectorv1.Object) error {
		if o.GetType() == "group" {
			out = append(out, o)
		}
		return nil
	})
	return append(out, d.more...), err
}

type fakeRecipients struct{}

func (fakeRecipients) Has(alias string) bool { return alias == "it" }

type bench struct {
	t     *testing.T
	wall  time.Time
	j     *journal.Journal
	admit *admission.Admitter
	msp   *admissiontest.MSP
	dir   *fakeDirectory
	state string
	mode  agentv1.ConnectorState_Mode
	ssh   string // private key file of the approver it-lead
	free  uint64 // of the disk, in bytes
	// cosigned is the checkpoint that the agent cosigned last.
	cosigned string
	// noGrowth is what asking for a proof of growth fails with.
	noGrowth error
}

func newBench(t *testing.T, mode agentv1.ConnectorState_Mode) *bench {
	t.Helper()
	return newBenchWith(t, mode, rails)
}

func newBenchWith(t *testing.T, mode agentv1.ConnectorState_Mode, rails string) *bench {
	t.Helper()
	ctx := context.Background()
	dir := t.TempDir()
	b := &bench{t: t, wall: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), msp: &admissiontest.MSP{T: t}, state: filepath.Join(dir, "memory.json"), mode: mode, free: 1 << 30, ssh: filepath.Join(dir, "key")}
	state := connectortest.MemoryState{Objects: []connectortest.MemoryObject{
		{Type: "account", Anchor: "a-anna", Leaf: "anna", Place: "staff"},
		{Type: "account", Anchor: "a-bo", Leaf: "bo", Place: "staff"},
		{Type: "account", Anchor: "a-ceo", Leaf: "ceo", Place: "staff"},
		{Type: "group", Anchor: "g-all", Leaf: "all", Place: "groups"},
	}}
	b.check(state.Write(b.state))
	var err error
	b.j, err = journal.Open(ctx, journal.Options{Path: filepath.Join(dir, "journal.db"), Identity: admissiontest.Identity, Key: admissiontest.Key(1), ReserveBytes: 1, MinFree: 1,
		Free: func(string) (uint64, error) { return b.free, nil }})
	b.check(err)
	t.Cleanup(func() { _ = b.j.Close() })
	instance, err := connectortest.Memory{}.Open(ctx, sdk.Settings{Alias: "mem", JSON: fmt.Appendf(nil, `{"state":%q}`, b.state)})
	b.check(err)
	b.dir = &fakeDirectory{Instance: instance}
	var node yaml.Node
	b.check(yaml.Unmarshal([]byte(rails), &node))
	g, err := guardrails.Parse("mem", node.Content[0])
	b.check(err)
	out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", b.ssh).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	public, err := os.ReadFile(b.ssh + ".pub")
	b.check(err)
	clock := journal.NewClock(b.j, journal.ClockOptions{Wall: func() time.Time { return b.wall }, Boot: func() time.Duration { return 0 }, BootID: "b"})
	b.admit = admission.New(admission.Options{
		Journal: b.j, Clock: clock, Audit: audit.Recorder{Actor: "agent", Now: clock.Now}, Trust: b.msp.Trust, LogOrigin: admissiontest.Origin,
		Cosigned: func() (string, error) { return b.cosigned, nil },
		Growth: func(ctx context.Context, from, to uint64) (tlog.TreeProof, error) {
			if b.noGrowth != nil {
				return nil, b.noGrowth
			}
			return b.msp.Growth(ctx, from, to)
		},
		Recipients: fakeRecipients{}, Approvers: []guardrails.Approver{{Name: "it-lead", Key: strings.TrimSpace(string(public))}},
		Connectors: map[string]admission.Connector{
			"mem": {Mode: mode, Role: agentv1.ConnectorState_ROLE_TARGET, Guardrails: g, Directory: b.dir},
			"hr":  {Mode: agentv1.ConnectorState_MODE_OBSERVE, Role: agentv1.ConnectorState_ROLE_SOURCE, Directory: b.dir},
		},
	})
	return b
}

func (b *bench) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) order(e admissiontest.Edits, changes ...*planv1.Change) admission.Delivery {
	_, d := b.msp.Order(b.wall, []string{"hr", "mem"}, changes, e)
	return d
}

func (b *bench) count(kind auditv1.Type) (n int) {
	b.t.Helper()
	batch, err := b.j.Spool(context.Background(), 0, 10000)
	b.check(err)
	for _, r := range batch.GetRecords() {
		var h auditv1.Header
		b.check(planv1.Decode(r.GetHeader(), &h))
		if h.GetType() == kind {
			n++
		}
	}
	return n
}

func change(id string, op *connectorv1.Operation) *planv1.Change {
	return &planv1.Change{Id: id, Connector: "mem", Operation: op}
}

func account(anchor string) *connectorv1.ObjectRef {
	return &connectorv1.ObjectRef{Type: "account", Anchor: anchor}
}

func update(id, anchor string) *planv1.Change {
	return change(id, &connectorv1.Operation{Object: account(anchor), Action: &connectorv1.Operation_Update{Update: &connectorv1.Update{
		Deltas: []*connectorv1.ValueDelta{{Attribute: "displayName", Add: [][]byte{[]byte("A")}}},
	}}})
}

func create(id, leaf string) *planv1.Change {
	return change(id, &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "account"}, Action: &connectorv1.Operation_Create{Create: &connectorv1.Create{
		Name: &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("login", leaf), connectorv1.NewComponent("ou", "staff")}},
	}}})
}

func del(id, anchor string) *planv1.Change {
	return change(id, &connectorv1.Operation{Object: account(anchor), Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}})
}

func enable(id, anchor string) *planv1.Change {
	return change(id, &connectorv1.Operation{Object: account(anchor), Action: &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}})
}

func password(id, recipient string, secret []byte) *planv1.Change {
	return change(id, &connectorv1.Operation{Object: account("a-anna"), Action: &connectorv1.Operation_SetCredential{SetCredential: &connectorv1.SetCredential{Kind: "password", Recipient: recipient, Secret: secret}}})
}

func with(c *planv1.Change, edit func(*planv1.Change)) *planv1.Change {
	edit(c)
	return c
}
