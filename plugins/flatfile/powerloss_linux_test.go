package flatfile

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/reevehq/reeve/test/powerloss"
)

// A password file is as before or complete after any power cut, and complete once
// its replacing has returned.
func TestReplacedFileIsThereAfterPowerLoss(t *testing.T) {
	old, next := bytes.Repeat([]byte("anna:x\n"), 300), bytes.Repeat([]byte("anna:yy\n"), 400)
	saw := map[string]int{}
	for seed := range uint64(60) {
		d := powerloss.NewDisk()
		dir, unmount := d.Mount(t)
		path := filepath.Join(dir, "users")
		keep(t, path, old)
		before, err := readFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d.CutAt(1+int(seed%9), seed)
		done := replaceFile(before, next) == nil
		d.Cut()
		unmount()

		dir, unmount = d.Surviving().Mount(t)
		switch have, err := os.ReadFile(filepath.Join(dir, "users")); {
		case err != nil:
			t.Errorf("seed %d: the file is gone: %v", seed, err)
		case bytes.Equal(have, next):
			saw["next"]++
		case done || !bytes.Equal(have, old):
			t.Errorf("seed %d: the file is lost or torn (finished: %v)", seed, done)
		default:
			saw["old"]++
		}
		unmount()
	}
	if saw["old"] == 0 || saw["next"] == 0 {
		t.Errorf("the cuts were all before or all after: %v", saw)
	}
}

// keep writes a file so that it is there whatever comes.
func keep(t *testing.T, path string, data []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
