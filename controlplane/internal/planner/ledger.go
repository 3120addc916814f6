package planner

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Look is what Advance must know of the directory beside the receipt.
type Look struct {
	// Type of the object that was changed; nil treats every attribute as
	// multi-valued and compares octets.
	Type *connectorv1.ObjectType
	// Resolve finds the anchor of the object a link key means, empty when none
	// or several are known for it. Nil resolves nothing.
	Resolve func(key string) string
}

// Advance moves the ledger by one receipt and returns the entries that hold from
// then on, sorted. It changes nothing it is given. Only entries of the receipt's
// connector can change: those of its object, and after a delete also the
// memberships of the object in groups. A caller that holds the ledger elsewhere
// may pass just these.
//
// The rules, which the agent's own leaving follows too:
//
//   - Only results APPLIED and ALREADY count, and only what Before and After of
//     the receipt show: the plan says what was meant, the receipt what happened.
//   - An entry begins at the first write and keeps what was there before. Where
//     others wrote over Reeve's value and Reeve writes again, what the others
//     wrote is what is kept: it is the newest word that is not Reeve's.
//   - An entry ends when what Reeve wrote last is, to the byte, what was there
//     before.
//   - Causes are kept apart as layers. What the MSP causes lies upon what the
//     client causes: its entry's Before is the client's value, and undoing it
//     brings that back. What the client causes takes the MSP's place: the MSP's
//     entry for the item ends, and the client's entry keeps the state from before
//     both.
//   - A membership, or a value of an additive attribute, that stays while its last
//     reason of one cause gives way to one of the other changes its cause (an add
//     that already was so).
//   - Multi-valued attributes are remembered value by value, all else as a whole.
//   - A deleted object takes all its entries with it. If Reeve had not created
//     it, one remains that says it existed.
//
// change may be nil for what an agent does by itself, such as a timed removal.
func Advance(entries []Entry, look Look, change *planv1.Change, receipt *auditv1.Receipt) []Entry {
	w := writer{entries: slices.Clone(entries), look: look, change: change, receipt: receipt, cause: receipt.GetCause()}
	if r := receipt.GetResult(); r == auditv1.Receipt_RESULT_APPLIED || r == auditv1.Receipt_RESULT_ALREADY {
		w.advance()
	}
	slices.SortFunc(w.entries, CompareEntries)
	return w.entries
}

// CompareEntries orders a ledger by connector, anchor, item, attribute, value,
// member and cause.
func CompareEntries(a, b Entry) int {
	return compareEntries(&a, &b)
}

// compareEntries stops at the first difference and copies nothing: ledgers are long.
func compareEntries(a, b *Entry) int {
	if c := strings.Compare(a.Connector, b.Connector); c != 0 {
		return c
	}
	if c := strings.Compare(a.Anchor, b.Anchor); c != 0 {
		return c
	}
	if c := strings.Compare(string(a.Item), string(b.Item)); c != 0 {
		return c
	}
	if c := strings.Compare(a.Attribute, b.Attribute); c != 0 {
		return c
	}
	return cmp.Or(strings.Compare(a.Value, b.Value), strings.Compare(a.Member, b.Member), cmp.Compare(a.Cause, b.Cause))
}

// writer is one receipt on its way into the ledger.
type writer struct {
	entries []Entry
	look    Look
	change  *planv1.Change
	receipt *auditv1.Receipt
	cause   planv1.Cause
}

// written is an item's state before and after a write.
type written struct {
	item             Item
	attribute, value string
	member           string
	pre, post        [][]byte
	place            int
	// asked is true for a value that the change itself names.
	asked    bool
	preName  *connectorv1.Name
	postName *connectorv1.Name
	same     func(a, b [][]byte) bool
}

