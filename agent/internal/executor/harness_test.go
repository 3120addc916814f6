package executor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"go.yaml.in/yaml/v3"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/admission/admissiontest"
	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/secrets"
	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

const generous = `
scope:
  - rule: people
    types: [account]
    base: "ou=staff"
    operations: [create, update, rename, enable, disable, delete, set_credential, revoke_credential]
  - rule: groups
    types: [group]
    base: "ou=groups"
    operations: [create, update, delete, add_member, remove_member]
attributes:
  - {name: displayName}
  - {name: mail, suffix: "@fabrikam.example"}
  - {name: description}
`

// fakeDirectory is the memory connector in this process, with faults that a test
// turns on.
type fakeDirectory struct {
	sdk.Instance
	mu sync.Mutex
	// before runs before operations are applied; an error breaks the connection
	// with nothing applied.
	before func([]*connectorv1.Operation) error
	// after runs after operations were applied; an error loses the answers.
	after func([]*connectorv1.Operation) error
	// refuse answers an operation, if not nil, in the place of the directory.
	refuse func(*connectorv1.Operation) *sdk.Problem
	// unreadable makes Read fail.
	unreadable bool
	atomic     bool
	applied    [][]string
	groupsRead int
	// sending counts Applies under way, most how many there were at once.
	sending, most int
}

func (d *fakeDirectory) Ready(context.Context) error { return nil }

func (d *fakeDirectory) CaseRule() connectorv1.CaseRule {
	return connectorv1.CaseRule_CASE_RULE_IGNORE
}

// Released lets only the display name out.
func (d *fakeDirectory) Released(o *connectorv1.Object) {
	o.Attributes = slices.DeleteFunc(o.Attributes, func(a *connectorv1.Attribute) bool { return a.GetName() != "displayName" })
}

func (d *fakeDirectory) Capabilities() []connectorv1.Capability {
	if d.atomic {
		return []connectorv1.Capability{connectorv1.Capability_CAPABILITY_TRANSACTIONS}
	}
	return d.Instance.Capabilities()
}

func (d *fakeDirectory) Read(ctx context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error) {
	d.mu.Lock()
	unreadable := d.unreadable
	d.mu.Unlock()
	if unreadable {
		return nil, errors.New("connection refused")
	}
	return d.Instance.Read(ctx, refs)
}

func (d *fakeDirectory) Groups(ctx context.Context) ([]*connectorv1.Object, error) {
	d.mu.Lock()
	d.groupsRead++
	d.mu.Unlock()
	var out []*connectorv1.Object
	_, err := d.Observe(ctx, func(o *connectorv1.Object) error {
		if o.GetType() == "group" {
			out = append(out, o)
		}
		return nil
	})
	return out, err
}

func (d *fakeDirectory) Apply(ctx context.Context, operations []*connectorv1.Operation) ([]*connectorv1.ApplyResult, error) {
	var ids []string
	for _, op := range operations {
		ids = append(ids, op.GetId())
	}
	// Not over the hooks: what comes next is read meanwhile.
	d.mu.Lock()
	d.applied = append(d.applied, ids)
	d.sending++
	d.most = max(d.most, d.sending)
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.sending--
		d.mu.Unlock()
	}()
	if d.before != nil {
		if err := d.before(operations); err != nil {
			return nil, err
		}
	}
	var results []*connectorv1.ApplyResult
	for _, op := range operations {
		if d.refuse != nil {
			if p := d.refuse(op); p != nil {
				results = append(results, sdk.Refused(op, p))
				continue
			}
		}
		results = append(results, d.Instance.(sdk.Applier).Apply(ctx, []*connectorv1.Operation{op})...)
	}
	if d.after != nil {
		if err := d.after(operations); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// bench is an agent's core on a memory directory.
type bench struct {
	t      testing.TB
	dir    string
	state  string
	wall   time.Time
	j      *journal.Journal
	clock  *journal.Clock
	fake   *fakeDirectory
	admit  *admission.Admitter
	exec   *Executor
	opener *age.X25519Identity

	msp *admissiontest.MSP
}

func newBench(t testing.TB, dir, rails string) *bench {
	t.Helper()
	b := &bench{t: t, dir: dir, state: filepath.Join(dir, "memory.json"), wall: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), msp: &admissiontest.MSP{T: t}}
	var err error
	if b.opener, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	b.start(rails)
	return b
}

