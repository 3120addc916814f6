// Command reeve-agent is the agent as it ships, on a clock that a test moves.
package main

import (
	"fmt"
	"os"

	"github.com/reevehq/reeve/agent"
	"github.com/reevehq/reeve/test/clock"
)

func main() {
	if os.Getenv(clock.Variable) == "" {
		// As a connector it has an empty environment, and needs no clock.
		os.Exit(agent.Run(os.Args[1:]))
	}
	c, err := clock.Open(os.Getenv(clock.Variable))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(agent.RunOn(agent.Clock{Now: c.Now, After: c.After, Boot: c.Boot, BootID: c.BootID}, os.Args[1:]))
}
