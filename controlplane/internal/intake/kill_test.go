package intake_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
)

// shipperFile names the database for the process that TestKillLosesNothing kills.
const shipperFile = "REEVE_TEST_SHIPPER_FILE"

// TestShipperProcess is that process: it ships until it is killed and says what
// was acknowledged. In a usual run it has nothing to do.
func TestShipperProcess(t *testing.T) {
	file := os.Getenv(shipperFile)
	if file == "" {
		return
	}
	e := intaketest.At(t, file)
	a := e.Known("fabrikam", "dc1")
	for {
		answer := e.Ship(a, a.Batch(7))
		fmt.Printf("ack %d %s\n", answer.GetLength(), base64.StdEncoding.EncodeToString([]byte(answer.GetCheckpoint())))
	}
}

// What was acknowledged survives kill -9, and every checkpoint that was given
// out is one that the log still continues. (A kill keeps the page cache, so this
// is not the power cut; for that the database syncs at each commit.)
func TestKillLosesNothing(t *testing.T) {
	e := intaketest.New(t)
	e.Join("fabrikam", "dc1")
	file := e.File
	e.Close()
	for round := range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestShipperProcess$")
		cmd.Env = append(os.Environ(), shipperFile+"="+file)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var acked uint64
		var saved string
		lines := bufio.NewScanner(out)
		for n := 0; n < 5+7*round && lines.Scan(); n++ {
			var encoded string
			if _, err := fmt.Sscanf(lines.Text(), "ack %d %s", &acked, &encoded); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			raw, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				t.Fatal(err)
			}
			saved = string(raw)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the process ended by itself: %v", err)
		}
		again := intaketest.At(t, file)
		head, err := again.Intake.Seen(t.Context(), "fabrikam", "dc1", 1)
		if err != nil || head.Next < acked || acked == 0 {
			t.Fatalf("%d records were acknowledged, %d are there: %v", acked, head.Next, err)
		}
		if report := again.Recheck("fabrikam", saved); report.Records != head.Next {
			t.Fatalf("%d records in the log, %d in the chain", report.Records, head.Next)
		}
		again.Close()
	}
}
