// Command reeve-controlplane runs in the MSP's NOC.
package main

import (
	"os"

	"github.com/reevehq/reeve/controlplane"
)

func main() {
	os.Exit(controlplane.Run(os.Args[1:], os.Stdout, os.Stderr))
}
