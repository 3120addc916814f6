package planner

import (
	"fmt"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// wanted is one account policy wants, on its way to changes.
type wanted struct {
	*target
	identity string
	link     *Link
}

// accounts plans everything about the accounts themselves. It runs in three
// passes because names and references tie accounts together: who has which
// object, who gets which name, then each account's changes.
func (p *plan) accounts() error {
	byConnector := map[string][]*wanted{}
	for i := range p.in.Desired {
		d := &p.in.Desired[i]
		for j := range d.Accounts {
			a := &d.Accounts[j]
			v := p.views[a.Connector]
			if v == nil {
				p.find(FindingHeld, a.Connector, d.Subject, d.Subject, fmt.Sprintf(
					"Policy wants an account on connector %q, which this tenant does not have; configure it in agent.yaml or change the parameters.", a.Connector))
				continue
			}
			if v.idle() != "" {
				continue
			}
			cause, err := causeOf(a.Cause)
			if err != nil {
				return fmt.Errorf("account of identity %q on %s: %w", d.Subject, a.Connector, err)
			}
			key := targetKey{a.Connector, d.Subject, a.Purpose}
			if p.targets[key] != nil {
				return fmt.Errorf("%w: identity %q has two %s accounts on %s", ErrInput, d.Subject, a.Purpose, a.Connector)
			}
			w := &wanted{identity: d.Subject, link: v.account(d.Subject, a.Purpose),
				target: &target{view: v, typ: a.Type, want: a, cause: cause, name: nameOf(a.Name)}}
			if p.locate(w) {
				byConnector[a.Connector] = append(byConnector[a.Connector], w)
				p.targets[key] = w.target
			}
		}
	}
	for _, alias := range p.aliases {
		list := p.settleNames(p.views[alias], byConnector[alias])
		for _, w := range list {
			p.attributes(w)
		}
		for _, w := range list {
			p.enablement(w)
		}
		p.undesired(p.views[alias])
		p.unasked(p.views[alias])
	}
	return nil
}

// locate finds the account's object and reports whether anything can be planned
// for the account.
func (p *plan) locate(w *wanted) bool {
	v, a := w.view, w.want
	hold := func(kind FindingKind, format string, args ...any) bool {
		p.find(kind, a.Connector, w.label(), w.identity, fmt.Sprintf(format, args...))
		return false
	}
	if w.name == nil {
		return hold(FindingHeld, "Policy gives no usable name for the %s account; a value it is made from is empty or not UTF-8. Correct it in the source.", a.Purpose)
	}
	if w.link == nil {
		return p.creatable(w, hold)
	}
	w.obj = v.anchors[w.link.Anchor]
	switch {
	case w.obj == nil && !v.complete():
		return hold(FindingHeld, "The linked object was not in the last snapshot, which is incomplete; nothing is planned for it until a complete one.")
	case w.obj == nil:
		return hold(FindingDiverged, "The linked object was deleted outside of Reeve and is not made anew; unlink it if policy should create another.")
	case w.obj.GetType() != a.Type:
		return hold(FindingHeld, "The linked object is of type %s where policy wants %s; change the mapping or the link.", w.obj.GetType(), a.Type)
	case v.types[a.Type] == nil:
		return hold(FindingHeld, "The connector does not have the type %s; change the mapping.", a.Type)
	}
	return true
}

// creatable reports whether an account without an object may be created, names
// aside.
func (p *plan) creatable(w *wanted, hold func(FindingKind, string, ...any) bool) bool {
	v, a := w.view, w.want
	if a.Delete || p.leavers[w.identity] || p.suspended[w.identity] {
		return false
	}
	t := v.types[a.Type]
	switch {
	case t == nil:
		return hold(FindingHeld, "The connector does not have the type %s; change the mapping.", a.Type)
	case p.undecided[Undecided{Connector: a.Connector, Identity: w.identity}]:
		return hold(FindingHeld, "The account may be there already: a case is open over whose it is, and none is created before it is decided.")
	case v.conn.Mode != ModeEnforce:
		if v.names.last(w.name.Key(v.conn.CaseRule)) != nil {
			return hold(FindingCollision, "The name is taken by an object that is not linked to this identity; link them by deciding the case, or change the name in the source.")
		}
		return hold(FindingHeld, "The account is missing and is not created before the client sets the connector to enforce.")
	case !v.complete():
		return hold(FindingHeld, "The account is missing from an incomplete snapshot, which does not prove that it does not exist; it is created after a complete one.")
	case !t.Allows(connectorv1.OperationKind_OPERATION_KIND_CREATE):
		return hold(FindingHeld, "The connector cannot create objects of type %s; create it by hand and link it.", a.Type)
	case !a.Enabled && !t.Allows(connectorv1.OperationKind_OPERATION_KIND_ENABLE):
		return hold(FindingHeld, "The connector cannot keep an account of type %s disabled, so it is created on the start date.", a.Type)
	}
	given := map[string]bool{}
	for _, attr := range createAttributes(w.target) {
		given[connectorv1.FoldCase(attr.GetName())] = true
	}
	for _, part := range w.name.Leaf().GetParts() {
		given[connectorv1.FoldCase(part.GetType())] = true
	}
	for _, attr := range t.GetAttributes() {
		if attr.GetRequired() && !given[connectorv1.FoldCase(attr.GetName())] {
			return hold(FindingHeld, "A new account needs a value for %s and policy gives none; map it or fill it in the source.", attr.GetName())
		}
	}
	return true
}

func (w *wanted) label() string {
	switch {
	case w.obj != nil:
		return w.obj.GetName().Text()
	case w.name != nil:
		return w.name.Text()
	default:
		return w.identity
	}
}

func (p *plan) create(w *wanted, dependsOn ...string) {
	attributes := createAttributes(w.target)
	var additive []string
	for _, a := range attributes {
		if len(asks(w.want.Attributes, a.GetName())) > 0 {
			additive = append(additive, a.GetName())
		}
	}
	c := p.add(&planv1.Change{
		Additive: additive, Connector: w.want.Connector, Cause: w.cause, Identity: w.identity, Rule: w.want.Rule, Display: w.name.Text(),
		Operation: &connectorv1.Operation{
			Object: &connectorv1.ObjectRef{Type: w.typ},
			Action: &connectorv1.Operation_Create{Create: &connectorv1.Create{Name: w.name, Attributes: attributes}},
		},
	}, levelCreate, dependsOn...)
	w.target.create = c.GetId()
	p.creations = append(p.creations, Creation{Change: c.GetId(), Connector: w.want.Connector, Identity: w.identity, Purpose: w.want.Purpose})
}

// enablement plans disabling, enabling, credentials and the end of an account.
func (p *plan) enablement(w *wanted) {
	v, a := w.view, w.want
	t := v.types[w.typ]
	hold := func(kind FindingKind, sentence string) {
		p.find(kind, a.Connector, w.label(), w.identity, sentence)
	}
	if w.obj == nil {
		secret := p.setCredential(w, w.target.create)
		if a.Enabled && t.Allows(connectorv1.OperationKind_OPERATION_KIND_ENABLE) {
			p.add(p.of(w.target, w.identity, &connectorv1.Operation{Action: &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}}),
				levelEnable, w.target.create, secret)
		}
		return
	}
	on := w.obj.GetEnablement()
	wrote := v.itemEntry(w.obj.GetAnchor(), ItemEnabled)
	switch {
	case !a.Enabled:
		p.disable(w, hold)
	case on != connectorv1.Enablement_ENABLEMENT_DISABLED:
		p.setCredential(w, "")
	case wrote != nil && (wrote.Diverged || isTrue(wrote.Last)):
		hold(FindingDiverged, "The account was disabled outside of Reeve and stays so; enable it by hand once the reason is gone.")
	case wrote == nil && !v.created(w.obj.GetAnchor()):
		hold(FindingHeld, "The account was disabled before Reeve came and stays so; enable it by hand if it should be used.")
	case !t.Allows(connectorv1.OperationKind_OPERATION_KIND_ENABLE):
		hold(FindingHeld, "The connector cannot enable objects of type "+w.typ+"; enable it by hand.")
	default:
		secret := p.setCredential(w, "")
		c := p.of(w.target, w.identity, &connectorv1.Operation{Action: &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}})
		if wrote != nil && wrote.Cause == planv1.Cause_CAUSE_CLIENT {
			// What the client's cause disabled is given back by it.
			c.Cause = wrote.Cause
		}
		p.add(c, levelEnable, secret)
	}
}

