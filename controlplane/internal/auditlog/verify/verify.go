package verify

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/reevehq/reeve/pki/root"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/tlogproof"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// maxFrame bounds one frame in bytes.
const maxFrame = 32 << 20

// saltSize of records, in bytes. Salt and body are hashed one after the other, so
// that another size would move octets from the one into the other unnoticed.
const saltSize = 16

// formatVersion of exports and headers that this version reads.
const formatVersion = 1

// Verify reads an export to its end. saved is the text of a checkpoint that the
// client kept, empty for none; pin is root_sha256 of agent.yaml. What does not
// hold is in the report; the error is only for reading itself.
func Verify(export io.Reader, saved, pin string) (Report, error) {
	v := &verifier{in: bufio.NewReaderSize(export, 1<<20), saved: saved, pin: pin, agents: map[string]*agent{}, declared: map[uint64]uint64{}}
	err := v.run()
	var stop *stopError
	if errors.As(err, &stop) {
		v.report.find(stop.code, -1, "%s", stop.sentence)
		err = nil
	}
	v.finish()
	return v.report, err
}

// stopError ends the walk: what follows cannot be judged.
type stopError struct {
	code     Code
	sentence string
}

func (e *stopError) Error() string { return e.sentence }

func stop(code Code, format string, args ...any) error {
	return &stopError{code, fmt.Sprintf(format, args...)}
}

type verifier struct {
	in     *bufio.Reader
	saved  string
	pin    string
	report Report

	logKeys   []note.Verifier
	savedTree *tlogproof.Checkpoint
	tree      compact

	agents map[string]*agent
	// gone are entries without a body; declared says which entry erased them.
	gone     []uint64
	declared map[uint64]uint64
	bodied   map[uint64]bool
	ended    bool
}

func (v *verifier) run() error {
	first, err := v.next()
	if err != nil {
		return err
	}
	if first == nil || first.GetHead() == nil {
		return stop(CodeExport, "the file does not begin with an export's head")
	}
	if err := v.head(first.GetHead()); err != nil {
		return err
	}
	batches := false
	for {
		f, err := v.next()
		if err != nil {
			return err
		}
		if f == nil {
			return stop(CodeExport, "the file is cut: it has no end frame after entry %d", v.report.Entries)
		}
		switch item := f.GetFrame().(type) {
		case *auditv1.ExportFrame_Entry:
			if batches {
				return stop(CodeExport, "an entry stands after the batches")
			}
			v.entry(item.Entry)
		case *auditv1.ExportFrame_Batch:
			batches = true
			v.batch(item.Batch)
		case *auditv1.ExportFrame_End:
			v.end(item.End)
			if extra, err := v.next(); err != nil || extra != nil {
				return stop(CodeExport, "there is data after the end frame")
			}
			return nil
		default:
			return stop(CodeExport, "a frame in an unexpected place after entry %d", v.report.Entries)
		}
	}
}

// next reads a frame; nil at the end of the file.
func (v *verifier) next() (*auditv1.ExportFrame, error) {
	size, err := binary.ReadUvarint(v.in)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || err == nil && size > maxFrame || err != nil && isOverflow(err) {
		return nil, stop(CodeExport, "the file is cut or no export: a frame's length cannot be read")
	}
	if err != nil {
		return nil, fmt.Errorf("read export: %w", err)
	}
	raw := make([]byte, size)
	if _, err := io.ReadFull(v.in, raw); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, stop(CodeExport, "the file is cut inside a frame after entry %d", v.report.Entries)
	} else if err != nil {
		return nil, fmt.Errorf("read export: %w", err)
	}
	f := &auditv1.ExportFrame{}
	if err := planv1.Decode(raw, f); err != nil {
		return nil, stop(CodeExport, "a frame after entry %d cannot be read: %s", v.report.Entries, clean(err.Error()))
	}
	return f, nil
}

func isOverflow(err error) bool { return err.Error() == "binary: varint overflows a 64-bit integer" }

func (v *verifier) head(h *auditv1.ExportHead) error {
	if h.GetFormat() != formatVersion {
		return stop(CodeExport, "the export has format %d, this version reads %d", h.GetFormat(), formatVersion)
	}
	if spiffe.ValidateName(h.GetTenant()) != nil || spiffe.ValidateTrustDomain(h.GetTrustDomain()) != nil {
		return stop(CodeExport, "the head names no tenant")
	}
	v.report.Tenant, v.report.TrustDomain, v.report.Origin = h.GetTenant(), h.GetTrustDomain(), h.GetOrigin()
	v.report.Made = h.GetAt().AsTime()
	if want := h.GetTrustDomain() + "/tenant/" + h.GetTenant(); h.GetOrigin() != want {
		return stop(CodeExport, "the head's origin is %q, of this tenant it must be %s", h.GetOrigin(), want)
	}
	if err := v.roots(h); err != nil {
		return err
	}
	if v.saved == "" {
		return nil
	}
	opened, err := tlogproof.OpenCheckpoint([]byte(v.saved), h.GetOrigin(), v.logKeys)
	if err != nil {
		return stop(CodeHistory, "the saved checkpoint is not one of this log: %s", clean(err.Error()))
	}
	v.savedTree, v.report.HasSaved, v.report.Saved = &opened.Checkpoint, true, uint64(opened.Size)
	v.compare()
	return nil
}

