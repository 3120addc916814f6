package flatfile

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestAFileThatChangedIsNotTheOneThatWasRead: written over in place, replaced,
// grown or gone, whatever of its size and time is as before.
func TestAFileThatChangedIsNotTheOneThatWasRead(t *testing.T) {
	for name, c := range map[string]struct {
		change func(path string, read time.Time) error
		same   bool
	}{
		"as it was": {func(string, time.Time) error { return nil }, true},
		"written over in place": {func(path string, read time.Time) error {
			if err := os.WriteFile(path, []byte("bo:x\n"), 0o600); err != nil {
				return err
			}
			return os.Chtimes(path, time.Time{}, read.Add(time.Second))
		}, false},
		"replaced, with the same size and time": {func(path string, read time.Time) error {
			if err := os.WriteFile(path+".new", []byte("bo:x\n"), 0o600); err != nil {
				return err
			}
			if err := os.Chtimes(path+".new", time.Time{}, read); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}, false},
		"grown, with the same time": {func(path string, read time.Time) error {
			if err := os.WriteFile(path, []byte("al:x\nbo:x\n"), 0o600); err != nil {
				return err
			}
			return os.Chtimes(path, time.Time{}, read)
		}, false},
		"gone": {func(path string, _ time.Time) error { return os.Remove(path) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users")
			if err := os.WriteFile(path, []byte("al:x\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			read, err := readFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.change(path, read.info.ModTime()); err != nil {
				t.Fatal(err)
			}
			if got := read.same(); got != c.same {
				t.Errorf("taken for the one that was read: %v", got)
			}
		})
	}
}