// endCause is whose cause it is that an account's use ends. That somebody left or is
// suspended is a fact about them, whoever wanted the account: were it the MSP's, the
// end of the MSP's service would let them in again.
func (p *plan) endCause(w *wanted) planv1.Cause {
	if p.leavers[w.identity] || p.suspended[w.identity] {
		return planv1.Cause_CAUSE_CLIENT
	}
	return w.cause
}

func (p *plan) disable(w *wanted, hold func(FindingKind, string)) {
	v, t := w.view, w.view.types[w.typ]
	if !v.complete() {
		if w.obj.GetEnablement() == connectorv1.Enablement_ENABLEMENT_ENABLED {
			hold(FindingHeld, "The account should be disabled, and nothing is taken away after an incomplete snapshot; see what its reading left out.")
		}
		return
	}
	switch {
	case w.obj.GetEnablement() == connectorv1.Enablement_ENABLEMENT_DISABLED:
	case !t.Allows(connectorv1.OperationKind_OPERATION_KIND_DISABLE):
		hold(FindingHeld, "The connector cannot disable objects of type "+w.typ+"; memberships and credentials are taken, the object itself is for you to lock.")
	default:
		c := p.of(w.target, w.identity, &connectorv1.Operation{Action: &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}})
		c.Removal, c.Cause = planv1.Removal_REMOVAL_DISABLE, p.endCause(w)
		p.loses(p.add(c, levelTake), w.identity)
	}
	if p.leavers[w.identity] && t.Allows(connectorv1.OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL) {
		if e := v.itemEntry(w.obj.GetAnchor(), ItemCredential); e == nil || e.state() != credentialRevoked {
			c := p.of(w.target, w.identity, &connectorv1.Operation{Action: &connectorv1.Operation_RevokeCredential{
				RevokeCredential: &connectorv1.RevokeCredential{Kind: credentialKind(w.want)},
			}})
			c.Cause = p.endCause(w)
			p.add(c, levelTake)
		}
	}
}

