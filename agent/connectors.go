package agent

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/reevehq/reeve/agent/internal/cli"
	"github.com/reevehq/reeve/plugins/flatfile"
	"github.com/reevehq/reeve/plugins/ldap"
	"github.com/reevehq/reeve/plugins/sdk"
)

// builtIns are the connectors that are part of this program. Each runs as a
// process of its own all the same, by the program executing itself.
func builtIns() map[string]sdk.Connector {
	return map[string]sdk.Connector{
		"flatfile": flatfile.Connector{},
		"ldap":     ldap.New(),
	}
}

// builtInCommand is how the program executes itself as a built-in connector.
func builtInCommand(name string) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program to run the built-in connector %s: %w", name, err)
	}
	return []string{self, "connector", "serve", name}, nil
}

func builtInNames() []string { return slices.Sorted(maps.Keys(builtIns())) }

// ServeConnector is what the process of a built-in connector runs.
func (p *program) ServeConnector(name string) error {
	c, known := builtIns()[name]
	if !known {
		return cli.Usagef("%q is not a built-in connector; there are %s", name, strings.Join(builtInNames(), " and "))
	}
	if err := sdk.Serve(c); err != nil {
		return cli.Fail(cli.ExitUsage, err)
	}
	return nil
}

// Connectors lists the built-ins.
func (p *program) Connectors() *cli.ConnectorList {
	out := &cli.ConnectorList{}
	all := builtIns()
	for _, name := range builtInNames() {
		d := all[name].Describe()
		b := cli.BuiltIn{Name: name, Version: d.GetVersion()}
		for _, t := range d.GetTypes() {
			b.Types = append(b.Types, t.GetName())
		}
		out.Connectors = append(out.Connectors, b)
	}
	return out
}
