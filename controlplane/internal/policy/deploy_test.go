package policy_test

import (
	"os"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/policy"
)

// The bundles we ship must parse, type-check and pass their own tests.
func TestShippedBundles(t *testing.T) {
	root := os.DirFS("../../../deploy/policy")
	for _, name := range []string{".", "with-ldap"} {
		t.Run(name, func(t *testing.T) {
			files, err := policy.ReadFiles(root, name)
			if err != nil {
				t.Fatal(err)
			}
			bundle, err := policy.Parse(files)
			if err != nil {
				t.Fatal(err)
			}
			results, err := policy.RunTests(bundle)
			if err != nil {
				t.Fatal(err)
			}
			if len(results) < 3 {
				t.Fatalf("the bundle has only %d tests", len(results))
			}
			for _, r := range results {
				for _, failure := range r.Failures {
					t.Errorf("%s: test %q: %s", r.At, r.Name, failure)
				}
			}
		})
	}
}