func (b *bench) start(rails string) {
	b.t.Helper()
	ctx := context.Background()
	var err error
	if b.j, err = journal.Open(ctx, journal.Options{Path: filepath.Join(b.dir, "journal.db"), Identity: admissiontest.Identity, Key: admissiontest.Key(1), ReserveBytes: 1, MinFree: 1}); err != nil {
		b.t.Fatal(err)
	}
	b.clock = journal.NewClock(b.j, journal.ClockOptions{Wall: func() time.Time { return b.wall }, Boot: func() time.Duration { return 0 }, BootID: "boot"})
	instance, err := connectortest.Memory{}.Open(ctx, sdk.Settings{Alias: "mem", JSON: []byte(fmt.Sprintf(`{"state":%q}`, b.state))})
	if err != nil {
		b.t.Fatal(err)
	}
	b.fake = &fakeDirectory{Instance: instance}
	b.rails(rails)
	b.t.Cleanup(func() { _ = b.j.Close() })
}

// rails puts other guardrails in force.
func (b *bench) rails(text string) {
	b.t.Helper()
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(text), &node); err != nil {
		b.t.Fatal(err)
	}
	g, err := guardrails.Parse("mem", node.Content[0])
	if err != nil {
		b.t.Fatal(err)
	}
	recipients, err := secrets.ParseRecipients(map[string]string{"it": b.opener.Recipient().String()})
	if err != nil {
		b.t.Fatal(err)
	}
	recorder := audit.Recorder{Actor: "spiffe://msp.example/tenant/fabrikam/agent/dc1", Now: b.clock.Now}
	b.admit = admission.New(admission.Options{
		Journal: b.j, Clock: b.clock, Audit: recorder, LogOrigin: admissiontest.Origin, Recipients: recipients,
		Trust:      b.msp.Trust,
		Connectors: map[string]admission.Connector{"mem": {Mode: agentv1.ConnectorState_MODE_ENFORCE, Role: agentv1.ConnectorState_ROLE_TARGET, Guardrails: g, Directory: b.fake}},
	})
	b.exec = New(Options{
		Journal: b.j, Clock: b.clock, Audit: recorder, Recipients: recipients,
		Connectors: map[string]Connector{"mem": {Guardrails: g, Directory: b.fake}},
		Retry:      func(_ context.Context, n int) bool { return n < 3 },
	})
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// order wraps changes into a plan and signs an order over it.
func (b *bench) order(changes ...*planv1.Change) (string, admission.Delivery) {
	b.t.Helper()
	return b.msp.Order(b.wall, []string{"mem"}, changes, admissiontest.Edits{})
}

// admitted admits an order of these changes and returns its id.
func (b *bench) admitted(changes ...*planv1.Change) string {
	b.t.Helper()
	id, d := b.order(changes...)
	if _, err := b.admit.Admit(context.Background(), d); err != nil {
		b.t.Fatal(err)
	}
	return id
}

// carriedOut admits and runs an order.
func (b *bench) carriedOut(changes ...*planv1.Change) string {
	b.t.Helper()
	id := b.admitted(changes...)
	if err := b.exec.Run(context.Background(), id); err != nil {
		b.t.Fatal(err)
	}
	return id
}

// trail is every record's body of a type, in order.
func (b *bench) trail(kind auditv1.Type) []*auditv1.Body {
	b.t.Helper()
	var out []*auditv1.Body
	for after := b.j.Purged().Next; ; {
		batch := must[*auditv1.Batch](b.t)(b.j.Spool(context.Background(), after, 1000))
		if batch == nil {
			return out
		}
		for _, r := range batch.GetRecords() {
			var h auditv1.Header
			if err := planv1.Decode(r.GetHeader(), &h); err != nil {
				b.t.Fatal(err)
			}
			if h.GetType() == kind {
				body := &auditv1.Body{}
				if err := planv1.Decode(r.GetBody(), body); err != nil {
					b.t.Fatal(err)
				}
				out = append(out, body)
			}
		}
		after += uint64(len(batch.GetRecords()))
	}
}

