package operatorapi

import (
	"context"
	"encoding/base64"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/controlplane/internal/approval"
	"github.com/reevehq/reeve/controlplane/internal/auditlog"
	"github.com/reevehq/reeve/controlplane/internal/dispatch"
	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/grant"
	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/ledger"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	"github.com/reevehq/reeve/controlplane/internal/schedule"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// Sessions tells which agents are connected and pushes to them.
type Sessions interface {
	// Connected returns the connected agents of a tenant by name.
	Connected(tenant string) map[string]Presence
	// Observe asks an agent for a fresh snapshot; false when it is not connected.
	Observe(tenant, agent, connector string) bool
}

// Presence is what a connected agent last said of itself.
type Presence struct {
	// Paused: the client's administrator lets it run no orders.
	Paused bool
}

// Config is what a Server works with.
type Config struct {
	DB            *tx.DB
	Tenants       *tenant.Service
	Enrollment    *enrollment.Service
	Inventory     *inventory.Service
	Objects       inventory.Store
	Identities    *identity.Service
	IdentityStore identity.Store
	Policies      *policystore.Service
	Grants        *grant.Service
	Ledger        *ledger.Ledger
	Planning      *planning.Service
	Plans         planning.Store
	Approval      *approval.Service
	Dispatch      *dispatch.Service
	Orders        dispatch.Store
	Schedules     *schedule.Service
	Log           *auditlog.Log
	Sessions      Sessions
	// Changes is told of plans whose state changed.
	Changes *Changes

	TrustDomain string
	MSP         string
	// RootSHA256 is the pin of the first root document; AgentAddress where agents
	// dial. Both are what a client is told.
	RootSHA256   func() (string, error)
	AgentAddress string
	Now          func() time.Time
	Logger       *slog.Logger
}

// Server implements the operator services. It is safe for concurrent use.
type Server struct {
	Config
}

// New returns the server.
func New(c Config) *Server {
	return &Server{Config: c}
}

// Register adds every operator service to r.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	operatorv1.RegisterTenantServiceServer(r, tenants{Server: s})
	operatorv1.RegisterAgentServiceServer(r, agents{Server: s})
	operatorv1.RegisterConnectorServiceServer(r, connectors{Server: s})
	operatorv1.RegisterInventoryServiceServer(r, inventories{Server: s})
	operatorv1.RegisterIdentityServiceServer(r, identities{Server: s})
	operatorv1.RegisterPolicyServiceServer(r, policies{Server: s})
	operatorv1.RegisterPlanServiceServer(r, plans{Server: s})
	operatorv1.RegisterGrantServiceServer(r, grants{Server: s})
	operatorv1.RegisterScheduleServiceServer(r, schedules{Server: s})
	operatorv1.RegisterAuditServiceServer(r, audits{Server: s})
}

// tenant finds a tenant by id, so that every method answers alike when there is
// none.
func (s *Server) tenant(ctx context.Context, id string) (tenant.Tenant, error) {
	return s.Tenants.Get(ctx, id)
}

// view runs f on one consistent state.
func (s *Server) view(ctx context.Context, f func(tx.Tx) error) error {
	return s.DB.View(ctx, f)
}

const (
	defaultPage = 100
	largestPage = 1000
)

// page reads a request's size and token: the token is the last key of the page
// before, so rows that come and go do not shift pages.
func page(size uint32, token string) (after string, limit int, err error) {
	limit = min(int(size), largestPage)
	if limit == 0 {
		limit = defaultPage
	}
	key, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", 0, errToken
	}
	return string(key), limit, nil
}

// next returns the token after a page, empty when the page was not full.
func next(got, limit int, last string) string {
	if got < limit {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(last))
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
