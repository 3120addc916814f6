package identity

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// Records puts an act into the tenant's log, in the caller's transaction.
type Records interface {
	AppendAct(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) (index uint64, err error)
}

// Service folds snapshots into identities. It is safe for concurrent use.
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

// Outcome of folding snapshots in.
type Outcome struct {
	// Suspend names sources that changed most of their anchors at once, with the
	// sentence to show; nothing of them was folded in.
	Suspend map[string]string
	// Problems are rows the mapping could not read.
	Problems []Problem
}

// Problem is a row of a source that could not be read, and why.
type Problem struct{ Connector, Said string }

// Reconcile folds the current snapshots of a tenant's confirmed sources and of
// its targets into identities, in the caller's transaction. Folding the same
// snapshot again changes nothing.
func (s *Service) Reconcile(t tx.Tx, tenant string, sources []SourceSnapshot, targets []TargetSnapshot, mapper Mapper) (Outcome, error) {
	out := Outcome{Suspend: map[string]string{}}
	links, err := s.store.Links(t, tenant)
	if err != nil {
		return out, err
	}
	accounts, err := s.store.Accounts(t, tenant)
	if err != nil {
		return out, err
	}
	identities, err := s.store.List(t, tenant, "", 0)
	if err != nil {
		return out, err
	}
	f := folding{Service: s, t: t, tenant: tenant, mapper: mapper, identities: map[string]Identity{}, links: map[string]map[place]Link{},
		called: map[string]map[string]bool{}, created: map[[2]string]bool{}, out: &out}
	for _, id := range identities {
		f.identities[id.ID] = id
		f.call(id.ID, id.Attributes)
	}
	for _, l := range links {
		if f.links[l.Identity] == nil {
			f.links[l.Identity] = map[place]Link{}
		}
		f.links[l.Identity][place{l.Connector, l.Anchor}] = l
	}
	for _, a := range accounts {
		f.created[[2]string{a.Connector, a.Anchor}] = a.Created
	}
	for _, src := range sources {
		if err := f.fold(src); err != nil {
			return out, fmt.Errorf("source %s: %w", src.Connector, err)
		}
	}
	if err := f.settle(); err != nil {
		return out, err
	}
	identities = identities[:0]
	for _, id := range sortedKeys(f.identities) {
		identities = append(identities, f.identities[id])
	}
	for _, target := range targets {
		if err := s.link(t, tenant, target, mapper.Matches(), identities, accounts); err != nil {
			return out, fmt.Errorf("target %s: %w", target.Connector, err)
		}
	}
	return out, nil
}

func (s *Service) link(t tx.Tx, tenant string, target TargetSnapshot, matches []Match, identities []Identity, accounts []Account) error {
	linked := map[string]Account{}
	for _, a := range accounts {
		if a.Connector == target.Connector {
			linked[a.Anchor] = a
		}
	}
	cases, err := s.store.Cases(t, tenant, true)
	if err != nil {
		return err
	}
	had := map[string]Case{}
	for _, c := range cases {
		had[c.ID] = c
	}
	found := correlate(target, matches, identities, linked)
	for _, a := range found.Accounts {
		if err := s.store.PutAccount(t, tenant, a); err != nil {
			return err
		}
	}
	still := map[string]bool{}
	for _, c := range found.Cases {
		still[c.ID] = true
		if old, ok := had[c.ID]; ok && old.Decision != Passed {
			continue
		}
		c.Opened = s.now()
		if err := s.store.PutCase(t, tenant, c); err != nil {
			return err
		}
		if err := s.record(t, tenant,
			&auditv1.Header{Type: auditv1.Type_TYPE_CASE_OPENED, Actor: "control-plane"},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "open case", Object: c.ID, Reason: c.Sentence}}}); err != nil {
			return err
		}
	}
	for _, c := range cases {
		if c.Connector != target.Connector || c.Decision != "" || still[c.ID] {
			continue
		}
		if err := s.close(t, tenant, c, Passed, "the directory or the source changed; there is nothing to decide any more", "control-plane"); err != nil {
			return err
		}
	}
	return nil
}

