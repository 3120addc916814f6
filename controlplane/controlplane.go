package controlplane

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/reevehq/reeve/controlplane/internal/agentapi"
	"github.com/reevehq/reeve/controlplane/internal/approval"
	"github.com/reevehq/reeve/controlplane/internal/auditlog"
	"github.com/reevehq/reeve/controlplane/internal/auditlog/auditlogstore"
	"github.com/reevehq/reeve/controlplane/internal/dispatch"
	"github.com/reevehq/reeve/controlplane/internal/dispatch/dispatchstore"
	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/enrollment/enrollmentstore"
	"github.com/reevehq/reeve/controlplane/internal/grant"
	"github.com/reevehq/reeve/controlplane/internal/grant/grantstore"
	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/identity/identitystore"
	"github.com/reevehq/reeve/controlplane/internal/intake"
	"github.com/reevehq/reeve/controlplane/internal/intake/intakestore"
	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/inventory/inventorystore"
	"github.com/reevehq/reeve/controlplane/internal/ledger"
	"github.com/reevehq/reeve/controlplane/internal/ledger/ledgerstore"
	"github.com/reevehq/reeve/controlplane/internal/operatorapi"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/planning/planningstore"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	"github.com/reevehq/reeve/controlplane/internal/schedule"
	"github.com/reevehq/reeve/controlplane/internal/schedule/schedulestore"
	"github.com/reevehq/reeve/controlplane/internal/signing"
	"github.com/reevehq/reeve/controlplane/internal/sqlstore"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tenant/tenantstore"
	"github.com/reevehq/reeve/controlplane/internal/trust"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// scheduleInterval is how often due schedules are looked for.
const scheduleInterval = 10 * time.Second

// tendInterval is how often orders that can never end are looked for.
const tendInterval = time.Minute

