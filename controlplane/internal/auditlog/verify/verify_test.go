package verify_test

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/auditlog/verify"
	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/tlogproof"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

func TestSoundExport(t *testing.T) {
	s := build(t)
	for name, saved := range map[string]string{"none": "", "middle": s.saved, "newest": s.Checkpoint("fabrikam")} {
		report, err := verify.Verify(bytes.NewReader(s.export), saved, s.Pin)
		if err != nil || !report.Sound() {
			t.Fatalf("%s: %v %v", name, err, report.Findings)
		}
		want := []verify.Epoch{{"dc1", 1, 9, "invited again"}, {"dc1", 2, 3, ""}, {"dc2", 1, 2, ""}}
		if !slices.Equal(report.Epochs, want) || report.Erased != 2 || report.Records != 14 || report.HasSaved != (saved != "") {
			t.Fatalf("%s: %+v", name, report)
		}
		var text bytes.Buffer
		if err := report.Print(&text); err != nil || !strings.HasSuffix(text.String(), "\nsound\n") || !strings.Contains(text.String(), "2 erased") {
			t.Fatalf("%v\n%s", err, text.String())
		}
	}
}

func TestCosignaturesAreInTheExport(t *testing.T) {
	s := build(t)
	signed := s.Checkpoint("fabrikam")
	cosigner, err := tlogproof.NewCosigner("reeve.example/tenant/fabrikam/agent/dc2", s.dc2.Witness, func() time.Time { return intaketest.Start })
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(signed, "\n\n")
	own, err := note.Sign(&note.Note{Text: text + "\n"}, cosigner)
	if err != nil {
		t.Fatal(err)
	}
	line := string(own[len(text)+2:])
	s.Do(func(x tx.Tx) error {
		size, err := s.Log.Size(x, "fabrikam")
		if err != nil {
			return err
		}
		return s.Log.Cosign(x, "fabrikam", "dc2", s.dc2.Witness.Public().(ed25519.PublicKey), size, line)
	})
	if report := s.Recheck("fabrikam", s.saved); !slices.Equal(report.Cosigned, []string{"dc2"}) {
		t.Fatalf("cosigned by %v", report.Cosigned)
	}
	// Checkpoint with cosignatures, as an agent's file holds it, can be the saved
	// one too.
	s.Recheck("fabrikam", signed+line)
	f := parse(t, s.Export("fabrikam"))
	raw := []byte(f.end.GetCheckpoint())
	raw[len(raw)-10] ^= 1
	f.end.Checkpoint = string(raw)
	if report, err := verify.Verify(bytes.NewReader(f.bytes()), "", s.Pin); err != nil || report.Sound() || len(report.Cosigned) != 0 {
		t.Fatalf("forged cosignature: %v %+v", err, report)
	}
}