// setCredential gives accounts that Reeve made their secret, once, and again
// after it was revoked. It returns the change's id, empty when there is none.
func (p *plan) setCredential(w *wanted, create string) string {
	if w.want.Credential == nil || !w.view.types[w.typ].Allows(connectorv1.OperationKind_OPERATION_KIND_SET_CREDENTIAL) {
		return ""
	}
	if w.obj != nil {
		e := w.view.itemEntry(w.obj.GetAnchor(), ItemCredential)
		if e == nil && !w.view.created(w.obj.GetAnchor()) || e != nil && e.state() == credentialSet {
			return ""
		}
	}
	return p.add(p.of(w.target, w.identity, &connectorv1.Operation{Action: &connectorv1.Operation_SetCredential{
		SetCredential: &connectorv1.SetCredential{
			Kind: credentialKind(w.want), Recipient: w.want.Credential.Recipient, Length: w.want.Credential.Length,
		},
	}}), levelCredential, create).GetId()
}

func credentialKind(a *policy.Account) string {
	if a.Credential != nil && a.Credential.Kind != "" {
		return a.Credential.Kind
	}
	return "password"
}

// undesired disables accounts that Reeve made and that no policy wants any more:
// the role or the grant that asked for them is gone. Adopted ones are the
// client's and stay.
func (p *plan) undesired(v *view) {
	for _, l := range v.linked {
		anchor, obj := l.Anchor, v.anchors[l.Anchor]
		if obj == nil || p.wants(v, l) || obj.GetEnablement() != connectorv1.Enablement_ENABLEMENT_ENABLED {
			continue
		}
		// A rule that fails for one person must not keep that person's access alive
		// once they left, nor take it while they are there.
		gone := p.unjudged[l.Identity] && (p.leavers[l.Identity] || p.suspended[l.Identity])
		if !gone && (p.unjudged[l.Identity] || !v.created(anchor)) {
			continue
		}
		if !v.complete() || !v.types[obj.GetType()].Allows(connectorv1.OperationKind_OPERATION_KIND_DISABLE) {
			p.find(FindingHeld, v.conn.Alias, obj.GetName().Text(), l.Identity,
				"Nothing asks for this account any more and it cannot be disabled now; disable it by hand or wait for a complete snapshot.")
			continue
		}
		c := p.on(v, obj, &connectorv1.Operation{Action: &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}})
		c.Identity, c.Removal, c.Cause = l.Identity, planv1.Removal_REMOVAL_DISABLE, planv1.Cause_CAUSE_MSP
		c.Reason = "no role or grant asks for the account any more"
		if gone {
			c.Cause, c.Reason = planv1.Cause_CAUSE_CLIENT, "the person has left or is suspended, and policy could not be evaluated for them"
		}
		if e := v.itemEntry(anchor, ItemExists); e != nil {
			c.Cause, c.Rule = e.Cause, e.Rule
		}
		p.loses(p.add(c, levelTake), l.Identity)
	}
}

// wants reports whether policy still names the linked account.
func (p *plan) wants(v *view, l *Link) bool {
	d := p.desired[l.Identity]
	if d == nil {
		return false
	}
	for i := range d.Accounts {
		if d.Accounts[i].Connector == v.conn.Alias && d.Accounts[i].Purpose == l.Purpose {
			return true
		}
	}
	return false
}
