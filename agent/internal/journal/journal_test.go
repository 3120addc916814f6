package journal

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/pki/chain"
	"github.com/reevehq/reeve/pki/dsse"
	"github.com/reevehq/reeve/pki/keys"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

var (
	testIdentity = Identity{TrustDomain: "msp.example", Tenant: "fabrikam", Agent: "dc1", Epoch: 1}
	testKey      = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
)

func options(t testing.TB) Options {
	return Options{Path: filepath.Join(t.TempDir(), "journal.db"), Identity: testIdentity, Key: testKey, ReserveBytes: 4096, MinFree: 1}
}

func open(t testing.TB, o Options) *Journal {
	t.Helper()
	j, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func commit(t testing.TB, j *Journal, fn func(*Tx) error) {
	t.Helper()
	if err := j.Commit(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func record(reason string) func(*Tx) error {
	return func(tx *Tx) error {
		_, err := tx.Append(&auditv1.Header{Type: auditv1.Type_TYPE_PAUSED, Actor: "local-root"},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "pause", Reason: reason}}})
		return err
	}
}

// Records that are large travel in smaller batches, each of whole commits, so that
// none is too large to be sent.
func TestSpoolBoundsABatchInBytes(t *testing.T) {
	j := open(t, options(t))
	const commits, large = 40, 300 << 10
	for range commits {
		commit(t, j, func(tx *Tx) error {
			return errors.Join(record(strings.Repeat("x", large))(tx), record("small")(tx))
		})
	}
	commit(t, j, record(strings.Repeat("x", 2*spoolBytes)))
	batches := 0
	for after := uint64(0); after < j.Head().Next; batches++ {
		b, err := j.Spool(t.Context(), after, 256)
		if err != nil || b == nil {
			t.Fatal(b, err)
		}
		size := 0
		for _, r := range b.GetRecords() {
			size += len(r.GetHeader()) + len(r.GetBody())
		}
		last := after == 2*commits
		if size > spoolBytes != last || !last && len(b.GetRecords())%2 != 0 {
			t.Errorf("a batch of %d records has %d bytes", len(b.GetRecords()), size)
		}
		after += uint64(len(b.GetRecords()))
		payload, _, err := dsse.Verify(b.GetHead(), dsse.ChainHead, map[string]ed25519.PublicKey{keys.ID(j.public): j.public}, 1)
		var head auditv1.ChainHead
		if err != nil || planv1.Decode(payload, &head) != nil || head.GetLength() != after {
			t.Errorf("the batch up to %d has the head of %d: %v", after, head.GetLength(), err)
		}
	}
	if batches < 4 {
		t.Errorf("there were %d batches", batches)
	}
}

