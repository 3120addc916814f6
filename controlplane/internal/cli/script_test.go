package cli

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"reeve": func() { os.Exit(Run(context.Background(), os.Args[1:], System())) },
		// code runs reeve and prints its exit code, which testscript does not show.
		"code": func() {
			code := Run(context.Background(), os.Args[1:], System())
			_, _ = os.Stdout.WriteString("exit code " + number(code) + "\n")
		},
	})
}

// TestScripts runs the stories of testdata/script as a person or a pipeline
// types them.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true})
}
