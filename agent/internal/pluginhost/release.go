package pluginhost

import (
	"slices"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Released takes from o, in place, the values of every attribute that agent.yaml
// does not list under release, and of every attribute that the connector calls
// secret, listed or not. An attribute that the type does not declare goes too:
// nobody has said that it is not secret.
func (i *Instance) Released(o *connectorv1.Object) {
	i.mu.Lock()
	known := i.known
	i.mu.Unlock()
	var typ *connectorv1.ObjectType
	if known != nil {
		at := slices.IndexFunc(known.types, func(t *connectorv1.ObjectType) bool { return t.GetName() == o.GetType() })
		if at >= 0 {
			typ = known.types[at]
		}
	}
	o.Attributes = slices.DeleteFunc(o.Attributes, func(a *connectorv1.Attribute) bool {
		return !releasable(typ, i.release, a.GetName())
	})
}

// Withheld lists the type's attributes that stay in the network, sorted.
func (i *Instance) Withheld(typ *connectorv1.ObjectType) []string {
	var out []string
	for _, a := range typ.GetAttributes() {
		if !releasable(typ, i.release, a.GetName()) {
			out = append(out, a.GetName())
		}
	}
	slices.Sort(out)
	return out
}

func releasable(typ *connectorv1.ObjectType, release map[string]bool, name string) bool {
	declared := typ.AttributeType(name)
	return declared != nil && !declared.GetSecret() && release[strings.ToLower(name)]
}
