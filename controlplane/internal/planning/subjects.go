package planning

import (
	"time"

	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	"github.com/reevehq/reeve/controlplane/internal/tx"
)

// subjects returns the tenant's identities as policy sees them, references
// resolved.
func (s *Service) subjects(t tx.Tx, tenant string, asOf time.Time, rule policy.LeaverRule) ([]policy.Subject, error) {
	identities, err := s.IdentityStore.List(t, tenant, "", 0)
	if err != nil {
		return nil, err
	}
	unseen, err := s.unseen(t, tenant, asOf)
	if err != nil {
		return nil, err
	}
	holders := map[[2]string][]string{}
	for _, id := range identities {
		for name, values := range id.Attributes {
			for _, v := range values {
				holders[[2]string{name, v}] = append(holders[[2]string{name, v}], id.ID)
			}
		}
	}
	subjects := make([]policy.Subject, len(identities))
	for i, id := range identities {
		if unseen[id.ID] {
			id.Missing = 0
		}
		subjects[i] = Subject(id, asOf, rule)
		for _, ref := range id.References {
			for _, v := range ref.Values {
				// A reference that fits nobody, or several, refers to nobody.
				if ids := holders[[2]string{ref.Attribute, v}]; len(ids) == 1 {
					subjects[i].Attributes[ref.Name] = append(subjects[i].Attributes[ref.Name], ids[0])
				}
			}
		}
	}
	return subjects, nil
}

// staleAfter is how long a source may go unread before it says nothing any more
// of who is absent from it.
const staleAfter = 7 * 24 * time.Hour

// unseen are the identities of whose absence nothing can be said at a moment: a
// source of theirs is suspended, not confirmed, gone, not read completely or not
// read lately. Their grace must not run out while nobody looks.
func (s *Service) unseen(t tx.Tx, tenant string, asOf time.Time) (map[string]bool, error) {
	connectors, err := s.Inventory.Connectors(t, tenant)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, c := range connectors {
		seen[c.Alias] = c.Source() && counts(c) && c.Header.GetComplete() && c.Header.GetObservedAt().AsTime().Add(staleAfter).After(asOf)
	}
	links, err := s.IdentityStore.Links(t, tenant)
	if err != nil {
		return nil, err
	}
	unseen := map[string]bool{}
	for _, l := range links {
		if !seen[l.Connector] {
			unseen[l.Identity] = true
		}
	}
	return unseen, nil
}

// Subject says at which stage of life an identity is at a moment.
func Subject(id identity.Identity, asOf time.Time, rule policy.LeaverRule) policy.Subject {
	s := policy.Subject{ID: id.ID, Kind: id.Kind, Attributes: map[string][]string{}, State: policy.StateActive, Start: id.Starts, End: id.Ends}
	for name, values := range id.Attributes {
		s.Attributes[name] = values
	}
	switch {
	case !id.Ends.IsZero() && asOf.After(id.Ends):
		s.State, s.LeftAt = policy.StateLeaver, id.Ends
	case id.Missing > 0 && id.Missing >= rule.Snapshots && !asOf.Before(id.MissingSince.Add(rule.Grace)):
		s.State, s.LeftAt = policy.StateLeaver, id.MissingSince
	case asOf.Before(id.Starts):
		s.State = policy.StatePending
	case id.Suspended:
		s.State = policy.StateSuspended
	}
	return s
}
