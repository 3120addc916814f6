package verify

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"slices"

	"github.com/reevehq/reeve/pki/chain"
	"github.com/reevehq/reeve/pki/dsse"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/tlogproof"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// agent is one agent's history as the log tells it.
type agent struct {
	name   string
	epochs []*epoch
}

// epoch is one run of an agent's chain, between the begin and the end of its
// keys.
type epoch struct {
	number uint64
	audit  ed25519.PublicKey
	// witness is nil where none was enrolled.
	witness ed25519.PublicKey
	// ended says why the keys ended; over is set with it.
	ended string
	over  bool
	// leaves of the log that hold its records, by chain index.
	leaves []leaf
	// verified records, from the first, and the link of the last.
	verified uint64
	link     [chain.Size]byte
	// broken is set at the first batch that does not fit: what follows cannot be
	// told apart.
	broken bool
}

type leaf struct {
	index  uint64
	header [sha256.Size]byte
}

func (a *agent) last() *epoch {
	if a == nil || len(a.epochs) == 0 {
		return nil
	}
	return a.epochs[len(a.epochs)-1]
}

func (a *agent) epoch(number uint64) *epoch {
	if a == nil {
		return nil
	}
	for _, e := range a.epochs {
		if e.number == number {
			return e
		}
	}
	return nil
}

// begin takes an enrolment: the next epoch of an agent, after the end of the one
// before.
func (v *verifier) begin(index uint64, event *auditv1.KeyEvent) {
	if spiffe.ValidateName(event.GetAgent()) != nil || event.GetEnded() != "" {
		v.report.find(CodeKeys, int64(index), "entry %d begins keys of no agent", index)
		return
	}
	a := v.agents[event.GetAgent()]
	if a == nil {
		a = &agent{name: event.GetAgent()}
		v.agents[a.name] = a
	}
	want := uint64(1)
	if last := a.last(); last != nil {
		want = last.number + 1
		if !last.over {
			v.report.find(CodeKeys, int64(index), "entry %d begins epoch %d of agent %s, whose epoch %d has not ended", index, event.GetEpoch(), a.name, last.number)
		}
	}
	if event.GetEpoch() != want {
		v.report.find(CodeKeys, int64(index), "entry %d begins epoch %d of agent %s, expected is %d", index, event.GetEpoch(), a.name, want)
		return
	}
	e := &epoch{number: event.GetEpoch(), link: chain.Genesis(v.report.TrustDomain, v.report.Tenant, a.name, event.GetEpoch())}
	for _, k := range event.GetKeys() {
		if k.GetPurpose() == auditv1.KeyEvent_PURPOSE_WITNESS {
			// An unusable one verifies nothing, which is what it is worth.
			e.witness, _ = keys.ParseSPKI(k.GetPublicKey())
		}
		if k.GetPurpose() != auditv1.KeyEvent_PURPOSE_AUDIT {
			continue
		}
		pub, err := keys.ParseSPKI(k.GetPublicKey())
		if err != nil || e.audit != nil {
			v.report.find(CodeKeys, int64(index), "entry %d names no single usable audit key for agent %s", index, a.name)
			return
		}
		e.audit = pub
	}
	if e.audit == nil {
		v.report.find(CodeKeys, int64(index), "entry %d names no audit key for agent %s", index, a.name)
		return
	}
	a.epochs = append(a.epochs, e)
}

// finishEpoch takes the end of an epoch's keys, which says how many records
// count.
func (v *verifier) finishEpoch(index uint64, event *auditv1.KeyEvent) {
	e := v.agents[event.GetAgent()].epoch(event.GetEpoch())
	if e == nil || e.over || event.GetEnded() == "" {
		v.report.find(CodeKeys, int64(index), "entry %d ends keys of agent %q, epoch %d, that are not in use", index, event.GetAgent(), event.GetEpoch())
		return
	}
	e.over, e.ended = true, event.GetEnded()
	have := uint64(len(e.leaves))
	if have == 0 && event.GetLastIndex() == 0 || have == event.GetLastIndex()+1 {
		return
	}
	v.report.find(CodeKeys, int64(index), "entry %d says that record %d was the last of agent %s in epoch %d, the log holds %d records",
		index, event.GetLastIndex(), event.GetAgent(), event.GetEpoch(), have)
}

// agentEntry takes a leaf that holds an agent's record.
func (v *verifier) agentEntry(index uint64, e *auditv1.ExportEntry, entry *auditv1.Entry) {
	if len(e.GetSalt()) > 0 || len(e.GetBody()) > 0 {
		v.report.find(CodeEntry, int64(index), "entry %d is an agent's and carries a body outside of its batch", index)
	}
	ep := v.agents[entry.GetAgent()].epoch(entry.GetEpoch())
	switch {
	case ep == nil:
		v.report.find(CodeKeys, int64(index), "entry %d is of agent %q, epoch %d, for which no key was enrolled before it", index, entry.GetAgent(), entry.GetEpoch())
		return
	case ep.over:
		v.report.find(CodeKeys, int64(index), "entry %d is of agent %s, epoch %d, whose keys had ended before it", index, entry.GetAgent(), entry.GetEpoch())
		return
	}
	switch have := uint64(len(ep.leaves)); {
	case entry.GetIndex() > have:
		v.report.find(CodeChain, int64(index), "entry %d is record %d of agent %s, epoch %d: records %d to %d before it are missing",
			index, entry.GetIndex(), entry.GetAgent(), entry.GetEpoch(), have, entry.GetIndex()-1)
		return
	case entry.GetIndex() < have:
		v.report.find(CodeChain, int64(index), "entry %d is record %d of agent %s, epoch %d, which was there already or comes out of order",
			index, entry.GetIndex(), entry.GetAgent(), entry.GetEpoch())
		return
	}
	ep.leaves = append(ep.leaves, leaf{index, sha256.Sum256(entry.GetHeader())})
}

