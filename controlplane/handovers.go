package controlplane

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/agentapi"
	"github.com/reevehq/reeve/controlplane/internal/auditlog"
	"github.com/reevehq/reeve/controlplane/internal/dispatch"
	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/intake"
	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// The types here let stages meet that must not import each other. Each does no
// more than change the shape of what is handed over.

// observations hands what agents observe to inventory.
type observations struct {
	inventory *inventory.Service
	mu        sync.Mutex
	open      map[string]*inventory.Receiver
}

func (o *observations) Connectors(ctx context.Context, c agentapi.Caller, list []*agentv1.ConnectorState) error {
	return o.inventory.Report(ctx, c.Tenant, c.Agent, list)
}

func receiverKey(c agentapi.Caller, snapshot string) string {
	return c.Tenant + "/" + c.Agent + "/" + snapshot
}

func (o *observations) Begin(ctx context.Context, c agentapi.Caller, b *agentv1.SnapshotBegin) (resync bool, err error) {
	r, err := o.inventory.Begin(ctx, c.Tenant, c.Agent, b)
	if errors.Is(err, inventory.ErrResync) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open[receiverKey(c, b.GetSnapshot())] = r
	return false, nil
}

func (o *observations) receiver(c agentapi.Caller, snapshot string) (*inventory.Receiver, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.open[receiverKey(c, snapshot)]
	if r == nil {
		return nil, fmt.Errorf("%w: snapshot %s was not begun here", inventory.ErrResync, snapshot)
	}
	return r, nil
}

func (o *observations) Batch(ctx context.Context, c agentapi.Caller, snapshot string, b *agentv1.ObservedBatch) error {
	r, err := o.receiver(c, snapshot)
	if err != nil {
		return err
	}
	return r.Batch(ctx, b)
}

func (o *observations) End(ctx context.Context, c agentapi.Caller, snapshot string, e *agentv1.SnapshotEnd) error {
	r, err := o.receiver(c, snapshot)
	if err != nil {
		return err
	}
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.open, receiverKey(c, snapshot))
	}()
	return r.End(ctx, e)
}

// Abandoned forgets a snapshot whose stream broke; what came of it is taken back
// when the next begins.
func (o *observations) Abandoned(c agentapi.Caller, snapshot string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.open, receiverKey(c, snapshot))
}

// orders hands what waits for an agent from dispatch to the agent API.
type orders struct{ dispatch *dispatch.Service }

func (o orders) Waiting(ctx context.Context, c agentapi.Caller, _ uint64) ([]*agentv1.Fetch, error) {
	pending, err := o.dispatch.Pending(ctx, c.Tenant, c.Agent)
	var fetches []*agentv1.Fetch
	for _, id := range pending.Orders {
		fetches = append(fetches, &agentv1.Fetch{Order: id})
	}
	for _, digest := range pending.DryRuns {
		fetches = append(fetches, &agentv1.Fetch{DryRun: digest})
	}
	return fetches, err
}

func (o orders) Order(ctx context.Context, c agentapi.Caller, order string) (*agentv1.OrderHead, iter.Seq2[[]byte, error], error) {
	return parcel(o.dispatch.Fetch(ctx, c.Tenant, c.Agent, order))
}

func (o orders) DryRun(ctx context.Context, c agentapi.Caller, digest []byte) (*agentv1.OrderHead, iter.Seq2[[]byte, error], error) {
	return parcel(o.dispatch.FetchDryRun(ctx, c.Tenant, c.Agent, digest))
}

func parcel(p dispatch.Parcel, err error) (*agentv1.OrderHead, iter.Seq2[[]byte, error], error) {
	chunks := func(yield func([]byte, error) bool) {
		for _, c := range p.Chunks {
			if !yield(c, nil) {
				return
			}
		}
	}
	return &agentv1.OrderHead{Envelope: p.Envelope, Manifest: p.Manifest}, chunks, err
}

func (o orders) Progress(ctx context.Context, c agentapi.Caller, p *agentv1.ReportProgressRequest) error {
	if len(p.GetDryRun()) > 0 {
		return o.dispatch.DryRan(ctx, c.Tenant, c.Agent, p.GetDryRun(), p.GetGuardrailsDigest(), p.GetRefusals())
	}
	return nil
}

// log lets dispatch prove acts in one sealed checkpoint.
type log struct{ *auditlog.Log }

func (l log) Prove(t tx.Tx, tenant string, entries []uint64) ([]*planv1.InclusionProof, error) {
	sealed, err := l.Seal(t, tenant)
	if err != nil {
		return nil, err
	}
	var proofs []*planv1.InclusionProof
	for _, entry := range entries {
		proof, err := l.Inclusions(t, tenant, sealed, entry, 1)
		if err != nil {
			return nil, err
		}
		proofs = append(proofs, proof...)
	}
	return proofs, nil
}

// epochs tells dispatch an agent's present epoch.
type epochs struct{ *enrollment.Service }

func (e epochs) Epoch(t tx.Tx, tenant, agent string) (uint64, error) {
	a, err := e.Lookup(t, tenant, agent)
	return a.Epoch, err
}

// receipts hands records from intake to dispatch.
type receipts struct{ dispatch *dispatch.Service }

func (r receipts) Received(t tx.Tx, rec intake.Record) error {
	return r.dispatch.Received(t, rec.Tenant, rec.Agent, rec.Entry, rec.Body, rec.Header.GetType())
}

// planned tells intake what a receipt is about.
type planned struct {
	*dispatch.Service
	objects inventory.Store
}

func (p planned) Look(t tx.Tx, tenant, connector, objectType string) (planner.Look, error) {
	c, err := p.objects.Connector(t, tenant, connector)
	if err != nil {
		// A receipt for a connector nobody knows moves nothing by type.
		return planner.Look{}, nil //nolint:nilerr // see above
	}
	var look planner.Look
	for _, typ := range c.State.GetTypes() {
		if typ.GetName() == objectType {
			look.Type = typ
		}
	}
	// Only references to other objects need the index, so it is made when asked.
	var index map[string]string
	look.Resolve = func(key string) string {
		if index == nil {
			index = p.index(t, c)
		}
		return index[key]
	}
	return look, nil
}

// index maps link keys to anchors; a key that two objects claim maps to none.
func (p planned) index(t tx.Tx, c inventory.Connector) map[string]string {
	index := map[string]string{}
	objects, err := inventory.Objects(t, p.objects, c)
	if err != nil {
		return index
	}
	for _, o := range objects {
		for _, key := range o.GetKeys() {
			if _, taken := index[key]; taken {
				index[key] = ""
				continue
			}
			index[key] = o.GetAnchor()
		}
	}
	return index
}

// zones tells schedules a tenant's time zone.
type zones struct{ *tenant.Service }

func (z zones) Zone(ctx context.Context, id string) (*time.Location, error) {
	n, err := z.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return n.Location()
}

// sessions lets operators see and push connected agents.
type sessions struct{ *agentapi.Registry }

func (s sessions) Connected(tenant string) map[string]bool {
	connected := map[string]bool{}
	for _, live := range s.Registry.Connected(tenant) {
		connected[live.Agent] = true
	}
	return connected
}
