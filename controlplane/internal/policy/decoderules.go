package policy

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

var kinds = []string{"human", "service", "workload", "ai_agent"}
var purposes = []string{"normal", "admin", "test"}
var causes = []string{"client", "msp"}

func (d *decoder) source(n *yaml.Node) Source {
	s := Source{At: d.at(n), Kind: "human"}
	d.mapping(n, d.called("source", n, "connector", "type"), map[string]field{
		"connector": d.identifier(&s.Connector, identifier),
		"type":      d.text(&s.Type),
		"kind":      d.word(&s.Kind, kinds...),
		"filter":    d.expr(&s.Filter),
		"start":     d.expr(&s.Start),
		"end":       d.expr(&s.End),
		"active":    d.expr(&s.Active),
		"attributes": func(v *yaml.Node, object string) {
			d.pairs(v, object, func(key, value *yaml.Node) {
				var m Mapping
				d.identifier(&m.Name, attributeName)(key, object)
				d.expr(&m.Value)(value, object)
				s.Attributes = append(s.Attributes, m)
			})
		},
		"references": func(v *yaml.Node, object string) {
			d.pairs(v, object, func(key, value *yaml.Node) {
				var r ReferenceMapping
				d.identifier(&r.Name, attributeName)(key, object)
				d.mapping(value, object, map[string]field{
					"value":     d.expr(&r.Value),
					"attribute": d.identifier(&r.Attribute, attributeName),
				}, "value", "attribute")
				s.References = append(s.References, r)
			})
		},
	}, "connector", "type", "attributes")
	slices.SortFunc(s.Attributes, func(a, b Mapping) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.References, func(a, b ReferenceMapping) int { return strings.Compare(a.Name, b.Name) })
	return s
}

func (d *decoder) correlation(n *yaml.Node) Correlation {
	c := Correlation{At: d.at(n), Purpose: "normal"}
	d.mapping(n, d.called("correlate", n, "connector", "type"), map[string]field{
		"connector": d.identifier(&c.Connector, identifier),
		"type":      d.text(&c.Type),
		"purpose":   d.word(&c.Purpose, purposes...),
		"match": func(v *yaml.Node, object string) {
			d.sequence(v, object, func(item *yaml.Node) {
				var m Match
				d.mapping(item, object, map[string]field{
					"identity": d.identifier(&m.Identity, attributeName),
					"object":   d.text(&m.Object),
				}, "identity", "object")
				c.Match = append(c.Match, m)
			})
			if len(v.Content) == 0 {
				d.add(d.at(v), object, "no match is given", "say which identity attribute equals which object attribute")
			}
		},
	}, "connector", "type", "match")
	return c
}

func (d *decoder) entitlement(n *yaml.Node) EntitlementRule {
	e := EntitlementRule{At: d.at(n)}
	e.Purpose = "normal"
	authority := string(Additive)
	object := d.called("entitlement", n, "id")
	d.mapping(n, object, map[string]field{
		"id":          d.text(&e.ID),
		"connector":   d.identifier(&e.Connector, identifier),
		"purpose":     d.word(&e.Purpose, purposes...),
		"type":        d.text(&e.Type),
		"name":        d.expr(&e.NameExpr),
		"authority":   d.word(&authority, string(Additive), string(Authoritative)),
		"privileged":  d.truth(&e.Privileged),
		"environment": d.text(&e.Environment),
		"sensitivity": d.text(&e.Sensitivity),
		"owner":       d.text(&e.Owner),
		"require_end": d.truth(&e.RequireEnd),
		"max_grant":   d.duration(&e.MaxGrant),
		"description": d.text(&e.Description),
	}, "id", "connector", "type", "name")
	e.Authority = Authority(authority)
	application, name, ok := strings.Cut(e.ID, "/")
	if e.ID != "" && (!ok || !identifier.MatchString(application) || !identifier.MatchString(name)) {
		d.add(d.at(n), object, "an entitlement's id is <application>/<name>", "write it like files/admins")
	}
	e.Application = application
	return e
}

func (d *decoder) role(n *yaml.Node) Role {
	r := Role{At: d.at(n), Cause: "client"}
	d.mapping(n, d.called("role", n, "id"), map[string]field{
		"id":       d.identifier(&r.ID, identifier),
		"when":     d.expr(&r.When),
		"cause":    d.word(&r.Cause, causes...),
		"accounts": d.accounts(&r.Accounts),
		"entitlements": func(v *yaml.Node, object string) {
			d.sequence(v, object, func(item *yaml.Node) {
				use := EntitlementUse{At: d.at(item)}
				d.text(&use.ID)(item, object)
				r.Entitlements = append(r.Entitlements, use)
			})
		},
		"description": d.text(&r.Description),
	}, "id", "when")
	return r
}

func (d *decoder) accounts(into *[]AccountRule) field {
	return func(n *yaml.Node, object string) {
		d.sequence(n, object, func(item *yaml.Node) { *into = append(*into, d.account(item, object)) })
	}
}

