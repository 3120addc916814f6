package powerloss_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/reevehq/reeve/test/powerloss"
)

// keep writes a file as careful programs do: whole beside, synced, exchanged, the
// folder synced.
func keep(dir, name string, data []byte) error {
	f, err := os.Create(filepath.Join(dir, name+".new"))
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// What was synced is there after every cut, and what was not is now and then lost,
// torn and kept: the disk does what it is for.
func TestDiskKeepsWhatWasSynced(t *testing.T) {
	old, next := bytes.Repeat([]byte("old "), 600), bytes.Repeat([]byte("next"), 700)
	saw := map[string]int{}
	for seed := range uint64(120) {
		d := powerloss.NewDisk()
		dir, unmount := d.Mount(t)
		if err := keep(dir, "careful", old); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "careless"), old, 0o600); err != nil {
			t.Fatal(err)
		}
		d.CutAt(1+int(seed%8), seed)
		done := keep(dir, "careful", next) == nil
		_ = os.WriteFile(filepath.Join(dir, "careless"), next, 0o600)
		d.Cut()
		if _, err := os.ReadFile(filepath.Join(dir, "careful")); !errors.Is(err, syscall.EIO) {
			t.Fatalf("a disk without power answers: %v", err)
		}
		unmount()

		dir, unmount = d.Surviving().Mount(t)
		careful, err := os.ReadFile(filepath.Join(dir, "careful"))
		switch {
		case err != nil:
			t.Fatalf("seed %d: the careful file is gone: %v", seed, err)
		case bytes.Equal(careful, next):
			saw["careful: next"]++
		case done || !bytes.Equal(careful, old):
			t.Fatalf("seed %d: the careful file is lost or torn (finished: %v)", seed, done)
		default:
			saw["careful: old"]++
		}
		switch careless, err := os.ReadFile(filepath.Join(dir, "careless")); {
		case errors.Is(err, os.ErrNotExist):
			saw["careless: gone"]++
		case err != nil:
			t.Fatal(err)
		case bytes.Equal(careless, old) || bytes.Equal(careless, next):
			saw["careless: whole"]++
		default:
			saw["careless: torn"]++
		}
		unmount()
	}
	for _, what := range []string{"careful: next", "careful: old", "careless: gone", "careless: whole", "careless: torn"} {
		if saw[what] == 0 {
			t.Errorf("never saw %s: %v", what, saw)
		}
	}
}
