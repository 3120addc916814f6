// Command reeve-agent runs inside a client's network and carries out signed
// plans within the client's guardrails.
package main

import (
	"os"

	"github.com/reevehq/reeve/agent"
)

func main() { os.Exit(agent.Run(os.Args[1:])) }
