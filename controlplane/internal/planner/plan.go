package planner

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// ErrInput is wrapped when the inputs contradict each other; the message names
// what does. Nothing is planned from such inputs.
var ErrInput = errors.New("inputs of the plan contradict each other")

// Plan returns what is to be done and what is to be known.
//
// It computes what every identity should have on each connector minus what was
// observed there, then folds over the whole: duties kept apart, safety budgets,
// dependency levels, order. With PURPOSE_OFFBOARD it takes back what the ledger
// says and ignores Desired; with PURPOSE_URGENT it returns the part of a
// PURPOSE_CHANGE plan that takes access from leavers and suspended identities.
//
// Inputs need not be sorted; they are not modified. Equal inputs give equal
// output. Errors wrap ErrInput.
func Plan(in Input) (Output, error) {
	p, err := begin(in)
	if err != nil {
		return Output{}, err
	}
	switch p.in.Purpose {
	case planv1.Purpose_PURPOSE_CHANGE, planv1.Purpose_PURPOSE_URGENT:
		err = p.change()
	case planv1.Purpose_PURPOSE_OFFBOARD:
		err = p.offboard()
	default:
		err = fmt.Errorf("%w: purpose %v is not one to plan for", ErrInput, p.in.Purpose)
	}
	if err != nil {
		return Output{}, err
	}
	return p.finish()
}

// plan is one run of Plan.
type plan struct {
	in    Input
	views map[string]*view
	// aliases of views on which something may be planned, sorted.
	aliases      []string
	entitlements map[string]*policy.Entitlement
	leavers      map[string]bool
	suspended    map[string]bool
	unjudged     map[string]bool
	desired      map[string]*policy.Desired
	undecided    map[Undecided]bool
	// managed people, of whom budgets are percentages.
	managed int
	// loud are the identities, and louder the objects of nobody, about which the
	// plan says something.
	loud   map[string]bool
	louder map[object]bool
	// standing is what the plan is a part of; nil when it looks at everything.
	standing *Standing

	changes   map[string]*planv1.Change
	losses    map[string]loss
	findings  []Finding
	creations []Creation
	targets   map[targetKey]*target
	// failed is the first error of add.
	failed error
}

func begin(in Input) (*plan, error) {
	in = sorted(in)
	views, err := viewsOf(&in)
	if err != nil {
		return nil, err
	}
	return start(in, views)
}

// start prepares a plan for the desired states and links that views look at.
func start(in Input, views map[string]*view) (*plan, error) {
	p := &plan{
		in: in, views: views, entitlements: map[string]*policy.Entitlement{},
		leavers: setOf(in.Leavers), suspended: setOf(in.Suspended), unjudged: map[string]bool{},
		desired: make(map[string]*policy.Desired, len(in.Desired)), undecided: map[Undecided]bool{},
		changes: map[string]*planv1.Change{}, losses: map[string]loss{}, targets: make(map[targetKey]*target, len(in.Desired)),
		loud: map[string]bool{}, louder: map[object]bool{},
	}
	for _, u := range in.Unjudged {
		p.unjudged[u.Identity] = true
		p.find(FindingHeld, "", u.Identity, u.Identity, "Policy could not be evaluated and what this identity has stays as it is: "+u.Why+".")
	}
	for _, u := range in.Undecided {
		p.undecided[u] = true
	}
	for _, alias := range keysOf(views) {
		v := views[alias]
		if reason := v.idle(); reason != "" {
			// A source in mode observe is as it should be.
			if v.conn.Source && v.conn.Suspended == "" {
				continue
			}
			p.find(FindingHeld, alias, alias, "", "Nothing is planned on "+alias+": "+reason+".")
			continue
		}
		p.aliases = append(p.aliases, alias)
	}
	for i := range p.in.Entitlements {
		e := &p.in.Entitlements[i]
		if p.entitlements[e.ID] != nil {
			return nil, fmt.Errorf("%w: entitlement %q is given twice", ErrInput, e.ID)
		}
		p.entitlements[e.ID] = e
	}
	for i := range p.in.Desired {
		d := &p.in.Desired[i]
		if p.desired[d.Subject] != nil {
			return nil, fmt.Errorf("%w: desired state of identity %q is given twice", ErrInput, d.Subject)
		}
		p.desired[d.Subject] = d
	}
	managed := map[string]bool{}
	for i := range in.Links {
		managed[in.Links[i].Identity] = true
	}
	p.managed = len(managed)
	return p, nil
}