// Serve runs the control plane until ctx ends. ready is called once both
// listeners are open. Everything that was acknowledged before a crash is there
// after it; what was under way is taken up again.
func Serve(ctx context.Context, clock Clock, c Config, logger *slog.Logger, ready func(Ready)) error {
	if err := c.Validate(); err != nil {
		return err
	}
	now := clock.Now
	db, err := sqlstore.OpenSQLite(ctx, filepath.Join(c.Data, "reeve.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	trusted, err := trust.Open(c.Data, c.TrustDomain, c.Dev, now)
	if err != nil {
		return err
	}
	if c.Dev {
		logger.Warn("development set-up: the root key lies in the data folder and makers approve their own plans", "data", c.Data)
	}
	source, err := serverSource(c, trusted, clock, logger)
	if err != nil {
		return err
	}
	defer source.Close()

	p := wire(c, db, trusted, source, clock, logger)
	if err := p.tenants.EnsureMSP(ctx, tenant.New{ID: c.MSP.ID, Name: c.MSP.ID, Owner: c.MSP.Owner, Zone: c.MSP.Zone}); err != nil {
		return err
	}
	return p.serve(ctx, c, source, ready)
}

// Ready tells where the control plane listens.
type Ready struct {
	Agents   net.Addr
	Operator string
	Pin      string
}

func serverSource(c Config, trusted *trust.Trust, clock Clock, logger *slog.Logger) (svid.Source, error) {
	if c.SVIDSource == "workload-api" {
		return svid.NewWorkloadAPI(svid.WorkloadAPIConfig{
			Addr: c.WorkloadAPI, Now: clock.Now, Log: logger,
			// Agents dial exactly this name; an SVID for another would be refused by
			// all of them.
			Accept: func(id spiffe.ID) bool { return id == spiffe.ControlPlaneID{TrustDomain: c.TrustDomain} },
		})
	}
	return trusted.ServerSource(clock.Now, clock.After, logger)
}

// parts is the wired control plane.
type parts struct {
	tenants   *tenant.Service
	intake    *intake.Service
	dispatch  *dispatch.Service
	agents    *agentapi.Server
	operators *operatorapi.Server
	schedules *schedule.Service
	errands   *errands
	sessions  func() int
	now       func() time.Time
	log       *slog.Logger
}

// refreshAfter is how long changes gather before they are folded into identities,
// for people to see: that reads all of a tenant's objects and holds up its next
// changes. Who makes a plan does not wait for it.
const refreshAfter = 5 * time.Second

// wire follows a plan: what is known, what is planned, what is sent, what comes
// back.
func wire(c Config, db *tx.DB, trusted *trust.Trust, source svid.Source, clock Clock, logger *slog.Logger) *parts {
	now := clock.Now
	p := &parts{now: now, log: logger, errands: newErrands(logger)}
	registry := agentapi.NewRegistry(now, logger)
	p.sessions = registry.Count
	changes := operatorapi.NewChanges()

	// Foundations.
	records := auditlog.New(auditlog.Config{
		DB: db, Store: auditlogstore.Store{}, Signer: trusted.Checkpoints, Roots: trusted, TrustDomain: c.TrustDomain,
		Now: now, Rand: rand.Reader, Log: logger,
	})
	p.tenants = tenant.NewService(db, tenantstore.Store{}, records, now, logger)

	// Who is there, what was observed, whom it is about, what policy says.
	enrolled := enrollment.New(enrollment.Config{
		DB: db, Store: enrollmentstore.Store{}, Records: records, Tenants: p.tenants, Issuer: trusted, Chains: intakestore.Store{},
		Sessions: registry, TrustDomain: c.TrustDomain, Now: now, Rand: rand.Reader, Log: logger,
	})
	var planner *planning.Service
	observed := inventory.New(db, inventorystore.Store{}, records, epochs{enrolled}, func(tenant string, incremental bool) {
		refresh := func(ctx context.Context) error { return planner.Refresh(ctx, tenant) }
		if incremental {
			p.errands.askLater(refreshAfter, "refresh "+tenant, refresh)
			return
		}
		p.errands.ask("refresh "+tenant, refresh)
	})
	identities := identity.New(db, identitystore.Store{}, records, now)
	policies := policystore.New(db, records, now, c.MSP.ID)
	grants := grant.New(db, grantstore.Store{}, records, now)
	written := ledger.New(db, ledgerstore.Store{})

	// Plans: made, approved, signed, sent.
	planner = planning.New(planning.Config{
		DB: db, Store: planningstore.Store{}, Tenants: p.tenants, Inventory: inventorystore.Store{},
		Identities: identities, IdentityStore: identitystore.Store{}, Grants: grantstore.Store{}, Policies: policies, Ledger: written,
		Records: records, TrustDomain: c.TrustDomain, MSP: c.MSP.ID, Solo: c.Solo || c.Dev, Now: now,
		Made: func(tenant string, agents []string) {
			for _, agent := range agents {
				p.push(registry, tenant, agent)
			}
		},
	})
	approvals := approval.New(db, planningstore.Store{}, records, now, c.Solo || c.Dev, func(plan string) {
		p.errands.ask("send "+plan, func(ctx context.Context) error { return p.dispatch.Send(ctx, plan) })
	})
	p.dispatch = dispatch.New(dispatch.Config{
		DB: db, Store: dispatchstore.Store{}, Plans: planningstore.Store{}, Log: log{records}, Agents: epochs{enrolled}, Accounts: planner,
		Signer: signing.New(trusted.PlanKey), TrustDomain: c.TrustDomain, Now: now, After: clock.After, Logger: logger,
		Waiting: func(tenant, agent string) { p.push(registry, tenant, agent) },
		Changed: changes.Changed,
	})

	// What comes back.
	about := &planned{Service: p.dispatch, objects: inventorystore.Store{}, orders: dispatchstore.Store{}}
	p.intake = intake.New(intake.Config{
		DB: db, Store: intakestore.Store{}, Log: records, Enrollment: enrolled, Ledger: written,
		Plans: about, Receivers: []intake.Receiver{receipts{p.dispatch, about}},
		TrustDomain: c.TrustDomain, Logger: logger,
	})

	// Those who talk to us.
	p.agents = agentapi.New(agentapi.Config{
		Source: source, Registry: registry, Enrollment: enrolled, Orders: orders{p.dispatch}, Records: p.intake, Roots: trusted,
		Observations: &observations{inventory: observed, open: map[string]*inventory.Receiver{}},
		Checkpoints:  agentapi.Witnessing{DB: db, Log: records, Enrollment: enrolled},
		Heartbeat:    c.Heartbeat, Codes: statusOf, Now: now, Log: logger,
	})
	p.schedules = schedule.New(db, schedulestore.Store{}, zones{p.tenants}, map[string]schedule.Work{
		"observe": func(ctx context.Context, tenant string) error {
			list, err := observed.Connectors(ctx, tenant)
			for _, conn := range list {
				registry.Observe(tenant, conn.Agent, conn.Alias)
			}
			return err
		},
		"plan": func(ctx context.Context, tenant string) error {
			_, err := planner.Make(ctx, tenant, planv1.Purpose_PURPOSE_CHANGE, "schedule")
			return err
		},
	}, now, logger)
	p.operators = operatorapi.New(operatorapi.Config{
		DB: db, Tenants: p.tenants, Enrollment: enrolled, Inventory: observed, Objects: inventorystore.Store{},
		Identities: identities, IdentityStore: identitystore.Store{}, Policies: policies, Grants: grants, Ledger: written,
		Planning: planner, Plans: planningstore.Store{}, Approval: approvals, Dispatch: p.dispatch, Orders: dispatchstore.Store{},
		Schedules: p.schedules, Log: records, Sessions: sessions{registry}, Changes: changes,
		TrustDomain: c.TrustDomain, MSP: c.MSP.ID, RootSHA256: trusted.Pin, AgentAddress: c.Advertise, Now: now, Logger: logger,
	})
	return p
}

// statusOf gives the agent API the codes of contexts it does not know.
func statusOf(err error) codes.Code {
	for _, known := range []struct {
		err  error
		code codes.Code
	}{
		{inventory.ErrResync, codes.Aborted},
		{inventory.ErrInvalid, codes.InvalidArgument},
		{inventory.ErrOtherAgent, codes.FailedPrecondition},
		{inventory.ErrNotFound, codes.NotFound},
		{dispatch.ErrNotFound, codes.NotFound},
		{planning.ErrNotFound, codes.NotFound},
	} {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	return codes.Unknown
}

// push tells a connected agent of everything that waits for it. One that is not
// connected is told at its next hello.
func (p *parts) push(registry *agentapi.Registry, tenant, agent string) {
	p.errands.ask("push "+tenant+"/"+agent, func(ctx context.Context) error {
		pending, err := p.dispatch.Pending(ctx, tenant, agent)
		for _, order := range pending.Orders {
			registry.Fetch(tenant, agent, order)
		}
		for _, digest := range pending.DryRuns {
			registry.FetchDryRun(tenant, agent, digest)
		}
		return err
	})
}

// serve opens the listeners and runs everything until ctx ends or one part
// fails.
func (p *parts) serve(ctx context.Context, c Config, source svid.Source, ready func(Ready)) error {
	agentListener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen for agents: %w; is another control plane running?", err)
	}
	defer agentListener.Close()
	socket, err := listenSocket(c.Socket)
	if err != nil {
		return err
	}
	defer socket.Close()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	start := func(name string, f func(context.Context) error) {
		running.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	start("intake", p.intake.Run)
	start("errands", func(ctx context.Context) error { p.errands.run(ctx); return nil })
	start("schedules", func(ctx context.Context) error { p.schedules.Run(ctx, scheduleInterval); return nil })
	start("memory", func(ctx context.Context) error { pace(ctx, p.sessions); return nil })
	start("orders", func(ctx context.Context) error { p.dispatch.Run(ctx, tendInterval); return nil })
	start("agent API", func(ctx context.Context) error { return p.agents.Serve(ctx, agentListener) })
	start("operator socket", func(ctx context.Context) error {
		server := grpc.NewServer(grpc.Creds(operatorapi.PeerCredentials{}),
			grpc.UnaryInterceptor(p.operators.UnaryInterceptor), grpc.StreamInterceptor(p.operators.StreamInterceptor))
		p.operators.Register(server)
		defer context.AfterFunc(ctx, server.Stop)()
		return server.Serve(socket)
	})
	if c.OperatorListen != "" {
		start("operator API", func(ctx context.Context) error {
			return p.operators.ServeTLS(ctx, c.OperatorListen, source)
		})
	}
	pin, err := p.operators.RootSHA256()
	if err != nil {
		return err
	}
	p.log.Info("control plane is up", "agents", agentListener.Addr().String(), "operators", c.Socket, "root_sha256", pin)
	if ready != nil {
		ready(Ready{Agents: agentListener.Addr(), Operator: c.Socket, Pin: pin})
	}
	<-ctx.Done()
	running.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// listenSocket opens the operator socket for its owner alone. A socket that
// nobody answers on was left by a process that was killed.
func listenSocket(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("operator socket %s is in use; is another control plane running on this data folder?", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("operator socket: %w", err)
	}
	return l, os.Chmod(path, 0o600)
}

// newLogger logs to w as the configuration says.
func newLogger(c Config, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return nil, fmt.Errorf("%w: log_level: %w", ErrConfig, err)
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), nil
}
