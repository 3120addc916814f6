package inventory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Records puts an act into the tenant's log, in the caller's transaction.
type Records interface {
	AppendAct(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) (index uint64, err error)
}

// Agents tells whether an agent still serves; one that has ended gives up its
// connectors.
type Agents interface {
	Live(t tx.Tx, tenant, agent string) (bool, error)
}

// Service is safe for concurrent use; a connector's snapshots are received one
// at a time.
type Service struct {
	db     *tx.DB
	store  Store
	audit  Records
	agents Agents
	// observed is told after a snapshot became current, and whether only what changed
	// was read for it.
	observed func(tenant string, incremental bool)
}

// New returns the service. observed is called after each snapshot that became
// current; it must not block.
func New(db *tx.DB, store Store, audit Records, agents Agents, observed func(tenant string, incremental bool)) *Service {
	return &Service{db: db, store: store, audit: audit, agents: agents, observed: observed}
}

const (
	// maxConnectors bounds what one agent can configure.
	maxConnectors = 256

	changedSource = "the directory behind it is not the one that was confirmed; compare its fingerprint and run `reeve source confirm`"
	// unconfigured is taken back by itself when the connector comes back.
	unconfigured = "its agent's configuration does not have it any more"
)

// Report takes all the connector states of an agent; an empty list says nothing.
// A source whose fingerprint is not the confirmed one any more is suspended until
// somebody confirms it again, and a connector that the list lacks until it is
// back: what was observed of it once must not be planned on. ErrInvalid for a
// list that cannot be one, ErrOtherAgent for an alias of another agent that still
// serves.
func (s *Service) Report(ctx context.Context, tenant, agent string, states []*agentv1.ConnectorState) error {
	if len(states) == 0 {
		return nil
	}
	if len(states) > maxConnectors {
		return fmt.Errorf("%w: %d connectors; an agent has at most %d", ErrInvalid, len(states), maxConnectors)
	}
	reported := map[string]bool{}
	for _, state := range states {
		alias := state.GetAlias()
		if err := spiffe.ValidateName(alias); err != nil {
			return fmt.Errorf("%w: alias of a connector: %w", ErrInvalid, err)
		}
		if reported[alias] {
			return fmt.Errorf("%w: connector %s is reported twice", ErrInvalid, alias)
		}
		reported[alias] = true
	}
	return s.db.Do(ctx, func(t tx.Tx) error {
		for _, state := range states {
			if err := s.report(t, tenant, agent, state); err != nil {
				return err
			}
		}
		all, err := s.store.Connectors(t, tenant)
		if err != nil {
			return err
		}
		for _, c := range all {
			if c.Agent != agent || reported[c.Alias] || c.Suspended != "" {
				continue
			}
			if err := s.suspend(t, tenant, c.Alias, unconfigured); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) report(t tx.Tx, tenant, agent string, state *agentv1.ConnectorState) error {
	have, err := s.store.Connector(t, tenant, state.GetAlias())
	known := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if known && have.Agent != agent {
		if have, err = s.takeOver(t, have, agent); err != nil {
			return err
		}
	}
	c := Connector{Tenant: tenant, Alias: state.GetAlias(), Agent: agent, State: state}
	switch {
	case len(state.GetFingerprint()) > 0:
		c.Fingerprint = FingerprintOf(state.GetFingerprint())
	case known:
		// An unreachable directory has no facts to tell: the last ones stand.
		c.Fingerprint = have.Fingerprint
	}
	if known && len(state.GetTypes()) == 0 {
		c.State = proto.CloneOf(state)
		c.State.Types, c.State.Capabilities, c.State.CaseRule = have.State.GetTypes(), have.State.GetCapabilities(), have.State.GetCaseRule()
	}
	if err := s.store.PutConnector(t, c); err != nil || !known {
		return err
	}
	if have.State.GetMode() != state.GetMode() || have.State.GetRole() != state.GetRole() {
		if err := s.record(t, tenant,
			&auditv1.Header{Type: auditv1.Type_TYPE_CONNECTOR_MODE_SET, Actor: "agent:" + agent},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "set mode", Object: c.Alias, Details: []*auditv1.Act_Detail{
				{Name: "mode", Value: state.GetMode().String()}, {Name: "role", Value: state.GetRole().String()},
			}}}}); err != nil {
			return err
		}
	}
	if have.Suspended == unconfigured {
		have.Suspended = ""
		if err := s.store.SetSuspended(t, tenant, c.Alias, ""); err != nil {
			return err
		}
	}
	if have.Confirmed != "" && c.Fingerprint != have.Confirmed && have.Suspended == "" {
		return s.suspend(t, tenant, c.Alias, changedSource)
	}
	return nil
}