// viewsOf makes views of the connectors of a sorted input, with links and ledger.
func viewsOf(in *Input) (map[string]*view, error) {
	views := make(map[string]*view, len(in.Connectors))
	for i := range in.Connectors {
		c := &in.Connectors[i]
		if views[c.Alias] != nil {
			return nil, fmt.Errorf("%w: connector %q is given twice", ErrInput, c.Alias)
		}
		views[c.Alias] = newView(c)
	}
	for i := range in.Links {
		l := &in.Links[i]
		v := views[l.Connector]
		if v == nil {
			continue
		}
		if v.links[l.Anchor] != nil {
			return nil, fmt.Errorf("%w: object %q on %s is linked twice", ErrInput, l.Anchor, l.Connector)
		}
		v.links[l.Anchor] = l
		v.of[l.Identity] = append(v.of[l.Identity], l)
		v.linked = append(v.linked, l)
	}
	entries := make([]*Entry, len(in.Ledger))
	for from := 0; from < len(entries); {
		first, to := &in.Ledger[from], from
		for ; to < len(entries) && in.Ledger[to].Anchor == first.Anchor && in.Ledger[to].Connector == first.Connector; to++ {
			entries[to] = &in.Ledger[to]
		}
		if v := views[first.Connector]; v != nil {
			v.remember(first.Anchor, entries[from:to:to])
		}
		from = to
	}
	return views, nil
}

// remember makes the sorted entries those of an object.
func (v *view) remember(anchor string, entries []*Entry) {
	v.entries[anchor] = entries
	delete(v.seating, anchor)
	if slices.ContainsFunc(entries, func(e *Entry) bool { return e.Item == ItemMember }) {
		v.seating[anchor] = true
	}
	if len(entries) == 0 {
		delete(v.entries, anchor)
	}
}

// change plans toward what policy says.
func (p *plan) change() error {
	for _, d := range p.in.Desired {
		for _, sentence := range d.Problems {
			p.find(FindingHeld, "", d.Subject, d.Subject, sentence)
		}
	}
	if err := p.accounts(); err != nil {
		return err
	}
	p.keepDutiesApart()
	if err := p.memberships(); err != nil {
		return err
	}
	p.keepBudgets()
	if p.in.Purpose == planv1.Purpose_PURPOSE_URGENT {
		p.onlyUrgent()
	}
	return nil
}

// onlyUrgent leaves what takes access from people who left or are suspended.
func (p *plan) onlyUrgent() {
	var others []string
	for id, c := range p.changes {
		takes := c.GetOperation().GetDisable() != nil || c.GetOperation().GetRevokeCredential() != nil ||
			c.GetOperation().GetRemoveMember() != nil
		if !takes || !p.leavers[c.GetIdentity()] && !p.suspended[c.GetIdentity()] {
			others = append(others, id)
		}
	}
	for _, id := range p.drop(others) {
		c := p.changes[id]
		p.find(FindingHeld, c.GetConnector(), c.GetDisplay(), c.GetIdentity(),
			"This removal waits for changes that are not urgent; make and approve the whole plan.")
		delete(p.changes, id)
	}
	p.findings = slices.DeleteFunc(p.findings, func(f Finding) bool {
		return !p.leavers[f.Identity] && !p.suspended[f.Identity]
	})
	p.creations = nil
}

