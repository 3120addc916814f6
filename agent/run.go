package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/reevehq/reeve/agent/internal/config"
	"github.com/reevehq/reeve/agent/internal/enroll"
	"github.com/reevehq/reeve/agent/internal/executor"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/localapi"
	"github.com/reevehq/reeve/agent/internal/obligation"
	"github.com/reevehq/reeve/agent/internal/observation"
	"github.com/reevehq/reeve/agent/internal/session"
	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
	"github.com/reevehq/reeve/pki/tlogproof"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// running is the agent while it runs.
type running struct {
	*core
	source   svid.Source
	witness  *session.Witness
	orders   *session.Orders
	schedule *observation.Schedule
	keeper   *obligation.Keeper
	spool    *spool
	progress chan executor.Progress
	renewed  chan struct{}
	resume   chan struct{}

	mu       sync.Mutex
	lastWork time.Time
}

// Run is the agent itself. It returns when ctx ends, or when the journal has
// stopped: then the process must end, and is started again.
func (p *program) Run(ctx context.Context, path string) error {
	s, err := p.load(path)
	if err != nil {
		return err
	}
	for _, w := range s.Warnings {
		p.log.Warn(w)
	}
	c, err := p.open(ctx, s)
	if err != nil {
		return err
	}
	defer c.close()
	r := &running{
		core: c, progress: make(chan executor.Progress, 64), renewed: make(chan struct{}, 1), resume: make(chan struct{}, 1),
		spool: newSpool(c.journal),
	}
	if err := c.connect(r.report); err != nil {
		return err
	}
	if r.source, err = r.startSource(); err != nil {
		return coded(err)
	}
	defer r.source.Close()
	if err := r.assemble(); err != nil {
		return err
	}
	if err := c.started(ctx); err != nil {
		return err
	}
	return r.serve(ctx)
}

// startSource opens the certificate source that agent.yaml names.
func (r *running) startSource() (svid.Source, error) {
	if r.SVIDSource == config.SVIDWorkloadAPI {
		return svid.NewWorkloadAPI(svid.WorkloadAPIConfig{
			Addr: r.WorkloadAPI, Now: r.p.now, Log: r.p.log,
			// The trust domain may be the client's own, federated with the MSP's;
			// tenant and agent are as enrolled.
			Accept: func(id spiffe.ID) bool {
				a, ok := id.(spiffe.AgentID)
				return ok && a.Tenant == r.id.Tenant && a.Agent == r.id.Agent
			},
		})
	}
	return (&enroll.Attestor{
		ControlPlane: r.ControlPlane, State: r.dir, Identity: r.id, Roots: r.roots, Now: r.p.now, After: r.p.clock.After,
		Logger: r.p.log,
	}).Start()
}

// witnessName is how the agent's cosignatures name it (C2SP signed-note: a name
// without scheme).
func witnessName(id statedir.Identity) string {
	return strings.TrimPrefix(id.ID().String(), "spiffe://")
}

func (r *running) assemble() error {
	key, err := keys.LoadPrivate(r.dir.WitnessKey())
	if err != nil {
		return err
	}
	cosigner, err := tlogproof.NewCosigner(witnessName(r.id), key, r.p.now)
	if err != nil {
		return err
	}
	r.witness = &session.Witness{
		Origin: r.id.LogOrigin, Private: r.dir.Witness(), Public: r.dir.Checkpoints(),
		Signer: cosigner, LogKeys: r.logKeys, Forked: r.forked, Logger: r.p.log,
	}
	if err := r.witness.Load(); err != nil {
		return err
	}
	server := spiffe.ControlPlaneID{TrustDomain: r.TrustDomain}
	r.link = &session.Link{
		Dial: func(context.Context) (*grpc.ClientConn, error) {
			return session.NewConn(r.ControlPlane, mtls.ClientConfig(r.source, server, r.p.now))
		},
		Renewed: r.renewed, Hello: r.hello, Beat: r.beat, Handler: r, Every: time.Duration(r.Heartbeat), After: r.p.clock.After,
		Logger: r.p.log,
	}
	r.orders = &session.Orders{Link: r.link, Receiver: r, Logger: r.p.log}
	r.schedule = &observation.Schedule{Link: r.link, Base: base{r.journal}, Every: time.Duration(r.ObserveEvery), Now: r.p.now, Logger: r.p.log}
	for _, i := range r.host.Instances() {
		r.schedule.Sources = append(r.schedule.Sources, i)
	}
	r.keeper = obligation.New(obligation.Options{Journal: r.journal, Clock: r.clock, After: r.p.clock.After, Audit: r.audit, Remover: r.executor, Log: r.p.log})
	return nil
}

