package planner

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Levels toward what policy says. Access is taken before any is given, so that
// nobody holds what must not meet; a new account is enabled when all else about
// it is done. A change that depends on another is raised above it.
const (
	levelTake uint32 = iota
	levelName
	levelCreate
	levelValues
	levelMembers
	levelCredential
	levelEnable
	levelDelete
)

// Levels of offboarding: the reverse.
const (
	backTake uint32 = iota
	backMembers
	backValues
	backDelete
	backName
	backEnable
)

// ChangeID returns the id that a change's content gives it under a tenant's key:
// HMAC-SHA256 over its connector, operation with object and wanted state, cause,
// identity and end. The plan, the level and what is only for people to read do
// not count, so that the same change has the same id in a later plan. Ids stand
// in headers of records, which are never erased: without the key nobody can try
// one against guessed values.
func ChangeID(key []byte, c *planv1.Change) (string, error) {
	encoded, err := planv1.Encode(&planv1.Change{
		Connector: c.GetConnector(), Operation: c.GetOperation(), Cause: c.GetCause(),
		Identity: c.GetIdentity(), EndsAt: c.GetEndsAt(), Grant: c.GetGrant(), Undoes: c.GetUndoes(),
		Additive: c.GetAdditive(),
	})
	if err != nil {
		return "", fmt.Errorf("encode change of %s: %w", c.GetConnector(), err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(encoded)
	return hex.EncodeToString(mac.Sum(nil)[:16]), nil
}

// add puts a change into the plan under its id.
func (p *plan) add(c *planv1.Change, level uint32, dependsOn ...string) *planv1.Change {
	id, err := ChangeID(p.in.ChangeKey, c)
	if err != nil {
		if p.failed == nil {
			p.failed = fmt.Errorf("%w: %w", ErrInput, err)
		}
		return c
	}
	p.loud[c.GetIdentity()] = true
	c.Id, c.Level = id, level
	c.DependsOn = slices.DeleteFunc(slices.Clone(dependsOn), func(d string) bool { return d == "" })
	slices.Sort(c.DependsOn)
	c.DependsOn = slices.Compact(c.DependsOn)
	p.changes[id] = c
	return c
}

// target is an identity's account on a connector: an observed object, or one
// that the plan creates.
type target struct {
	view   *view
	obj    *connectorv1.Object
	typ    string
	create string
	name   *connectorv1.Name
	want   *policy.Account
	cause  planv1.Cause
	// leaving is true when the plan deletes the object.
	leaving bool
}

type targetKey struct{ connector, identity, purpose string }

func (t *target) ref() *connectorv1.ObjectRef {
	if t.obj != nil {
		return refTo(t.obj)
	}
	return &connectorv1.ObjectRef{Type: t.typ, Change: t.create}
}

func (t *target) display() string {
	if t.obj != nil {
		return t.obj.GetName().Text()
	}
	return t.name.Text()
}

func refTo(o *connectorv1.Object) *connectorv1.ObjectRef {
	return &connectorv1.ObjectRef{Type: o.GetType(), Anchor: o.GetAnchor()}
}

// on starts a change on an observed object.
func (p *plan) on(v *view, obj *connectorv1.Object, op *connectorv1.Operation) *planv1.Change {
	op.Object = refTo(obj)
	return &planv1.Change{Connector: v.conn.Alias, Operation: op, Display: obj.GetName().Text()}
}

// of starts a change on an identity's account.
func (p *plan) of(t *target, identity string, op *connectorv1.Operation) *planv1.Change {
	op.Object = t.ref()
	return &planv1.Change{
		Connector: t.view.conn.Alias, Operation: op, Display: t.display(),
		Cause: t.cause, Identity: identity, Rule: t.want.Rule,
	}
}

func causeWord(c planv1.Cause) string {
	if c == planv1.Cause_CAUSE_CLIENT {
		return "client"
	}
	return "msp"
}

func causeOf(word string) (planv1.Cause, error) {
	switch word {
	case "msp":
		return planv1.Cause_CAUSE_MSP, nil
	case "client":
		return planv1.Cause_CAUSE_CLIENT, nil
	default:
		return 0, fmt.Errorf("%w: cause %s is neither msp nor client", ErrInput, strconv.Quote(word))
	}
}

// nameOf returns policy's name in the contract's form, nil when it is no name: a
// name of invalid UTF-8 or with an empty part could not be written.
func nameOf(components []policy.Component) *connectorv1.Name {
	if len(components) == 0 {
		return nil
	}
	n := &connectorv1.Name{}
	for _, c := range components {
		out := &connectorv1.Component{}
		for _, part := range c {
			if part[0] == "" || part[1] == "" || !utf8.ValidString(part[0]) || !utf8.ValidString(part[1]) {
				return nil
			}
			out.Parts = append(out.Parts, &connectorv1.Part{Type: part[0], Value: part[1]})
		}
		if len(out.Parts) == 0 {
			return nil
		}
		slices.SortFunc(out.Parts, func(a, b *connectorv1.Part) int {
			if a.Type != b.Type {
				return strings.Compare(a.Type, b.Type)
			}
			return strings.Compare(a.Value, b.Value)
		})
		n.Components = append(n.Components, out)
	}
	return n
}