// drop takes changes out of the plan and returns, still in it, those that
// depend on them, for the caller to explain and delete.
func (p *plan) drop(ids []string) []string {
	gone := map[string]bool{}
	for _, id := range ids {
		gone[id] = true
		delete(p.changes, id)
	}
	var dependents []string
	for grew := true; grew; {
		grew = false
		for id, c := range p.changes {
			if !gone[id] && slices.ContainsFunc(c.GetDependsOn(), func(d string) bool { return gone[d] }) {
				gone[id], grew = true, true
				dependents = append(dependents, id)
			}
		}
	}
	slices.Sort(dependents)
	return dependents
}

// finish gives levels and order.
func (p *plan) finish() (Output, error) {
	if p.failed != nil {
		return Output{}, p.failed
	}
	if err := p.raiseLevels(); err != nil {
		return Output{}, err
	}
	byAgent := map[string]*AgentChanges{}
	for _, id := range keysOf(p.changes) {
		c := p.changes[id]
		agent := p.views[c.GetConnector()].conn.Agent
		if byAgent[agent] == nil {
			byAgent[agent] = &AgentChanges{Agent: agent}
		}
		a := byAgent[agent]
		a.Changes = append(a.Changes, c)
		if !slices.Contains(a.Connectors, c.GetConnector()) {
			a.Connectors = append(a.Connectors, c.GetConnector())
		}
	}
	var out Output
	for _, agent := range keysOf(byAgent) {
		a := byAgent[agent]
		slices.Sort(a.Connectors)
		slices.SortFunc(a.Changes, func(x, y *planv1.Change) int {
			return cmp.Or(cmp.Compare(x.GetLevel(), y.GetLevel()), strings.Compare(x.GetId(), y.GetId()))
		})
		out.Agents = append(out.Agents, *a)
	}
	slices.SortFunc(p.findings, func(a, b Finding) int {
		return cmp.Or(strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.Connector, b.Connector),
			strings.Compare(a.Object, b.Object), strings.Compare(a.Identity, b.Identity), strings.Compare(a.Sentence, b.Sentence))
	})
	out.Findings = slices.Compact(p.findings)
	for _, c := range p.creations {
		if p.changes[c.Change] != nil {
			out.Creations = append(out.Creations, c)
		}
	}
	slices.SortFunc(out.Creations, func(a, b Creation) int { return strings.Compare(a.Change, b.Change) })
	return out, nil
}

// raiseLevels puts every change above those it depends on.
func (p *plan) raiseLevels() error {
	const open, done = 1, 2
	state := map[string]int{}
	var raise func(id string) (uint32, error)
	raise = func(id string) (uint32, error) {
		c := p.changes[id]
		switch state[id] {
		case done:
			return c.GetLevel(), nil
		case open:
			return 0, fmt.Errorf("%w: change %s depends on itself", ErrInput, id)
		}
		state[id] = open
		for _, d := range c.GetDependsOn() {
			if p.changes[d] == nil {
				return 0, fmt.Errorf("%w: change %s depends on %s, which is not in the plan", ErrInput, id, d)
			}
			level, err := raise(d)
			if err != nil {
				return 0, err
			}
			c.Level = max(c.Level, level+1)
		}
		state[id] = done
		return c.Level, nil
	}
	for _, id := range keysOf(p.changes) {
		if _, err := raise(id); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) find(kind FindingKind, connector, object, identity, sentence string) {
	p.loud[identity] = true
	p.findings = append(p.findings, Finding{Kind: kind, Connector: connector, Object: object, Identity: identity, Sentence: sentence})
}

// loudly notes that something is said of an object that nobody may own.
func (p *plan) loudly(v *view, anchor string) { p.louder[object{v.conn.Alias, anchor}] = true }

func setOf(list []string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, s := range list {
		set[s] = true
	}
	return set
}

func keysOf[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