// roots walks the root documents and collects every checkpoint key they ever
// named: older checkpoints are signed with older keys. Expiry does not count for
// what happened before.
func (v *verifier) roots(h *auditv1.ExportHead) error {
	if len(h.GetRootDocuments()) == 0 {
		return stop(CodeRoot, "the export holds no root document")
	}
	doc, err := root.VerifyFirst(h.GetRootDocuments()[0], v.pin)
	if err != nil {
		return stop(CodeRoot, "the first root document: %s", clean(err.Error()))
	}
	for i, env := range h.GetRootDocuments() {
		if i > 0 {
			if doc, err = root.Walk(doc, [][]byte{env}, time.Time{}, nil); err != nil {
				return stop(CodeRoot, "root document %d: %s", i+1, clean(err.Error()))
			}
		}
		for _, k := range doc.CheckpointKeys {
			pub, err := k.PublicKey()
			if err != nil {
				return stop(CodeRoot, "checkpoint key of root document %d: %s", i+1, clean(err.Error()))
			}
			verifier, err := tlogproof.NewVerifier(k.Name, pub)
			if err != nil {
				return stop(CodeRoot, "checkpoint key of root document %d: %s", i+1, clean(err.Error()))
			}
			// A key that stays from one version to the next is listed once.
			if !slices.ContainsFunc(v.logKeys, func(o note.Verifier) bool {
				return o.Name() == verifier.Name() && o.KeyHash() == verifier.KeyHash()
			}) {
				v.logKeys = append(v.logKeys, verifier)
			}
		}
	}
	if doc.TrustDomain != h.GetTrustDomain() {
		return stop(CodeRoot, "the root documents are of trust domain %s, the export of %s", doc.TrustDomain, h.GetTrustDomain())
	}
	v.report.RootVersion = doc.Version
	return nil
}

// compare checks the tree when it has reached the saved size.
func (v *verifier) compare() {
	if v.savedTree == nil || uint64(v.savedTree.Size) != v.tree.size {
		return
	}
	if v.tree.root() != v.savedTree.Hash {
		v.report.find(CodeHistory, -1, "the first %d entries are not those of the saved checkpoint: history was changed", v.savedTree.Size)
	}
}

func (v *verifier) entry(e *auditv1.ExportEntry) {
	index := v.tree.size
	v.tree.push(tlog.RecordHash(e.GetEntry()))
	v.report.Entries = v.tree.size
	v.compare()

	var entry auditv1.Entry
	var h auditv1.Header
	if err := planv1.Decode(e.GetEntry(), &entry); err != nil {
		v.report.find(CodeEntry, int64(index), "entry %d cannot be read: %s", index, clean(err.Error()))
		return
	}
	if err := planv1.Decode(entry.GetHeader(), &h); err != nil {
		v.report.find(CodeEntry, int64(index), "the header of entry %d cannot be read: %s", index, clean(err.Error()))
		return
	}
	if h.GetFormat() != formatVersion || h.GetTenant() != v.report.Tenant {
		v.report.find(CodeEntry, int64(index), "entry %d is of format %d and tenant %q", index, h.GetFormat(), h.GetTenant())
		return
	}
	if fromAgent := h.GetType() > 0 && h.GetType() < auditv1.Type_TYPE_TENANT_ADDED; h.GetType() == 0 || fromAgent != (entry.GetAgent() != "") {
		v.report.find(CodeEntry, int64(index), "entry %d is a %s and %s", index, h.GetType(), claim(entry.GetAgent()))
		return
	}
	if entry.GetAgent() != "" {
		v.agentEntry(index, e, &entry)
		return
	}
	if entry.GetEpoch() != 0 || entry.GetIndex() != 0 {
		v.report.find(CodeEntry, int64(index), "entry %d is the control plane's own and counts itself into an agent's chain", index)
	}
	v.ownEntry(index, e, &h)
}

func claim(agent string) string {
	if agent == "" {
		return "claims to be the control plane's own"
	}
	return fmt.Sprintf("claims to come from agent %q", agent)
}