// takeOver gives a connector whose agent has ended to another one. A source is
// confirmed anew: it is another agent's word now.
func (s *Service) takeOver(t tx.Tx, c Connector, agent string) (Connector, error) {
	live, err := s.agents.Live(t, c.Tenant, c.Agent)
	if err != nil {
		return c, err
	}
	if live {
		return c, fmt.Errorf("%w: %s is at %s; choose another alias, or revoke that agent", ErrOtherAgent, c.Alias, c.Agent)
	}
	c.Agent, c.Confirmed = agent, ""
	return c, s.store.SetConfirmed(t, c.Tenant, c.Alias, "")
}

// suspend keeps plans from a connector, with a record that says why.
func (s *Service) suspend(t tx.Tx, tenant, alias, why string) error {
	if err := s.store.SetSuspended(t, tenant, alias, why); err != nil {
		return err
	}
	return s.record(t, tenant,
		&auditv1.Header{Type: auditv1.Type_TYPE_SUSPENDED, Actor: "control-plane"},
		&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "suspend connector", Object: alias, Reason: why}}})
}

// Confirm accepts a source after its fingerprint was compared out of band. Where
// it was suspended with this fingerprint confirmed before, its new anchors are
// accepted. ErrInvalid while its agent does not have it configured.
func (s *Service) Confirm(ctx context.Context, tenant, alias, fingerprint, actor string, at time.Time) (Connector, error) {
	var c Connector
	err := s.db.Do(ctx, func(t tx.Tx) (err error) {
		if c, err = s.store.Connector(t, tenant, alias); err != nil {
			return err
		}
		if c.Fingerprint == "" || fingerprint != c.Fingerprint {
			return fmt.Errorf("%w: %s has %q", ErrFingerprint, alias, c.Fingerprint)
		}
		if c.Suspended == unconfigured {
			return fmt.Errorf("%w: %s: %s; configure it first", ErrInvalid, alias, unconfigured)
		}
		if c.Suspended != "" && c.Confirmed == fingerprint {
			if err := s.store.SetRebind(t, tenant, alias, true); err != nil {
				return err
			}
			c.Rebind = true
		}
		if err := s.store.SetConfirmed(t, tenant, alias, fingerprint); err != nil {
			return err
		}
		if err := s.store.SetSuspended(t, tenant, alias, ""); err != nil {
			return err
		}
		c.Confirmed, c.Suspended = fingerprint, ""
		return s.record(t, tenant,
			&auditv1.Header{Type: auditv1.Type_TYPE_SOURCE_CONFIRMED, Actor: actor},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{
				Verb: "confirm source", Object: alias,
				Details: []*auditv1.Act_Detail{{Name: "fingerprint", Value: fingerprint}},
			}}})
	})
	return c, err
}

// Connectors returns the tenant's connectors sorted by alias.
func (s *Service) Connectors(ctx context.Context, tenant string) (list []Connector, err error) {
	err = s.db.View(ctx, func(t tx.Tx) error {
		list, err = s.store.Connectors(t, tenant)
		return err
	})
	return list, err
}

