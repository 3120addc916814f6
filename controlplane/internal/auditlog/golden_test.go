package auditlog_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/auditlog/verify"
	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/chain"
)

var update = flag.Bool("update", false, "write the golden vectors anew; a change of one is a change of a signed format")

// golden compares with a file that other implementations may be tested against.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("..", "..", "..", "test", "golden", "audit", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what it was: %d bytes, want %d", name, len(got), len(want))
	}
}

// The bytes of entries, chain heads and exports never change: clients hold them
// for years and verify them with whatever version they have.
func TestGoldenVectors(t *testing.T) {
	e := intaketest.New(t)
	a := e.Join("fabrikam", "dc1")
	saved := e.Checkpoint("fabrikam")
	b := a.Batch(2)
	e.Ship(a, b)
	var own uint64
	e.Do(func(x tx.Tx) (err error) {
		h, body := act("make plan")
		own, err = e.Log.AppendAct(x, "fabrikam", h, body)
		return err
	})
	e.Do(func(x tx.Tx) error {
		_, err := e.Log.Erase(x, "fabrikam", "operator:kari", "request 7", own)
		return err
	})

	var text bytes.Buffer
	genesis := chain.Genesis(intaketest.TrustDomain, "fabrikam", "dc1", 1)
	fmt.Fprintf(&text, "genesis %x\n", genesis)
	e.Do(func(x tx.Tx) error {
		sealed, err := e.Log.Seal(x, "fabrikam")
		if err != nil {
			return err
		}
		proofs, err := e.Log.Inclusions(x, "fabrikam", sealed, 0, own+1)
		for _, p := range proofs {
			fmt.Fprintf(&text, "entry %d %s\n", p.GetIndex(), hex.EncodeToString(p.GetEntry()))
		}
		return err
	})
	for i, r := range b.GetRecords() {
		fmt.Fprintf(&text, "record %d header %x salt %x body %x\n", i, r.GetHeader(), r.GetSalt(), r.GetBody())
	}
	golden(t, "entries.txt", text.Bytes())
	golden(t, "chain-head.dsse.json", b.GetHead())
	export := e.Export("fabrikam")
	golden(t, "export.bin", export)
	golden(t, "saved-checkpoint.txt", []byte(saved))
	golden(t, "root-sha256.txt", []byte(e.Pin+"\n"))

	// The files by themselves verify, as a client's would.
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("..", "..", "..", "test", "golden", "audit", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	report, err := verify.Verify(bytes.NewReader(read("export.bin")), string(read("saved-checkpoint.txt")), string(bytes.TrimSpace(read("root-sha256.txt"))))
	if err != nil || !report.Sound() || report.Erased != 1 || report.Records != 2 {
		t.Fatalf("%v %+v", err, report)
	}
	var printed bytes.Buffer
	if err := report.Print(&printed); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.txt", printed.Bytes())
}
