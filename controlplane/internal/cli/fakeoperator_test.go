package cli

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

var update = flag.Bool("update", false, "rewrite golden files")

// fakeOperator answers what a test put into it, over a real socket.
type fakeOperator struct {
	operatorv1.UnimplementedTenantServiceServer
	operatorv1.UnimplementedAgentServiceServer
	operatorv1.UnimplementedConnectorServiceServer
	operatorv1.UnimplementedInventoryServiceServer
	operatorv1.UnimplementedIdentityServiceServer
	operatorv1.UnimplementedPolicyServiceServer
	operatorv1.UnimplementedPlanServiceServer
	operatorv1.UnimplementedGrantServiceServer
	operatorv1.UnimplementedAuditServiceServer

	// fail answers every unary call, unless nil.
	fail error
	// page is how many rows a page has.
	page int

	tenants    []*operatorv1.Tenant
	invitation *operatorv1.InviteAgentResponse
	connectors *operatorv1.ListConnectorsResponse
	inventory  *operatorv1.GetInventoryResponse
	objects    []*operatorv1.InventoryObject
	explained  *operatorv1.ExplainIdentityResponse
	residue    []*operatorv1.Finding
	plan       *operatorv1.Plan
	changes    []*operatorv1.PlannedChange
	// dryRunAfter is how many times the plan is asked for until its dry run is
	// done; 0 leaves the plan as it is.
	dryRunAfter int
	// watches are the streams that WatchPlan serves, one after the other; one that
	// does not end with the plan breaks.
	watches [][]*operatorv1.WatchPlanResponse
	export  [][]byte
	// breakExport ends the export with an error.
	breakExport bool

	mu   sync.Mutex
	seen []proto.Message
}

func (f *fakeOperator) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	if r, ok := req.(*operatorv1.GetPlanRequest); ok && f.dryRunAfter > 0 && r != nil {
		f.dryRunAfter--
		f.plan.DryRunDone = f.dryRunAfter == 0
	}
	f.mu.Lock()
	f.seen = append(f.seen, req.(proto.Message))
	f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	return h(ctx, req)
}

// got returns the requests of one type.
func got[M proto.Message](f *fakeOperator) []M {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []M
	for _, m := range f.seen {
		if r, ok := m.(M); ok {
			list = append(list, r)
		}
	}
	return list
}

// cutPage serves list in pages; the token is the index of the next row.
func cutPage[T any](f *fakeOperator, list []T, token string) ([]T, string) {
	from := len(token)
	if f.page == 0 || from+f.page >= len(list) {
		return list[from:], ""
	}
	return list[from : from+f.page], strings.Repeat("x", from+f.page)
}

func (f *fakeOperator) AddTenant(_ context.Context, r *operatorv1.AddTenantRequest) (*operatorv1.AddTenantResponse, error) {
	return &operatorv1.AddTenantResponse{Tenant: &operatorv1.Tenant{Id: r.GetId(), Owner: r.GetOwner(), Zone: r.GetZone(), State: "active"}}, nil
}

func (f *fakeOperator) ListTenants(_ context.Context, r *operatorv1.ListTenantsRequest) (*operatorv1.ListTenantsResponse, error) {
	rows, next := cutPage(f, f.tenants, r.GetPageToken())
	return &operatorv1.ListTenantsResponse{Tenants: rows, NextPageToken: next}, nil
}

func (f *fakeOperator) OffboardTenant(_ context.Context, r *operatorv1.OffboardTenantRequest) (*operatorv1.OffboardTenantResponse, error) {
	if r.GetFinish() {
		return &operatorv1.OffboardTenantResponse{Finished: true, Residue: f.residue}, nil
	}
	return &operatorv1.OffboardTenantResponse{Plan: f.plan, Residue: f.residue}, nil
}

func (f *fakeOperator) InviteAgent(context.Context, *operatorv1.InviteAgentRequest) (*operatorv1.InviteAgentResponse, error) {
	return f.invitation, nil
}