func (w *writer) advance() {
	before, after := w.receipt.GetBefore(), w.receipt.GetAfter()
	switch w.receipt.GetOperation() {
	case connectorv1.OperationKind_OPERATION_KIND_CREATE:
		if before.GetExists() || !after.GetExists() {
			return
		}
		w.write(written{item: ItemExists, pre: truth(false), post: truth(true), postName: after.GetName()})
		for _, a := range w.change.GetOperation().GetCreate().GetAttributes() {
			w.attribute(&connectorv1.ValueDelta{Attribute: a.GetName()}, nil)
		}
	case connectorv1.OperationKind_OPERATION_KIND_UPDATE:
		for _, d := range w.change.GetOperation().GetUpdate().GetDeltas() {
			w.attribute(d, before)
		}
	case connectorv1.OperationKind_OPERATION_KIND_RENAME, connectorv1.OperationKind_OPERATION_KIND_MOVE:
		w.write(written{
			item: ItemName, preName: before.GetName(), postName: after.GetName(),
			pre: [][]byte{[]byte(before.GetName().Text())}, post: [][]byte{[]byte(after.GetName().Text())},
		})
	case connectorv1.OperationKind_OPERATION_KIND_ENABLE, connectorv1.OperationKind_OPERATION_KIND_DISABLE:
		w.write(written{item: ItemEnabled, pre: enabled(before.GetEnablement()), post: enabled(after.GetEnablement())})
	case connectorv1.OperationKind_OPERATION_KIND_DELETE:
		if before.GetExists() && !after.GetExists() {
			w.gone(before.GetName())
		}
	case connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER, connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER:
		w.write(written{item: ItemMember, member: w.receipt.GetMember(), pre: truth(before.GetMember()), post: truth(after.GetMember())})
	case connectorv1.OperationKind_OPERATION_KIND_SET_CREDENTIAL:
		w.credential(credentialSet)
	case connectorv1.OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL:
		w.credential(credentialRevoked)
	}
}

const (
	credentialSet     = "set"
	credentialRevoked = "revoked"
)

// state is what Reeve did to a credential last.
func (e *Entry) state() string {
	if len(e.Last) == 0 {
		return ""
	}
	return string(e.Last[0])
}

// attribute takes what the receipt shows of one attribute into the ledger. Of a
// multi-valued one only the values that the delta names count; if it names none, or
// references, which may be to objects that the plan made, all that differ.
func (w *writer) attribute(d *connectorv1.ValueDelta, before *auditv1.Touched) {
	name, named := d.GetAttribute(), slices.Concat(d.GetRemove(), d.GetAdd())
	declared := w.look.Type.AttributeType(name)
	rule := declared.GetRule()
	asked := func([]byte) bool { return true }
	pre, post := touchedValues(before, name), touchedValues(w.receipt.GetAfter(), name)
	if rule == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
		pre, post, named = w.references(pre), w.references(post), nil
		asked = func(v []byte) bool {
			return slices.ContainsFunc(d.GetAddRefs(), func(r *connectorv1.ObjectRef) bool { return bytes.Equal(v, anchorValue(r.GetAnchor())) })
		}
	}
	same := func(a, b [][]byte) bool { return connectorv1.SameValues(rule, a, b) }
	if declared != nil && !declared.GetMultiValued() {
		w.write(written{item: ItemAttribute, attribute: declared.GetName(), pre: pre, post: post, same: same, asked: len(post) > 0 && asked(post[0])})
		return
	}
	if declared != nil {
		name = declared.GetName()
	}
	if len(named) == 0 {
		named = slices.Concat(pre, post)
	}
	seen := map[string]bool{}
	for _, v := range named {
		canonical := string(connectorv1.Canonical(rule, v))
		if seen[canonical] {
			continue
		}
		seen[canonical] = true
		if !asked(v) && (len(only(rule, pre, v)) > 0) == (len(only(rule, post, v)) > 0) {
			continue // another change's
		}
		w.write(written{
			item: ItemAttribute, attribute: name, value: canonical,
			pre: only(rule, pre, v), post: only(rule, post, v), same: same, place: place(rule, pre, v), asked: asked(v),
		})
	}
}

// references turns link keys into what the ledger remembers.
func (w *writer) references(keys [][]byte) [][]byte {
	out := make([][]byte, len(keys))
	for i, key := range keys {
		out[i] = key
		if w.look.Resolve == nil {
			continue
		}
		if anchor := w.look.Resolve(string(key)); anchor != "" {
			out[i] = anchorValue(anchor)
		}
	}
	return out
}

