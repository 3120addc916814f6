package planning

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// estate is a tenant's connectors with the objects of their current snapshots,
// and how its policy reads them.
type estate struct {
	connectors []inventory.Connector
	objects    map[string][]*connectorv1.Object
	// program and mapper are nil without a policy.
	program *policy.Program
	mapper  *mapper
	// changeKey names changes.
	changeKey []byte
	// unread are rows of sources that the mapping could not read.
	unread []planner.Finding
}

// observe reads the estate and maps its source rows: the long part of folding,
// which must not keep writers waiting.
func (s *Service) observe(t tx.Tx, tenant string) (estate, error) {
	e := estate{objects: map[string][]*connectorv1.Object{}}
	tn, err := s.Tenants.Lookup(t, tenant)
	if err != nil {
		return e, err
	}
	zone, err := tn.Location()
	if err != nil {
		return e, err
	}
	if e.connectors, err = s.Inventory.Connectors(t, tenant); err != nil {
		return e, err
	}
	for _, c := range e.connectors {
		if e.objects[c.Alias], err = inventory.Objects(t, s.Inventory, c); err != nil {
			return e, err
		}
	}
	if e.program, err = s.program(t, tenant); err != nil || e.program == nil {
		return e, err
	}
	e.mapper = &mapper{program: e.program, zone: zone, rows: map[*connectorv1.Object]mapped{}}
	for _, c := range e.connectors {
		if !c.Source() || !counts(c) {
			continue
		}
		for _, o := range e.objects[c.Alias] {
			e.mapper.rows[o] = e.mapper.read(c.Alias, o)
		}
	}
	return e, nil
}

// program is nil for a tenant without a policy.
func (s *Service) program(t tx.Tx, tenant string) (*policy.Program, error) {
	p, err := s.Policies.Program(t, tenant)
	if errors.Is(err, policystore.ErrUnbound) {
		return nil, nil
	}
	return p, err
}

// counts reports whether what a connector's snapshot says is folded in.
func counts(c inventory.Connector) bool {
	return c.Header != nil && c.Suspended == "" && c.Trusted()
}

// reconcile folds the estate into identities. Without a policy there is no
// mapping, and nothing to fold.
func (s *Service) reconcile(t tx.Tx, tenant string, e *estate) error {
	if e.mapper == nil {
		return nil
	}
	var sources []identity.SourceSnapshot
	var targets []identity.TargetSnapshot
	for _, c := range e.connectors {
		if !counts(c) {
			continue
		}
		if c.Source() {
			sources = append(sources, identity.SourceSnapshot{
				// Absence counts once a whole read: what follows from one by changes
				// looked at nobody else.
				Connector: c.Alias, Snapshot: cmp.Or(c.Whole, c.Header.GetSnapshot()), Complete: c.Header.GetComplete(),
				At: c.Header.GetObservedAt().AsTime(), Objects: e.objects[c.Alias], Same: sameDirectory(e.connectors, c), Rebind: c.Rebind,
			})
			if c.Rebind {
				if err := s.Inventory.SetRebind(t, tenant, c.Alias, false); err != nil {
					return err
				}
			}
			continue
		}
		targets = append(targets, identity.TargetSnapshot{Connector: c.Alias, Types: c.State.GetTypes(), Objects: e.objects[c.Alias]})
	}
	outcome, err := s.Identities.Reconcile(t, tenant, sources, targets, e.mapper)
	if err != nil {
		return err
	}
	for _, alias := range slices.Sorted(maps.Keys(outcome.Suspend)) {
		why := outcome.Suspend[alias]
		if err := s.Inventory.SetSuspended(t, tenant, alias, why); err != nil {
			return err
		}
		if _, err := s.Records.AppendAct(t, tenant,
			&auditv1.Header{Type: auditv1.Type_TYPE_SUSPENDED, Actor: "control-plane"},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "suspend connector", Object: alias, Reason: why}}}); err != nil {
			return err
		}
	}
	for _, p := range outcome.Problems {
		e.unread = append(e.unread, planner.Finding{
			Kind: planner.FindingHeld, Connector: p.Connector, Object: p.Connector, Sentence: "A row is left out and its subject stays as it was: " + p.Said + ".",
		})
	}
	return nil
}

// sameDirectory names the other connectors that reach the directory of c: one that
// is source and target has an alias for each.
func sameDirectory(all []inventory.Connector, c inventory.Connector) []string {
	var same []string
	for _, other := range all {
		if other.Alias != c.Alias && c.Fingerprint != "" && other.Fingerprint == c.Fingerprint {
			same = append(same, other.Alias)
		}
	}
	return same
}

// mapper lets identity read rows by the tenant's policy. Rows that were read
// before are not read again.
type mapper struct {
	program *policy.Program
	zone    *time.Location
	rows    map[*connectorv1.Object]mapped
}

type mapped struct {
	row identity.Row
	ok  bool
	err error
}

// Row implements identity.Mapper.
func (m *mapper) Row(connector string, o *connectorv1.Object) (identity.Row, bool, error) {
	r, known := m.rows[o]
	if !known {
		r = m.read(connector, o)
	}
	return r.row, r.ok, r.err
}

func (m *mapper) read(connector string, o *connectorv1.Object) mapped {
	if !m.program.IsSource(connector, o.GetType()) {
		return mapped{}
	}
	r, err := m.program.Source(connector, o.GetType(), o)
	if err != nil {
		return mapped{err: err}
	}
	row := identity.Row{InScope: r.InScope, Order: r.Order, Kind: r.Kind, Label: label(r), Attributes: r.Attributes, Suspended: !r.Active}
	for _, ref := range r.References {
		row.References = append(row.References, identity.Reference{Name: ref.Name, Attribute: ref.Attribute, Values: ref.Values})
	}
	if !r.Start.IsZero() {
		row.Starts = r.Start.First(m.zone)
	}
	if !r.End.IsZero() {
		row.Ends = r.End.Last(m.zone)
	}
	return mapped{row: row, ok: true}
}

// label picks a name for people from what the mapping gave.
func label(r policy.SourceRow) string {
	for _, names := range [][]string{{"display_name"}, {"given_name", "family_name"}, {"login"}, {"email"}} {
		var parts []string
		for _, n := range names {
			if v := r.Attributes[n]; len(v) > 0 {
				parts = append(parts, v[0])
			}
		}
		if len(parts) == len(names) {
			return strings.Join(parts, " ")
		}
	}
	return r.Key
}

// Matches implements identity.Mapper.
func (m *mapper) Matches() []identity.Match {
	var matches []identity.Match
	for _, c := range m.program.Correlations() {
		match := identity.Match{Connector: c.Connector, Type: c.Type, Purpose: c.Purpose}
		for _, p := range c.Match {
			match.Pairs = append(match.Pairs, identity.Pair{Identity: p.Identity, Object: p.Object})
		}
		matches = append(matches, match)
	}
	return matches
}
