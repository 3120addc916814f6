package connectortest

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// broken is Memory with one fault planted in it.
type broken struct {
	Memory
	plant func(*memory) sdk.Instance
}

func (b broken) Open(ctx context.Context, s sdk.Settings) (sdk.Instance, error) {
	i, err := b.Memory.Open(ctx, s)
	if err != nil {
		return nil, err
	}
	return b.plant(i.(*memory)), nil
}

// faulty replaces single methods of an instance.
type faulty struct {
	*memory
	apply   func(op *connectorv1.Operation) *connectorv1.ApplyResult
	object  func(o *connectorv1.Object) *connectorv1.Object
	changes func(m *memory, cursor []byte, tell sdk.Telling) (sdk.Completeness, error)
	watch   func(ctx context.Context) error
	method  *string
}

func (f *faulty) Apply(ctx context.Context, operations []*connectorv1.Operation) []*connectorv1.ApplyResult {
	results := make([]*connectorv1.ApplyResult, len(operations))
	for i, op := range operations {
		if f.apply != nil {
			results[i] = f.apply(op)
		}
		if results[i] == nil {
			results[i] = f.memory.Apply(ctx, operations[i:i+1])[0]
		}
	}
	return results
}

func (f *faulty) Observe(ctx context.Context, emit func(*connectorv1.Object) error) (sdk.Completeness, error) {
	done, err := f.memory.Observe(ctx, func(o *connectorv1.Object) error {
		if f.object != nil {
			o = f.object(o)
		}
		if o == nil {
			return nil
		}
		return emit(o)
	})
	if f.method != nil {
		done.Method = *f.method
	}
	return done, err
}

func (f *faulty) Changes(ctx context.Context, cursor []byte, tell sdk.Telling) (sdk.Completeness, error) {
	if f.changes != nil {
		return f.changes(f.memory, cursor, tell)
	}
	return f.memory.Changes(ctx, cursor, tell)
}

func (f *faulty) Watch(ctx context.Context, cursor []byte, changed func()) error {
	if f.watch != nil {
		return f.watch(ctx)
	}
	return f.memory.Watch(ctx, cursor, changed)
}

// recorder stands in for a test that is expected to fail.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) {
	r.Errorf("%s", fmt.Sprint(args...))
	runtime.Goexit()
}

func memoryTarget(c sdk.Connector) Target {
	name := func(typ, leaf, place string) *connectorv1.Name {
		return &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent(typ, leaf), connectorv1.NewComponent("ou", place)}}
	}
	return Target{
		Connector: c,
		Setup: func(t testing.TB) Directory {
			path := filepath.Join(t.TempDir(), "state.json")
			start := MemoryState{Revision: 1, Next: 1, Objects: []MemoryObject{{Type: "account", Anchor: "account-1", Leaf: "anna", Place: "people", Revision: 1}}}
			if err := start.Write(path); err != nil {
				t.Fatal(err)
			}
			return Directory{
				Settings: fmt.Appendf(nil, `{"state":%q}`, path),
				State: func(t testing.TB) string {
					s, err := ReadMemoryState(path)
					if err != nil {
						t.Fatal(err)
					}
					for i := range s.Objects {
						s.Objects[i].Revision = 0
					}
					raw, err := json.Marshal(s.Objects)
					if err != nil {
						t.Fatal(err)
					}
					return string(raw)
				},
			}
		},
		Samples: map[string]Sample{
			"account": {
				Create: func(leaf string) *connectorv1.Create {
					return &connectorv1.Create{Name: name("login", leaf, "people"), Attributes: []*connectorv1.Attribute{{Name: "displayName", Values: values("Kit")}}}
				},
				Values: map[string][]string{"mail": {"a@fabrikam.example", "b@fabrikam.example"}},
			},
			"group": {Create: func(leaf string) *connectorv1.Create { return &connectorv1.Create{Name: name("cn", leaf, "groups")} }, Member: "account"},
		},
	}
}

// failing runs every point and names those that fail.
func failing(t *testing.T, c sdk.Connector) []string {
	t.Helper()
	var out []string
	for _, p := range points() {
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() { defer close(done); p.try(open(r, memoryTarget(c))) }()
		<-done
		if len(r.said) > 0 {
			out = append(out, p.name)
		}
	}
	return out
}

