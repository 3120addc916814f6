// Package golden compares signed bytes with those on file under testdata. It
// serves the tests of pki only; nothing else imports it.
//
// With REEVE_UPDATE_GOLDEN=1 it writes the files instead and fails the test, so
// that a run which rewrote its own expectations never counts as passed.
package golden

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Check fails t unless testdata/name holds exactly got.
func Check(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	want, err := os.ReadFile(path)
	if err == nil && bytes.Equal(got, want) {
		return
	}
	if os.Getenv("REEVE_UPDATE_GOLDEN") == "1" && (err == nil || errors.Is(err, fs.ErrNotExist)) {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s rewritten; review it and run again", path)
		return
	}
	t.Errorf("%s (%v) differs\ngot:\n%q\nwant:\n%q", path, err, got, want)
}
