package pluginhost_test

import (
	"slices"
	"testing"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// TestReleasedGoesByNameInAnyCase: what a record names in other letters than the
// connector declares is released or withheld all the same.
func TestReleasedGoesByNameInAnyCase(t *testing.T) {
	m := start(t, "", "MAIL")
	if err := m.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		typ  string
		want []string
	}{{"account", []string{"mail", "Mail"}}, {"nothing", nil}} {
		o := &connectorv1.Object{Type: c.typ}
		for _, name := range []string{"displayName", "mail", "Mail", "password", "unheard"} {
			o.Attributes = append(o.Attributes, &connectorv1.Attribute{Name: name})
		}
		m.Released(o)
		var left []string
		for _, a := range o.GetAttributes() {
			left = append(left, a.GetName())
		}
		if !slices.Equal(left, c.want) {
			t.Errorf("type %q: %q left, want %q", c.typ, left, c.want)
		}
	}
}
