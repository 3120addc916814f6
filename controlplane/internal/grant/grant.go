package grant

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

var (
	ErrNotFound = errors.New("grant not found")
	// ErrInvalid is returned for a grant that may not be given; the error says
	// why and what to change.
	ErrInvalid = errors.New("grant refused")
)

// MSPPrefix begins the name of an identity of the MSP's own tenant: msp/ID.
const MSPPrefix = "msp/"

// Grant is one entitlement for one identity.
type Grant struct {
	ID          string
	Identity    string
	Entitlement string
	// Cause is "msp" for the MSP's own people, else "client".
	Cause  string
	Reason string
	Ticket string
	Starts time.Time
	// Ends zero means until ended by an act.
	Ends  time.Time
	Ended time.Time
}

// Open reports whether the grant counts at a moment: [Starts, Ends).
func (g Grant) Open(at time.Time) bool {
	return g.Ended.IsZero() && !at.Before(g.Starts) && (g.Ends.IsZero() || at.Before(g.Ends))
}

// End is when the grant ends or ended, by its time or by an act; zero is open.
func (g Grant) End() time.Time {
	if !g.Ended.IsZero() && (g.Ends.IsZero() || g.Ended.Before(g.Ends)) {
		return g.Ended
	}
	return g.Ends
}

// Rule is what an entitlement demands of its grants.
type Rule struct {
	RequireEnd bool
	// MaxGrant zero is no limit.
	MaxGrant time.Duration
}

// Store keeps grants in the caller's transaction.
type Store interface {
	Put(t tx.Tx, tenant string, g Grant) error
	// Get returns ErrNotFound for an id the tenant does not have.
	Get(t tx.Tx, tenant, id string) (Grant, error)
	// List returns grants in ascending order of id after the given one; limit 0
	// is all.
	List(t tx.Tx, tenant, after string, limit int) ([]Grant, error)
}

// Records puts an act into the tenant's log, in the caller's transaction.
type Records interface {
	AppendAct(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) (index uint64, err error)
}

// Service gives and ends grants. It is safe for concurrent use.
type Service struct {
	db    *tx.DB
	store Store
	audit Records
	now   func() time.Time
}

// New returns the service.
func New(db *tx.DB, store Store, audit Records, now func() time.Time) *Service {
	return &Service{db: db, store: store, audit: audit, now: now}
}

// Add gives g from now on, for the given time; zero is until ended.
func (s *Service) Add(ctx context.Context, tenant string, g Grant, lasts time.Duration, rule Rule, actor string) (Grant, error) {
	switch {
	case strings.TrimSpace(g.Reason) == "" && g.Ticket == "":
		return g, fmt.Errorf("%w: no reason; say why with --reason", ErrInvalid)
	case lasts < 0:
		return g, fmt.Errorf("%w: it would end before it starts", ErrInvalid)
	case lasts == 0 && (rule.RequireEnd || strings.HasPrefix(g.Identity, MSPPrefix)):
		return g, fmt.Errorf("%w: %s needs an end; say how long with --for", ErrInvalid, g.Entitlement)
	case rule.MaxGrant > 0 && (lasts == 0 || lasts > rule.MaxGrant):
		return g, fmt.Errorf("%w: %s may be granted for at most %s", ErrInvalid, g.Entitlement, rule.MaxGrant)
	}
	g.Cause = "client"
	if strings.HasPrefix(g.Identity, MSPPrefix) {
		g.Cause = "msp"
	}
	var id [10]byte
	rand.Read(id[:]) //nolint:errcheck // never fails (crypto/rand, since Go 1.24)
	g.ID = "grant-" + hex.EncodeToString(id[:])
	g.Starts = s.now()
	if lasts > 0 {
		g.Ends = g.Starts.Add(lasts)
	}
	err := s.db.Do(ctx, func(t tx.Tx) error {
		if err := s.store.Put(t, tenant, g); err != nil {
			return err
		}
		return s.record(t, tenant, auditv1.Type_TYPE_GRANT_ADDED, "add grant", g, g.Reason, actor)
	})
	return g, err
}

// End ends a grant now. Ending an ended one changes nothing.
func (s *Service) End(ctx context.Context, tenant, id, reason, actor string) (Grant, error) {
	var g Grant
	err := s.db.Do(ctx, func(t tx.Tx) (err error) {
		if g, err = s.store.Get(t, tenant, id); err != nil || !g.Ended.IsZero() {
			return err
		}
		g.Ended = s.now()
		if err := s.store.Put(t, tenant, g); err != nil {
			return err
		}
		return s.record(t, tenant, auditv1.Type_TYPE_GRANT_ENDED, "end grant", g, reason, actor)
	})
	return g, err
}

// List returns a page of the tenant's grants, open or not.
func (s *Service) List(ctx context.Context, tenant, after string, limit int) (list []Grant, err error) {
	err = s.db.View(ctx, func(t tx.Tx) error {
		list, err = s.store.List(t, tenant, after, limit)
		return err
	})
	return list, err
}

func (s *Service) record(t tx.Tx, tenant string, typ auditv1.Type, verb string, g Grant, reason, actor string) error {
	details := []*auditv1.Act_Detail{{Name: "identity", Value: g.Identity}, {Name: "entitlement", Value: g.Entitlement}}
	if !g.Ends.IsZero() {
		details = append(details, &auditv1.Act_Detail{Name: "ends", Value: g.Ends.UTC().Format(time.RFC3339)})
	}
	_, err := s.audit.AppendAct(t, tenant,
		&auditv1.Header{Type: typ, Actor: actor, Subject: subject(g.Identity), Ticket: g.Ticket},
		&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: verb, Object: g.ID, Reason: reason, Details: details}}})
	return err
}

// subject is the random id that stands in headers, which are never erased. Callers
// resolved names to ids; what is none is personal data and stays out.
func subject(identity string) string {
	id := strings.TrimPrefix(identity, MSPPrefix)
	if !strings.HasPrefix(id, "id-") {
		return ""
	}
	return id
}