// ownEntry takes a record of the control plane.
func (v *verifier) ownEntry(index uint64, e *auditv1.ExportEntry, h *auditv1.Header) {
	event := h.GetType() == auditv1.Type_TYPE_AGENT_ENROLLED || h.GetType() == auditv1.Type_TYPE_AGENT_KEYS_ENDED
	if len(e.GetSalt()) == 0 && len(e.GetBody()) == 0 {
		if event || h.GetType() == auditv1.Type_TYPE_ERASED {
			v.report.find(CodeBody, int64(index), "the body of entry %d (%s) is missing; verification needs it and it is never erased", index, h.GetType())
			return
		}
		v.gone = append(v.gone, index)
		return
	}
	body, ok := v.body(index, h, e.GetSalt(), e.GetBody())
	if !ok {
		return
	}
	switch {
	case event && body.GetKey() == nil:
		v.report.find(CodeKeys, int64(index), "entry %d (%s) names no keys", index, h.GetType())
	case h.GetType() == auditv1.Type_TYPE_AGENT_ENROLLED:
		v.begin(index, body.GetKey())
	case h.GetType() == auditv1.Type_TYPE_AGENT_KEYS_ENDED:
		v.finishEpoch(index, body.GetKey())
	case h.GetType() == auditv1.Type_TYPE_ERASED:
		for _, d := range body.GetAct().GetDetails() {
			at, err := strconv.ParseUint(d.GetValue(), 10, 64)
			if d.GetName() != "entry" || err != nil || at >= index {
				v.report.find(CodeBody, int64(index), "entry %d erases something that is no earlier entry", index)
				continue
			}
			v.declared[at] = index
		}
	}
}

// body checks a body against its header's hash.
func (v *verifier) body(index uint64, h *auditv1.Header, salt, body []byte) (*auditv1.Body, bool) {
	sum := sha256.New()
	sum.Write(salt)
	sum.Write(body)
	if len(salt) != saltSize || !bytes.Equal(sum.Sum(nil), h.GetBodyHash()) {
		v.report.find(CodeBody, int64(index), "the body of entry %d (%s) is not what was hashed: it was changed", index, h.GetType())
		return nil, false
	}
	if v.bodied == nil {
		v.bodied = map[uint64]bool{}
	}
	v.bodied[index] = true
	var b auditv1.Body
	if err := planv1.Decode(body, &b); err != nil {
		v.report.find(CodeBody, int64(index), "the body of entry %d cannot be read: %s", index, clean(err.Error()))
		return nil, false
	}
	return &b, true
}

func (v *verifier) end(e *auditv1.ExportEnd) {
	v.ended = true
	v.report.Checkpoint = e.GetCheckpoint()
	opened, err := tlogproof.OpenCheckpoint([]byte(e.GetCheckpoint()), v.report.Origin, v.logKeys)
	if err != nil {
		v.report.find(CodeCheckpoint, -1, "the final checkpoint: %s", clean(err.Error()))
		return
	}
	if uint64(opened.Size) != v.tree.size || e.GetEntries() != v.tree.size {
		v.report.find(CodeCheckpoint, -1, "the final checkpoint is over %d entries, the end frame says %d, the file holds %d", opened.Size, e.GetEntries(), v.tree.size)
		return
	}
	if opened.Hash != v.tree.root() {
		v.report.find(CodeCheckpoint, -1, "the entries are not those that the final checkpoint was signed over: at least one was changed, moved or replaced")
		return
	}
	v.cosignatures(opened)
}

// finish judges what only the whole can show.
func (v *verifier) finish() {
	if v.ended {
		if v.savedTree != nil && v.tree.size < uint64(v.savedTree.Size) {
			v.report.find(CodeHistory, -1, "the log has %d entries, the saved checkpoint was over %d: entries %d to %d were taken away",
				v.tree.size, v.savedTree.Size, v.tree.size, v.savedTree.Size-1)
		}
		v.finishAgents()
		v.finishBodies()
	}
	for _, a := range v.agents {
		for _, e := range a.epochs {
			v.report.Epochs = append(v.report.Epochs, Epoch{a.name, e.number, e.verified, e.ended})
			v.report.Records += e.verified
		}
	}
	slices.SortFunc(v.report.Epochs, func(a, b Epoch) int {
		return cmp.Or(cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Epoch, b.Epoch))
	})
}

func (v *verifier) finishBodies() {
	for _, index := range v.gone {
		if _, ok := v.declared[index]; !ok {
			v.report.find(CodeBody, int64(index), "the body of entry %d is missing and no record says that it was erased", index)
			continue
		}
		v.report.Erased++
	}
	for _, index := range slices.Sorted(maps.Keys(v.declared)) {
		by := v.declared[index]
		if v.bodied[index] {
			v.report.find(CodeBody, int64(index), "entry %d says that entry %d was erased, and its body is still here", by, index)
		}
	}
}