func (d *decoder) account(n *yaml.Node, owner string) AccountRule {
	a := AccountRule{At: d.at(n), Purpose: "normal"}
	d.mapping(n, owner+": "+d.called("account", n, "connector", "purpose"), map[string]field{
		"connector": d.identifier(&a.Connector, identifier),
		"purpose":   d.word(&a.Purpose, purposes...),
		"type":      d.text(&a.Type),
		"when":      d.expr(&a.When),
		"name":      d.expr(&a.Name),
		"attributes": func(v *yaml.Node, object string) {
			d.sequence(v, object, func(item *yaml.Node) { a.Attributes = append(a.Attributes, d.attribute(item, object)) })
		},
		"credential": func(v *yaml.Node, object string) {
			c, length := Credential{Kind: "password"}, 0
			d.mapping(v, object, map[string]field{
				"kind":      d.word(&c.Kind, "password"),
				"recipient": d.text(&c.Recipient),
				"length":    d.number(&length, 12, 256),
			}, "recipient")
			c.Length = uint32(length)
			a.Credential = &c
		},
	}, "connector", "type", "name")
	return a
}

func (d *decoder) attribute(n *yaml.Node, owner string) AttributeRule {
	a := AttributeRule{At: d.at(n)}
	authority := string(Enforce)
	object := owner + ": " + d.called("attribute", n, "name")
	d.mapping(n, object, map[string]field{
		"name":      d.text(&a.Name),
		"when":      d.expr(&a.When),
		"value":     d.expr(&a.Value),
		"ref":       d.expr(&a.Ref),
		"authority": d.word(&authority, string(Enforce), string(Initial), string(Additive), string(Observe)),
	}, "name")
	a.Authority = Authority(authority)
	switch {
	case a.Authority == Observe && (a.Value.Set() || a.Ref.Set()):
		d.add(d.at(n), object, "an observed attribute has a value, but is never written", "leave out `value`, or choose another authority")
	case a.Authority != Observe && a.Value.Set() == a.Ref.Set():
		d.add(d.at(n), object, "exactly one of `value` and `ref` is needed", "give the values, or the identities they refer to")
	}
	return a
}

func (d *decoder) test(n *yaml.Node) Test {
	t := Test{At: d.at(n), Params: Values{}}
	object := d.called("test", n, "name")
	d.mapping(n, object, map[string]field{
		"name": d.text(&t.Name),
		"params": func(v *yaml.Node, object string) {
			d.pairs(v, object, func(key, value *yaml.Node) { t.Params[key.Value] = d.parameterText(value, object) })
		},
		"identity": func(v *yaml.Node, _ string) { d.testSubject(v, object, &t) },
		"grants": func(v *yaml.Node, object string) {
			d.sequence(v, object, func(item *yaml.Node) {
				g := Grant{Cause: "client"}
				d.mapping(item, object, map[string]field{
					"id":          d.text(&g.ID),
					"entitlement": d.text(&g.Entitlement),
					"cause":       d.word(&g.Cause, causes...),
					"start":       d.instant(&g.Start),
					"end":         d.instant(&g.End),
				}, "entitlement")
				t.Grants = append(t.Grants, g)
			})
		},
		"as_of":  d.instant(&t.AsOf),
		"expect": func(v *yaml.Node, _ string) { d.expectation(v, object, &t.Expect) },
	}, "name", "identity", "as_of", "expect")
	return t
}

func (d *decoder) testSubject(n *yaml.Node, object string, t *Test) {
	s := &t.Subject
	state := string(StateActive)
	s.ID, s.Kind, s.Attributes = "test", "human", map[string][]string{}
	d.mapping(n, object, map[string]field{
		"id":         d.text(&s.ID),
		"kind":       d.word(&s.Kind, kinds...),
		"msp":        d.truth(&s.MSP),
		"state":      d.word(&state, states...),
		"left_at":    d.instant(&s.LeftAt),
		"attributes": d.textMap(&s.Attributes),
		"row": func(v *yaml.Node, _ string) {
			t.Row = &TestRow{}
			d.mapping(v, object, map[string]field{
				"connector":  d.text(&t.Row.Connector),
				"type":       d.text(&t.Row.Type),
				"attributes": d.textMap(&t.Row.Attributes),
			}, "connector", "type", "attributes")
		},
	})
	s.State = State(state)
}

var states = []string{string(StatePending), string(StateActive), string(StateSuspended), string(StateLeaver)}

func (d *decoder) expectation(n *yaml.Node, object string, e *Expectation) {
	d.mapping(n, object, map[string]field{
		"entitlements": d.texts(&e.Entitlements),
		"error":        d.text(&e.Error),
		"accounts": func(v *yaml.Node, object string) {
			d.sequence(v, object, func(item *yaml.Node) {
				a := ExpectedAccount{Purpose: "normal", Enabled: true}
				d.mapping(item, object, map[string]field{
					"connector":  d.text(&a.Connector),
					"purpose":    d.word(&a.Purpose, purposes...),
					"name":       d.text(&a.Name),
					"enabled":    d.truth(&a.Enabled),
					"delete":     d.truth(&a.Delete),
					"attributes": d.textMap(&a.Attributes),
				}, "connector", "name")
				e.Accounts = append(e.Accounts, a)
			})
		},
	})
}
