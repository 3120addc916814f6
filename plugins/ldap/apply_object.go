package ldap

import (
	"context"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// create adds an entry, disabled if the settings know how.
func (b *batch) create(ctx context.Context, t *objectType, op *connectorv1.Operation) *connectorv1.ApplyResult {
	object := op.GetCreate().GetName().Text()
	request := ldap.NewAddRequest(object, nil)
	values, p := b.newValues(ctx, t, op)
	if p != nil {
		return sdk.Refused(op, p)
	}
	for _, a := range values {
		request.Attribute(a.name, a.values)
	}
	err := b.do(ctx, &b.writing, func(s *session) error { return s.conn.Add(request) })
	if resultCode(err) != ldap.LDAPResultEntryAlreadyExists {
		return b.result(op, object, err)
	}
	// Ours from an attempt whose answer was lost, or somebody else's.
	entry, readErr := b.lookup(ctx, &b.writing, object, t.everything(b.Instance))
	if readErr == nil && entry != nil && b.sameAsNew(t, entry, values) {
		return sdk.Done(op)
	}
	return b.result(op, object, err)
}

// newValue is one attribute of an entry to add.
type newValue struct {
	name   string
	values []string
}

func (b *batch) newValues(ctx context.Context, t *objectType, op *connectorv1.Operation) ([]newValue, *sdk.Problem) {
	c := op.GetCreate()
	classes := slices.Clone(t.classes)
	var out []newValue
	for _, a := range c.GetAttributes() {
		declared := t.byName[strings.ToLower(a.GetName())]
		if declared == nil || declared.GetSecret() || declared.GetReadOnly() {
			return nil, sdk.NewProblem(sdk.CodeReadOnly, c.GetName().Text(), "write "+a.GetName(), "leave it out of the mapping: it is not declared as writable")
		}
		values, p := b.rawValues(ctx, declared, a.GetValues())
		if p != nil {
			return nil, p
		}
		if strings.EqualFold(a.GetName(), "objectClass") {
			for _, v := range values {
				if !slices.ContainsFunc(classes, func(have string) bool { return strings.EqualFold(have, v) }) {
					classes = append(classes, v)
				}
			}
			continue
		}
		out = append(out, newValue{a.GetName(), values})
	}
	for _, p := range c.GetName().Leaf().GetParts() {
		out = withNamePart(t, out, p)
	}
	if t.kind == connectorv1.Kind_KIND_ACCOUNT {
		switch d := b.settings.Disable; d.Method {
		case DisablePPolicy:
			out = append(out, newValue{lockAttribute, []string{lockedForever}})
		case DisableAttribute:
			out = append(out, newValue{d.Attribute.Name, []string{d.Attribute.Disabled}})
		}
	}
	members, p := b.newMembers(t, op)
	if p != nil {
		return nil, p
	}
	if len(members) > 0 {
		out = append(out, newValue{t.member, members})
	}
	return append([]newValue{{"objectClass", classes}}, out...), nil
}

// withNamePart adds a value of the RDN, which the entry must hold (RFC 4511
// 4.7), unless it is among the values already.
func withNamePart(t *objectType, values []newValue, p *connectorv1.Part) []newValue {
	rule := caseIgnore
	if declared := t.byName[strings.ToLower(p.GetType())]; declared != nil {
		rule = declared.GetRule()
	}
	for n, v := range values {
		if !strings.EqualFold(v.name, p.GetType()) {
			continue
		}
		if !connectorv1.HasValue(rule, toBytes(v.values), []byte(p.GetValue())) {
			values[n].values = append(v.values, p.GetValue())
		}
		return values
	}
	return append(values, newValue{p.GetType(), []string{p.GetValue()}})
}

// sameAsNew reports whether the entry holds exactly what a create was to write.
func (b *batch) sameAsNew(t *objectType, e *ldap.Entry, wanted []newValue) bool {
	known := map[string]bool{}
	for _, w := range wanted {
		key := strings.ToLower(w.name)
		known[key] = true
		if b.marksDisabled(key) {
			continue // whether it was enabled since is not part of the create
		}
		rule := caseIgnore
		if declared := t.byName[key]; declared != nil {
			rule = declared.GetRule()
		}
		have, want := e.GetEqualFoldRawAttributeValues(w.name), toBytes(w.values)
		switch {
		case key == strings.ToLower(t.member) && t.memberKey == dnKeyPrefix, rule == reference:
			have, want, rule = dnKeys(have), dnKeys(want), exact
		case key == "objectclass":
			// A server may add the classes above those given.
			for _, class := range w.values {
				if !hasClass(e, class) {
					return false
				}
			}
			continue
		}
		if !connectorv1.SameValues(rule, have, want) {
			return false
		}
	}
	for _, a := range e.Attributes {
		if key := strings.ToLower(a.Name); t.byName[key] != nil && !known[key] && len(a.ByteValues) > 0 {
			return false
		}
	}
	return true
}

// marksDisabled reports whether an attribute, in lower case, is the one by which
// accounts are disabled.
func (b *batch) marksDisabled(key string) bool {
	d := b.settings.Disable
	return d.Method == DisablePPolicy && key == strings.ToLower(lockAttribute) || d.Method == DisableAttribute && key == strings.ToLower(d.Attribute.Name)
}

func dnKeys(values [][]byte) [][]byte {
	out := make([][]byte, len(values))
	for n, v := range values {
		out[n] = v
		if dn, err := parseDN(string(v)); err == nil {
			out[n] = []byte(dnKey(dn))
		}
	}
	return out
}

func toBytes(values []string) [][]byte {
	out := make([][]byte, len(values))
	for n, v := range values {
		out[n] = []byte(v)
	}
	return out
}

func toStrings(values [][]byte) []string {
	out := make([]string, len(values))
	for n, v := range values {
		out[n] = string(v)
	}
	return out
}

// rawValues are the values as the directory stores them: of references, DNs for
// link keys, written as their entry writes itself.
func (b *batch) rawValues(ctx context.Context, a *connectorv1.AttributeType, values [][]byte) ([]string, *sdk.Problem) {
	out := toStrings(values)
	if a.GetRule() != reference {
		return out, nil
	}
	for n, v := range out {
		dn, isKey := strings.CutPrefix(v, dnKeyPrefix)
		if _, err := parseDN(dn); !isKey || err != nil {
			return nil, sdk.NewProblem(sdk.CodeInvalidValue, a.GetName(), "write a reference", "give a link key of the form dn:…, or a reference to an object")
		}
		out[n] = dn
		entry, err := b.lookup(ctx, &b.writing, dn, nil)
		if err == nil && entry != nil {
			out[n] = entry.DN
		}
	}
	return out, nil
}

// rename changes the entry's RDN. The old RDN's values go, the new ones come.
func (b *batch) rename(ctx context.Context, t *target) error {
	dn, err := parseDN(t.entry.DN)
	if err != nil {
		return b.unreadable(t.entry.DN, "its name cannot be parsed")
	}
	to := t.op.GetRename().GetTo()
	if len(to.GetParts()) == 0 {
		return sdk.NewProblem(sdk.CodeInvalidValue, displayDN(t.entry.DN), "rename", "give a name")
	}
	if sameLeaf(dn, to) {
		return nil
	}
	return b.modifyDN(ctx, t, to.Text(), true, "")
}

// sameLeaf compares to the letter, since a rename may change nothing but case.
func sameLeaf(dn []rdn, c *connectorv1.Component) bool {
	const letter = connectorv1.CaseRule_CASE_RULE_EXACT
	return name(dn).Leaf().Key(letter) == c.Key(letter)
}

// move keeps the RDN and puts the entry below another one.
func (b *batch) move(ctx context.Context, t *target) error {
	leaf, parent := splitRDN(t.entry.DN)
	above, err := parseDN(parent)
	if err != nil {
		return b.unreadable(t.entry.DN, "its name cannot be parsed")
	}
	to := &connectorv1.Name{Components: t.op.GetMove().GetTo()}
	if dnKey(above) == dnKey(parsed(to)) {
		return nil
	}
	err = b.modifyDN(ctx, t, leaf, false, to.Text())
	if resultCode(err) == ldap.LDAPResultNoSuchObject {
		if parent, readErr := b.lookup(ctx, &b.writing, to.Text(), nil); readErr == nil && parent == nil {
			return b.problem(err, to.Text(), "move "+displayDN(t.entry.DN)+" below it")
		}
	}
	return err
}

// modifyDN gives the entry another name. Servers take along what lies below it
// (RFC 4511 4.9); the agent has judged this one object, so nothing may.
func (b *batch) modifyDN(ctx context.Context, t *target, rdn string, deleteOld bool, superior string) error {
	if err := b.nothingBelow(ctx, t.entry.DN); err != nil {
		return err
	}
	return b.do(ctx, &b.writing, func(s *session) error {
		return s.conn.ModifyDN(ldap.NewModifyDNWithControlsRequest(t.entry.DN, rdn, deleteOld, superior, t.controls(s.server)))
	})
}

func (b *batch) nothingBelow(ctx context.Context, dn string) error {
	var found int
	err := b.ask(ctx, &b.writing, func(s *session) error {
		result, err := s.conn.Search(ldap.NewSearchRequest(dn, ldap.ScopeSingleLevel, ldap.NeverDerefAliases, 1, 0, false, anyObject, []string{noAttributes}, nil))
		if result != nil {
			found = len(result.Entries) + len(result.Referrals)
		}
		if resultCode(err) == ldap.LDAPResultSizeLimitExceeded {
			found, err = 1, nil
		}
		return err
	})
	switch {
	case err != nil:
		return b.problem(err, displayDN(dn), "see whether anything lies below it")
	case found > 0:
		return sdk.NewProblem(sdk.CodeNotAllowed, displayDN(dn), "give it another name",
			"move or delete the entries below it first: they would go with it, and nobody has judged them")
	}
	return nil
}

// remove deletes the entry. That it is gone already is done (see asserted).
func (b *batch) remove(ctx context.Context, t *target) error {
	return b.do(ctx, &b.writing, func(s *session) error {
		return s.conn.Del(ldap.NewDelRequest(t.entry.DN, t.controls(s.server)))
	})
}

// setEnablement does enable and disable by the configured method.
func (b *batch) setEnablement(ctx context.Context, t *target) error {
	disable := t.op.GetDisable() != nil
	if isDisabled := b.enablement(t.entry.GetEqualFoldAttributeValues) == connectorv1.Enablement_ENABLEMENT_DISABLED; isDisabled == disable {
		return nil
	}
	var changes []ldap.Change
	if b.settings.Disable.Method == DisablePPolicy {
		// A lock by failed binds gives way to the administrator's.
		for _, v := range t.entry.GetEqualFoldAttributeValues(lockAttribute) {
			changes = append(changes, change(ldap.DeleteAttribute, lockAttribute, v))
		}
		if disable {
			changes = append(changes, change(ldap.AddAttribute, lockAttribute, lockedForever))
		}
		return b.modify(ctx, t, changes)
	}
	d := b.settings.Disable.Attribute
	declared := t.t.byName[strings.ToLower(d.Name)]
	to, from := d.Enabled, d.Disabled
	if disable {
		to, from = d.Disabled, d.Enabled
	}
	if to != "" && !slices.ContainsFunc(t.entry.GetEqualFoldAttributeValues(d.Name), func(v string) bool { return sameText(v, to) }) {
		changes = append(changes, change(ldap.AddAttribute, d.Name, to))
	}
	for _, v := range t.entry.GetEqualFoldAttributeValues(d.Name) {
		// An attribute of one value holds only the mark; of several, only the
		// mark is ours.
		if sameText(v, from) || !declared.GetMultiValued() {
			changes = append(changes, change(ldap.DeleteAttribute, d.Name, v))
		}
	}
	err := b.modify(ctx, t, changes)
	if resultCode(err) == ldap.LDAPResultConstraintViolation && !declared.GetMultiValued() && len(changes) > 1 {
		slices.Reverse(changes) // one value at a time, for servers that look at each step
		err = b.modify(ctx, t, changes)
	}
	return err
}