// Objects decodes every object of a connector's current snapshot, sorted by
// anchor.
func Objects(t tx.Tx, store Store, c Connector) ([]*connectorv1.Object, error) {
	var objects []*connectorv1.Object
	err := store.Objects(t, c.Tenant, c.Alias, c.Current, func(o Object) error {
		decoded := new(connectorv1.Object)
		if err := proto.Unmarshal(o.Body, decoded); err != nil {
			return fmt.Errorf("decode object %s of %s: %w", o.Anchor, c.Alias, err)
		}
		objects = append(objects, decoded)
		return nil
	})
	return objects, err
}

// Receiver takes one snapshot. It is used by one goroutine; leaving it without
// End abandons the snapshot, and what came so far is taken back by the next.
type Receiver struct {
	s             *Service
	tenant, alias string
	seq           int64
	id            string
	// incremental: only what changed was read. set is the digest over the objects
	// at seq as far as they have come.
	incremental bool
	set         connectorv1.SetDigest
}

// Begin starts receiving a snapshot. A delta against another snapshot than the
// current one is ErrResync.
func (s *Service) Begin(ctx context.Context, tenant, agent string, begin *agentv1.SnapshotBegin) (*Receiver, error) {
	r := &Receiver{s: s, tenant: tenant, alias: begin.GetConnector(), id: begin.GetSnapshot(), incremental: begin.GetIncremental()}
	err := s.db.Do(ctx, func(t tx.Tx) error {
		c, err := s.store.Connector(t, tenant, begin.GetConnector())
		if err != nil {
			return err
		}
		if c.Agent != agent {
			return fmt.Errorf("%w: %s is at %s", ErrOtherAgent, c.Alias, c.Agent)
		}
		if begin.GetSnapshot() == "" {
			return fmt.Errorf("%w: snapshot of %s has no name", ErrInvalid, c.Alias)
		}
		if begin.GetBase() != "" && begin.GetBase() != c.Header.GetSnapshot() {
			return fmt.Errorf("%w: base is %s, here is %s", ErrResync, begin.GetBase(), c.Header.GetSnapshot())
		}
		r.set = connectorv1.SetDigest{}
		if begin.GetBase() == "" && r.incremental {
			return fmt.Errorf("%w: snapshot %s of %s is incremental and has no base", ErrInvalid, r.id, c.Alias)
		}
		if begin.GetBase() != "" && r.set.UnmarshalBinary(c.Set) != nil && r.incremental {
			return fmt.Errorf("%w: the digest of %s is not known here", ErrResync, c.Alias)
		}
		r.seq = max(c.Current, c.Receiving) + 1
		if err := s.store.BeginSnapshot(t, tenant, c.Alias, r.seq, r.id); err != nil {
			return err
		}
		if begin.GetBase() == "" {
			return s.store.CloseAll(t, tenant, c.Alias, r.seq)
		}
		return nil
	})
	return r, err
}

// Batch stores the next part durably.
func (r *Receiver) Batch(ctx context.Context, batch *agentv1.ObservedBatch) error {
	objects := make([]Object, len(batch.GetObjects()))
	for i, o := range batch.GetObjects() {
		if o.GetAnchor() == "" {
			return fmt.Errorf("%w: an object of %s has no anchor", ErrInvalid, r.alias)
		}
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(o)
		if err != nil {
			return fmt.Errorf("encode object %s: %w", o.GetAnchor(), err)
		}
		objects[i] = Object{Anchor: o.GetAnchor(), Type: o.GetType(), Digest: o.Digest(), Body: body}
	}
	// A transaction may run again: the set moves when one has committed.
	var ended []Object
	err := r.s.db.Do(ctx, func(t tx.Tx) error {
		if err := r.current(t); err != nil {
			return err
		}
		ended = ended[:0]
		end := func(anchor string, digest [32]byte) { ended = append(ended, Object{Anchor: anchor, Digest: digest}) }
		if err := r.s.store.PutObjects(t, r.tenant, r.alias, r.seq, objects, end); err != nil {
			return err
		}
		return r.s.store.CloseObjects(t, r.tenant, r.alias, r.seq, batch.GetRemoved(), end)
	})
	if err != nil {
		return err
	}
	if r.incremental {
		for _, o := range ended {
			r.set.Remove(o.Anchor, o.Digest)
		}
		// Of an anchor that came twice the first row ended with the second.
		for _, o := range objects {
			r.set.Add(o.Anchor, o.Digest)
		}
	}
	return nil
}

