package auditlog_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/reevehq/reeve/controlplane/internal/auditlog"
	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/tlogproof"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

func act(verb string) (*auditv1.Header, *auditv1.Body) {
	return &auditv1.Header{Type: auditv1.Type_TYPE_PLAN_MADE, Actor: "operator:kari"},
		&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: verb}}}
}

func open(t *testing.T, e *intaketest.Estate, tenant, signed string) tlogproof.Checkpoint {
	t.Helper()
	v, err := tlogproof.NewVerifier("log.reeve.example", e.LogKey.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	c, err := tlogproof.OpenCheckpoint([]byte(signed), e.Log.Origin(tenant), []note.Verifier{v})
	if err != nil {
		t.Fatal(err)
	}
	return c.Checkpoint
}

func hashes(raw [][]byte) []tlog.Hash {
	out := make([]tlog.Hash, len(raw))
	for i := range raw {
		copy(out[i][:], raw[i])
	}
	return out
}

// provenFresh checks the proofs that are made after the commit, from memory.
func provenFresh(t *testing.T, c tlogproof.Checkpoint, fresh *auditlog.Sealed, first uint64, leaves []auditlog.Leaf) {
	t.Helper()
	proofs, err := fresh.Inclusions(first, leaves)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range proofs {
		if err := tlogproof.CheckInclusion(hashes(p.GetHashes()), c, int64(first)+int64(i), tlogproof.LeafHash(leaves[i])); err != nil {
			t.Fatal(err)
		}
	}
}

// The stored tiles, the proofs from them and RFC 6962's tree must agree at every
// size, also beyond where a second and third level of tiles begins.
func TestTreeAgreesWithReference(t *testing.T) {
	e := intaketest.New(t)
	const tenant = "big"
	total := 66_000
	leaf := func(i int) auditlog.Leaf { return binary.BigEndian.AppendUint64([]byte("leaf"), uint64(i)) }
	var reference []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = reference[x]
		}
		return out, nil
	})
	for i := range total {
		more, err := tlog.StoredHashes(int64(i), leaf(i), reader)
		if err != nil {
			t.Fatal(err)
		}
		reference = append(reference, more...)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var sealed []tlogproof.Checkpoint
	for next := 0; next < total; {
		n := min(1+random.IntN(3000), total-next)
		var leaves []auditlog.Leaf
		for i := range n {
			leaves = append(leaves, leaf(next+i))
		}
		var fresh *auditlog.Sealed
		var since [][]byte
		e.Do(func(x tx.Tx) error {
			first, err := e.Log.Append(x, tenant, leaves)
			if err != nil {
				return err
			}
			if first != uint64(next) {
				return fmt.Errorf("first is %d, want %d", first, next)
			}
			if fresh, err = e.Log.SealTree(x, tenant); err != nil {
				return err
			}
			if since, err = fresh.Consistency(uint64(next)); err != nil {
				return err
			}
			return fresh.Hold(first, uint64(n))
		})
		provenFresh(t, open(t, e, tenant, fresh.Checkpoint.Note), fresh, uint64(next), leaves)
		if len(sealed) > 0 {
			if err := tlogproof.CheckConsistency(hashes(since), sealed[len(sealed)-1], open(t, e, tenant, fresh.Checkpoint.Note)); err != nil {
				t.Fatal(err)
			}
		}
		next += n
		c := open(t, e, tenant, e.Checkpoint(tenant))
		want, err := tlog.TreeHash(int64(next), reader)
		if err != nil {
			t.Fatal(err)
		}
		if c.Size != int64(next) || c.Hash != want {
			t.Fatalf("at %d the root is not RFC 6962's", next)
		}
		sealed = append(sealed, c)
	}
	last := sealed[len(sealed)-1]
	if err := e.DB.View(t.Context(), func(x tx.Tx) error {
		for _, older := range sealed {
			proof, err := e.Log.Consistency(x, tenant, uint64(older.Size), uint64(last.Size))
			if err != nil {
				return err
			}
			if err := tlogproof.CheckConsistency(hashes(proof), older, last); err != nil {
				return err
			}
			index := random.IntN(int(older.Size))
			inclusion, err := e.Log.Inclusion(x, tenant, uint64(index), uint64(older.Size))
			if err != nil {
				return err
			}
			if err := tlogproof.CheckInclusion(hashes(inclusion), older, int64(index), tlogproof.LeafHash(leaf(index))); err != nil {
				return err
			}
		}
		if _, err := e.Log.Inclusion(x, tenant, uint64(last.Size), uint64(last.Size)); !errors.Is(err, auditlog.ErrNotFound) {
			return fmt.Errorf("proof of what is not there: %v", err)
		}
		if _, err := e.Log.Consistency(x, "nobody", 1, 2); !errors.Is(err, auditlog.ErrNotFound) {
			return fmt.Errorf("proof of a log that is not there: %v", err)
		}
		return e.Log.Recheck(x, tenant)
	}); err != nil {
		t.Fatal(err)
	}
	tile, err := e.Log.Tile(t.Context(), tenant, 1, 0, 256)
	if err != nil || len(tile) != 256*32 {
		t.Fatalf("tile: %d bytes, %v", len(tile), err)
	}
	if _, err := e.Log.Tile(t.Context(), tenant, 1, 1, 256); !errors.Is(err, auditlog.ErrNotFound) {
		t.Fatalf("tile that the checkpoint does not cover: %v", err)
	}
}

