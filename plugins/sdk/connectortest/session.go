package connectortest

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/host"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Connect serves the connector inside this process, over gRPC, for as long as
// the test runs.
func Connect(t testing.TB, c sdk.Connector) *host.Client {
	t.Helper()
	server := sdk.NewServer(c, hclog.NewNullLogger())
	client := ConnectServer(t, server)
	t.Cleanup(func() { _ = server.Close() })
	return client
}

// ConnectServer serves any implementation of connector/v1 inside this process:
// a test's own that breaks the contract, say.
func ConnectServer(t testing.TB, s connectorv1.ConnectorServiceServer) *host.Client {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(sdk.ServerOptions()...)
	connectorv1.RegisterConnectorServiceServer(server, s)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:connector", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(sdk.MaxMessage)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-served
	})
	return host.New("test", conn)
}

// Launch starts the connector as a process for as long as the test runs.
func Launch(t testing.TB, command, env []string) *host.Client {
	t.Helper()
	// Not t.TempDir: a socket's path must be short.
	dir, err := os.MkdirTemp("", "conn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	client, err := host.Launch(context.Background(), host.Options{Alias: "test", Command: command, Env: env, Dir: dir})
	if err != nil {
		t.Fatalf("the connector does not start: %v", err)
	}
	t.Cleanup(client.Kill)
	return client
}

// pointTimeout bounds one contract point: a connector that hangs fails.
const pointTimeout = 2 * time.Minute

// session is one contract point's own directory and configured connector.
type session struct {
	testing.TB
	ctx      context.Context
	target   Target
	dir      Directory
	client   *host.Client
	describe *connectorv1.DescribeResponse
	types    []*connectorv1.ObjectType
	has      map[connectorv1.Capability]bool
	ids      int
}

func open(t testing.TB, target Target) *session {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pointTimeout)
	t.Cleanup(cancel)
	s := &session{TB: t, ctx: ctx, target: target, dir: target.Setup(t), client: target.start(t), has: map[connectorv1.Capability]bool{}}
	var err error
	if s.describe, err = s.client.Describe(ctx); err != nil {
		t.Fatalf("Describe: %v", err)
	}
	configured, err := s.client.Configure(ctx, s.configuration(s.dir.Settings))
	if err != nil {
		t.Fatalf("Configure refuses the settings that Setup gave: %v", err)
	}
	s.types = configured.GetTypes()
	for _, c := range configured.GetCapabilities() {
		s.has[c] = true
	}
	return s
}

func (target Target) start(t testing.TB) *host.Client {
	if target.Command != nil {
		return Launch(t, target.Command, target.Env)
	}
	return Connect(t, target.Connector)
}

func (s *session) configuration(settings []byte) *connectorv1.ConfigureRequest {
	r := &connectorv1.ConfigureRequest{Alias: "test", SettingsJson: settings}
	for name, value := range s.dir.Secrets {
		r.Secrets = append(r.Secrets, &connectorv1.Secret{Name: name, Value: value})
	}
	return r
}

// state is the directory as seen from outside.
func (s *session) state() string {
	s.Helper()
	if s.dir.State == nil {
		return ""
	}
	return s.dir.State(s)
}

// unchanged fails if the directory is not in the state before.
func (s *session) unchanged(before, after string) {
	s.Helper()
	if now := s.state(); now != before {
		s.Errorf("%s changed the directory:\n--- before\n%s\n--- after\n%s", after, before, now)
	}
}

func (s *session) observe() (map[string]*connectorv1.Object, *connectorv1.ObserveEnd) {
	s.Helper()
	objects := map[string]*connectorv1.Object{}
	end, err := s.client.Observe(s.ctx, func(batch []*connectorv1.Object) error {
		for _, o := range batch {
			objects[o.GetAnchor()] = o
		}
		return nil
	})
	if err != nil {
		s.Fatalf("Observe: %v", err)
	}
	return objects, end
}

// sampled are the configured types that the target has samples for and that
// declare the operation.
func (s *session) sampled(kind connectorv1.OperationKind) []*connectorv1.ObjectType {
	var out []*connectorv1.ObjectType
	for _, t := range s.types {
		if sample, ok := s.target.Samples[t.GetName()]; ok && sample.Create != nil && t.Allows(kind) &&
			t.Allows(connectorv1.OperationKind_OPERATION_KIND_CREATE) {
			out = append(out, t)
		}
	}
	return out
}