func TestTheKitCatchesPlantedFaults(t *testing.T) {
	if got := failing(t, Memory{}); len(got) > 0 {
		t.Fatalf("the sound connector fails %q", got)
	}
	refuse := func(op *connectorv1.Operation) *connectorv1.ApplyResult {
		return sdk.Refused(op, sdk.NewProblem(sdk.CodeAlreadyExists, "x", "x", "x"))
	}
	once := func(kind connectorv1.OperationKind) func() func(*connectorv1.Operation) *connectorv1.ApplyResult {
		return func() func(*connectorv1.Operation) *connectorv1.ApplyResult {
			seen := map[string]bool{}
			return func(op *connectorv1.Operation) *connectorv1.ApplyResult {
				key := op.GetObject().String() + op.GetCreate().String()
				if op.Kind() == kind && seen[key] {
					return refuse(op)
				}
				seen[key] = true
				return nil
			}
		}
	}
	silently := func(kind connectorv1.OperationKind) func() func(*connectorv1.Operation) *connectorv1.ApplyResult {
		return func() func(*connectorv1.Operation) *connectorv1.ApplyResult {
			return func(op *connectorv1.Operation) *connectorv1.ApplyResult {
				if op.Kind() == kind {
					return sdk.Done(op)
				}
				return nil
			}
		}
	}
	edit := func(change func(op *connectorv1.Operation)) func() func(*connectorv1.Operation) *connectorv1.ApplyResult {
		return func() func(*connectorv1.Operation) *connectorv1.ApplyResult {
			return func(op *connectorv1.Operation) *connectorv1.ApplyResult { change(op); return nil }
		}
	}
	empty := ""
	for name, c := range map[string]struct {
		apply func() func(*connectorv1.Operation) *connectorv1.ApplyResult
		fault faulty
		want  string
	}{
		"create is not idempotent":        {apply: once(opCreate), want: "create, read back, create again"},
		"delete is not idempotent":        {apply: once(opDelete), want: "delete, then absent"},
		"enable is not idempotent":        {apply: once(opEnable), want: "enable and disable"},
		"disable says done, does nothing": {apply: silently(opDisable), want: "enable and disable"},
		"delete says done, does nothing":  {apply: silently(opDelete), want: "delete, then absent"},
		"update says done, does nothing":  {apply: silently(opUpdate), want: "update by value, both ways"},
		"rename says done, does nothing":  {apply: silently(opRename), want: "rename"},
		"member says done, does nothing":  {apply: silently(opAdd), want: "members"},
		"expects are ignored":             {apply: edit(func(op *connectorv1.Operation) { op.Expect = nil }), want: "an expect that does not hold is a conflict"},
		"update replaces all values": {apply: edit(func(op *connectorv1.Operation) {
			for _, d := range op.GetUpdate().GetDeltas() {
				d.Add = d.GetAdd()[:min(1, len(d.GetAdd()))]
			}
		}), want: "update by value, both ways"},
		"names lose their strange characters": {apply: edit(func(op *connectorv1.Operation) {
			for _, comp := range op.GetCreate().GetName().GetComponents() {
				comp.Parts[0].Value = strings.NewReplacer(":", "", "\n", "", ",", "").Replace(comp.Parts[0].Value)
			}
		}), want: "hostile names"},
		"refuses without a reason": {apply: func() func(*connectorv1.Operation) *connectorv1.ApplyResult {
			return func(op *connectorv1.Operation) *connectorv1.ApplyResult {
				if strings.Contains(op.GetCreate().GetName().Text(), ":") {
					return sdk.Refused(op, sdk.NewProblem("", "", "", ""))
				}
				return nil
			}
		}, want: "hostile names"},
		"observe leaves somebody out": {fault: faulty{object: func(o *connectorv1.Object) *connectorv1.Object {
			if o.GetAnchor() == "account-1" {
				return nil
			}
			return o
		}}, want: "observe is complete and repeatable"},
		"observe sees other values than read": {fault: faulty{object: func(o *connectorv1.Object) *connectorv1.Object { o.Display += "!"; return o }}, want: "read agrees with observe"},
		"observe does not say how it knows":   {fault: faulty{method: &empty}, want: "observe is complete and repeatable"},
		"a lost cursor becomes removals": {fault: faulty{changes: func(_ *memory, _ []byte, tell sdk.Telling) (sdk.Completeness, error) {
			return sdk.Completeness{Method: "guessed", Cursor: []byte("1")}, tell.Removed("account-1")
		}}, want: "a foreign cursor is lost and removes nobody"},
		"changes forget who is gone": {fault: faulty{changes: func(m *memory, cursor []byte, tell sdk.Telling) (sdk.Completeness, error) {
			tell.Removed = func(string) error { return nil }
			return m.Changes(context.Background(), cursor, tell)
		}}, want: "changes agree with observe"},
		"changes name some as present and call it all": {fault: faulty{changes: func(m *memory, cursor []byte, tell sdk.Telling) (sdk.Completeness, error) {
			done, err := m.Changes(context.Background(), cursor, tell)
			done.Enumerated = true
			return done, err
		}}, want: "changes agree with observe"},
		"changes come from the same cursor for ever": {fault: faulty{changes: func(m *memory, cursor []byte, tell sdk.Telling) (sdk.Completeness, error) {
			done, err := m.Changes(context.Background(), cursor, tell)
			done.Cursor = cursor
			return done, err
		}}, want: "changes agree with observe"},
		"watch ends before anything happened": {fault: faulty{watch: func(context.Context) error { return nil }}, want: "watch tells of changes"},
	} {
		t.Run(name, func(t *testing.T) {
			got := failing(t, broken{plant: func(m *memory) sdk.Instance {
				f := c.fault
				f.memory = m
				if c.apply != nil {
					f.apply = c.apply()
				}
				return &f
			}})
			if !slices.Contains(got, c.want) {
				t.Errorf("want %q to fail, got %q", c.want, got)
			}
		})
	}
}
