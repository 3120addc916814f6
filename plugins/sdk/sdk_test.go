package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	"github.com/reevehq/reeve/plugins/sdk/host"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func TestProblemIsFoundAndCarried(t *testing.T) {
	cause := errors.New("LDAP Result Code 49\x1b[31m\nInvalid Credentials")
	err := fmt.Errorf("bind: %w", sdk.NewProblem(sdk.CodeBindRefused, "corp", "bind", "correct the password").WithCause(cause))
	p := sdk.AsProblem(err, "", "")
	if p.Code() != sdk.CodeBindRefused || !errors.Is(err, cause) || !sdk.HasCode(err, sdk.CodeBindRefused) {
		t.Errorf("want %s with its cause, got %v", sdk.CodeBindRefused, p)
	}
	if got := p.Proto().GetSaid(); got != "LDAP Result Code 49[31m Invalid Credentials" {
		t.Errorf("said %q", got)
	}
	back := sdk.AsProblem(p.GRPCStatus().Err(), "", "")
	if back.Error() != p.Error() {
		t.Errorf("over the wire: want %v, got %v", p, back)
	}
	if sdk.HasCode(nil, sdk.CodeInternal) || sdk.AsProblem(nil, "", "") != nil {
		t.Error("no error is no problem")
	}
	if got := sdk.AsProblem(errors.New("x"), "corp", "bind"); got.Code() != sdk.CodeInternal || got.Proto().GetRemedy() == "" {
		t.Errorf("an error without a code: %v", got)
	}
}

func TestCleanIsSafeAndStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
			rapid.Map(rapid.IntRange(4080, 4200), func(n int) string { return strings.Repeat("é", n) })).Draw(t, "in")
		out := sdk.Clean(in)
		if !utf8.ValidString(out) || len(out) > 4096 || strings.IndexFunc(out, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) >= 0 {
			t.Fatalf("%q is not clean", out)
		}
		if sdk.Clean(out) != out {
			t.Fatalf("cleaning %q again gives %q", out, sdk.Clean(out))
		}
	})
}

func TestSettingsAreStrict(t *testing.T) {
	type settings struct {
		URL  string `json:"url"`
		Port int    `json:"port"`
		TLS  struct {
			CA string `json:"ca"`
		} `json:"tls"`
	}
	for in, want := range map[string]string{
		`{"url":"x","port":1,"tls":{"ca":"y"}}`: "",
		``:                                      "",
		`{"urll":"x"}`:                          `"urll"`,
		`{"tls":{"cafile":"x"}}`:                `"cafile"`,
		`{"url":"x","URL":"y"}`:                 `"URL" is given twice`,
		`{"tls":{"ca":1,"ca":2}}`:               `"tls.ca" is given twice`,
		`{"port":"x"}`:                          `"port"`,
		`{"url":"x"} {}`:                        "not valid JSON",
		`{"url":`:                               "not valid JSON",
	} {
		var v settings
		err := sdk.Settings{Alias: "corp", JSON: []byte(in)}.Decode(&v)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", in, err)
			}
			continue
		}
		if !sdk.HasCode(err, sdk.CodeConfig) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "corp") {
			t.Errorf("%s: want a problem with %q, got %v", in, want, err)
		}
	}
	s := sdk.Settings{Alias: "corp", Secrets: map[string][]byte{"bind": []byte("hunter2")}}
	if got, err := s.Secret("bind"); err != nil || string(got) != "hunter2" {
		t.Errorf("secret: %q %v", got, err)
	}
	if _, err := s.Secret("other"); !sdk.HasCode(err, sdk.CodeConfig) || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("a secret that is not given: %v", err)
	}
}

func memory(t *testing.T, m connectortest.MemorySettings, objects int) *host.Client {
	t.Helper()
	m.State = filepath.Join(t.TempDir(), "state.json")
	state := connectortest.MemoryState{Revision: 1, Next: objects}
	for i := range objects {
		state.Objects = append(state.Objects, connectortest.MemoryObject{Type: "account", Anchor: fmt.Sprint(i), Leaf: fmt.Sprint("user", i), Place: "people"})
	}
	if err := state.Write(m.State); err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	client := connectortest.Connect(t, connectortest.Memory{})
	if _, err := client.Configure(context.Background(), &connectorv1.ConfigureRequest{Alias: "mem", SettingsJson: settings}); err != nil {
		t.Fatal(err)
	}
	return client
}

