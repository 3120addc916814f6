package faults_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/reevehq/reeve/test/rig"
)

// bin is the folder of the programs under test.
var bin string

// clockedBin is a folder of the same on a clock that a story moves, built for the
// first that asks.
var clockedBin = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(bin, "clocked")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	return dir, rig.BuildClocked(dir)
})

func TestMain(m *testing.M) { os.Exit(rig.Main(m, &bin, 5)) }
