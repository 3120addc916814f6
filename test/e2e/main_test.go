package e2e

import (
	"os"
	"testing"

	"github.com/reevehq/reeve/test/rig"
)

// programs is the folder of the programs under test.
var programs string

func TestMain(m *testing.M) { os.Exit(rig.Main(m, &programs, 4)) }
