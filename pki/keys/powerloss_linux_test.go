package keys

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/reevehq/reeve/test/powerloss"
)

// A key, a checkpoint or marks are as before or complete after any power cut, and
// complete once WriteFile has returned.
func TestWriteFileIsThereAfterPowerLoss(t *testing.T) {
	old, next := bytes.Repeat([]byte("old "), 600), bytes.Repeat([]byte("next"), 700)
	saw := map[string]int{}
	for seed := range uint64(60) {
		d := powerloss.NewDisk()
		dir, unmount := d.Mount(t)
		if err := WriteFile(filepath.Join(dir, "key"), old, 0o600); err != nil {
			t.Fatal(err)
		}
		d.CutAt(1+int(seed%9), seed)
		done := WriteFile(filepath.Join(dir, "key"), next, 0o600) == nil
		first := WriteFile(filepath.Join(dir, "first"), next, 0o600) == nil
		d.Cut()
		unmount()

		dir, unmount = d.Surviving().Mount(t)
		switch have, err := os.ReadFile(filepath.Join(dir, "key")); {
		case err != nil:
			t.Errorf("seed %d: the file is gone: %v", seed, err)
		case bytes.Equal(have, next):
			saw["next"]++
		case done || !bytes.Equal(have, old):
			t.Errorf("seed %d: the file is lost or torn (finished: %v)", seed, done)
		default:
			saw["old"]++
		}
		if have, err := os.ReadFile(filepath.Join(dir, "first")); first && !bytes.Equal(have, next) ||
			!first && !bytes.Equal(have, next) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("seed %d: a file that was not there before is torn (finished: %v, %v)", seed, first, err)
		}
		unmount()
	}
	if saw["old"] == 0 || saw["next"] == 0 {
		t.Errorf("the cuts were all before or all after: %v", saw)
	}
}
