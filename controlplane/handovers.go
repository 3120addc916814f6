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
	"github.com/reevehq/reeve/controlplane/internal/operatorapi"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
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

// epochs tells dispatch an agent's present epoch, and inventory whether there is
// one.
type epochs struct{ *enrollment.Service }

func (e epochs) Epoch(t tx.Tx, tenant, agent string) (epoch uint64, live bool, err error) {
	a, err := e.Lookup(t, tenant, agent)
	if errors.Is(err, enrollment.ErrNotFound) {
		return 0, false, nil
	}
	return a.Epoch, a.State != enrollment.Revoked, err
}

func (e epochs) Live(t tx.Tx, tenant, agent string) (bool, error) {
	_, live, err := e.Epoch(t, tenant, agent)
	return live, err
}

// receipts hands records from intake to dispatch.
type receipts struct {
	dispatch *dispatch.Service
	planned  *planned
}

func (r receipts) Received(t tx.Tx, rec intake.Record) error {
	if rec.Idle {
		return nil
	}
	if receipt := rec.Body.GetReceipt(); receipt != nil {
		r.planned.keys.learn(rec.Tenant, receipt)
	}
	return r.dispatch.Received(t, rec.Tenant, rec.Agent, rec.Entry, rec.Body, rec.Header.GetType())
}

// planned tells intake what a receipt is about.
type planned struct {
	*dispatch.Service
	objects inventory.Store
	orders  dispatch.Store
	keys    keyIndex
}

// Look implements intake.Plans. An agent's word counts for its own connectors.
func (p *planned) Look(t tx.Tx, tenant, agent, connector, objectType string) (planner.Look, bool, error) {
	c, err := p.objects.Connector(t, tenant, connector)
	if errors.Is(err, inventory.ErrNotFound) || err == nil && c.Agent != agent {
		return planner.Look{}, false, nil
	}
	if err != nil {
		return planner.Look{}, false, err
	}
	var look planner.Look
	for _, typ := range c.State.GetTypes() {
		if typ.GetName() == objectType {
			look.Type = typ
		}
	}
	look.Resolve = func(key string) string {
		return p.keys.of(c, func() (map[string]string, error) { return p.index(t, c) })[key]
	}
	return look, true, nil
}

// index maps link keys to anchors, as last observed and as made since by orders
// that have not ended. A key that two objects claim maps to none.
func (p *planned) index(t tx.Tx, c inventory.Connector) (map[string]string, error) {
	index := map[string]string{}
	put := func(anchor string, keys []string) {
		for _, key := range keys {
			if other, taken := index[key]; taken && other != anchor {
				anchor = ""
			}
			index[key] = anchor
		}
	}
	objects, err := inventory.Objects(t, p.objects, c)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		put(o.GetAnchor(), o.GetKeys())
	}
	made, err := p.orders.OfOpenOrders(t, c.Tenant, c.Alias)
	for _, r := range made {
		put(r.Receipt.GetAnchor(), r.Receipt.GetAfter().GetKeys())
	}
	return index, err
}

// keyIndex keeps the index of the connector whose receipts come in now: many
// receipts of one batch ask for it, and only references to other objects do.
type keyIndex struct {
	mu      sync.Mutex
	tenant  string
	alias   string
	current int64
	keys    map[string]string
}

func (k *keyIndex) of(c inventory.Connector, make func() (map[string]string, error)) map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil || k.tenant != c.Tenant || k.alias != c.Alias || k.current != c.Current {
		keys, err := make()
		if err != nil {
			return nil
		}
		k.tenant, k.alias, k.current, k.keys = c.Tenant, c.Alias, c.Current, keys
	}
	return k.keys
}

// learn adds what a receipt shows of an object that is not observed yet.
func (k *keyIndex) learn(tenant string, r *auditv1.Receipt) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil || k.tenant != tenant || k.alias != r.GetConnector() {
		return
	}
	for _, key := range r.GetAfter().GetKeys() {
		if other, taken := k.keys[key]; taken && other != r.GetAnchor() {
			k.keys[key] = ""
			continue
		}
		k.keys[key] = r.GetAnchor()
	}
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

func (s sessions) Connected(tenant string) map[string]operatorapi.Presence {
	connected := map[string]operatorapi.Presence{}
	for _, live := range s.Registry.Connected(tenant) {
		connected[live.Agent] = operatorapi.Presence{Paused: live.Paused}
	}
	return connected
}
