package executor

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/admission/admissiontest"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// delivery is an order on disk, so that a process that dies and the one after it
// get the same bytes.
type delivery struct {
	Order              string
	Envelope, Manifest []byte
	Chunks             [][]byte
}

func (d delivery) admission() admission.Delivery {
	return admission.Delivery{Envelope: d.Envelope, Manifest: d.Manifest, Chunks: admissiontest.Stream(d.Chunks)}
}

const crashDir, crashAt = "REEVE_TEST_CRASH_DIR", "REEVE_TEST_CRASH_AT"

// TestAgentThatIsKilled is the child process of the test below: an agent that
// admits and runs the order in a folder and kills itself at a point. By itself,
// without the folder, it carries an order out with no point to die at.
func TestAgentThatIsKilled(t *testing.T) {
	if os.Getenv(crashDir) == "" {
		b := newBench(t, t.TempDir(), generous)
		b.carriedOut(createAccount("c", "anna"))
		if b.object("anna") == nil {
			t.Fatal("nothing was created")
		}
		return
	}
	crashChild(t)
}

func crashChild(t *testing.T) {
	point, err := strconv.Atoi(os.Getenv(crashAt))
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, os.Getenv(crashDir), generous)
	steps := 0
	die := func([]*connectorv1.Operation) error {
		if steps++; steps == point {
			// As power loss would, as far as a process can tell.
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				return err
			}
			select {}
		}
		return nil
	}
	b.fake.before, b.fake.after = die, die
	d := readDelivery(t, b.dir)
	if _, err := b.admit.Admit(context.Background(), d.admission()); err != nil {
		t.Fatal(err)
	}
	if err := b.exec.Run(context.Background(), d.Order); err != nil {
		t.Fatal(err)
	}
}

func readDelivery(t testing.TB, dir string) delivery {
	t.Helper()
	raw := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "delivery.json")))
	var d delivery
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// The agent is killed before and after every sending; whatever the point, going on
// afterwards gives one effect and one record for each change.
func TestKilledAnywhereItGoesOnWithOneEffectAndOneRecord(t *testing.T) {
	people := []string{"anna", "bo", "cy"}
	var changes []*planv1.Change
	for level := range uint32(4) {
		for _, leaf := range people {
			for _, c := range joiner(leaf) {
				if c.GetLevel() == level {
					changes = append(changes, c)
				}
			}
		}
	}
	changes = append(changes, removeMember("leave", 4, anchored("group", "g-all"), anchored("account", "a-old")),
		simple("gone", 5, &connectorv1.Operation{Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}}, anchored("account", "a-old")))
	dead := 0
	for point := 1; ; point++ {
		dir := t.TempDir()
		b := newBench(t, dir, generous)
		b.put(account("old"), group("all", "a-old"))
		id, d := b.order(changes...)
		out := delivery{Order: id, Envelope: d.Envelope, Manifest: d.Manifest}
		for c, err := range d.Chunks {
			if err != nil {
				t.Fatal(err)
			}
			out.Chunks = append(out.Chunks, c)
		}
		if err := os.WriteFile(filepath.Join(dir, "delivery.json"), must[[]byte](t)(json.Marshal(out)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.j.Close(); err != nil {
			t.Fatal(err)
		}
		child := exec.Command(os.Args[0], "-test.run=^TestAgentThatIsKilled$")
		child.Env = append(os.Environ(), crashDir+"="+dir, crashAt+"="+strconv.Itoa(point))
		output, err := child.CombinedOutput()
		if err == nil {
			break // it ended before the point was reached
		}
		if status, ok := child.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("point %d: the child failed by itself: %v\n%s", point, err, output)
		}
		dead++
		b.start(generous)
		ctx := context.Background()
		// The control plane does not know and sends again.
		if _, err := b.admit.Admit(ctx, out.admission()); err != nil {
			t.Fatal(err)
		}
		if err := b.exec.Resume(ctx); err != nil {
			t.Fatalf("point %d: %v", point, err)
		}
		checkOneEffect(t, b, id, point, changes, people)
		if err := b.j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if dead < 10 {
		t.Fatalf("the child died at %d points only", dead)
	}
}

func checkOneEffect(t *testing.T, b *bench, id string, point int, changes []*planv1.Change, people []string) {
	t.Helper()
	got := b.results()
	for _, c := range changes {
		if got[id+"/"+c.GetId()] != applied {
			t.Errorf("point %d: %s is %v", point, c.GetId(), got[id+"/"+c.GetId()])
		}
	}
	if len(got) != len(changes) {
		t.Errorf("point %d: %d receipts for %d changes", point, len(got), len(changes))
	}
	var members []string
	for _, leaf := range people {
		o := b.object(leaf)
		if o == nil || o.Disabled || o.Password == "" {
			t.Fatalf("point %d: %s is %+v", point, leaf, o)
		}
		members = append(members, o.Anchor)
	}
	slices.Sort(members)
	if have := b.object("all").Members; !slices.Equal(have, members) {
		t.Errorf("point %d: members %v, want %v", point, have, members)
	}
	if n := len(b.memory().Objects); n != len(people)+1 {
		t.Errorf("point %d: %d objects", point, n)
	}
	for _, kind := range []auditv1.Type{auditv1.Type_TYPE_ORDER_ADMITTED, auditv1.Type_TYPE_ORDER_ENDED} {
		if n := len(b.trail(kind)); n != 1 {
			t.Errorf("point %d: %d records of %v", point, n, kind)
		}
	}
	if err := b.j.Verify(context.Background()); err != nil {
		t.Errorf("point %d: %v", point, err)
	}
	if q := b.j.Quarantined(); q != "" {
		t.Errorf("point %d: %s", point, q)
	}
}