func (f *fakeOperator) ListConnectors(context.Context, *operatorv1.ListConnectorsRequest) (*operatorv1.ListConnectorsResponse, error) {
	return f.connectors, nil
}

func (f *fakeOperator) ConfirmSource(_ context.Context, r *operatorv1.ConfirmSourceRequest) (*operatorv1.ConfirmSourceResponse, error) {
	return &operatorv1.ConfirmSourceResponse{Connector: &operatorv1.Connector{Confirmed: true, FingerprintSha256: r.GetFingerprintSha256()}}, nil
}

func (f *fakeOperator) GetInventory(context.Context, *operatorv1.GetInventoryRequest) (*operatorv1.GetInventoryResponse, error) {
	return f.inventory, nil
}

func (f *fakeOperator) ListObjects(_ context.Context, r *operatorv1.ListObjectsRequest) (*operatorv1.ListObjectsResponse, error) {
	var of []*operatorv1.InventoryObject
	for _, o := range f.objects {
		if o.GetConnector() == r.GetConnector() && (!r.GetOrphans() || o.GetIdentity() == "") {
			of = append(of, o)
		}
	}
	rows, next := cutPage(f, of, r.GetPageToken())
	return &operatorv1.ListObjectsResponse{Objects: rows, NextPageToken: next}, nil
}

func (f *fakeOperator) ExplainIdentity(context.Context, *operatorv1.ExplainIdentityRequest) (*operatorv1.ExplainIdentityResponse, error) {
	return f.explained, nil
}

func (f *fakeOperator) ApplyPolicy(_ context.Context, r *operatorv1.ApplyPolicyRequest) (*operatorv1.ApplyPolicyResponse, error) {
	return &operatorv1.ApplyPolicyResponse{Policy: &operatorv1.Policy{Name: "baseline", Version: "1.0"}, Tests: uint32(len(r.GetFiles()))}, nil
}

func (f *fakeOperator) GetPlan(context.Context, *operatorv1.GetPlanRequest) (*operatorv1.GetPlanResponse, error) {
	return &operatorv1.GetPlanResponse{Plan: f.plan}, nil
}

func (f *fakeOperator) MakePlan(context.Context, *operatorv1.MakePlanRequest) (*operatorv1.MakePlanResponse, error) {
	return &operatorv1.MakePlanResponse{Plan: f.plan}, nil
}

func (f *fakeOperator) ListChanges(_ context.Context, r *operatorv1.ListChangesRequest) (*operatorv1.ListChangesResponse, error) {
	rows, next := cutPage(f, f.changes, r.GetPageToken())
	return &operatorv1.ListChangesResponse{Changes: rows, NextPageToken: next}, nil
}

func (f *fakeOperator) ApprovePlan(_ context.Context, r *operatorv1.ApprovePlanRequest) (*operatorv1.ApprovePlanResponse, error) {
	return &operatorv1.ApprovePlanResponse{Plan: &operatorv1.Plan{Id: r.GetPlan(), Digest: r.GetDigest(), State: &operatorv1.PlanState{Phase: operatorv1.PlanState_PHASE_APPROVED}}}, nil
}

func (f *fakeOperator) WatchPlan(_ *operatorv1.WatchPlanRequest, stream grpc.ServerStreamingServer[operatorv1.WatchPlanResponse]) error {
	if len(f.watches) == 0 {
		return status.Error(codes.NotFound, "no such plan")
	}
	states := f.watches[0]
	f.watches = f.watches[1:]
	for _, r := range states {
		if err := stream.Send(r); err != nil {
			return err
		}
		if ended(r.GetPlan().GetState().GetPhase()) {
			return nil
		}
	}
	return status.Error(codes.Unavailable, "error reading from server: the fake went away")
}