// Random histories of acts, batches, rollbacks, erasures and restarts: after
// every step the whole log verifies, and continues every checkpoint given out.
func TestEveryStepVerifies(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		e := intaketest.New(t)
		defer e.Close()
		agents := []*intaketest.FakeAgent{e.Join("fabrikam", "dc1"), e.Join("fabrikam", "dc2")}
		saved := []string{""}
		erased := 0
		gone := map[uint64]bool{}
		steps := rapid.IntRange(1, 12).Draw(r, "steps")
		for range steps {
			switch rapid.SampledFrom([]string{"act", "batch", "rollback", "erase", "restart", "rejoin"}).Draw(r, "step") {
			case "act":
				e.Do(func(x tx.Tx) error {
					h, b := act("make plan")
					_, err := e.Log.AppendAct(x, "fabrikam", h, b)
					return err
				})
			case "batch":
				a := rapid.SampledFrom(agents).Draw(r, "agent")
				e.Ship(a, a.Batch(rapid.IntRange(1, 300).Draw(r, "records")))
			case "rollback":
				boom := errors.New("boom")
				err := e.DB.Do(t.Context(), func(x tx.Tx) error {
					h, b := act("never")
					if _, err := e.Log.AppendAct(x, "fabrikam", h, b); err != nil {
						return err
					}
					if _, err := e.Log.Seal(x, "fabrikam"); err != nil {
						return err
					}
					return boom
				})
				if !errors.Is(err, boom) {
					t.Fatal(err)
				}
			case "erase":
				var at uint64
				e.Do(func(x tx.Tx) error {
					size, err := e.Log.Size(x, "fabrikam")
					at = rapid.Uint64Range(0, size-1).Draw(r, "entry")
					return err
				})
				err := e.DB.Do(t.Context(), func(x tx.Tx) error {
					_, err := e.Log.Erase(x, "fabrikam", "operator:kari", "request 7", at)
					return err
				})
				if errors.Is(err, auditlog.ErrKept) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if !gone[at] {
					erased++
				}
				gone[at] = true
			case "restart":
				e.Reopen()
			case "rejoin":
				a := rapid.SampledFrom(agents).Draw(r, "agent")
				a.NewCSR()
				e.JoinAs("fabrikam", a)
			}
			report := e.Recheck("fabrikam", rapid.SampledFrom(saved).Draw(r, "saved"))
			if report.Erased != uint64(erased) {
				t.Fatalf("%d erased, the report says %d", erased, report.Erased)
			}
			saved = append(saved, e.Checkpoint("fabrikam"))
		}
	})
}

func TestErasedBodyIsGoneAndLogIsSound(t *testing.T) {
	e := intaketest.New(t)
	a := e.Join("fabrikam", "dc1")
	secret := "a name that must go"
	b := a.Commit(a.Record(auditv1.Type_TYPE_AGENT_STARTED, &auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "start", Object: secret}}}))
	e.Ship(a, b)
	var own uint64
	e.Do(func(x tx.Tx) (err error) {
		h, body := act(secret)
		own, err = e.Log.AppendAct(x, "fabrikam", h, body)
		return err
	})
	before := e.Checkpoint("fabrikam")
	if !bytes.Contains(e.Export("fabrikam"), []byte(secret)) {
		t.Fatal("the body is not in the export")
	}
	e.Do(func(x tx.Tx) error {
		_, err := e.Log.Erase(x, "fabrikam", "operator:kari", "request 7", own, own-1)
		return err
	})
	if bytes.Contains(e.Export("fabrikam"), []byte(secret)) {
		t.Fatal("the erased body is still in the export")
	}
	if report := e.Recheck("fabrikam", before); report.Erased != 2 {
		t.Fatalf("report: %+v", report)
	}
	// The agent's own retry of the batch is the same batch still.
	e.Ship(a, b)
	e.Do(func(x tx.Tx) error {
		got, err := e.Log.Entry(x, "fabrikam", own)
		if err == nil && got.Body != nil {
			err = errors.New("the body can still be read")
		}
		return err
	})
	for _, at := range []uint64{1, 2, own + 1} {
		err := e.DB.Do(t.Context(), func(x tx.Tx) error {
			entry, err := e.Log.Entry(x, "fabrikam", at)
			if err != nil {
				return err
			}
			if _, err = e.Log.Erase(x, "fabrikam", "operator:kari", "", at); err == nil && entry.Header.GetType() != auditv1.Type_TYPE_AGENT_INVITED {
				return fmt.Errorf("entry %d (%s) was erased", at, entry.Header.GetType())
			}
			return err
		})
		if err != nil && !errors.Is(err, auditlog.ErrKept) {
			t.Fatal(err)
		}
	}
	if err := e.DB.Do(t.Context(), func(x tx.Tx) error { _, err := e.Log.Erase(x, "fabrikam", "a", "", 999); return err }); !errors.Is(err, auditlog.ErrNotFound) {
		t.Fatalf("erasing what is not there: %v", err)
	}
}