// DecideCase links an ambiguous case's subject to a candidate, or to none. It
// plans nothing by itself.
func (s *Service) DecideCase(ctx context.Context, tenant, caseID, candidate, reason, actor string) (Case, error) {
	var c Case
	err := s.db.Do(ctx, func(t tx.Tx) (err error) {
		if c, err = s.store.Case(t, tenant, caseID); err != nil {
			return err
		}
		if c.Decision != "" {
			return fmt.Errorf("%w: %s, for %s", ErrDecided, caseID, c.Decision)
		}
		if candidate != "none" {
			if !slices.Contains(c.Candidates, candidate) {
				return fmt.Errorf("%w: %s; it offers %s or none", ErrNotCandidate, candidate, strings.Join(c.Candidates, ", "))
			}
			if err := s.linkCase(t, tenant, c, candidate); err != nil {
				return err
			}
		}
		c.Decision = candidate
		return s.close(t, tenant, c, candidate, reason, actor)
	})
	return c, err
}

func (s *Service) close(t tx.Tx, tenant string, c Case, decision, reason, actor string) error {
	c.Decision = decision
	if err := s.store.PutCase(t, tenant, c); err != nil {
		return err
	}
	return s.record(t, tenant,
		&auditv1.Header{Type: auditv1.Type_TYPE_CASE_DECIDED, Actor: actor},
		&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "decide case", Object: c.ID, Reason: reason,
			Details: []*auditv1.Act_Detail{{Name: "candidate", Value: decision}}}}})
}

// linkCase reads which side of the case is the identity: it is the one that
// exists as such.
func (s *Service) linkCase(t tx.Tx, tenant string, c Case, candidate string) error {
	owner, anchor := c.Subject, candidate
	_, err := s.store.Get(t, tenant, owner)
	if errors.Is(err, ErrNotFound) {
		owner, anchor = candidate, c.Subject
		_, err = s.store.Get(t, tenant, owner)
	}
	if err != nil {
		return err
	}
	accounts, err := s.store.Accounts(t, tenant)
	if err != nil {
		return err
	}
	for _, a := range accounts {
		switch {
		case a.Connector != c.Connector:
		case a.Anchor == anchor && a.Identity != owner:
			return fmt.Errorf("%w: it belongs to identity %s by now; decide for none", ErrTaken, a.Identity)
		case a.Anchor != anchor && a.Identity == owner && a.Purpose == c.Purpose:
			return fmt.Errorf("%w: identity %s has a %s account on %s by now; decide for none", ErrTaken, owner, c.Purpose, c.Connector)
		case a.Anchor == anchor:
			return nil
		}
	}
	return s.store.PutAccount(t, tenant, Account{Connector: c.Connector, Anchor: anchor, Identity: owner, Purpose: c.Purpose, Type: c.Type})
}

// called are the attributes by which people name somebody. Any other would make
// the only one of a department answer to its name.
var called = []string{"login", "email", "employee_id"}

// Find returns the one identity with that id, or whose label, login, mail address
// or staff number equals what, without case. Several are ErrAmbiguous: one's login
// may be another's number.
func (s *Service) Find(t tx.Tx, tenant, what string) (Identity, error) {
	all, err := s.store.List(t, tenant, "", 0)
	if err != nil {
		return Identity{}, err
	}
	var found []Identity
	for _, id := range all {
		if id.ID == what {
			return id, nil
		}
		if what != "" && strings.EqualFold(id.Label, what) || hasValue(id, what) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 0:
		return Identity{}, fmt.Errorf("%w: %s", ErrNotFound, what)
	case 1:
		return found[0], nil
	default:
		ids := make([]string, len(found))
		for i, id := range found {
			ids[i] = id.ID
		}
		return Identity{}, fmt.Errorf("%w %q: %s; name one by its id", ErrAmbiguous, what, strings.Join(ids, ", "))
	}
}

func hasValue(id Identity, what string) bool {
	for _, name := range called {
		for _, v := range id.Attributes[name] {
			if strings.EqualFold(v, what) {
				return true
			}
		}
	}
	return false
}

// newID returns 100 random bits in 20 letters: short enough to type, and it says
// nothing of the person.
func newID() string {
	var b [13]byte
	rand.Read(b[:]) //nolint:errcheck // never fails (crypto/rand, since Go 1.24)
	return "id-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))[:20]
}

func (s *Service) record(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) error {
	_, err := s.audit.AppendAct(t, tenant, h, b)
	return err
}
