package operatorapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/reevehq/reeve/controlplane/internal/approval"
	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/identity/identitystore"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/planning/planningstore"
	"github.com/reevehq/reeve/controlplane/internal/sqlstore"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tenant/tenantstore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

type records struct{}

func (records) AppendAct(tx.Tx, string, *auditv1.Header, *auditv1.Body) (uint64, error) {
	return 0, nil
}

func open(t *testing.T) *Server {
	t.Helper()
	db, err := sqlstore.OpenSQLite(context.Background(), filepath.Join(t.TempDir(), "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	log := slog.New(slog.DiscardHandler)
	s := New(Config{
		DB: db, Tenants: tenant.NewService(db, tenantstore.Store{}, records{}, time.Now, log), Plans: planningstore.Store{},
		Identities: identity.New(db, identitystore.Store{}, records{}, time.Now), IdentityStore: identitystore.Store{},
		MSP: "msp", Now: time.Now, Logger: log,
	})
	if err := s.Tenants.EnsureMSP(t.Context(), tenant.New{ID: "msp", Name: "MSP", Owner: "noc@msp.example", Zone: "UTC"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tenants.Add(t.Context(), "operator:kari", tenant.New{ID: "fabrikam", Name: "F", Owner: "it@fabrikam.example", Zone: "UTC"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// Walking by tokens meets every key once, whatever the keys look like.
func TestPagesMeetEveryKeyOnce(t *testing.T) {
	keys := []string{"a", "a\x00b", "b", "æ", "\xff\xfe", "zz"}
	slices.Sort(keys)
	for size := range uint32(8) {
		var got []string
		for token, more := "", true; more; more = token != "" {
			after, limit, err := page(size, token)
			if err != nil {
				t.Fatal(err)
			}
			token = ""
			n := 0
			for _, k := range keys {
				if k > after && n < limit {
					got = append(got, k)
					n++
					token = next(n, limit, k)
				}
			}
		}
		if !slices.Equal(got, keys) {
			t.Fatalf("pages of %d: %q", size, got)
		}
	}
	if _, limit, _ := page(0, ""); limit != defaultPage {
		t.Fatalf("no size: %d", limit)
	}
	if _, limit, _ := page(1<<32-1, ""); limit != largestPage {
		t.Fatalf("largest: %d", limit)
	}
	if _, _, err := page(1, "not base64!"); !errors.Is(err, errInvalid) {
		t.Fatalf("foreign token: %v", err)
	}
}

func TestErrorsBecomeProblemsToActOn(t *testing.T) {
	s := open(t)
	for _, c := range []struct {
		err    error
		status codes.Code
		code   string
		said   string
	}{
		{fmt.Errorf("%w: fabrikam", tenant.ErrNotFound), codes.NotFound, "NOT_FOUND", "no such tenant: fabrikam"},
		{fmt.Errorf("deep: %w", fmt.Errorf("%w: p", approval.ErrMaker)), codes.PermissionDenied, "MAKER", "deep: who made a plan may not approve it: p"},
		// The narrower of two sentinels counts.
		{fmt.Errorf("%w: x", tenant.ErrExists), codes.AlreadyExists, "EXISTS", ""},
		{fmt.Errorf("%w: x", tenant.ErrConflict), codes.FailedPrecondition, "STATE", ""},
		{fmt.Errorf("%w: x", planning.ErrPhase), codes.FailedPrecondition, "STATE", ""},
		{identity.ErrTaken, codes.FailedPrecondition, "STATE", ""},
		{errors.New("disk at /secret/path is full"), codes.Internal, "INTERNAL", "the control plane failed at this request"},
	} {
		err := s.problem(context.Background(), "m", c.err)
		st, _ := status.FromError(err)
		details := st.Details()
		if st.Code() != c.status || len(details) != 1 {
			t.Errorf("%v: %v with %d details", c.err, st.Code(), len(details))
			continue
		}
		p := details[0].(*connectorv1.Problem)
		if p.GetCode() != c.code || c.said != "" && p.GetSaid() != c.said {
			t.Errorf("%v: %v", c.err, p)
		}
	}
	if s.problem(context.Background(), "m", nil) != nil {
		t.Error("no error became a problem")
	}
}

// A panic in one request is that request's problem.
func TestAPanicEndsItsRequestOnly(t *testing.T) {
	s := open(t)
	ctx := peer.NewContext(context.Background(), &peer.Peer{AuthInfo: peerInfo{user: "kari"}})
	_, err := s.UnaryInterceptor(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "m"}, func(ctx context.Context, _ any) (any, error) {
		if actor(ctx) != "operator:kari" {
			t.Errorf("actor %q", actor(ctx))
		}
		panic("boom")
	})
	if status.Code(err) != codes.Internal {
		t.Fatalf("got %v", err)
	}
}

// Nobody gets in without a principal, and nobody names themselves.
func TestWhoCallsIsNotTheCallersWord(t *testing.T) {
	for name, ctx := range map[string]context.Context{
		"no peer":        context.Background(),
		"no certificate": peer.NewContext(context.Background(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{}}}),
		"their own word": metadata.NewIncomingContext(context.Background(), metadata.Pairs(operatorHeader, "kari")),
	} {
		if _, err := authenticate(ctx); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, md := range map[string]metadata.MD{"nobody": {}, "two": metadata.Pairs(operatorHeader, "a", operatorHeader, "b"), "empty": metadata.Pairs(operatorHeader, "")} {
		if _, err := restPrincipal(metadata.NewIncomingContext(context.Background(), md)); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A list in which one row cannot be shown is an error, and takes nothing down.
func TestAPlanThatCannotBeReadIsAnError(t *testing.T) {
	s := open(t)
	if err := s.DB.Do(t.Context(), func(t tx.Tx) error {
		return planningstore.Store{}.Put(t, planning.Plan{ID: "plan-1", Tenant: "fabrikam", Digest: []byte("d"), Manifest: []byte("no manifest"), Rehearsal: &planv1.Rehearsal{}}, nil, nil)
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := (plans{Server: s}).ListPlans(t.Context(), &operatorv1.ListPlansRequest{Tenant: "fabrikam"}); err == nil {
		t.Fatal("a broken plan was shown")
	}
}

func TestWhomAGrantMeans(t *testing.T) {
	s := open(t)
	put := func(tenantID, id string, attributes map[string][]string) {
		t.Helper()
		if err := s.DB.Do(t.Context(), func(x tx.Tx) error {
			return identitystore.Store{}.Put(x, tenantID, identity.Identity{ID: id, Kind: "human", Label: "L " + id, Attributes: attributes})
		}); err != nil {
			t.Fatal(err)
		}
	}
	put("fabrikam", "id-a", map[string][]string{"login": {"anna"}, "department": {"it"}})
	put("fabrikam", "id-b", map[string][]string{"login": {"bo"}, "employee_id": {"anna"}})
	put("msp", "id-k", map[string][]string{"login": {"kari"}})
	for _, c := range []struct {
		tenant, who, want string
		err               error
	}{
		{"fabrikam", "bo", "id-b", nil}, {"fabrikam", "BO", "id-b", nil}, {"fabrikam", "L id-a", "id-a", nil}, {"fabrikam", "id-a", "id-a", nil},
		{"fabrikam", "anna", "", identity.ErrAmbiguous}, {"fabrikam", "it", "", identity.ErrNotFound}, {"fabrikam", "", "", identity.ErrNotFound},
		{"fabrikam", "kari", "", identity.ErrNotFound}, {"fabrikam", "msp/kari", "msp/id-k", nil}, {"fabrikam", "msp/id-k", "msp/id-k", nil},
		{"fabrikam", "msp/anna", "", identity.ErrNotFound}, {"msp", "kari", "id-k", nil}, {"msp", "msp/kari", "id-k", nil},
	} {
		if err := s.DB.View(t.Context(), func(x tx.Tx) error {
			id, err := s.findIdentity(x, c.tenant, c.who)
			if !errors.Is(err, c.err) || err == nil && id.ID != c.want {
				t.Errorf("%s of %s: %q, %v", c.who, c.tenant, id.ID, err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := (grants{Server: s}).AddGrant(t.Context(), &operatorv1.AddGrantRequest{Tenant: "nobody"}); !errors.Is(err, tenant.ErrNotFound) {
		t.Fatal(err)
	}
	if err := s.DB.Do(t.Context(), func(x tx.Tx) error { return s.Tenants.SetState(x, "operator:kari", "fabrikam", tenant.Offboarding) }); err != nil {
		t.Fatal(err)
	}
	if _, err := (grants{Server: s}).AddGrant(t.Context(), &operatorv1.AddGrantRequest{Tenant: "fabrikam", Identity: "bo"}); !errors.Is(err, tenant.ErrConflict) {
		t.Fatalf("a tenant that leaves: %v", err)
	}
}
