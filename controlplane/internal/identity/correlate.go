package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// correlation is what matching unlinked objects found.
type correlation struct {
	Accounts []Account
	Cases    []Case
}

// correlate finds owners for the account objects of a target that have none. It
// is pure: one identity for one object links; anything else is a case, and an
// object that fits nobody stays an orphan.
func correlate(target TargetSnapshot, matches []Match, identities []Identity, linked map[string]Account) correlation {
	var found correlation
	byType := map[string]*connectorv1.ObjectType{}
	for _, t := range target.Types {
		byType[t.GetName()] = t
	}
	owned := map[[2]string]bool{}
	for _, o := range target.Objects {
		// An account that is not there any more makes room for another.
		if a, ok := linked[o.GetAnchor()]; ok {
			owned[[2]string{a.Identity, a.Purpose}] = true
		}
	}
	for _, m := range matches {
		typ := byType[m.Type]
		if m.Connector != target.Connector || typ.GetKind() != connectorv1.Kind_KIND_ACCOUNT || len(m.Pairs) == 0 {
			continue
		}
		index := newIdentityIndex(m, typ, identities)
		fits := map[string][]*connectorv1.Object{}
		for _, o := range target.Objects {
			if o.GetType() != m.Type {
				continue
			}
			if _, taken := linked[o.GetAnchor()]; taken {
				continue
			}
			owners := index.owners(o)
			if len(owners) > 1 {
				found.Cases = append(found.Cases, ambiguous(m, o.GetAnchor(), owners,
					fmt.Sprintf("account %s on %s fits %d identities; decide whose it is", o.GetDisplay(), m.Connector, len(owners))))
				continue
			}
			for _, owner := range owners {
				fits[owner] = append(fits[owner], o)
			}
		}
		for _, id := range sortedKeys(fits) {
			objects := fits[id]
			switch {
			case owned[[2]string{id, m.Purpose}]:
				// The identity has its account already; another that looks like it
				// is an orphan for people to look at.
			case len(objects) == 1:
				a := Account{Connector: m.Connector, Anchor: objects[0].GetAnchor(), Identity: id, Purpose: m.Purpose, Type: m.Type}
				found.Accounts = append(found.Accounts, a)
				linked[a.Anchor] = a
				owned[[2]string{id, m.Purpose}] = true
			default:
				anchors := make([]string, len(objects))
				for i, o := range objects {
					anchors[i] = o.GetAnchor()
				}
				found.Cases = append(found.Cases, ambiguous(m, id, anchors,
					fmt.Sprintf("%d accounts on %s fit identity %s; decide which is its %s account", len(objects), m.Connector, id, m.Purpose)))
			}
		}
	}
	return found
}

// identityIndex finds identities by the value of a match's first pair.
type identityIndex struct {
	match Match
	rules []connectorv1.MatchingRule
	first map[string][]Identity
}

func newIdentityIndex(m Match, typ *connectorv1.ObjectType, identities []Identity) identityIndex {
	x := identityIndex{match: m, first: map[string][]Identity{}}
	for _, p := range m.Pairs {
		x.rules = append(x.rules, typ.AttributeType(p.Object).GetRule())
	}
	for _, id := range identities {
		for _, v := range id.Attributes[m.Pairs[0].Identity] {
			key := string(connectorv1.Canonical(x.rules[0], []byte(v)))
			if key != "" {
				x.first[key] = append(x.first[key], id)
			}
		}
	}
	return x
}

// owners returns the ids of the identities that fit o by every pair, sorted.
func (x identityIndex) owners(o *connectorv1.Object) []string {
	var ids []string
	for _, v := range objectValues(o, x.match.Pairs[0].Object) {
		for _, id := range x.first[string(connectorv1.Canonical(x.rules[0], v))] {
			if x.fits(id, o) {
				ids = append(ids, id.ID)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (x identityIndex) fits(id Identity, o *connectorv1.Object) bool {
	for i, p := range x.match.Pairs[1:] {
		rule := x.rules[i+1]
		if !slices.ContainsFunc(objectValues(o, p.Object), func(v []byte) bool {
			return slices.ContainsFunc(id.Attributes[p.Identity], func(w string) bool {
				return w != "" && string(connectorv1.Canonical(rule, v)) == string(connectorv1.Canonical(rule, []byte(w)))
			})
		}) {
			return false
		}
	}
	return true
}

// objectValues returns an attribute's values, or the parts of that type in the
// object's own name, which not every directory repeats as an attribute.
func objectValues(o *connectorv1.Object, name string) [][]byte {
	any := name == ObjectName
	if values := o.Attribute(name); len(values) > 0 {
		return values
	}
	var values [][]byte
	for _, p := range o.GetName().Leaf().GetParts() {
		if any || strings.EqualFold(p.GetType(), name) {
			values = append(values, []byte(p.GetValue()))
		}
	}
	return values
}

// ambiguous makes a case whose id follows from its content, so that finding it
// again opens nothing new.
func ambiguous(m Match, subject string, candidates []string, sentence string) Case {
	sum := sha256.Sum256([]byte(strings.Join(append([]string{string(CaseAmbiguous), m.Connector, m.Purpose, subject}, candidates...), "\x00")))
	return Case{
		ID: "case-" + hex.EncodeToString(sum[:8]), Kind: CaseAmbiguous, Connector: m.Connector, Type: m.Type, Purpose: m.Purpose,
		Subject: subject, Candidates: candidates, Sentence: sentence,
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