// checkHeader compares a header, which plans will name, with what was begun.
func (r *Receiver) checkHeader(h *planv1.SnapshotHeader) error {
	if h.GetConnector() != r.alias || h.GetSnapshot() != r.id {
		return fmt.Errorf("%w: header is of snapshot %q of %q, begun was %q of %q", ErrInvalid, h.GetSnapshot(), h.GetConnector(), r.id, r.alias)
	}
	if err := h.GetObservedAt().CheckValid(); err != nil {
		return fmt.Errorf("%w: snapshot %s: time of observation: %w", ErrInvalid, r.id, err)
	}
	return nil
}

// End makes the snapshot current. A complete one must add up to the digest its
// agent computed, else ErrResync.
func (r *Receiver) End(ctx context.Context, end *agentv1.SnapshotEnd) error {
	if err := r.checkHeader(end.GetHeader()); err != nil {
		return err
	}
	err := r.s.db.Do(ctx, func(t tx.Tx) error {
		if err := r.current(t); err != nil {
			return err
		}
		set, err := r.close(t, end.GetHeader())
		if err != nil {
			return err
		}
		if err := r.s.store.EndSnapshot(t, r.tenant, r.alias, r.seq, end, set); err != nil {
			return err
		}
		if err := r.s.store.Prune(t, r.tenant, r.alias, r.seq); err != nil {
			return err
		}
		return r.s.record(t, r.tenant,
			&auditv1.Header{Type: auditv1.Type_TYPE_SNAPSHOT, Actor: "control-plane"},
			&auditv1.Body{Body: &auditv1.Body_Snapshot{Snapshot: &auditv1.SnapshotEvent{Header: end.GetHeader()}}})
	})
	if err != nil {
		return err
	}
	r.s.observed(r.tenant, r.incremental)
	return nil
}

// close holds the objects against the header and returns the digest over them,
// encoded. A whole read is counted anew, an incremental one by what changed.
func (r *Receiver) close(t tx.Tx, header *planv1.SnapshotHeader) ([]byte, error) {
	switch {
	case r.incremental && !header.GetComplete():
		return nil, fmt.Errorf("%w: an incremental snapshot of %s that is not complete", ErrInvalid, r.alias)
	case r.incremental:
		return r.verify(header, &r.set)
	case !header.GetComplete():
		if err := r.s.store.Reopen(t, r.tenant, r.alias, r.seq); err != nil {
			return nil, err
		}
	default:
		if err := r.s.store.SetWhole(t, r.tenant, r.alias, r.id); err != nil {
			return nil, err
		}
	}
	var set connectorv1.SetDigest
	if err := r.s.store.Digests(t, r.tenant, r.alias, r.seq, set.Add); err != nil {
		return nil, err
	}
	if !header.GetComplete() {
		return set.MarshalBinary()
	}
	return r.verify(header, &set)
}

// current fails when another snapshot of the connector has begun since.
func (r *Receiver) current(t tx.Tx) error {
	c, err := r.s.store.Connector(t, r.tenant, r.alias)
	if err != nil {
		return err
	}
	if c.Receiving != r.seq {
		return fmt.Errorf("%w: another snapshot of %s has begun", ErrResync, r.alias)
	}
	return nil
}

func (r *Receiver) verify(header *planv1.SnapshotHeader, set *connectorv1.SetDigest) ([]byte, error) {
	sum, count := set.Sum()
	if count != header.GetObjects() || string(sum) != string(header.GetSetDigest()) {
		return nil, fmt.Errorf("%w: %s adds up to %d objects here, %d at the agent", ErrResync, r.alias, count, header.GetObjects())
	}
	return set.MarshalBinary()
}

func (s *Service) record(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) error {
	_, err := s.audit.AppendAct(t, tenant, h, b)
	return err
}
