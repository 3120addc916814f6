package guardrails

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// prepared is a name with its values as directories prepare them before they
// compare (RFC 4518 2.2, 2.3): what we would tell apart, a directory may take for
// one. Only what denies compares so; what allows takes names as they are.
func prepared(n *connectorv1.Name) *connectorv1.Name {
	out := &connectorv1.Name{}
	for _, c := range n.GetComponents() {
		component := &connectorv1.Component{}
		for _, p := range c.GetParts() {
			component.Parts = append(component.Parts, &connectorv1.Part{Type: p.GetType(), Value: preparedValue(p.GetValue())})
		}
		out.Components = append(out.Components, component)
	}
	return out
}

// preparedValue drops characters that nobody sees and takes compatibility forms
// for what they stand for, such as full-width letters.
func preparedValue(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cf, unicode.Variation_Selector) || unicode.IsControl(r) && !unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
	return norm.NFKC.String(connectorv1.FoldCase(norm.NFKC.String(s)))
}