func TestObserveIsBatchedAndCounted(t *testing.T) {
	client := memory(t, connectortest.MemorySettings{}, 1234)
	seen, batches := 0, 0
	end, err := client.Observe(context.Background(), func(batch []*connectorv1.Object) error {
		if len(batch) > 500 {
			t.Errorf("a batch of %d", len(batch))
		}
		seen, batches = seen+len(batch), batches+1
		return nil
	})
	if err != nil || !end.GetComplete() || end.GetCount() != 1234 || seen != 1234 || batches != 3 {
		t.Errorf("want 1234 objects in 3 batches, complete, got %d in %d, %v %v", seen, batches, end, err)
	}
}

func TestConnectorsThatLieAreFoundOut(t *testing.T) {
	for lie, said := range map[string]string{
		"twice":      "anchor twice",
		"undeclared": `"shoeSize" is not declared`,
		"secret":     `"password" was emitted`,
	} {
		client := memory(t, connectortest.MemorySettings{Lie: lie}, 3)
		objects := 0
		end, err := client.Observe(context.Background(), func(batch []*connectorv1.Object) error {
			objects += len(batch)
			for _, o := range batch {
				if strings.Contains(o.String(), "hunter2") {
					t.Errorf("%s: the secret got through: %v", lie, o)
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", lie, err)
			continue
		}
		if end.GetComplete() || objects != 3 || len(end.GetProblems()) == 0 || end.GetProblems()[0].GetCode() != sdk.CodeConnectorBug ||
			!strings.Contains(end.GetProblems()[0].GetSaid(), said) {
			t.Errorf("%s: want incomplete because %q, got %d objects, %v", lie, said, objects, end)
		}
	}
}

func TestPanicsBecomeProblems(t *testing.T) {
	client := memory(t, connectortest.MemorySettings{Lie: "panic"}, 1)
	if _, err := client.Observe(context.Background(), func([]*connectorv1.Object) error { return nil }); !sdk.HasCode(err, sdk.CodeConnectorBug) {
		t.Errorf("Observe: want %s, got %v", sdk.CodeConnectorBug, err)
	}
	results, err := client.Apply(context.Background(), []*connectorv1.Operation{{
		Id: "1", Object: &connectorv1.ObjectRef{Type: "account", Anchor: "0"}, Action: &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}}})
	if err != nil || results[0].GetOutcome() != connectorv1.Outcome_OUTCOME_UNKNOWN {
		t.Errorf("Apply: want unknown, got %v %v", results, err)
	}
	if _, err := client.Check(context.Background()); err != nil {
		t.Errorf("the process must live on: %v", err)
	}
}

func TestFailureInTheMiddleHasNoEnd(t *testing.T) {
	client := memory(t, connectortest.MemorySettings{FailAfter: 2}, 5)
	if end, err := client.Observe(context.Background(), func([]*connectorv1.Object) error { return nil }); !sdk.HasCode(err, sdk.CodeUnreachable) || end != nil {
		t.Errorf("want %s and no end, got %v %v", sdk.CodeUnreachable, end, err)
	}
}

func TestWatchTellsOfChanges(t *testing.T) {
	client := memory(t, connectortest.MemorySettings{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	told, done := make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- client.Watch(ctx, nil, func() { told <- struct{}{} }) }()
	<-told // it is ready
	for toggle := 0; ; toggle++ {
		op := &connectorv1.Operation{Id: "1", Object: &connectorv1.ObjectRef{Type: "account", Anchor: "0"}, Action: &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}}
		if toggle%2 == 1 {
			op.Action = &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}
		}
		if _, err := client.Apply(ctx, []*connectorv1.Operation{op}); err != nil {
			t.Fatal(err)
		}
		if len(told) > 0 {
			break
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("want the cancellation, got %v", err)
	}
}

func TestServeOutsideOfAHost(t *testing.T) {
	if err := sdk.Serve(connectortest.Memory{}); !errors.Is(err, sdk.ErrNotLaunched) {
		t.Errorf("want %v, got %v", sdk.ErrNotLaunched, err)
	}
}