func TestCosignatures(t *testing.T) {
	e := intaketest.New(t)
	a := e.Join("fabrikam", "dc1")
	signed := e.Checkpoint("fabrikam")
	c := open(t, e, "fabrikam", signed)
	cosigner, err := tlogproof.NewCosigner("witness.example", a.Witness, func() time.Time { return intaketest.Start })
	if err != nil {
		t.Fatal(err)
	}
	line := func(text string) string {
		own, err := note.Sign(&note.Note{Text: text}, cosigner)
		if err != nil {
			t.Fatal(err)
		}
		return string(own[len(text)+1:])
	}
	text, _, _ := strings.Cut(signed, "\n\n")
	key := a.Witness.Public().(ed25519.PublicKey)
	good := line(text + "\n")
	e.Do(func(x tx.Tx) error { return e.Log.Cosign(x, "fabrikam", "dc1", key, uint64(c.Size), good) })
	other, err := tlogproof.FormatCheckpoint(tlogproof.Checkpoint{Origin: c.Origin, Size: c.Size, Hash: sha256.Sum256([]byte("x"))})
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(tx.Tx) error{
		"another root":   func(x tx.Tx) error { return e.Log.Cosign(x, "fabrikam", "dc1", key, uint64(c.Size), line(other)) },
		"another size":   func(x tx.Tx) error { return e.Log.Cosign(x, "fabrikam", "dc1", key, uint64(c.Size)-1, good) },
		"not there yet":  func(x tx.Tx) error { return e.Log.Cosign(x, "fabrikam", "dc1", key, uint64(c.Size)+1, good) },
		"another tenant": func(x tx.Tx) error { return e.Log.Cosign(x, "msp", "dc1", key, uint64(c.Size), good) },
		"another key": func(x tx.Tx) error {
			return e.Log.Cosign(x, "fabrikam", "dc1", a.Audit.Public().(ed25519.PublicKey), uint64(c.Size), good)
		},
		"no line":   func(x tx.Tx) error { return e.Log.Cosign(x, "fabrikam", "dc1", key, uint64(c.Size), "x") },
		"two lines": func(x tx.Tx) error { return e.Log.Cosign(x, "fabrikam", "dc1", key, uint64(c.Size), good+good) },
	} {
		if err := e.DB.Do(t.Context(), f); !errors.Is(err, auditlog.ErrCosignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	e.Do(func(x tx.Tx) error {
		size, err := e.Log.Cosigned(x, "fabrikam", "dc1")
		if err == nil && size != uint64(c.Size) {
			err = fmt.Errorf("cosigned %d, want %d", size, c.Size)
		}
		return err
	})
}

func TestCorruptDatabaseIsNotAppendedTo(t *testing.T) {
	for name, statement := range map[string]string{
		"tile cut":       `UPDATE log_tile SET hashes = substr(hashes, 1, length(hashes) - 32) WHERE tenant = 'fabrikam' AND level = 0`,
		"tile gone":      `DELETE FROM log_tile WHERE tenant = 'fabrikam'`,
		"size went back": `UPDATE log_head SET size = size - 1 WHERE tenant = 'fabrikam'`,
	} {
		e := intaketest.New(t)
		e.Join("fabrikam", "dc1")
		e.Do(func(x tx.Tx) error { _, err := x.Exec(statement); return err })
		err := e.DB.Do(t.Context(), func(x tx.Tx) error { h, b := act("x"); _, err := e.Log.AppendAct(x, "fabrikam", h, b); return err })
		if !errors.Is(err, auditlog.ErrCorrupt) {
			t.Errorf("%s: append: %v", name, err)
		}
	}
	for name, statement := range map[string]string{
		"tile forged":  `UPDATE log_tile SET hashes = zeroblob(length(hashes)) WHERE tenant = 'fabrikam'`,
		"entry forged": `UPDATE log_part SET entries = CAST(substr(entries, 1, length(entries) - 1) || x'00' AS BLOB) WHERE tenant = 'fabrikam' AND first = 1`,
		"entry gone":   `DELETE FROM log_part WHERE tenant = 'fabrikam' AND first = 1`,
	} {
		e := intaketest.New(t)
		e.Join("fabrikam", "dc1")
		e.Do(func(x tx.Tx) error { _, err := x.Exec(statement); return err })
		if err := e.DB.View(t.Context(), func(x tx.Tx) error { return e.Log.Recheck(x, "fabrikam") }); !errors.Is(err, auditlog.ErrCorrupt) {
			t.Errorf("%s: recheck: %v", name, err)
		}
	}
}
