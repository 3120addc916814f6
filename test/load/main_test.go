package load

import (
	"os"
	"testing"

	"github.com/reevehq/reeve/test/rig"
)

// bin is the folder of the programs under test.
var bin string

func TestMain(m *testing.M) { os.Exit(rig.Main(m, &bin, 0)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