func (f *fakeOperator) AddGrant(_ context.Context, r *operatorv1.AddGrantRequest) (*operatorv1.AddGrantResponse, error) {
	return &operatorv1.AddGrantResponse{Grant: &operatorv1.Grant{Id: "G-1", Identity: r.GetIdentity(), Entitlement: r.GetEntitlement(), State: "open"}}, nil
}

func (f *fakeOperator) ExportAudit(_ *operatorv1.ExportAuditRequest, stream grpc.ServerStreamingServer[operatorv1.ExportAuditResponse]) error {
	for _, data := range f.export {
		if err := stream.Send(&operatorv1.ExportAuditResponse{Data: data}); err != nil {
			return err
		}
	}
	if f.breakExport {
		return status.Error(codes.Unavailable, "error reading from server: the fake went away")
	}
	return nil
}

// serve starts the fake on a listener.
func (f *fakeOperator) serve(t *testing.T, l net.Listener, creds credentials.TransportCredentials) {
	t.Helper()
	s := grpc.NewServer(grpc.Creds(creds), grpc.UnaryInterceptor(f.intercept))
	operatorv1.RegisterTenantServiceServer(s, f)
	operatorv1.RegisterAgentServiceServer(s, f)
	operatorv1.RegisterConnectorServiceServer(s, f)
	operatorv1.RegisterInventoryServiceServer(s, f)
	operatorv1.RegisterIdentityServiceServer(s, f)
	operatorv1.RegisterPolicyServiceServer(s, f)
	operatorv1.RegisterPlanServiceServer(s, f)
	operatorv1.RegisterGrantServiceServer(s, f)
	operatorv1.RegisterAuditServiceServer(s, f)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
}

// bench runs command lines against a fake operator.
type bench struct {
	t      *testing.T
	fake   *fakeOperator
	socket string
	// terminal makes standard streams look like one; input is typed there.
	terminal bool
	input    string
}

func newBench(t *testing.T, f *fakeOperator) *bench {
	t.Helper()
	// Not t.TempDir: a socket's path may have no more than 107 octets.
	dir, err := os.MkdirTemp("", "reeve")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &bench{t: t, fake: f, socket: filepath.Join(dir, "operator.sock")}
	l, err := net.Listen("unix", b.socket)
	if err != nil {
		t.Fatal(err)
	}
	f.serve(t, l, insecure.NewCredentials())
	return b
}

var testZone = time.FixedZone("CET", 3600)

var testNow = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

type stream struct{ bytes.Buffer }

func testEnv(in io.Reader, out, err io.Writer, terminal bool) Env {
	return Env{
		In: in, Out: out, Err: err, Getenv: func(string) string { return "" }, Location: testZone, Now: func() time.Time { return testNow },
		After:      func(time.Duration) <-chan time.Time { c := make(chan time.Time, 1); c <- testNow; return c },
		IsTerminal: func(any) bool { return terminal },
	}
}

// run returns exit code, standard output and standard error.
func (b *bench) run(args ...string) (int, string, string) {
	b.t.Helper()
	var out, errs stream
	code := Run(b.t.Context(), append([]string{"--server", "unix://" + b.socket}, args...), testEnv(strings.NewReader(b.input), &out, &errs, b.terminal))
	return code, out.String(), errs.String()
}

// must is run for a command line that succeeds.
func (b *bench) must(args ...string) string {
	b.t.Helper()
	code, out, errs := b.run(args...)
	if code != ExitDone || errs != "" && !b.terminal {
		b.t.Fatalf("reeve %s: exit code %d\n%s\n%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// goldenDir is absolute, since tests may change the working directory.
var goldenDir, _ = filepath.Abs(filepath.Join("testdata", "golden"))

// golden compares text with a file of that name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join(goldenDir, name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs\n--- got\n%s\n--- want\n%s", name, got, want)
	}
}

// refusal is a status that carries a problem, as operatorapi sends it.
func refusal(t *testing.T, code codes.Code, p *connectorv1.Problem) error {
	t.Helper()
	st, err := status.New(code, p.GetSaid()).WithDetails(p)
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}