func (w *writer) write(x written) {
	if x.same == nil {
		x.same = sameOctets
	}
	own, other := w.find(x, w.cause), w.find(x, otherCause(w.cause))
	client := w.cause == planv1.Cause_CAUSE_CLIENT
	var next Entry
	switch {
	case own >= 0:
		next = w.entries[own]
		// A client's value under one of the MSP's is not overwritten by others as
		// long as the MSP's still shows.
		covered := client && other >= 0 && x.same(x.pre, w.entries[other].Last)
		if !covered && (next.Diverged || !x.same(x.pre, next.Last)) {
			next.Before, next.BeforeName, next.Place = x.pre, x.preName, x.place
		}
	case other >= 0 && (client || w.stays(x, &w.entries[other])):
		// The other cause's reason ends with this write.
		next = w.entries[other]
		if next.Diverged || !x.same(x.pre, next.Last) {
			next.Before, next.BeforeName, next.Place = x.pre, x.preName, x.place
		}
		w.entries = slices.Delete(w.entries, other, other+1)
	case x.same(x.pre, x.post):
		return
	default:
		next = Entry{Before: x.pre, BeforeName: x.preName, Place: x.place}
	}
	next.Last, next.LastName, next.Diverged = x.post, x.postName, false
	w.stamp(&next, x)
	// A member seen under several names may have left one behind.
	drop := sameOctets(next.Before, next.Last) && len(next.Keys) < 2
	switch {
	case own >= 0 && drop:
		w.entries = slices.Delete(w.entries, own, own+1)
	case own >= 0:
		w.entries[own] = next
	case !drop:
		w.entries = append(w.entries, next)
	}
	if client {
		if other = w.find(x, planv1.Cause_CAUSE_MSP); other >= 0 {
			w.entries = slices.Delete(w.entries, other, other+1)
		}
	}
}

// stays reports that the write changes nothing but the reason for what is there.
func (w *writer) stays(x written, other *Entry) bool {
	if x.item == ItemMember {
		return isTrue(x.pre) && isTrue(x.post)
	}
	return x.item == ItemAttribute && x.asked && other.Additive && w.additive(x) && len(x.pre) > 0 && x.same(x.pre, x.post)
}

func (w *writer) additive(x written) bool {
	return x.item == ItemAttribute && slices.ContainsFunc(w.change.GetAdditive(), func(name string) bool { return strings.EqualFold(name, x.attribute) })
}

func (w *writer) credential(state string) {
	x := written{item: ItemCredential}
	i := w.find(x, w.cause)
	if i < 0 {
		i = w.find(x, otherCause(w.cause))
	}
	if i < 0 {
		w.entries = append(w.entries, Entry{})
		i = len(w.entries) - 1
	}
	// What was there before is a secret and unknown: it cannot come back.
	w.entries[i].Last = [][]byte{[]byte(state)}
	w.stamp(&w.entries[i], x)
}

func (w *writer) gone(name *connectorv1.Name) {
	connector, anchor := w.receipt.GetConnector(), w.receipt.GetAnchor()
	created := false
	w.entries = slices.DeleteFunc(w.entries, func(e Entry) bool {
		if e.Connector != connector || e.Anchor != anchor && e.Member != anchor {
			return false
		}
		created = created || e.Item == ItemExists && !isTrue(e.Before)
		return true
	})
	if !created {
		w.write(written{item: ItemExists, pre: truth(true), post: truth(false), preName: name})
	}
}

func (w *writer) find(x written, cause planv1.Cause) int {
	connector, anchor := w.receipt.GetConnector(), w.receipt.GetAnchor()
	return slices.IndexFunc(w.entries, func(e Entry) bool {
		return e.Connector == connector && e.Anchor == anchor && e.Cause == cause && e.Item == x.item &&
			strings.EqualFold(e.Attribute, x.attribute) && e.Value == x.value && e.Member == x.member
	})
}

func (w *writer) stamp(e *Entry, x written) {
	e.Connector, e.Anchor, e.Type = w.receipt.GetConnector(), w.receipt.GetAnchor(), w.receipt.GetType()
	e.Item, e.Attribute, e.Value, e.Member = x.item, x.attribute, x.value, x.member
	e.Cause, e.Change, e.Grant = w.cause, w.receipt.GetChange(), w.receipt.GetGrant()
	e.Additive = w.additive(x)
	e.Identity, e.Rule, e.EndsAt = w.change.GetIdentity(), w.change.GetRule(), time.Time{}
	if w.change.GetEndsAt() != nil {
		e.EndsAt = w.change.GetEndsAt().AsTime()
	}
}

func only(rule connectorv1.MatchingRule, values [][]byte, v []byte) [][]byte {
	want := connectorv1.Canonical(rule, v)
	for _, have := range values {
		if bytes.Equal(connectorv1.Canonical(rule, have), want) {
			return [][]byte{have}
		}
	}
	return nil
}

// place is where a value stands among others, from 1; 0 where it does not.
func place(rule connectorv1.MatchingRule, values [][]byte, v []byte) int {
	want := connectorv1.Canonical(rule, v)
	return 1 + slices.IndexFunc(values, func(have []byte) bool { return bytes.Equal(connectorv1.Canonical(rule, have), want) })
}
