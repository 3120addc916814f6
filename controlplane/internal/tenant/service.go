package tenant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// Store keeps tenants. Methods are used inside one transaction and are durable
// with it.
type Store interface {
	// Insert returns ErrConflict when the id, or a second MSP, is there already.
	Insert(t tx.Tx, n Tenant) error
	// Get returns ErrNotFound for an unknown id.
	Get(t tx.Tx, id string) (Tenant, error)
	// List returns up to limit tenants with an id greater than after, by id.
	List(t tx.Tx, after string, limit int) ([]Tenant, error)
	// SetState returns ErrConflict unless the tenant is in state from.
	SetState(t tx.Tx, id string, from, to State) error
}

// Records is where acts are remembered; auditlog is it.
type Records interface {
	AppendAct(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) (uint64, error)
}

// Service is the tenants. It is safe for concurrent use.
type Service struct {
	db      *tx.DB
	store   Store
	records Records
	now     func() time.Time
	log     *slog.Logger
}

// NewService returns the service.
func NewService(db *tx.DB, store Store, records Records, now func() time.Time, log *slog.Logger) *Service {
	return &Service{db: db, store: store, records: records, now: now, log: log}
}

// EnsureMSP adds the MSP's own tenant at the first start and is without effect
// after that. ErrConflict when the id is a client's, or the MSP has another one.
func (s *Service) EnsureMSP(ctx context.Context, n New) error {
	err := s.db.Do(ctx, func(t tx.Tx) error {
		have, err := s.store.Get(t, n.ID)
		switch {
		case errors.Is(err, ErrNotFound):
			return s.add(t, "control-plane", n, true)
		case err == nil && !have.MSP:
			return fmt.Errorf("%w: %s is a client; give the MSP another id", ErrConflict, n.ID)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("make the MSP's own tenant: %w", err)
	}
	return nil
}

// Add adds a client. actor is who does it, as in auditv1.Header. Errors:
// ErrInvalid, ErrConflict.
func (s *Service) Add(ctx context.Context, actor string, n New) (Tenant, error) {
	var added Tenant
	err := s.db.Do(ctx, func(t tx.Tx) error {
		if err := s.add(t, actor, n, false); err != nil {
			return err
		}
		var err error
		added, err = s.store.Get(t, n.ID)
		return err
	})
	if err == nil {
		s.log.InfoContext(ctx, "tenant added", "tenant", added.ID)
	}
	return added, err
}

func (s *Service) add(t tx.Tx, actor string, n New, msp bool) error {
	if err := n.validate(); err != nil {
		return err
	}
	err := s.store.Insert(t, Tenant{ID: n.ID, Name: n.Name, Owner: n.Owner, Zone: n.Zone, State: Active, MSP: msp, Created: s.now()})
	if err != nil {
		return err
	}
	_, err = s.records.AppendAct(t, n.ID, &auditv1.Header{Type: auditv1.Type_TYPE_TENANT_ADDED, Actor: actor},
		&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "add tenant", Object: n.ID, Details: []*auditv1.Act_Detail{
			{Name: "name", Value: n.Name}, {Name: "owner", Value: n.Owner}, {Name: "zone", Value: n.Zone},
		}}}})
	return err
}

// Get returns ErrNotFound for an unknown id.
func (s *Service) Get(ctx context.Context, id string) (n Tenant, err error) {
	err = s.db.View(ctx, func(t tx.Tx) error { n, err = s.store.Get(t, id); return err })
	return n, err
}

// Lookup is Get inside a transaction that the caller has open.
func (s *Service) Lookup(t tx.Tx, id string) (Tenant, error) { return s.store.Get(t, id) }

// List returns up to limit tenants with an id greater than after, by id; limit
// is clamped to 1..1000.
func (s *Service) List(ctx context.Context, after string, limit int) (list []Tenant, err error) {
	limit = min(max(limit, 1), 1000)
	err = s.db.View(ctx, func(t tx.Tx) error { list, err = s.store.List(t, after, limit); return err })
	return list, err
}

// SetState takes a tenant one step: active to offboarding and back, offboarding
// to offboarded. Reaching the last is a record. It returns ErrConflict for
// another step, and for the MSP's own tenant, which nobody offboards.
func (s *Service) SetState(t tx.Tx, actor, id string, to State) error {
	n, err := s.store.Get(t, id)
	if err != nil {
		return err
	}
	if n.MSP {
		return fmt.Errorf("%w: %s is the MSP itself and stays active", ErrConflict, id)
	}
	if !n.State.next(to) {
		return fmt.Errorf("%w: tenant %s is %s and cannot become %s", ErrConflict, id, n.State, to)
	}
	if err := s.store.SetState(t, id, n.State, to); err != nil {
		return err
	}
	if to != Offboarded {
		return nil
	}
	_, err = s.records.AppendAct(t, id, &auditv1.Header{Type: auditv1.Type_TYPE_TENANT_OFFBOARDED, Actor: actor},
		&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "offboard tenant", Object: id}}})
	return err
}
