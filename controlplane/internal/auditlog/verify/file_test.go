package verify_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/tlogproof"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// estate is a log with two agents, one of them in its second epoch, an erased
// record of each kind, and a saved checkpoint from the middle.
type estate struct {
	*intaketest.Estate
	dc1, dc2 *intaketest.FakeAgent
	saved    string
	export   []byte
}

func build(t *testing.T) estate {
	e := intaketest.New(t)
	s := estate{Estate: e, dc1: e.Join("fabrikam", "dc1"), dc2: e.Join("fabrikam", "dc2")}
	e.Ship(s.dc1, s.dc1.Batch(3))
	e.Ship(s.dc2, s.dc2.Batch(2))
	e.Ship(s.dc1, s.dc1.Batch(2))
	s.act("early act")
	s.saved = e.Checkpoint("fabrikam")
	e.Ship(s.dc1, s.dc1.Batch(4))
	s.dc1.NewCSR()
	e.JoinAs("fabrikam", s.dc1)
	e.Ship(s.dc1, s.dc1.Batch(2))
	e.Ship(s.dc1, s.dc1.Batch(1))
	s.act("late act")
	e.Do(func(x tx.Tx) error {
		_, err := e.Log.Erase(x, "fabrikam", "operator:kari", "request 7", 0, 6)
		return err
	})
	s.export = e.Export("fabrikam")
	return s
}

func (s estate) act(verb string) { s.actOf("fabrikam", verb) }

func (s estate) actOf(tenant, verb string) {
	s.Do(func(x tx.Tx) error {
		_, err := s.Log.AppendAct(x, tenant, &auditv1.Header{Type: auditv1.Type_TYPE_PLAN_MADE, Actor: "operator:kari"},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: verb}}})
		return err
	})
}

// file is an export taken apart.
type file struct {
	t       *testing.T
	head    *auditv1.ExportHead
	entries []*auditv1.ExportEntry
	batches []*auditv1.Batch
	end     *auditv1.ExportEnd
}

func parse(t *testing.T, export []byte) *file {
	f := &file{t: t}
	for r := bytes.NewReader(export); r.Len() > 0; {
		var frame auditv1.ExportFrame
		if err := protodelim.UnmarshalFrom(r, &frame); err != nil {
			t.Fatal(err)
		}
		switch {
		case frame.GetHead() != nil:
			f.head = frame.GetHead()
		case frame.GetEntry() != nil:
			f.entries = append(f.entries, frame.GetEntry())
		case frame.GetBatch() != nil:
			f.batches = append(f.batches, frame.GetBatch())
		case frame.GetEnd() != nil:
			f.end = frame.GetEnd()
		}
	}
	return f
}

func (f *file) bytes() []byte {
	var out bytes.Buffer
	put := func(frame *auditv1.ExportFrame) {
		if _, err := protodelim.MarshalTo(&out, frame); err != nil {
			f.t.Fatal(err)
		}
	}
	put(&auditv1.ExportFrame{Frame: &auditv1.ExportFrame_Head{Head: f.head}})
	for _, e := range f.entries {
		put(&auditv1.ExportFrame{Frame: &auditv1.ExportFrame_Entry{Entry: e}})
	}
	for _, b := range f.batches {
		put(&auditv1.ExportFrame{Frame: &auditv1.ExportFrame_Batch{Batch: b}})
	}
	put(&auditv1.ExportFrame{Frame: &auditv1.ExportFrame_End{End: f.end}})
	return out.Bytes()
}

// reseal signs a checkpoint over the entries as they are: what a control plane
// that rewrites history can do.
func (f *file) reseal(key ed25519.PrivateKey) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	for i, e := range f.entries {
		more, err := tlog.StoredHashes(int64(i), e.GetEntry(), reader)
		if err != nil {
			f.t.Fatal(err)
		}
		stored = append(stored, more...)
	}
	root, err := tlog.TreeHash(int64(len(f.entries)), reader)
	if err != nil {
		f.t.Fatal(err)
	}
	signer, err := tlogproof.NewSigner("log.reeve.example", key)
	if err != nil {
		f.t.Fatal(err)
	}
	note, err := tlogproof.SignCheckpoint(tlogproof.Checkpoint{Origin: f.head.GetOrigin(), Size: int64(len(f.entries)), Hash: root}, signer)
	if err != nil {
		f.t.Fatal(err)
	}
	f.end = &auditv1.ExportEnd{Checkpoint: string(note), Entries: uint64(len(f.entries))}
}

func (f *file) entry(i int) (*auditv1.Entry, *auditv1.Header) {
	e, h := &auditv1.Entry{}, &auditv1.Header{}
	if err := proto.Unmarshal(f.entries[i].GetEntry(), e); err != nil {
		f.t.Fatal(err)
	}
	if err := proto.Unmarshal(e.GetHeader(), h); err != nil {
		f.t.Fatal(err)
	}
	return e, h
}

func (f *file) setEntry(i int, e *auditv1.Entry, h *auditv1.Header) {
	var err error
	if h != nil {
		if e.Header, err = planv1.Encode(h); err != nil {
			f.t.Fatal(err)
		}
	}
	if f.entries[i].Entry, err = planv1.Encode(e); err != nil {
		f.t.Fatal(err)
	}
}

// find is the index of the nth entry of a type.
func (f *file) find(typ auditv1.Type, n int) int {
	for i := range f.entries {
		if _, h := f.entry(i); h.GetType() == typ {
			if n == 0 {
				return i
			}
			n--
		}
	}
	f.t.Fatalf("no %s", typ)
	return -1
}

func (f *file) drop(i int) { f.entries = slices.Delete(f.entries, i, i+1) }

func hash(salt, body []byte) []byte {
	sum := sha256.Sum256(slices.Concat(salt, body))
	return sum[:]
}
