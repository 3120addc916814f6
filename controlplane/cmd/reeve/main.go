// Command reeve is what an operator types: see package cli.
package main

import (
	"context"
	"os"

	"github.com/reevehq/reeve/controlplane/internal/cli"
)

func main() { os.Exit(cli.Run(context.Background(), os.Args[1:], cli.System())) }