func TestTamperedExportsAreFound(t *testing.T) {
	s := build(t)
	enrolled, ended, made, started := auditv1.Type_TYPE_AGENT_ENROLLED, auditv1.Type_TYPE_AGENT_KEYS_ENDED, auditv1.Type_TYPE_PLAN_MADE, auditv1.Type_TYPE_AGENT_STARTED
	own := func(f *file, h *auditv1.Header, b *auditv1.Body) *auditv1.ExportEntry {
		body, err := planv1.Encode(b)
		if err != nil {
			f.t.Fatal(err)
		}
		salt := bytes.Repeat([]byte{7}, 16)
		h.Format, h.Tenant, h.BodyHash = 1, "fabrikam", hash(salt, body)
		out := &auditv1.ExportEntry{Salt: salt, Body: body}
		header, err := planv1.Encode(h)
		if err != nil {
			f.t.Fatal(err)
		}
		if out.Entry, err = planv1.Encode(&auditv1.Entry{Header: header}); err != nil {
			f.t.Fatal(err)
		}
		return out
	}
	for name, c := range map[string]struct {
		tamper func(f *file)
		// reseal: the forger holds the log's key.
		reseal bool
		saved  string
		code   verify.Code
		says   string
	}{
		"header of an act changed": {tamper: func(f *file) {
			e, h := f.entry(f.find(made, 1))
			h.Actor = "operator:ola"
			f.setEntry(f.find(made, 1), e, h)
		}, code: verify.CodeCheckpoint, says: "the entries are not those"},
		"act before the saved checkpoint changed, log signed again": {tamper: func(f *file) {
			e, h := f.entry(f.find(made, 0))
			h.Actor = "operator:ola"
			f.setEntry(f.find(made, 0), e, h)
		}, reseal: true, saved: s.saved, code: verify.CodeHistory, says: "history was changed"},
		"act before the saved checkpoint left out, log signed again": {tamper: func(f *file) { f.drop(f.find(made, 0)) },
			reseal: true, saved: s.saved, code: verify.CodeHistory, says: "history was changed"},
		"acts exchanged": {tamper: func(f *file) {
			i, j := f.find(made, 0), f.find(made, 1)
			f.entries[i], f.entries[j] = f.entries[j], f.entries[i]
		}, code: verify.CodeCheckpoint, says: "the entries are not those"},
		"end cut off, older checkpoint": {tamper: func(f *file) { f.entries, f.batches = f.entries[:7], f.batches[:1] },
			reseal: true, saved: s.saved, code: verify.CodeHistory, says: "were taken away"},
		"body of an act changed": {tamper: func(f *file) { f.entries[f.find(made, 1)].Body[4] ^= 1 }, code: verify.CodeBody, says: "it was changed"},
		"salt of an act changed": {tamper: func(f *file) { f.entries[f.find(made, 1)].Salt[0] ^= 1 }, code: verify.CodeBody, says: "it was changed"},
		"body of an act left out": {tamper: func(f *file) { i := f.find(made, 1); f.entries[i].Salt, f.entries[i].Body = nil, nil },
			code: verify.CodeBody, says: "no record says that it was erased"},
		"body of an enrolment left out": {tamper: func(f *file) { i := f.find(enrolled, 0); f.entries[i].Salt, f.entries[i].Body = nil, nil },
			code: verify.CodeBody, says: "never erased"},
		"body of an agent's record changed":  {tamper: func(f *file) { f.batches[2].Records[1].Body[4] ^= 1 }, code: verify.CodeBody, says: "it was changed"},
		"body of an agent's record left out": {tamper: func(f *file) { f.batches[2].Records[1].Body, f.batches[2].Records[1].Salt = nil, nil }, code: verify.CodeBody, says: "no record says that it was erased"},
		"erased body put back": {tamper: func(f *file) {
			f.entries[0] = own(f, &auditv1.Header{Type: auditv1.Type_TYPE_TENANT_ADDED}, &auditv1.Body{})
		}, reseal: true, code: verify.CodeBody, says: "its body is still here"},
		"agent's record left out, log signed again": {tamper: func(f *file) { f.drop(f.find(started, 3)) }, reseal: true, code: verify.CodeChain, says: "are missing"},
		"agent's newest records left out with their batch, log signed again": {tamper: func(f *file) {
			f.drop(f.find(started, 13))
			f.batches = f.batches[:len(f.batches)-1]
		}, reseal: true, saved: s.Checkpoint("fabrikam"), code: verify.CodeHistory, says: "were taken away"},
		"records of an ended epoch left out with their batch, log signed again": {tamper: func(f *file) {
			for range 4 {
				f.drop(f.find(started, 7))
			}
			f.batches = slices.Delete(f.batches, 3, 4)
		}, reseal: true, code: verify.CodeKeys, says: "was the last of agent dc1"},
		"batch left out":      {tamper: func(f *file) { f.batches = slices.Delete(f.batches, 2, 3) }, code: verify.CodeChain, says: "expected is 3"},
		"last batch left out": {tamper: func(f *file) { f.batches = f.batches[:len(f.batches)-1] }, code: verify.CodeChain, says: "signed batches are missing"},
		"batch twice":         {tamper: func(f *file) { f.batches = append(f.batches, f.batches[0]) }, code: verify.CodeChain, says: "doubled or out of order"},
		"batches exchanged":   {tamper: func(f *file) { f.batches[0], f.batches[2] = f.batches[2], f.batches[0] }, code: verify.CodeChain, says: "out of order"},
		"agent's record changed in log and batch, log signed again": {tamper: func(f *file) {
			i := f.find(started, 1)
			e, h := f.entry(i)
			h.Actor = "spiffe://reeve.example/tenant/fabrikam/agent/other"
			f.setEntry(i, e, h)
			f.batches[0].Records[1].Header = e.Header
		}, reseal: true, code: verify.CodeChain, says: "signed over other records"},
		"agent's record changed in the log only": {tamper: func(f *file) {
			i := f.find(started, 1)
			e, h := f.entry(i)
			h.Ticket = "T-1"
			f.setEntry(i, e, h)
		}, reseal: true, code: verify.CodeChain, says: "one of them was changed"},
		"head signed by another key": {tamper: func(f *file) { f.batches[0].Head = s.dc1.Sign(s.dc1.Identity, s.dc1.ChainHead()) }, code: verify.CodeChain, says: "not signed by the audit key"},
		"head of another length":     {tamper: func(f *file) { f.batches[0].Head = f.batches[2].Head }, code: verify.CodeChain, says: "signed over other records"},
		"records moved to another agent, log signed again": {tamper: func(f *file) {
			i := f.find(started, 3)
			e, _ := f.entry(i)
			e.Agent = "dc1"
			f.setEntry(i, e, nil)
		}, reseal: true, code: verify.CodeChain, says: "record 0 of agent dc1"},
		"agent's record after its keys ended": {tamper: func(f *file) {
			i, j := f.find(ended, 0), f.find(started, 10)
			e := f.entries[j]
			f.entries = slices.Insert(slices.Delete(f.entries, j, j+1), i+1, e)
		}, reseal: true, code: verify.CodeKeys, says: "had ended before it"},
		"enrolment left out":   {tamper: func(f *file) { f.drop(f.find(enrolled, 1)) }, reseal: true, code: verify.CodeKeys, says: "no key was enrolled"},
		"end of keys left out": {tamper: func(f *file) { f.drop(f.find(ended, 0)) }, reseal: true, code: verify.CodeKeys, says: "has not ended"},
		"other key enrolled": {tamper: func(f *file) {
			i := f.find(enrolled, 0)
			var b auditv1.Body
			if err := proto.Unmarshal(f.entries[i].GetBody(), &b); err != nil {
				f.t.Fatal(err)
			}
			b.GetKey().Keys[1].PublicKey = b.GetKey().Keys[0].PublicKey
			f.entries[i] = own(f, &auditv1.Header{Type: enrolled}, &b)
		}, reseal: true, code: verify.CodeChain, says: "not signed by the audit key"},
		"agent pretends to be the control plane": {tamper: func(f *file) {
			e, _ := f.entry(f.find(made, 1))
			e.Agent, e.Epoch = "dc1", 2
			f.setEntry(f.find(made, 1), e, nil)
		}, reseal: true, code: verify.CodeEntry, says: "claims to come from agent"},
		"record of another tenant": {tamper: func(f *file) {
			e, h := f.entry(f.find(made, 1))
			h.Tenant = "contoso"
			f.setEntry(f.find(made, 1), e, h)
		}, reseal: true, code: verify.CodeEntry, says: "contoso"},
		"unknown field in an entry": {tamper: func(f *file) {
			i := f.find(made, 1)
			f.entries[i].Entry = protowire.AppendVarint(protowire.AppendTag(f.entries[i].Entry, 99, protowire.VarintType), 1)
		}, reseal: true, code: verify.CodeEntry, says: "does not know"},
		"checkpoint by another key":  {tamper: func(f *file) { f.reseal(intaketest.Key(f.t, "thief")) }, code: verify.CodeCheckpoint, says: "not signed"},
		"checkpoint of another size": {tamper: func(f *file) { f.end.Entries++ }, code: verify.CodeCheckpoint, says: "the end frame says"},
		"saved checkpoint of nobody": {tamper: func(*file) {}, saved: "x\n1\n\n— y z\n", code: verify.CodeHistory, says: "saved checkpoint"},
		"root document exchanged":    {tamper: func(f *file) { f.head.RootDocuments[0] = s.Document(1, intaketest.Key(f.t, "thief")) }, code: verify.CodeRoot, says: "pinned"},
		"no root document":           {tamper: func(f *file) { f.head.RootDocuments = nil }, code: verify.CodeRoot, says: "no root document"},
		"root document of a skipped version": {tamper: func(f *file) {
			f.head.RootDocuments = append(f.head.RootDocuments, s.Document(3, s.LogKey))
		}, code: verify.CodeRoot, says: "missing"},
		"another tenant's head": {tamper: func(f *file) { f.head.Tenant = "contoso" }, code: verify.CodeExport, says: "origin"},
		"newer format":          {tamper: func(f *file) { f.head.Format = 2 }, code: verify.CodeExport, says: "format 2"},
	} {
		f := parse(t, s.export)
		c.tamper(f)
		if c.reseal {
			f.reseal(s.LogKey)
		}
		report, err := verify.Verify(bytes.NewReader(f.bytes()), c.saved, s.Pin)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.ContainsFunc(report.Findings, func(x verify.Finding) bool { return x.Code == c.code && strings.Contains(x.Sentence, c.says) }) {
			t.Errorf("%s: not found by %s %q: %v", name, c.code, c.says, report.Findings)
		}
	}
}

