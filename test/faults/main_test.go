package faults_test

import (
	"os"
	"testing"

	"github.com/reevehq/reeve/test/rig"
)

// bin is the folder of the programs under test.
var bin string

func TestMain(m *testing.M) { os.Exit(rig.Main(m, &bin, 5)) }
