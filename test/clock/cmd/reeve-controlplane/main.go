// Command reeve-controlplane is the control plane as it ships, on a clock that a
// test moves.
package main

import (
	"fmt"
	"os"

	"github.com/reevehq/reeve/controlplane"
	"github.com/reevehq/reeve/test/clock"
)

func main() {
	c, err := clock.Open(os.Getenv(clock.Variable))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(controlplane.RunOn(controlplane.Clock{Now: c.Now, After: c.After}, os.Args[1:], os.Stdout, os.Stderr))
}
