// Package sources keeps cached test results honest. Go caches a result with what
// the test imported and looked at; a test that builds programs, or reads the tree
// with other tools, imports none of what it judges and must look at it.
package sources

import (
	"io/fs"
	"path/filepath"
	"testing"
)

// Look looks at every folder of code below root, the top of the repository. It is
// called by the test itself: what TestMain looks at is not noted.
func Look(t testing.TB, root string) {
	t.Helper()
	for _, folder := range []string{"agent", "controlplane", "pki", "plugins", "proto"} {
		if err := filepath.WalkDir(filepath.Join(root, folder), func(_ string, _ fs.DirEntry, err error) error { return err }); err != nil {
			t.Fatal(err)
		}
	}
}