// batch takes an agent's signed batch: it must continue the chain, and its
// records must be the log's leaves.
func (v *verifier) batch(b *auditv1.Batch) {
	ep := v.agents[b.GetAgent()].epoch(b.GetEpoch())
	if ep == nil {
		v.report.find(CodeChain, -1, "a batch of agent %q, epoch %d, is of no enrolled agent", b.GetAgent(), b.GetEpoch())
		return
	}
	if ep.broken {
		return
	}
	if b.GetFirst() != ep.verified || len(b.GetRecords()) == 0 {
		ep.broken = true
		v.report.find(CodeChain, ep.entryAt(ep.verified), "agent %s, epoch %d: a batch begins at record %d, expected is %d: batches are missing, doubled or out of order",
			b.GetAgent(), b.GetEpoch(), b.GetFirst(), ep.verified)
		return
	}
	link := ep.link
	for i, r := range b.GetRecords() {
		at := b.GetFirst() + uint64(i)
		if at >= uint64(len(ep.leaves)) {
			ep.broken = true
			v.report.find(CodeChain, -1, "agent %s, epoch %d: record %d is signed by the agent and not in the log", b.GetAgent(), b.GetEpoch(), at)
			return
		}
		entry := ep.leaves[at].index
		if sha256.Sum256(r.GetHeader()) != ep.leaves[at].header {
			ep.broken = true
			v.report.find(CodeChain, int64(entry), "entry %d is not record %d that agent %s sent in epoch %d: one of them was changed", entry, at, b.GetAgent(), b.GetEpoch())
			return
		}
		link = chain.Link(link, at, r.GetHeader())
		v.recordBody(entry, r)
	}
	end := b.GetFirst() + uint64(len(b.GetRecords()))
	if sentence := ep.checkHead(v.report.TrustDomain, v.report.Tenant, b, end, link); sentence != "" {
		ep.broken = true
		v.report.find(CodeChain, ep.entryAt(end-1), "agent %s, epoch %d, records %d to %d (up to entry %d): %s",
			b.GetAgent(), b.GetEpoch(), b.GetFirst(), end-1, ep.entryAt(end-1), sentence)
		return
	}
	ep.verified, ep.link = end, link
}

func (v *verifier) recordBody(entry uint64, r *auditv1.Record) {
	var h auditv1.Header
	// The log's leaf holds the same bytes, so whether they can be read has been
	// said there.
	if planv1.Decode(r.GetHeader(), &h) != nil {
		return
	}
	if len(r.GetSalt()) == 0 && len(r.GetBody()) == 0 {
		v.gone = append(v.gone, entry)
		return
	}
	v.body(entry, &h, r.GetSalt(), r.GetBody())
}

// checkHead returns what is wrong with the signed head after a batch, empty for
// nothing.
func (e *epoch) checkHead(trustDomain, tenant string, b *auditv1.Batch, length uint64, link [chain.Size]byte) string {
	payload, _, err := dsse.Verify(b.GetHead(), dsse.ChainHead, map[string]ed25519.PublicKey{keys.ID(e.audit): e.audit}, 1)
	if err != nil {
		return "the chain head is not signed by the audit key enrolled for this epoch: " + clean(err.Error())
	}
	var h auditv1.ChainHead
	if err := planv1.Decode(payload, &h); err != nil {
		return "the chain head cannot be read: " + clean(err.Error())
	}
	switch {
	case h.GetFormat() != formatVersion || h.GetTrustDomain() != trustDomain || h.GetTenant() != tenant || h.GetAgent() != b.GetAgent() || h.GetEpoch() != b.GetEpoch():
		return "the chain head was signed for another chain"
	case h.GetLength() != length || !bytes.Equal(h.GetHash(), link[:]):
		return "the chain head was signed over other records"
	}
	return ""
}

func (e *epoch) entryAt(record uint64) int64 {
	if record < uint64(len(e.leaves)) {
		return int64(e.leaves[record].index)
	}
	return -1
}

// cosignatures finds the enrolled witnesses among those who signed the final
// checkpoint. Signatures by keys that the log never enrolled say nothing.
func (v *verifier) cosignatures(c tlogproof.Opened) {
	for _, sig := range c.Note.UnverifiedSigs {
		raw, err := base64.StdEncoding.DecodeString(sig.Base64)
		if err != nil || len(raw) < 4 {
			continue
		}
		for _, a := range v.agents {
			for _, e := range a.epochs {
				key, err := tlogproof.NewCosignatureVerifier(sig.Name, e.witness)
				if err != nil || key.KeyHash() != sig.Hash || slices.Contains(v.report.Cosigned, a.name) {
					continue
				}
				if !key.Verify([]byte(c.Text), raw[4:]) {
					v.report.find(CodeCheckpoint, -1, "the cosignature of agent %s on the final checkpoint does not verify", a.name)
					continue
				}
				v.report.Cosigned = append(v.report.Cosigned, a.name)
			}
		}
	}
	slices.Sort(v.report.Cosigned)
}

// finishAgents looks for records that the log holds and no batch proves.
func (v *verifier) finishAgents() {
	for _, name := range slices.Sorted(maps.Keys(v.agents)) {
		a := v.agents[name]
		for _, e := range a.epochs {
			if have := uint64(len(e.leaves)); !e.broken && e.verified < have {
				v.report.find(CodeChain, e.entryAt(e.verified), "agent %s, epoch %d: records %d to %d (from entry %d) are in the log and their signed batches are missing",
					a.name, e.number, e.verified, have-1, e.entryAt(e.verified))
			}
		}
	}
}
