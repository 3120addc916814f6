package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
)

// Desired says what the subject should have at asOf.
//
// It is pure: equal subjects, grants (in any order) and times give equal
// results, so callers may cache by a digest of the inputs. An error means that
// nothing is known about what the subject should have: a plan must then leave
// the subject alone and say so. Errors wrap ErrEvaluation or ErrCost.
//
// A pending or suspended subject keeps accounts and entitlements with the
// accounts disabled; a leaver's accounts are disabled, hold nothing, and are
// marked for deletion when the retention has passed.
func (p *Program) Desired(s Subject, grants []Grant, asOf time.Time) (Desired, error) {
	return p.judge(s, grants, asOf, nil)
}

// judge is Desired with what is known of conditions already; nil is nothing.
func (p *Program) judge(s Subject, grants []Grant, asOf time.Time, known *verdicts) (Desired, error) {
	d, err := p.desired(s, grants, asOf, known)
	if err != nil {
		return Desired{}, fmt.Errorf("identity %s: %w", printable(s.ID), err)
	}
	return d, nil
}

func (p *Program) desired(s Subject, grants []Grant, asOf time.Time, known *verdicts) (Desired, error) {
	if err := s.check(); err != nil {
		return Desired{}, err
	}
	vars := &variables{
		subject: &attributesVal{typ: identityType, values: s.Attributes},
		id:      types.String(s.ID), kind: types.String(s.Kind), state: types.String(s.State), msp: types.Bool(s.MSP),
		params: p.params,
	}
	draft := draft{program: p, subject: s, asOf: asOf, vars: vars, known: known}
	if known != nil {
		clear(known.now)
	}
	if err := draft.grants(grants); err != nil {
		return Desired{}, err
	}
	var err error
	if s.MSP {
		err = draft.msp()
	} else {
		err = draft.roles()
	}
	if err != nil {
		return Desired{}, err
	}
	return draft.finish(), nil
}

// check holds a subject to the bounds that rules' costs are reckoned with.
func (s Subject) check() error {
	if !slices.Contains(states, string(s.State)) {
		return fmt.Errorf("%w: %q is not a state", ErrEvaluation, printable(string(s.State)))
	}
	if len(s.ID) > maxValue || len(s.Kind) > maxValue {
		return fmt.Errorf("%w: its id or kind is longer than %d bytes", ErrEvaluation, maxValue)
	}
	if len(s.Attributes) > maxAttributes {
		return fmt.Errorf("%w: it has %d attributes; at most %d are allowed", ErrEvaluation, len(s.Attributes), maxAttributes)
	}
	for name, values := range s.Attributes {
		if len(values) > maxValues {
			return fmt.Errorf("%w: attribute %s has %d values; at most %d are allowed", ErrEvaluation, printable(name), len(values), maxValues)
		}
		for _, v := range values {
			if len(v) > maxValue {
				return fmt.Errorf("%w: attribute %s has a value of %d bytes; at most %d are allowed", ErrEvaluation, printable(name), len(v), maxValue)
			}
		}
	}
	return nil
}

// RuleGrant stands for a rule where a grant and not a role is the reason.
const RuleGrant = "grant"

// place is where an account is: one a connector and purpose.
type place struct{ connector, purpose string }

// draft gathers what one subject should have.
type draft struct {
	program  *Program
	subject  Subject
	asOf     time.Time
	vars     *variables
	accounts []Account
	entitled []Entitled
	problems []string
	// granted places and when the last grant there ends; zero is open.
	granted map[place]grantedUntil
	known   *verdicts
}

type grantedUntil struct {
	active bool
	last   time.Time
}

// grants takes the entitlements of grants that count at asOf, and notes where
// grants have started, which is where an MSP identity has accounts.
func (d *draft) grants(grants []Grant) error {
	if len(grants) == 0 {
		return nil
	}
	d.granted = map[place]grantedUntil{}
	sorted := slices.SortedFunc(slices.Values(grants), func(a, b Grant) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Entitlement, b.Entitlement), a.Start.Compare(b.Start), a.End.Compare(b.End))
	})
	for _, g := range sorted {
		ended := !g.End.IsZero() && !d.asOf.Before(g.End)
		e := d.program.byID[g.Entitlement]
		switch {
		case e == nil && ended:
			// A bundle may drop an entitlement once nobody holds it any more.
			continue
		case e == nil:
			return fmt.Errorf("%w: grant %s gives entitlement %q, which bundle %s does not have; revoke the grant or bind a bundle that has it",
				ErrEvaluation, printable(g.ID), printable(g.Entitlement), d.program.Name())
		case d.asOf.Before(g.Start):
			continue
		}
		if !ended {
			if refusal := refuses(e, g); refusal != "" {
				d.problems = append(d.problems, fmt.Sprintf("grant %s of %s does not count: %s", printable(g.ID), e.ID, refusal))
				continue
			}
		}
		at := place{e.Connector, e.Purpose}
		until, before := d.granted[at]
		switch {
		case !before:
			until.last = g.End
		case g.End.IsZero() || until.last.IsZero():
			until.last = time.Time{}
		case g.End.After(until.last):
			until.last = g.End
		}
		until.active = until.active || !ended
		d.granted[at] = until
		if !ended {
			cause := g.Cause
			if d.subject.MSP {
				// The MSP's people leave with the MSP, whoever asked for them.
				cause = "msp"
			}
			d.entitled = append(d.entitled, Entitled{
				Entitlement: e.ID, Connector: e.Connector, Purpose: e.Purpose, Cause: cause,
				Rule: RuleGrant, Grant: g.ID, Reason: g.Reason, Ticket: g.Ticket, End: g.End,
			})
		}
	}
	return nil
}

