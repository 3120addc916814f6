// Command reeve-demo is `make demo`.
package main

import (
	"os"

	"github.com/reevehq/reeve/test/demo"
)

func main() { os.Exit(demo.Run(os.Args[1:], os.Stdout, os.Stderr)) }