func (s *session) typeNamed(name string) *connectorv1.ObjectType {
	for _, t := range s.types {
		if t.GetName() == name {
			return t
		}
	}
	s.Fatalf("Sample names type %q, which the instance does not declare", name)
	return nil
}

// apply carries out one operation under a fresh id.
func (s *session) apply(op *connectorv1.Operation) *connectorv1.ApplyResult {
	s.Helper()
	s.ids++
	op.Id = fmt.Sprintf("op-%d", s.ids)
	results, err := s.client.Apply(s.ctx, []*connectorv1.Operation{op})
	if err != nil {
		s.Fatalf("Apply %s: %v", op.Kind().Word(), err)
	}
	return results[0]
}

// done applies and expects DONE, then applies again and expects DONE and the
// same state: the agent repeats what it does not know to be done.
func (s *session) done(op *connectorv1.Operation) {
	s.Helper()
	if r := s.apply(op); r.GetOutcome() != connectorv1.Outcome_OUTCOME_DONE {
		s.Fatalf("%s: want done, got %s", op.Kind().Word(), said(r))
	}
	after := s.state()
	if r := s.apply(op); r.GetOutcome() != connectorv1.Outcome_OUTCOME_DONE {
		s.Errorf("%s again: want done, since it is so already, got %s", op.Kind().Word(), said(r))
	}
	s.unchanged(after, op.Kind().Word()+" again")
}

func said(r *connectorv1.ApplyResult) string {
	text := strings.TrimPrefix(r.GetOutcome().String(), "OUTCOME_")
	if r.GetProblem() != nil {
		text += ": " + sdk.FromProto(r.GetProblem()).Error()
	}
	return text
}

// refused expects REFUSED with a problem fit to read, and nothing changed.
func (s *session) refused(op *connectorv1.Operation, what string) {
	s.Helper()
	before := s.state()
	r := s.apply(op)
	if r.GetOutcome() != connectorv1.Outcome_OUTCOME_REFUSED {
		s.Errorf("%s: want refused, got %s", what, said(r))
	} else {
		s.readable(r.GetProblem(), what)
	}
	s.unchanged(before, what)
}

func (s *session) readable(p *connectorv1.Problem, what string) {
	s.Helper()
	if p.GetCode() == "" || p.GetObject() == "" || p.GetRemedy() == "" {
		s.Errorf("%s: the problem must have code, object and remedy, got %v", what, p)
	}
}

// read returns the object, nil if it is absent.
func (s *session) read(ref *connectorv1.ObjectRef) *connectorv1.Object {
	s.Helper()
	results, err := s.client.Read(s.ctx, []*connectorv1.ObjectRef{ref})
	if err != nil {
		s.Fatalf("Read: %v", err)
	}
	if p := results[0].GetProblem(); p != nil {
		s.Fatalf("Read: %v", sdk.FromProto(p))
	}
	return results[0].GetObject()
}

func ref(o *connectorv1.Object) *connectorv1.ObjectRef {
	return &connectorv1.ObjectRef{Type: o.GetType(), Anchor: o.GetAnchor()}
}

// creation builds the create of a sample, with the member that the type needs.
func (s *session) creation(t *connectorv1.ObjectType, leaf string) *connectorv1.Operation {
	s.Helper()
	sample := s.target.Samples[t.GetName()]
	create := sample.Create(leaf)
	if t.GetNeedsMember() && len(create.GetMembers()) == 0 {
		member := s.make(s.typeNamed(sample.Member), "needed-"+t.GetName())
		create.Members = []*connectorv1.ObjectRef{ref(member)}
	}
	return &connectorv1.Operation{
		Object: &connectorv1.ObjectRef{Type: t.GetName()},
		Action: &connectorv1.Operation_Create{Create: create},
	}
}

// make creates the object, unless it is there, and reads it back.
func (s *session) make(t *connectorv1.ObjectType, leaf string) *connectorv1.Object {
	s.Helper()
	op := s.creation(t, leaf)
	byName := &connectorv1.ObjectRef{Type: t.GetName(), Name: op.GetCreate().GetName()}
	if o := s.read(byName); o != nil {
		return o
	}
	if r := s.apply(op); r.GetOutcome() != connectorv1.Outcome_OUTCOME_DONE {
		s.Fatalf("create %s %q: want done, got %s", t.GetName(), leaf, said(r))
	}
	o := s.read(byName)
	if o == nil {
		s.Fatalf("create %s %q: done, and not there when read by name", t.GetName(), leaf)
	}
	return o
}