// Whatever single byte of an export is changed, lost or added, it is found.
func TestEveryByteCounts(t *testing.T) {
	s := build(t)
	check := func(what string, at int, export []byte) {
		report, err := verify.Verify(bytes.NewReader(export), s.saved, s.Pin)
		if err == nil && report.Sound() {
			// The moment of the export is information only.
			var head auditv1.ExportFrame
			if protodelim.UnmarshalFrom(bytes.NewReader(export), &head) == nil && head.GetHead().GetAt().AsTime() != intaketest.Start {
				return
			}
			t.Fatalf("%s at %d of %d is not found", what, at, len(export))
		}
	}
	for at := 0; at < len(s.export); at += 3 {
		flipped := slices.Clone(s.export)
		flipped[at] ^= 1 << (at % 8)
		check("flipped bit", at, flipped)
	}
	for at := 0; at < len(s.export); at += 97 {
		check("cut", at, s.export[:at])
		check("lost byte", at, slices.Delete(slices.Clone(s.export), at, at+1))
		check("added byte", at, slices.Insert(slices.Clone(s.export), at, 0))
	}
	check("added byte", len(s.export), append(slices.Clone(s.export), 0))
}

func TestRootDocumentsWalk(t *testing.T) {
	s := build(t)
	next := intaketest.Key(t, "next log")
	s.Documents.Add(s.Document(2, next))
	s.LogKey = next
	s.Reopen()
	s.act("after the change of keys")
	report, err := verify.Verify(bytes.NewReader(s.Export("fabrikam")), s.saved, s.Pin)
	if err != nil || !report.Sound() || report.RootVersion != 2 {
		t.Fatalf("%v %+v", err, report)
	}
}

type broken struct{ io.Reader }

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = io.ErrClosedPipe
	}
	return n, err
}

func TestReadErrorIsNoVerdict(t *testing.T) {
	s := build(t)
	if _, err := verify.Verify(broken{bytes.NewReader(s.export[:len(s.export)/2])}, "", s.Pin); err == nil {
		t.Fatal("a read error was taken for the end of the file")
	}
}