func TestOneSignatureCoversACommit(t *testing.T) {
	j := open(t, options(t))
	ctx := context.Background()
	commit(t, j, func(tx *Tx) error {
		for i := range 5 {
			if err := record(fmt.Sprint(i))(tx); err != nil {
				return err
			}
		}
		return nil
	})
	commit(t, j, record("later"))
	batch, err := j.Spool(ctx, 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(batch.GetRecords()) != 5 || batch.GetFirst() != 0 || batch.GetAgent() != "dc1" || batch.GetEpoch() != 1 {
		t.Fatalf("first batch has %d records from %d", len(batch.GetRecords()), batch.GetFirst())
	}
	id := testIdentity
	v := chain.NewVerifier(chain.Head{Link: chain.Genesis(id.TrustDomain, id.Tenant, id.Agent, id.Epoch)})
	link := v.Head().Link
	for i, r := range batch.GetRecords() {
		link = chain.Link(link, uint64(i), r.GetHeader())
		if err := v.Add(uint64(i), r.GetHeader(), link); err != nil {
			t.Fatal(err)
		}
	}
	public := testKey.Public().(ed25519.PublicKey)
	payload, _, err := dsse.Verify(batch.GetHead(), dsse.ChainHead, map[string]ed25519.PublicKey{keys.ID(public): public}, 1)
	if err != nil {
		t.Fatal(err)
	}
	var head auditv1.ChainHead
	if err := planv1.Decode(payload, &head); err != nil {
		t.Fatal(err)
	}
	if head.GetLength() != 5 || !bytes.Equal(head.GetHash(), link[:]) || head.GetTenant() != "fabrikam" {
		t.Fatalf("the head is of %d records", head.GetLength())
	}
	rest, err := j.Spool(ctx, 5, 100)
	if err != nil || len(rest.GetRecords()) != 1 {
		t.Fatalf("second batch: %v, %v", rest, err)
	}
	if none, err := j.Spool(ctx, 6, 100); err != nil || none != nil {
		t.Fatalf("nothing is left, got %v, %v", none, err)
	}
	if err := j.Verify(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestFailedCommitLeavesNothing(t *testing.T) {
	o := options(t)
	j := open(t, o)
	broken := errors.New("broken")
	err := j.Commit(context.Background(), func(tx *Tx) error {
		if err := errors.Join(record("no")(tx), tx.SetSequence(9), tx.PutOrder(Order{ID: "x"})); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) || errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	if j.Head().Next != 0 || j.Sequence() != 0 {
		t.Fatalf("head %d, sequence %d after a commit that failed", j.Head().Next, j.Sequence())
	}
	commit(t, j, record("yes"))
	if err := j.Verify(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestSecondProcessIsLockedOut(t *testing.T) {
	o := options(t)
	open(t, o)
	if _, err := Open(context.Background(), o); !errors.Is(err, ErrLocked) {
		t.Fatalf("got %v, want ErrLocked", err)
	}
}

func TestPurgeKeepsTheRestVerifiable(t *testing.T) {
	o := options(t)
	j := open(t, o)
	for i := range 20 {
		commit(t, j, record(fmt.Sprint(i)))
	}
	if err := j.Purge(context.Background(), 21); err == nil {
		t.Fatal("purged what is not there")
	}
	if err := j.Purge(context.Background(), 12); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, o)
	if err := j.Verify(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Spool(context.Background(), 5, 10); !errors.Is(err, ErrPurged) {
		t.Fatalf("got %v, want ErrPurged", err)
	}
	b, err := j.Spool(context.Background(), 12, 100)
	if err != nil || len(b.GetRecords()) != 8 {
		t.Fatalf("got %d records, %v", len(b.GetRecords()), err)
	}
}

func TestNewerSchemaAndOtherIdentityAreRefused(t *testing.T) {
	o := options(t)
	if err := open(t, o).Close(); err != nil {
		t.Fatal(err)
	}
	other := o
	other.Identity.Epoch = 2
	if _, err := Open(context.Background(), other); !errors.Is(err, ErrIdentity) {
		t.Fatalf("got %v, want ErrIdentity", err)
	}
	stranger := o
	stranger.Key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	if _, err := Open(context.Background(), stranger); !errors.Is(err, ErrForged) {
		t.Fatalf("got %v, want ErrForged", err)
	}
	tamper(t, o.Path, "PRAGMA user_version = 99")
	if _, err := Open(context.Background(), o); !errors.Is(err, ErrSchema) {
		t.Fatalf("got %v, want ErrSchema", err)
	}
}

// tamper changes the file as somebody with an editor would.
func tamper(t testing.TB, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func TestForgeryIsFound(t *testing.T) {
	for name, statement := range map[string]string{
		"body":            "UPDATE records SET body = x'00' WHERE idx = 3",
		"header":          "UPDATE records SET header = x'00' WHERE idx = 3",
		"last record":     "DELETE FROM records WHERE idx = 9",
		"record and head": "DELETE FROM records WHERE idx = 9; DELETE FROM heads WHERE length = 10",
		"head":            "UPDATE heads SET envelope = (SELECT envelope FROM heads WHERE length = 4) WHERE length = 5",
		"newest head":     "DELETE FROM heads WHERE length = (SELECT max(length) FROM heads)",
		"seal":            "UPDATE seal SET length = 9",
		"order":           "UPDATE orders SET body = CAST(replace(CAST(body AS TEXT), '\"ended\":false', '\"ended\":true') AS BLOB)",
		"order gone":      "DELETE FROM orders",
		"hold's time":     "UPDATE holds SET at = at + 1",
		"hold gone":       "DELETE FROM holds",
		"copied hold":     "INSERT INTO holds SELECT 'x' || key, at, body, mac FROM holds",
		"plan unused":     "DELETE FROM plans",
		"marks":           "DELETE FROM vars WHERE key LIKE '%marks%'",
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			j := open(t, o)
			for i := range 10 {
				commit(t, j, record(fmt.Sprint(i)))
			}
			commit(t, j, func(tx *Tx) error {
				return errors.Join(tx.PutOrder(Order{ID: "o"}), tx.UsePlan([]byte("p"), "o"), tx.SetSequence(4),
					tx.PutHold(Hold{ID: "h", Connector: "c", Group: "g", Member: "m", Due: time.Unix(1000, 0)}))
			})
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			tamper(t, o.Path, statement)
			again, err := Open(context.Background(), o)
			if err == nil {
				// Whoever opens it would act on it.
				_ = again.Close()
			}
			if !errors.Is(err, ErrForged) {
				t.Fatalf("got %v, want ErrForged", err)
			}
		})
	}
}

// damagePages overwrites all of a database but its first page.
func damagePages(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < len(raw); i++ {
		raw[i] = 0xa5
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(raw); err != nil {
		t.Fatal(err)
	}
}

// A row that is forged while the agent works stops it when the row is read, in a
// commit or in a view, whatever the reader makes of the error.
func TestForgeryAtWorkStops(t *testing.T) {
	read := func(tx *Tx) error { _, err := tx.Holds(); return err }
	for name, use := range map[string]func(*Journal) error{
		"view": func(j *Journal) error { return j.View(context.Background(), read) },
		"view that does not": func(j *Journal) error {
			return j.View(context.Background(), func(tx *Tx) error { _ = read(tx); return nil })
		},
		"commit":       func(j *Journal) error { return j.Commit(context.Background(), read) },
		"damaged page": func(j *Journal) error { return j.View(context.Background(), read) },
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			j := open(t, o)
			commit(t, j, func(tx *Tx) error { return tx.PutHold(Hold{ID: "h", Connector: "c", Group: "g", Member: "m"}) })
			want := ErrForged
			if name == "damaged page" {
				want = ErrDamaged
				// Written anew, so that nobody has it in memory, and into the one file.
				tamper(t, o.Path, "UPDATE holds SET at = at; PRAGMA wal_checkpoint(TRUNCATE)")
				damagePages(t, o.Path)
			} else {
				tamper(t, o.Path, "UPDATE holds SET at = at + 1")
			}
			if err := use(j); !errors.Is(err, want) || !errors.Is(err, ErrStopped) {
				t.Fatalf("got %v, want %v", err, want)
			}
			select {
			case <-j.Done():
			default:
				t.Fatal("nobody is told that it stopped")
			}
			if err := j.Commit(context.Background(), record("x")); !errors.Is(err, ErrStopped) {
				t.Fatalf("it takes more: %v", err)
			}
		})
	}
}

func TestOlderCopyIsQuarantined(t *testing.T) {
	o := options(t)
	j := open(t, o)
	commit(t, j, func(tx *Tx) error { return errors.Join(record("1")(tx), tx.SetSequence(1)) })
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	backup, err := os.ReadFile(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	j = open(t, o)
	if q := j.Quarantined(); q != "" {
		t.Fatalf("quarantined without a reason: %s", q)
	}
	commit(t, j, func(tx *Tx) error { return errors.Join(record("2")(tx), tx.SetSequence(2)) })
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Path, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	j = open(t, o)
	if j.Quarantined() == "" {
		t.Fatal("an older copy was taken for the journal")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if open(t, o).Quarantined() == "" {
		t.Fatal("quarantine did not outlive a restart")
	}
}

func TestRecoverCarriesObligations(t *testing.T) {
	o := options(t)
	j := open(t, o)
	hold := Hold{ID: "h", Connector: "c", Group: "g", Member: "m", Due: time.Unix(1000, 0).UTC(), State: HoldOpen, Made: true}
	pending := func(change string) Hold {
		h := hold
		h.ID, h.Order, h.Change, h.State, h.Made = "o/"+change, "o", change, HoldPending, false
		return h
	}
	commit(t, j, func(tx *Tx) error {
		return errors.Join(record("1")(tx), tx.SetSequence(5), tx.PutHold(hold), tx.UsePlan([]byte("p"), "o"), tx.Set(VarPaused, "holiday"),
			tx.PutOrder(Order{ID: "o", Sequence: 5, Manifest: []byte("m")}), tx.PutHold(pending("sent")), tx.PutHold(pending("never")),
			tx.PutProgress("o", "sent", Progress{Receipt: []byte("r")}), tx.KeepEffect(0, []byte("first")),
			tx.PutPin("c", "name", "anchor"), tx.PutCharges("o", []Charge{{Connector: "c", Subject: "s"}}))
	})
	if err := j.Quarantine(context.Background(), "test"); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	next := o
	next.Identity.Epoch, next.Key = 2, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))
	var accepted []string
	accept := func(_ *Tx, h Hold) error { accepted = append(accepted, h.ID); return nil }
	for range 2 { // the second one finds it done
		if err := Recover(context.Background(), next, testIdentity, testKey, accept); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Sort(accepted); !slices.Equal(accepted, []string{"h", "o/sent"}) {
		t.Errorf("obligations taken on are %v", accepted)
	}
	j = open(t, next)
	commit(t, j, func(tx *Tx) error { return tx.KeepEffect(0, []byte("second")) })
	if j.Quarantined() != "" || j.Sequence() != 0 || j.Head().Next != 0 {
		t.Fatalf("quarantine %q, sequence %d, %d records in the new epoch", j.Quarantined(), j.Sequence(), j.Head().Next)
	}
	if err := j.View(context.Background(), func(tx *Tx) error {
		holds, err := tx.TimedHolds()
		if err != nil || len(holds) != 2 || !holds[0].Made || !holds[1].Made || holds[1].State != HoldOpen {
			return fmt.Errorf("holds %v, %w", holds, err)
		}
		if o, found, err := tx.Order("o"); err != nil || !found || !o.Ended {
			return fmt.Errorf("order %+v, %v, %w", o, found, err)
		}
		effects, err := tx.Effects()
		if err != nil || len(effects) != 2 || string(effects[0]) != "first" || string(effects[1]) != "second" {
			return fmt.Errorf("effects %q, %w", effects, err)
		}
		charges, err := tx.Charges(time.Unix(1, 0))
		pins, perr := tx.Pins("c")
		if err := errors.Join(err, perr); err != nil || len(charges) != 1 || pins["anchor"] != "name" {
			return fmt.Errorf("charges %v, pins %v, %w", charges, pins, err)
		}
		used, err := tx.PlanUsed([]byte("p"))
		paused, gerr := tx.Get(VarPaused)
		if used != "o" || paused != "holiday" {
			return fmt.Errorf("used %q, paused %q", used, paused)
		}
		return errors.Join(err, gerr)
	}); err != nil {
		t.Fatal(err)
	}
	if err := j.Verify(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(o.Path + ".epoch-1"); err != nil {
		t.Fatal(err)
	}
}