// refuses says why policy does not let the grant count, "" when it does.
func refuses(e *Entitlement, g Grant) string {
	switch {
	case e.RequireEnd && g.End.IsZero():
		return "the entitlement requires an end; give a grant with one"
	case e.MaxGrant > 0 && g.End.IsZero():
		return fmt.Sprintf("the longest grant is %s and it has no end; give a grant with one", e.MaxGrant)
	case e.MaxGrant > 0 && g.End.Sub(g.Start) > e.MaxGrant:
		return fmt.Sprintf("it lasts longer than %s; give a shorter grant", e.MaxGrant)
	}
	return ""
}

func (d *draft) roles() error {
	for i := range d.program.roles {
		role := &d.program.roles[i]
		holds, err := d.holds(role)
		if err != nil {
			return err
		}
		if !holds {
			continue
		}
		for j := range role.accounts {
			if err := d.account(&role.accounts[j]); err != nil {
				return err
			}
		}
		for _, id := range role.entitlements {
			e := d.program.byID[id]
			d.entitled = append(d.entitled, Entitled{Entitlement: id, Connector: e.Connector, Purpose: e.Purpose, Cause: role.cause, Rule: role.rule})
		}
	}
	return nil
}

// msp gives an MSP identity its accounts where grants of it have started. An
// ended grant keeps the account, disabled, until retention has passed.
func (d *draft) msp() error {
	for i := range d.program.msp {
		rule := &d.program.msp[i]
		until, has := d.granted[place{rule.Connector, rule.Purpose}]
		if !has {
			continue
		}
		before := len(d.accounts)
		if err := d.account(rule); err != nil {
			return err
		}
		if len(d.accounts) > before && !until.active {
			a := &d.accounts[before]
			a.Enabled = false
			retention := d.program.bundle.MSP.Retention
			a.Delete = retention > 0 && !d.asOf.Before(until.last.Add(retention))
		}
	}
	return nil
}

// account evaluates one account rule and adds it, or joins it with what another
// role says of the same account.
func (d *draft) account(rule *accountProgram) error {
	fits, err := d.program.truth(rule.when, d.vars)
	if err != nil || !fits {
		return err
	}
	out, err := rule.name.eval(d.vars, d.program.allowance)
	if err != nil {
		return err
	}
	a := Account{
		Connector: rule.Connector, Purpose: rule.Purpose, Type: rule.Type, Name: out.(nameVal),
		Enabled: true, Cause: rule.cause, Rule: rule.rule,
	}
	if rule.Credential != nil {
		c := *rule.Credential
		a.Credential = &c
	}
	if len(a.Name) == 0 {
		return fmt.Errorf("%s: rule %s: %w: the account's name is empty; give it a component of its own", rule.At, rule.rule, ErrEvaluation)
	}
	for i := range rule.attributes {
		attribute := &rule.attributes[i]
		wanted, set, err := d.attribute(attribute)
		if err != nil {
			return err
		}
		if set {
			a.Attributes = append(a.Attributes, wanted)
		}
	}
	slices.SortFunc(a.Attributes, byAttribute)
	for i := range d.accounts {
		if d.accounts[i].Connector == a.Connector && d.accounts[i].Purpose == a.Purpose {
			return join(&d.accounts[i], a)
		}
	}
	d.accounts = append(d.accounts, a)
	return nil
}

func (d *draft) attribute(rule *attributeProgram) (DesiredAttribute, bool, error) {
	wanted := DesiredAttribute{Name: rule.name, Authority: rule.authority}
	fits, err := d.program.truth(rule.when, d.vars)
	if err != nil || !fits {
		return wanted, false, err
	}
	if rule.value == nil { // observed
		return wanted, true, nil
	}
	values, set, err := d.program.texts(rule.value, d.vars)
	if rule.reference {
		wanted.Refs = values
	} else {
		wanted.Values = values
	}
	return wanted, set, err
}

func byAttribute(a, b DesiredAttribute) int {
	return cmp.Or(strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)), strings.Compare(a.Name, b.Name), strings.Compare(a.Cause, b.Cause))
}

// finish applies the state and settles the order of everything.
func (d *draft) finish() Desired {
	s := d.subject
	retention := d.program.rules.Leaver.Retention
	for i := range d.accounts {
		a := &d.accounts[i]
		if s.State != StateActive {
			a.Enabled = false
		}
		if s.State == StateLeaver && retention > 0 && !s.LeftAt.IsZero() && !d.asOf.Before(s.LeftAt.Add(retention)) {
			a.Delete = true
		}
	}
	slices.SortFunc(d.accounts, func(a, b Account) int {
		return cmp.Or(strings.Compare(a.Connector, b.Connector), strings.Compare(a.Purpose, b.Purpose))
	})
	out := Desired{Subject: s.ID, Accounts: d.accounts}
	if s.State != StateLeaver {
		out.Entitlements = d.entitlements()
	}
	slices.Sort(d.problems)
	out.Problems = slices.Compact(d.problems)
	return out
}
