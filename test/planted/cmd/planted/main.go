// planted plants bugs and says which test finds each: see package planted.
package main

import (
	"os"

	"github.com/reevehq/reeve/test/planted"
)

func main() { os.Exit(planted.Run(os.Args[1:], os.Stdout, os.Stderr)) }