// results is what each change came to, by its one receipt.
func (b *bench) results() map[string]auditv1.Receipt_Result {
	b.t.Helper()
	out := map[string]auditv1.Receipt_Result{}
	for _, body := range b.trail(auditv1.Type_TYPE_RECEIPT) {
		r := body.GetReceipt()
		key := r.GetOrder() + "/" + r.GetChange()
		if _, twice := out[key]; twice {
			b.t.Fatalf("%s has two receipts", key)
		}
		out[key] = r.GetResult()
	}
	return out
}

func (b *bench) memory() connectortest.MemoryState {
	b.t.Helper()
	return must[connectortest.MemoryState](b.t)(connectortest.ReadMemoryState(b.state))
}

func (b *bench) object(leaf string) *connectortest.MemoryObject {
	s := b.memory()
	for i := range s.Objects {
		if s.Objects[i].Leaf == leaf {
			return &s.Objects[i]
		}
	}
	return nil
}

// put writes objects into the directory from outside.
func (b *bench) put(objects ...connectortest.MemoryObject) {
	b.t.Helper()
	s := b.memory()
	s.Objects = append(s.Objects, objects...)
	if err := s.Write(b.state); err != nil {
		b.t.Fatal(err)
	}
}

func account(leaf string) connectortest.MemoryObject {
	return connectortest.MemoryObject{Type: "account", Anchor: "a-" + leaf, Leaf: leaf, Place: "staff"}
}

func group(leaf string, members ...string) connectortest.MemoryObject {
	return connectortest.MemoryObject{Type: "group", Anchor: "g-" + leaf, Leaf: leaf, Place: "groups", Members: members}
}

func place(typ, leaf, ou string) *connectorv1.Name {
	return &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent(typ, leaf), connectorv1.NewComponent("ou", ou)}}
}

func change(id string, level uint32, op *connectorv1.Operation, dependsOn ...string) *planv1.Change {
	return &planv1.Change{Id: id, Connector: "mem", Level: level, Operation: op, Cause: planv1.Cause_CAUSE_CLIENT, DependsOn: dependsOn, Identity: "identity-of-" + id}
}

func createAccount(id, leaf string) *planv1.Change {
	return change(id, 0, &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "account"}, Action: &connectorv1.Operation_Create{Create: &connectorv1.Create{
		Name: place("login", leaf, "staff"), Attributes: []*connectorv1.Attribute{{Name: "displayName", Values: [][]byte{[]byte(leaf)}}},
	}}})
}

func anchored(typ, anchor string) *connectorv1.ObjectRef {
	return &connectorv1.ObjectRef{Type: typ, Anchor: anchor}
}

func made(typ, change string) *connectorv1.ObjectRef {
	return &connectorv1.ObjectRef{Type: typ, Change: change}
}

func addMember(id string, level uint32, group, member *connectorv1.ObjectRef) *planv1.Change {
	return change(id, level, &connectorv1.Operation{Object: group, Action: &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{Member: member}}})
}

func removeMember(id string, level uint32, group, member *connectorv1.ObjectRef) *planv1.Change {
	return change(id, level, &connectorv1.Operation{Object: group, Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{Member: member}}})
}

func update(id string, level uint32, object *connectorv1.ObjectRef, attribute string, remove, add []string) *planv1.Change {
	d := &connectorv1.ValueDelta{Attribute: attribute}
	for _, v := range remove {
		d.Remove = append(d.Remove, []byte(v))
	}
	for _, v := range add {
		d.Add = append(d.Add, []byte(v))
	}
	return change(id, level, &connectorv1.Operation{Object: object, Action: &connectorv1.Operation_Update{Update: &connectorv1.Update{Deltas: []*connectorv1.ValueDelta{d}}}})
}

func simple(id string, level uint32, op *connectorv1.Operation, object *connectorv1.ObjectRef) *planv1.Change {
	op.Object = object
	return change(id, level, op)
}

func enable() *connectorv1.Operation {
	return &connectorv1.Operation{Action: &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}}
}

func disable() *connectorv1.Operation {
	return &connectorv1.Operation{Action: &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}}
}

func setPassword() *connectorv1.Operation {
	return &connectorv1.Operation{Action: &connectorv1.Operation_SetCredential{SetCredential: &connectorv1.SetCredential{Kind: "password", Recipient: "it"}}}
}

// groupOutside is a group out of reach that has a member.
func groupOutside(member string) connectortest.MemoryObject {
	return connectortest.MemoryObject{Type: "group", Anchor: "g-outside", Leaf: "outside", Place: "secret", Members: []string{member}}
}
