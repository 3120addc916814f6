package operatorapi

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// names finds what the objects of a plan are called, as last observed.
type names struct {
	*Server
	t       tx.Tx
	tenant  string
	current map[string]int64
}

// of returns an object's name for people, or its anchor when it is not there.
func (n *names) of(connector, anchor string) string {
	if n.current == nil {
		n.current = map[string]int64{}
		list, err := n.Objects.Connectors(n.t, n.tenant)
		if err != nil {
			return anchor
		}
		for _, c := range list {
			n.current[c.Alias] = c.Current
		}
	}
	found, ok, err := n.Objects.Object(n.t, n.tenant, connector, n.current[connector], anchor)
	object := new(connectorv1.Object)
	if err != nil || !ok || proto.Unmarshal(found.Body, object) != nil {
		return anchor
	}
	return object.GetName().Text()
}

// sentence says a change in words. Names from a directory are escaped by
// Name.Text; values are quoted here.
func (n *names) sentence(c *planv1.Change) string {
	op := c.GetOperation()
	group := func() string { return n.of(c.GetConnector(), op.GetObject().GetAnchor()) }
	where := c.GetDisplay()
	if where == "" {
		where = op.GetObject().GetAnchor()
	}
	switch a := op.GetAction().(type) {
	case *connectorv1.Operation_Create:
		return fmt.Sprintf("create %s %s", op.GetObject().GetType(), a.Create.GetName().Text())
	case *connectorv1.Operation_Update:
		var parts []string
		for _, d := range a.Update.GetDeltas() {
			parts = append(parts, delta(d))
		}
		return fmt.Sprintf("update %s: %s", where, strings.Join(parts, "; "))
	case *connectorv1.Operation_Rename:
		return fmt.Sprintf("rename %s to %s", where, a.Rename.GetTo().Text())
	case *connectorv1.Operation_Move:
		return fmt.Sprintf("move %s to %s", where, (&connectorv1.Name{Components: a.Move.GetTo()}).Text())
	case *connectorv1.Operation_AddMember:
		return end(fmt.Sprintf("add %s to %s", where, group()), c)
	case *connectorv1.Operation_RemoveMember:
		return fmt.Sprintf("remove %s from %s", where, group())
	case *connectorv1.Operation_SetCredential:
		return fmt.Sprintf("set %s of %s, sealed to %s", a.SetCredential.GetKind(), where, a.SetCredential.GetRecipient())
	case *connectorv1.Operation_RevokeCredential:
		return fmt.Sprintf("revoke %s of %s", a.RevokeCredential.GetKind(), where)
	default:
		return fmt.Sprintf("%s %s", op.Kind().Word(), where)
	}
}

func end(text string, c *planv1.Change) string {
	if c.GetEndsAt() == nil {
		return text
	}
	return text + " until " + c.GetEndsAt().AsTime().UTC().Format("2006-01-02 15:04:05 MST")
}

func delta(d *connectorv1.ValueDelta) string {
	var parts []string
	for _, v := range d.GetRemove() {
		parts = append(parts, "-"+value(v))
	}
	for _, v := range d.GetAdd() {
		parts = append(parts, "+"+value(v))
	}
	for _, r := range d.GetRemoveRefs() {
		parts = append(parts, "-"+reference(r))
	}
	for _, r := range d.GetAddRefs() {
		parts = append(parts, "+"+reference(r))
	}
	return d.GetAttribute() + " " + strings.Join(parts, " ")
}

func reference(r *connectorv1.ObjectRef) string {
	if r.GetAnchor() != "" {
		return r.GetAnchor()
	}
	return "the object of change " + r.GetChange()
}

// longestValue is how many octets of a value a sentence shows.
const longestValue = 60

func value(v []byte) string {
	if len(v) > longestValue {
		return fmt.Sprintf("%q… (%d bytes)", v[:longestValue], len(v))
	}
	return fmt.Sprintf("%q", v)
}
