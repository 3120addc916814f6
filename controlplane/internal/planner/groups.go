package planner

import (
	"fmt"
	"strings"

	"slices"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// groups are those whose members the plan looks at.
type groups struct {
	all           map[object]*governed
	byEntitlement map[string]*governed
	// lost are connectors with an entitlement whose group is not found. It may have
	// been renamed: then the ledger knows it only by its anchor.
	lost map[string]bool
}

// governs finds the groups that entitlements name or the ledger remembers.
func (p *plan) governs() (groups, error) {
	g := groups{all: map[object]*governed{}, byEntitlement: map[string]*governed{}, lost: map[string]bool{}}
	for i := range p.in.Entitlements {
		e := &p.in.Entitlements[i]
		v := p.views[e.Connector]
		if v == nil || v.idle() != "" {
			continue
		}
		group := v.group(e)
		if group == nil {
			g.lost[e.Connector] = true
			p.find(FindingHeld, e.Connector, e.ID, "", p.missing(v, e))
			continue
		}
		at := g.at(v, group)
		at.named = true
		if e.Authority == policy.Authoritative {
			cause, err := causeOf(e.Cause)
			if err != nil {
				return g, fmt.Errorf("entitlement %q: %w", e.ID, err)
			}
			if !at.authoritative || cause == planv1.Cause_CAUSE_CLIENT {
				at.cause = cause
			}
			at.authoritative = true
		}
		g.byEntitlement[e.ID] = at
	}
	for _, alias := range p.aliases {
		v := p.views[alias]
		for anchor := range v.seating {
			if group := v.anchors[anchor]; group != nil {
				g.at(v, group)
			}
		}
	}
	return g, nil
}

func (g *groups) at(v *view, group *connectorv1.Object) *governed {
	key := object{v.conn.Alias, group.GetAnchor()}
	if g.all[key] == nil {
		g.all[key] = &governed{group: group, seats: map[string]*seat{}}
	}
	return g.all[key]
}

// skips reports that nothing is done with a group, because it may be the one that
// an entitlement means.
func (g *groups) skips(key object) bool { return !g.all[key].named && g.lost[key.connector] }

func (g *groups) keys() []object {
	keys := make([]object, 0, len(g.all))
	for key := range g.all {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b object) int {
		if a.connector != b.connector {
			return strings.Compare(a.connector, b.connector)
		}
		return strings.Compare(a.anchor, b.anchor)
	})
	return keys
}
