package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	"github.com/reevehq/reeve/test/powerloss"
)

// powerCuts of the journal; the control plane's database has its own.
const powerCuts = 1500

// step is one commit: three records, rows beside them, now and then marks.
func step(j *Journal, n int) error {
	return j.Commit(context.Background(), func(tx *Tx) error {
		for range 3 {
			if _, err := tx.Append(&auditv1.Header{Type: auditv1.Type_TYPE_RECEIPT, Subject: fmt.Sprint(n)}, &auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: fmt.Sprint(n)}}}); err != nil {
				return err
			}
		}
		for i := range 20 {
			if err := tx.PutObserved("corp", fmt.Sprint(i), [32]byte{byte(n)}); err != nil {
				return err
			}
		}
		if n%5 == 4 {
			if err := tx.SetSequence(uint64(n)); err != nil {
				return err
			}
		}
		return tx.Set(VarPaused, fmt.Sprint(n))
	})
}

// TestPowerLossProcess is the process that the power is taken from: it opens the
// journal, says what it finds, and works on, telling each commit that was
// acknowledged. (A process that serves a file system must not map its files.)
func TestPowerLossProcess(t *testing.T) {
	dir := os.Getenv("POWERLOSS_DIR")
	if dir == "" {
		return
	}
	say := func(format string, args ...any) { fmt.Printf("told "+format+"\n", args...) }
	j, err := Open(context.Background(), Options{Path: filepath.Join(dir, "journal.db"), Identity: testIdentity, Key: testKey, ReserveBytes: 4096, MinFree: 1})
	if err != nil {
		say("broken %v", err)
		return
	}
	defer func() { _ = j.Close() }()
	if err := errors.Join(j.Verify(context.Background()), whole(j)); err != nil {
		say("broken %v", err)
		return
	}
	if reason := j.Quarantined(); reason != "" {
		say("broken in quarantine: %s", reason)
		return
	}
	from := int(j.Head().Next) / 3
	say("open %d", from)
	for n := from; n < from+12; n++ {
		if step(j, n) != nil {
			return
		}
		say("commit %d", n+1)
		if n%6 == 5 && j.Purge(context.Background(), uint64(3*n)) != nil {
			return
		}
	}
	say("end")
}

// whole requires the rows to be those of the last commit, all of it.
func whole(j *Journal) error {
	commits := int(j.Head().Next) / 3
	if commits == 0 {
		return nil
	}
	return j.View(context.Background(), func(tx *Tx) error {
		paused, err := tx.Get(VarPaused)
		if err != nil {
			return err
		}
		if paused != fmt.Sprint(commits-1) || j.Head().Next%3 != 0 {
			return fmt.Errorf("the row is of commit %s, the records end with %d", paused, j.Head().Next)
		}
		for i := range 20 {
			digest, found, err := tx.Observed("corp", fmt.Sprint(i))
			if err != nil {
				return err
			}
			if !found || digest != [32]byte{byte(commits - 1)} {
				return fmt.Errorf("row %d is not of commit %d", i, commits-1)
			}
		}
		return nil
	})
}

// told runs the process on the disk and returns what it found, what was
// acknowledged last, and whether it came to its end.
func told(t *testing.T, d *powerloss.Disk) (found, acknowledged int, ended bool) {
	t.Helper()
	dir, unmount := d.Mount(t)
	defer unmount()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestPowerLossProcess$")
	cmd.Env = append(os.Environ(), "POWERLOSS_DIR="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found = -1
	for line := range strings.Lines(string(out)) {
		word, rest, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "told "), " ")
		switch n, _ := strconv.Atoi(rest); word {
		case "open":
			found, acknowledged = n, n
		case "commit":
			acknowledged = n
		case "end":
			ended = true
		case "broken":
			if !d.Dead() {
				t.Fatal(rest)
			}
		}
	}
	return found, acknowledged, ended
}

// Whenever the power goes, the journal opens again, sound and not in quarantine,
// with everything in it that a commit had acknowledged, and goes on.
func TestPowerLossLosesNothingAcknowledged(t *testing.T) {
	all := powerloss.NewDisk()
	if _, _, ended := told(t, all); !ended {
		t.Fatal("the process did not come to its end")
	}
	total := all.Operations()
	survived := 0
	for seed := range powerCuts {
		at := 1 + seed*total/powerCuts
		d := powerloss.NewDisk()
		d.CutAt(at, uint64(seed))
		_, acknowledged, ended := told(t, d)
		if ended && !d.Dead() {
			t.Fatalf("nothing was cut at %d of %d", at, total)
		}
		d.Cut()
		found, _, ended := told(t, d.Surviving())
		switch {
		case found < acknowledged || found > acknowledged+1:
			t.Fatalf("cut at %d of %d: %d commits are there, %d were acknowledged", at, total, found, acknowledged)
		case !ended:
			t.Fatalf("cut at %d of %d: the journal does not go on", at, total)
		case found > acknowledged:
			survived++
		}
	}
	t.Logf("%d cuts over %d operations; a commit that was not acknowledged survived %d times", powerCuts, total, survived)
}
