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
	if known == nil {
		o.Attributes = slices.Delete(o.Attributes, 0, len(o.Attributes))
		return
	}
	leaves := known.leaves[o.GetType()]
	o.Attributes = slices.DeleteFunc(o.Attributes, func(a *connectorv1.Attribute) bool {
		leave, declared := leaves[a.GetName()]
		if !declared {
			leave = i.leaves(known, o.GetType(), a.GetName())
		}
		return !leave
	})
}

// leaves is the rule itself, for a name that is not as declared to the letter.
func (i *Instance) leaves(known *process, typ, attribute string) bool {
	at := slices.IndexFunc(known.types, func(t *connectorv1.ObjectType) bool { return t.GetName() == typ })
	return at >= 0 && releasable(known.types[at], i.release, attribute)
}

// leaving tells, by type, which declared attributes may leave the network: it is
// asked with every object of an observation.
func leaving(types []*connectorv1.ObjectType, release map[string]bool) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for _, t := range types {
		names := map[string]bool{}
		for _, a := range t.GetAttributes() {
			names[a.GetName()] = releasable(t, release, a.GetName())
		}
		out[t.GetName()] = names
	}
	return out
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
