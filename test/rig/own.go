package rig

import (
	"fmt"
	"strings"
)

// Own is a client unlike the others: a staff list, and one target of its own.
type Own struct {
	// Staff is the staff list in CSV, keyed by employee_id, and Release what of
	// it may leave the network.
	Staff   string
	Release []string
	// Target is the target's entry under connectors in agent.yaml.
	Target string
	// Policy is named faults.
	Policy string
}

// connectors is the client's part of agent.yaml.
func (o *Own) connectors(hr string) string {
	return fmt.Sprintf(`connectors:
  - alias: hr
    connector: flatfile
    role: source
    mode: observe
    settings: {format: csv, path: %q, key: employee_id}
    release: [%s]
`, hr, strings.Join(o.Release, ", ")) + o.Target
}