// serve runs all parts until ctx ends or one of them cannot go on.
func (r *running) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	socket, err := localapi.Listen(r.dir.Socket())
	if err != nil {
		return err
	}
	shipper := &session.Shipper{Link: r.link, Spool: r.spool, Witness: r.witness, Logger: r.p.log}
	var all sync.WaitGroup
	for _, part := range []func(context.Context) error{
		func(ctx context.Context) error { return r.localAPI().Serve(ctx, socket) },
		// Before anything else acts: what was under way, and what is owed.
		r.keeper.Run, without(r.resumeOrders), r.watchJournal,
		without(r.link.Run), without(r.orders.Run), without(shipper.Run), without(r.schedule.Run),
		without(r.spool.watch), without(r.watchSource), without(r.watchRoots), without(r.sendProgress), r.checkConnectors,
	} {
		all.Go(func() {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	r.p.log.Info("agent runs", "id", r.id.ID().String(), "epoch", r.id.Epoch, "version", buildVersion(), "guardrails", r.digest())
	<-ctx.Done()
	all.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return fmt.Errorf("the agent cannot go on: %w", r.remedy(cause))
	}
	return nil
}

func without(run func(context.Context)) func(context.Context) error {
	return func(ctx context.Context) error { run(ctx); return nil }
}

// watchSource moves the session when certificate or roots have changed.
func (r *running) watchSource(ctx context.Context) {
	for {
		changed := r.source.Updated()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		select {
		case r.renewed <- struct{}{}:
		default:
		}
	}
}

// watchRoots gives a newer root document's CA roots to the source.
func (r *running) watchRoots(ctx context.Context) {
	changed := r.roots.Changed()
	renewing, builtin := r.source.(*svid.Renewing)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		if !builtin {
			continue
		}
		doc, err := r.roots.Current()
		if err != nil {
			continue
		}
		if pool, err := doc.CARootPool(); err == nil {
			renewing.SetRoots(pool)
		}
	}
}

// watchJournal ends the agent with its journal.
func (r *running) watchJournal(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.journal.Done():
	}
	return fmt.Errorf("%w: %w", journal.ErrStopped, r.journal.Stopped())
}

// resumeEvery is how often orders that stayed open are tried again.
const resumeEvery = time.Minute

// resumeOrders carries on with open orders: at the start, when told to, and from
// time to time, since a directory that was away comes back unannounced.
func (r *running) resumeOrders(ctx context.Context) {
	t := time.NewTicker(resumeEvery)
	defer t.Stop()
	for {
		if err := r.executor.Resume(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, executor.ErrPaused) {
			r.p.log.Warn("open orders could not all go on", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-r.resume:
		}
	}
}

// checkConnectors proves every connector at the start, so that the control plane
// learns its fingerprint.
func (r *running) checkConnectors(ctx context.Context) error {
	var all sync.WaitGroup
	for _, i := range r.host.Instances() {
		all.Go(func() {
			if _, err := i.Check(ctx); err != nil && ctx.Err() == nil {
				r.p.log.Warn("connector check failed", "alias", i.Alias(), "error", err)
			}
		})
	}
	all.Wait()
	// Until somebody compared a source's fingerprint nothing follows from it, so
	// it does not wait for the next heartbeat, but for the session if that is late.
	_, release, err := r.link.Acquire(ctx)
	if err != nil {
		return nil //nolint:nilerr // only the context's end
	}
	release()
	r.link.Send(&agentv1.SessionRequest{Message: &agentv1.SessionRequest_Heartbeat{Heartbeat: r.beat()}})
	return nil
}
