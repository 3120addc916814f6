package intake_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	"github.com/reevehq/reeve/test/powerloss"
)

// powerCuts of the control plane's database; the agent's journal has its own.
const powerCuts = 500

const (
	powerDir   = "REEVE_TEST_POWERLOSS_DIR"
	powerSaved = "REEVE_TEST_POWERLOSS_SAVED"
	powerAcked = "REEVE_TEST_POWERLOSS_ACKED"
)

// TestPowerLossProcess is the process that the power is taken from: it verifies
// what it finds against what the one before it was told, and works on.
func TestPowerLossProcess(t *testing.T) {
	dir := os.Getenv(powerDir)
	if dir == "" {
		return
	}
	e := intaketest.At(t, filepath.Join(dir, "reeve.db"))
	a := e.Known("fabrikam", "dc1")
	saved, err := base64.StdEncoding.DecodeString(os.Getenv(powerSaved))
	if err != nil {
		t.Fatal(err)
	}
	var acked uint64
	_, _ = fmt.Sscan(os.Getenv(powerAcked), &acked)
	if report := e.Recheck("fabrikam", string(saved)); report.Records != a.Head.Next || a.Head.Next < acked {
		t.Fatalf("%d records in the log, %d in the chain, %d were acknowledged", report.Records, a.Head.Next, acked)
	}
	fmt.Println("told open")
	for range 8 {
		answer := e.Ship(a, a.Batch(7))
		fmt.Printf("told ack %d %s\n", answer.GetLength(), base64.StdEncoding.EncodeToString([]byte(answer.GetCheckpoint())))
		e.Do(func(x tx.Tx) error {
			_, err := e.Log.AppendAct(x, "fabrikam", &auditv1.Header{Type: auditv1.Type_TYPE_PLAN_MADE, Actor: "operator:kari"}, intaketest.Started(1))
			return err
		})
	}
	fmt.Println("told end")
}

// run is the process on a disk: what it was told to be durable, and how far it came.
func run(t *testing.T, d *powerloss.Disk, acked, saved string) (nowAcked, nowSaved string, opened, ended bool, out []byte) {
	t.Helper()
	dir, unmount := d.Mount(t)
	defer unmount()
	cmd := exec.Command(os.Args[0], "-test.run=^TestPowerLossProcess$")
	cmd.Env = append(os.Environ(), powerDir+"="+dir, powerAcked+"="+acked, powerSaved+"="+saved)
	out, _ = cmd.CombinedOutput() // without power it fails, and may say so as it likes
	nowAcked, nowSaved = acked, saved
	for line := range strings.Lines(string(out)) {
		switch fields := strings.Fields(line); {
		case len(fields) == 2 && fields[0] == "told":
			opened, ended = true, fields[1] == "end"
		case len(fields) == 4 && fields[1] == "ack":
			nowAcked, nowSaved = fields[2], fields[3]
		}
	}
	return nowAcked, nowSaved, opened, ended, out
}

// Whenever the power goes, the control plane's database opens again with every
// record that an agent was told is durable, and the log continues every checkpoint
// that was given out.
func TestPowerLossLosesNothingAcknowledged(t *testing.T) {
	e := intaketest.New(t)
	e.Join("fabrikam", "dc1")
	e.Close()
	disk := powerloss.NewDisk()
	dir, unmount := disk.Mount(t)
	raw, err := os.ReadFile(e.File)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "reeve.db"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	unmount()
	all := disk.Copy()
	if _, _, _, ended, out := run(t, all, "0", ""); !ended {
		t.Fatalf("%s", out)
	}
	total := all.Operations()
	for seed := range powerCuts {
		at := 1 + seed*total/powerCuts
		d := disk.Copy()
		d.CutAt(at, uint64(seed))
		acked, saved, _, ended, _ := run(t, d, "0", "")
		if ended && !d.Dead() {
			t.Fatalf("nothing was cut at %d of %d", at, total)
		}
		d.Cut()
		if _, _, _, ended, out := run(t, d.Surviving(), acked, saved); !ended {
			t.Fatalf("cut at %d of %d, after %s records were acknowledged:\n%s", at, total, acked, out)
		}
	}
	t.Logf("%d cuts over %d operations", powerCuts, total)
}
