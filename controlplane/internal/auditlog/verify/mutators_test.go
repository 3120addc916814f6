package verify_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/pki/chain"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// mutator is one way to tamper with an export. do returns false where it does
// not fit the log. signed: the forger holds the log's key and signs the log again.
type mutator struct {
	name   string
	signed bool
	do     func(s *scene, f *file) bool
}

// own picks an entry of the control plane's own with a body, of the types if any
// are named; -1 for none.
func (s *scene) own(f *file, types ...auditv1.Type) int {
	var fit []int
	for i, e := range f.entries {
		_, h := f.entry(i)
		if len(e.GetBody()) > 0 && (len(types) == 0 || slices.Contains(types, h.GetType())) {
			fit = append(fit, i)
		}
	}
	return s.oneOf(fit)
}

// agents picks an entry that is an agent's.
func (s *scene) agentEntry(f *file) int {
	var fit []int
	for i := range f.entries {
		if e, _ := f.entry(i); e.GetAgent() != "" {
			fit = append(fit, i)
		}
	}
	return s.oneOf(fit)
}

func (s *scene) oneOf(fit []int) int {
	if len(fit) == 0 {
		return -1
	}
	return fit[s.any(len(fit))]
}

// batch picks a batch that has at least n records.
func (s *scene) batch(f *file, n int) int {
	var fit []int
	for i, b := range f.batches {
		if len(b.GetRecords()) >= n {
			fit = append(fit, i)
		}
	}
	return s.oneOf(fit)
}

// two picks two different indexes, ascending.
func (s *scene) two(n int) (int, int, bool) {
	if n < 2 {
		return 0, 0, false
	}
	i := s.any(n - 1)
	return i, i + 1 + s.any(n-1-i), true
}

// header changes the header of an entry that pick chose.
func header(pick func(*scene, *file) int, change func(*scene, *auditv1.Entry, *auditv1.Header)) func(*scene, *file) bool {
	return func(s *scene, f *file) bool {
		i := pick(s, f)
		if i < 0 {
			return false
		}
		e, h := f.entry(i)
		change(s, e, h)
		f.setEntry(i, e, h)
		return true
	}
}

func anyEntry(s *scene, f *file) int { return s.any(len(f.entries)) }
func anyOwn(s *scene, f *file) int   { return s.own(f) }
func anAgents(s *scene, f *file) int { return s.agentEntry(f) }

// rehashed changes the body of an own entry and its hash in the header, as whoever
// writes the log could.
func rehashed(change func(*scene, *auditv1.Body) bool, types ...auditv1.Type) func(*scene, *file) bool {
	return func(s *scene, f *file) bool {
		i := s.own(f, types...)
		if i < 0 {
			return false
		}
		var b auditv1.Body
		if proto.Unmarshal(f.entries[i].GetBody(), &b) != nil || !change(s, &b) {
			return false
		}
		body, err := planv1.Encode(&b)
		if err != nil {
			return false
		}
		f.entries[i].Body = body
		e, h := f.entry(i)
		h.BodyHash = hash(f.entries[i].GetSalt(), body)
		f.setEntry(i, e, h)
		return true
	}
}

// inBatch changes a batch of at least n records.
func inBatch(n int, change func(*scene, *file, *auditv1.Batch) bool) func(*scene, *file) bool {
	return func(s *scene, f *file) bool {
		i := s.batch(f, n)
		return i >= 0 && change(s, f, f.batches[i])
	}
}

func flip(s *scene, b []byte) bool {
	if len(b) == 0 {
		return false
	}
	b[s.any(len(b))] ^= 1 << s.any(8)
	return true
}

var (
	enrolled = auditv1.Type_TYPE_AGENT_ENROLLED
	ended    = auditv1.Type_TYPE_AGENT_KEYS_ENDED
)

func mutators() []mutator {
	return slices.Concat(entryMutators(), bodyMutators(), chainMutators(), keyMutators(), frameMutators())
}

// entryMutators tamper with the log's entries.
func entryMutators() []mutator {
	drop := func(s *scene, f *file) bool { f.drop(s.any(len(f.entries))); return true }
	dropMany := func(s *scene, f *file) bool {
		i, j, ok := s.two(len(f.entries))
		f.entries = slices.Delete(f.entries, i, j)
		return ok
	}
	swap := func(s *scene, f *file) bool {
		i, j, ok := s.two(len(f.entries))
		f.entries[i], f.entries[j] = f.entries[j], f.entries[i]
		return ok
	}
	move := func(s *scene, f *file) bool {
		i, j, ok := s.two(len(f.entries))
		e := f.entries[i]
		f.entries = slices.Insert(slices.Delete(f.entries, i, i+1), j, e)
		return ok
	}
	double := func(s *scene, f *file) bool {
		// Not the last: the key's holder may always append an act, be it the same.
		i := s.any(len(f.entries) - 1)
		f.entries = slices.Insert(f.entries, i, f.entries[i])
		return true
	}
	insert := func(s *scene, f *file) bool {
		body, err := planv1.Encode(intaketest.Started(7))
		salt := bytes.Repeat([]byte{7}, 16)
		h, err2 := planv1.Encode(&auditv1.Header{Format: 1, Type: auditv1.Type_TYPE_PLAN_APPROVED, At: timestamppb.New(intaketest.Start), Tenant: s.tenant,
			Actor: "operator:nobody", BodyHash: hash(salt, body)})
		e, err3 := planv1.Encode(&auditv1.Entry{Header: h})
		if err != nil || err2 != nil || err3 != nil {
			return false
		}
		f.entries = slices.Insert(f.entries, s.any(len(f.entries)), &auditv1.ExportEntry{Entry: e, Salt: salt, Body: body})
		return true
	}
	reverse := func(_ *scene, f *file) bool { slices.Reverse(f.entries); return true }
	splice := func(s *scene, f *file) bool {
		f.entries = slices.Insert(f.entries, s.any(len(f.entries)), s.other.entries[s.any(len(s.other.entries))])
		return true
	}
	cut := func(s *scene, f *file) bool {
		f.entries = f.entries[:1+s.any(len(f.entries)-1)]
		return true
	}
	raw := func(field protowire.Number, inHeader bool) func(*scene, *file) bool {
		return func(s *scene, f *file) bool {
			i := s.any(len(f.entries))
			more := func(b []byte) []byte {
				return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), 1)
			}
			if !inHeader {
				f.entries[i].Entry = more(f.entries[i].GetEntry())
				return true
			}
			e, _ := f.entry(i)
			e.Header = more(e.GetHeader())
			f.setEntry(i, e, nil)
			return true
		}
	}
	out := []mutator{
		{"reversed", true, reverse},
		{"entries cut off", true, cut},
		{"unknown field in an entry", true, raw(99, false)},
		{"unknown field in a header", true, raw(99, true)},
		{"field of a header twice", true, raw(2, true)},
		{"actor of an act", true, header(anyOwn, func(_ *scene, _ *auditv1.Entry, h *auditv1.Header) { h.Actor = "operator:nobody" })},
		{"actor of an agent's record", true, header(anAgents, func(_ *scene, _ *auditv1.Entry, h *auditv1.Header) { h.Actor += "x" })},
		{"type of an act", true, header(anyOwn, func(s *scene, _ *auditv1.Entry, h *auditv1.Header) { h.Type = 33 + (h.Type-32)%20 })},
		{"type of an agent's record", true, header(anAgents, func(_ *scene, _ *auditv1.Entry, h *auditv1.Header) { h.Type = auditv1.Type_TYPE_LEFT })},
		{"moment", true, header(anyEntry, func(s *scene, _ *auditv1.Entry, h *auditv1.Header) { h.At = timestamppb.New(h.GetAt().AsTime().Add(1)) })},
		{"uncertainty", true, header(anyEntry, func(_ *scene, _ *auditv1.Entry, h *auditv1.Header) { h.UncertaintyMs += 10 })},
		{"subject", true, header(anyEntry, func(_ *scene, _ *auditv1.Entry, h *auditv1.Header) { h.Subject += "x" })},
		{"plan digest", true, header(anyEntry, func(_ *scene, _ *auditv1.Entry, h *auditv1.Header) { h.PlanDigest = append(h.GetPlanDigest(), 1) })},
		{"ticket", true, header(anyEntry, func(_ *scene, _ *auditv1.Entry, h *auditv1.Header) { h.Ticket += "1" })},
		{"tenant of a header", true, header(anyEntry, func(_ *scene, _ *auditv1.Entry, h *auditv1.Header) { h.Tenant = "other" })},
		{"format of a header", true, header(anyEntry, func(_ *scene, _ *auditv1.Entry, h *auditv1.Header) { h.Format++ })},
		{"body hash", true, header(anyEntry, func(s *scene, _ *auditv1.Entry, h *auditv1.Header) { flip(s, h.GetBodyHash()) })},
		{"agent of an entry", true, header(anAgents, func(s *scene, e *auditv1.Entry, _ *auditv1.Header) {
			e.Agent = map[string]string{"dc1": "dc2"}[e.GetAgent()] + strings.TrimPrefix("dc1", e.GetAgent())
		})},
		{"an agent that never was", true, header(anAgents, func(_ *scene, e *auditv1.Entry, _ *auditv1.Header) { e.Agent = "dc9" })},
		{"epoch of an entry", true, header(anAgents, func(_ *scene, e *auditv1.Entry, _ *auditv1.Header) { e.Epoch++ })},
		{"index of an entry", true, header(anAgents, func(_ *scene, e *auditv1.Entry, _ *auditv1.Header) { e.Index++ })},
		{"an act put on an agent", true, header(anyOwn, func(_ *scene, e *auditv1.Entry, _ *auditv1.Header) { e.Agent, e.Epoch = "dc1", 1 })},
		{"an act counted in a chain", true, header(anyOwn, func(_ *scene, e *auditv1.Entry, _ *auditv1.Header) { e.Index = 3 })},
		{"an agent's record taken as the control plane's", true, header(anAgents, func(_ *scene, e *auditv1.Entry, _ *auditv1.Header) { e.Agent, e.Epoch, e.Index = "", 0, 0 })},
	}
	for name, do := range map[string]func(*scene, *file) bool{
		"an entry dropped": drop, "entries dropped": dropMany, "entries exchanged": swap, "an entry moved": move, "an entry doubled": double,
		"an act made up": insert, "another tenant's entry": splice,
	} {
		out = append(out, mutator{name, false, do}, mutator{name + ", signed again", true, do})
	}
	slices.SortFunc(out, func(a, b mutator) int { return strings.Compare(a.name, b.name) })
	return out
}

// bodyMutators tamper with what can be erased.
func bodyMutators() []mutator {
	two := func(s *scene, f *file) (a, b *auditv1.ExportEntry, ok bool) {
		i, j := s.own(f), s.own(f)
		return f.entries[max(i, 0)], f.entries[max(j, 0)], i >= 0 && j >= 0 && i != j
	}
	return []mutator{
		{"body of an act", false, func(s *scene, f *file) bool { i := s.own(f); return i >= 0 && flip(s, f.entries[i].GetBody()) }},
		{"salt of an act", false, func(s *scene, f *file) bool { i := s.own(f); return i >= 0 && flip(s, f.entries[i].GetSalt()) }},
		{"bodies exchanged", false, func(s *scene, f *file) bool {
			a, b, ok := two(s, f)
			a.Salt, b.Salt, a.Body, b.Body = b.Salt, a.Salt, b.Body, a.Body
			return ok
		}},
		{"salts exchanged", false, func(s *scene, f *file) bool {
			a, b, ok := two(s, f)
			a.Salt, b.Salt = b.Salt, a.Salt
			return ok
		}},
		{"a body erased and no record of it", false, func(s *scene, f *file) bool {
			i := s.own(f)
			f.entries[max(i, 0)].Salt, f.entries[max(i, 0)].Body = nil, nil
			return i >= 0
		}},
		{"only the salt erased", false, func(s *scene, f *file) bool { i := s.own(f); f.entries[max(i, 0)].Salt = nil; return i >= 0 }},
		{"byte moved from body to salt", false, func(s *scene, f *file) bool {
			i := s.own(f)
			if i < 0 {
				return false
			}
			// The hash is the same: where the salt ends must not be anybody's choice.
			e := f.entries[i]
			e.Salt, e.Body = append(slices.Clone(e.GetSalt()), e.GetBody()[0]), e.GetBody()[1:]
			return true
		}},
		{"a body hidden in the salt", false, func(s *scene, f *file) bool {
			i := s.own(f)
			if i < 0 {
				return false
			}
			e := f.entries[i]
			e.Salt, e.Body = slices.Concat(e.GetSalt(), e.GetBody()), nil
			return true
		}},
		{"an agent's body hidden in the salt", false, inBatch(1, func(s *scene, _ *file, b *auditv1.Batch) bool {
			r := b.GetRecords()[s.any(len(b.GetRecords()))]
			hidden := len(r.GetBody()) > 0
			r.Salt, r.Body = slices.Concat(r.GetSalt(), r.GetBody()), nil
			return hidden
		})},
		{"an erased body put back", false, func(s *scene, f *file) bool {
			for i, e := range f.entries {
				if was := s.bodies[i]; was != nil && len(e.GetBody()) == 0 {
					e.Salt, e.Body = was.GetSalt(), was.GetBody()
					return true
				}
			}
			return false
		}},
		{"an erasure of other entries", true, rehashed(func(s *scene, b *auditv1.Body) bool {
			if len(b.GetAct().GetDetails()) == 0 {
				return false
			}
			b.GetAct().Details[0].Value = "0"
			return true
		}, auditv1.Type_TYPE_ERASED)},
		{"an act told otherwise", true, rehashed(func(_ *scene, b *auditv1.Body) bool {
			if b.GetAct() == nil {
				return false
			}
			b.GetAct().Verb += " not"
			return true
		})},
		{"a body beside an agent's entry", false, func(s *scene, f *file) bool {
			i, j := s.agentEntry(f), s.own(f)
			if i < 0 || j < 0 {
				return false
			}
			f.entries[i].Salt, f.entries[i].Body = f.entries[j].Salt, f.entries[j].Body
			return true
		}},
		{"body of an agent's record", false, inBatch(1, func(s *scene, _ *file, b *auditv1.Batch) bool {
			return flip(s, b.GetRecords()[s.any(len(b.GetRecords()))].GetBody())
		})},
		{"salt of an agent's record", false, inBatch(1, func(s *scene, _ *file, b *auditv1.Batch) bool {
			return flip(s, b.GetRecords()[s.any(len(b.GetRecords()))].GetSalt())
		})},
		{"an agent's body erased and no record of it", false, inBatch(1, func(s *scene, _ *file, b *auditv1.Batch) bool {
			r := b.GetRecords()[s.any(len(b.GetRecords()))]
			gone := len(r.GetBody()) > 0
			r.Salt, r.Body = nil, nil
			return gone
		})},
		{"bodies of agents' records exchanged", false, inBatch(2, func(_ *scene, _ *file, b *auditv1.Batch) bool {
			x, y := b.GetRecords()[0], b.GetRecords()[1]
			x.Salt, y.Salt, x.Body, y.Body = y.Salt, x.Salt, y.Body, x.Body
			return true
		})},
	}
}

// chainMutators tamper with what agents signed.
func chainMutators() []mutator {
	remake := func(s *scene, f *file, b *auditv1.Batch, key ed25519.PrivateKey) bool {
		// The record is changed in the batch and in the log, and the head is signed
		// anew over the chain as it is then.
		at := s.any(len(b.GetRecords()))
		var h auditv1.Header
		if proto.Unmarshal(b.GetRecords()[at].GetHeader(), &h) != nil {
			return false
		}
		h.Subject = "forged"
		changed, err := planv1.Encode(&h)
		if err != nil {
			return false
		}
		old := b.GetRecords()[at].GetHeader()
		for i := range f.entries {
			if e, _ := f.entry(i); e.GetAgent() == b.GetAgent() && bytes.Equal(e.GetHeader(), old) {
				e.Header = changed
				f.setEntry(i, e, nil)
			}
		}
		b.GetRecords()[at].Header = changed
		link, n := chain.Genesis(intaketest.TrustDomain, s.tenant, b.GetAgent(), b.GetEpoch()), uint64(0)
		for _, x := range f.batches {
			if x.GetAgent() != b.GetAgent() || x.GetEpoch() != b.GetEpoch() {
				continue
			}
			for _, r := range x.GetRecords() {
				link = chain.Link(link, n, r.GetHeader())
				n++
			}
			if x.GetFirst() < b.GetFirst() {
				continue
			}
			a := s.agents[0]
			x.Head = a.Sign(key, &auditv1.ChainHead{Format: 1, TrustDomain: intaketest.TrustDomain, Tenant: s.tenant, Agent: b.GetAgent(), Epoch: b.GetEpoch(),
				Length: n, Hash: link[:], At: timestamppb.New(intaketest.Start)})
		}
		return true
	}
	agentOf := func(s *scene, name string) *intaketest.FakeAgent {
		return s.agents[slices.IndexFunc(s.agents, func(a *intaketest.FakeAgent) bool { return a.Name == name })]
	}
	at := func(s *scene, f *file) int { return s.any(len(f.batches)) }
	return []mutator{
		{"a batch dropped", false, func(s *scene, f *file) bool {
			i := at(s, f)
			f.batches = slices.Delete(f.batches, i, i+1)
			return true
		}},
		{"all batches dropped", false, func(_ *scene, f *file) bool { f.batches = nil; return true }},
		{"the last batch and its entries dropped", true, func(_ *scene, f *file) bool {
			b := f.batches[len(f.batches)-1]
			f.entries = slices.DeleteFunc(f.entries, func(x *auditv1.ExportEntry) bool {
				var e auditv1.Entry
				_ = proto.Unmarshal(x.GetEntry(), &e)
				return e.GetAgent() == b.GetAgent() && e.GetEpoch() == b.GetEpoch() && e.GetIndex() >= b.GetFirst()
			})
			f.batches = f.batches[:len(f.batches)-1]
			return true
		}},
		{"a batch doubled", false, func(s *scene, f *file) bool {
			i := at(s, f)
			f.batches = slices.Insert(f.batches, i, f.batches[i])
			return true
		}},
		{"batches of one agent exchanged", false, func(s *scene, f *file) bool {
			i, j, ok := s.two(len(f.batches))
			f.batches[i], f.batches[j] = f.batches[j], f.batches[i]
			// Those of different chains stand beside each other in no order.
			return ok && f.batches[i].GetAgent() == f.batches[j].GetAgent() && f.batches[i].GetEpoch() == f.batches[j].GetEpoch()
		}},
		{"another tenant's batch", false, func(s *scene, f *file) bool {
			f.batches = slices.Insert(f.batches, at(s, f), s.other.batches[s.any(len(s.other.batches))])
			return true
		}},
		{"records exchanged in a batch", false, inBatch(2, func(_ *scene, _ *file, b *auditv1.Batch) bool {
			b.Records[0], b.Records[1] = b.Records[1], b.Records[0]
			return true
		})},
		{"a record dropped from a batch", false, inBatch(2, func(_ *scene, _ *file, b *auditv1.Batch) bool { b.Records = b.Records[1:]; return true })},
		{"a record doubled in a batch", false, inBatch(1, func(_ *scene, _ *file, b *auditv1.Batch) bool {
			b.Records = append(b.Records, b.Records[0])
			return true
		})},
		{"a batch without records", false, inBatch(1, func(_ *scene, _ *file, b *auditv1.Batch) bool { b.Records = nil; return true })},
		{"header in a batch", false, inBatch(1, func(s *scene, _ *file, b *auditv1.Batch) bool {
			return flip(s, b.GetRecords()[s.any(len(b.GetRecords()))].GetHeader())
		})},
		{"head of a batch flipped", false, inBatch(1, func(s *scene, _ *file, b *auditv1.Batch) bool { return flip(s, b.GetHead()) })},
		{"head of a batch left out", false, inBatch(1, func(_ *scene, _ *file, b *auditv1.Batch) bool { b.Head = nil; return true })},
		{"head of another batch", false, func(s *scene, f *file) bool {
			i, j, ok := s.two(len(f.batches))
			f.batches[i].Head = f.batches[j].GetHead()
			return ok
		}},
		{"head signed by the agent's other key", false, inBatch(1, func(s *scene, f *file, b *auditv1.Batch) bool {
			a := agentOf(s, b.GetAgent())
			b.Head = a.Sign(a.Identity, a.ChainHead())
			return true
		})},
		{"records remade by a thief's key", true, inBatch(1, func(s *scene, f *file, b *auditv1.Batch) bool {
			return remake(s, f, b, intaketest.Key(s.T, "thief"))
		})},
		{"records remade by a key that has ended", true, inBatch(1, func(s *scene, f *file, b *auditv1.Batch) bool {
			old := s.ended[b.GetAgent()]
			return old != nil && b.GetEpoch() == agentOf(s, b.GetAgent()).Epoch && remake(s, f, b, old)
		})},
		{"records remade by the agent itself: a fork", true, inBatch(1, func(s *scene, f *file, b *auditv1.Batch) bool {
			a := agentOf(s, b.GetAgent())
			return b.GetEpoch() == a.Epoch && remake(s, f, b, a.Audit)
		})},
		{"agent of a batch", false, inBatch(1, func(_ *scene, _ *file, b *auditv1.Batch) bool { b.Agent += "x"; return true })},
		{"epoch of a batch", false, inBatch(1, func(_ *scene, _ *file, b *auditv1.Batch) bool { b.Epoch++; return true })},
		{"first record of a batch", false, inBatch(1, func(_ *scene, _ *file, b *auditv1.Batch) bool { b.First++; return true })},
	}
}

// keyMutators tamper with the history of agents' keys.
func keyMutators() []mutator {
	key := func(change func(*scene, *auditv1.KeyEvent) bool, typ auditv1.Type) func(*scene, *file) bool {
		return rehashed(func(s *scene, b *auditv1.Body) bool { return b.GetKey() != nil && change(s, b.GetKey()) }, typ)
	}
	dropOf := func(typ auditv1.Type) func(*scene, *file) bool {
		return func(s *scene, f *file) bool {
			i := s.own(f, typ)
			if i >= 0 {
				f.drop(i)
			}
			return i >= 0
		}
	}
	return []mutator{
		{"an enrolment dropped", true, dropOf(enrolled)},
		{"the end of keys dropped", true, dropOf(ended)},
		{"the end of keys moved to the front", true, func(s *scene, f *file) bool {
			i := s.own(f, ended)
			if i < 1 {
				return false
			}
			f.entries[i], f.entries[i-1] = f.entries[i-1], f.entries[i]
			return true
		}},
		{"another key enrolled", true, key(func(s *scene, k *auditv1.KeyEvent) bool {
			k.Keys[1].PublicKey = k.GetKeys()[0].GetPublicKey()
			return true
		}, enrolled)},
		{"a second audit key enrolled", true, key(func(_ *scene, k *auditv1.KeyEvent) bool {
			k.Keys = append(k.Keys, k.Keys[1])
			return true
		}, enrolled)},
		{"an audit key left out", true, key(func(_ *scene, k *auditv1.KeyEvent) bool { k.Keys = k.Keys[:1]; return true }, enrolled)},
		{"epoch of an enrolment", true, key(func(_ *scene, k *auditv1.KeyEvent) bool { k.Epoch++; return true }, enrolled)},
		{"agent of an enrolment", true, key(func(_ *scene, k *auditv1.KeyEvent) bool { k.Agent = "dc9"; return true }, enrolled)},
		{"last record of an epoch", true, key(func(_ *scene, k *auditv1.KeyEvent) bool { k.LastIndex++; return true }, ended)},
		{"reason of an end left out", true, key(func(_ *scene, k *auditv1.KeyEvent) bool { k.Ended = ""; return true }, ended)},
		{"body of an enrolment erased", false, func(s *scene, f *file) bool {
			i := s.own(f, enrolled)
			f.entries[max(i, 0)].Salt, f.entries[max(i, 0)].Body = nil, nil
			return i >= 0
		}},
	}
}

// frameMutators tamper with the export itself: its head, its end and its bytes.
func frameMutators() []mutator {
	checkpoint := func(change func(lines []string) []string) func(*scene, *file) bool {
		return func(_ *scene, f *file) bool {
			f.end.Checkpoint = strings.Join(change(strings.Split(f.end.GetCheckpoint(), "\n")), "\n")
			return true
		}
	}
	return []mutator{
		{"size in the checkpoint", false, checkpoint(func(l []string) []string { l[1] += "0"; return l })},
		{"hash in the checkpoint", false, checkpoint(func(l []string) []string { l[2] = strings.Repeat("A", 43) + "="; return l })},
		{"origin in the checkpoint", false, checkpoint(func(l []string) []string { l[0] += "x"; return l })},
		{"signature of the checkpoint left out", false, checkpoint(func(l []string) []string { return append(l[:4], "") })},
		{"signature of the checkpoint flipped", false, func(_ *scene, f *file) bool {
			c := []byte(f.end.GetCheckpoint())
			c[len(c)-12] ^= 1
			f.end.Checkpoint = string(c)
			return true
		}},
		{"checkpoint by a thief", false, func(s *scene, f *file) bool { f.reseal(intaketest.Key(s.T, "thief")); return true }},
		{"checkpoint of another tenant", false, func(s *scene, f *file) bool { f.end.Checkpoint = s.other.end.GetCheckpoint(); return true }},
		{"an older checkpoint under all entries", false, func(s *scene, f *file) bool {
			if len(s.saved) < 2 || s.saved[0] == s.saved[len(s.saved)-1] {
				return false
			}
			f.end.Checkpoint = s.saved[0]
			return true
		}},
		{"rolled back to an older checkpoint", false, func(s *scene, f *file) bool {
			size, ok := sizeOf(s.saved[0])
			if !ok || size >= len(f.entries) {
				return false
			}
			f.entries = f.entries[:size]
			f.end.Checkpoint, f.end.Entries = s.saved[0], uint64(size)
			return true
		}},
		{"count in the end frame", false, func(_ *scene, f *file) bool { f.end.Entries++; return true }},
		{"no end frame's checkpoint", false, func(_ *scene, f *file) bool { f.end.Checkpoint = ""; return true }},
		{"tenant in the head", false, func(_ *scene, f *file) bool { f.head.Tenant = "other"; return true }},
		{"origin in the head", false, func(_ *scene, f *file) bool { f.head.Origin += "x"; return true }},
		{"tenant and origin in the head", true, func(_ *scene, f *file) bool {
			f.head.Tenant, f.head.Origin = "other", intaketest.TrustDomain+"/tenant/other"
			return true
		}},
		{"trust domain in the head", false, func(_ *scene, f *file) bool { f.head.TrustDomain = "thief.example"; return true }},
		{"format in the head", false, func(_ *scene, f *file) bool { f.head.Format++; return true }},
		{"root documents left out", false, func(_ *scene, f *file) bool { f.head.RootDocuments = nil; return true }},
		{"root document flipped", false, func(s *scene, f *file) bool { return flip(s, f.head.GetRootDocuments()[0]) }},
		{"root document by a thief", false, func(s *scene, f *file) bool {
			f.head.RootDocuments[0] = s.Document(1, intaketest.Key(s.T, "thief"))
			return true
		}},
		{"a root document that skips a version", false, func(s *scene, f *file) bool {
			f.head.RootDocuments = append(f.head.RootDocuments, s.Document(3, s.LogKey))
			return true
		}},
		{"another tenant's whole log under this head", true, func(s *scene, f *file) bool {
			f.entries, f.batches = s.other.entries, s.other.batches
			return true
		}},
		{"another tenant's log signed as this one's", true, func(s *scene, f *file) bool {
			f.entries, f.batches = nil, nil
			return true
		}},
	}
}

// byteMutators tamper with the file's bytes and know nothing of what they mean.
func byteMutators() []struct {
	name string
	do   func(s *scene, export []byte) []byte
} {
	frame := func(f *auditv1.ExportFrame) []byte {
		raw, _ := proto.Marshal(f)
		return append(binary.AppendUvarint(nil, uint64(len(raw))), raw...)
	}
	return []struct {
		name string
		do   func(s *scene, export []byte) []byte
	}{
		{"a bit flipped", func(s *scene, x []byte) []byte { flip(s, x); return x }},
		{"a byte lost", func(s *scene, x []byte) []byte { i := s.any(len(x)); return slices.Delete(x, i, i+1) }},
		{"a byte added", func(s *scene, x []byte) []byte { return slices.Insert(x, s.any(len(x)+1), byte(s.any(256))) }},
		{"the file cut", func(s *scene, x []byte) []byte { return x[:s.any(len(x))] }},
		{"a piece doubled", func(s *scene, x []byte) []byte {
			i, j, _ := s.two(len(x))
			return slices.Insert(x, j, slices.Clone(x[i:j])...)
		}},
		{"zeros in the middle", func(s *scene, x []byte) []byte { i, j, _ := s.two(len(x)); clear(x[i:j]); return x }},
		{"the file twice", func(_ *scene, x []byte) []byte { return append(x, x...) }},
		{"a second head at the end", func(s *scene, x []byte) []byte {
			return append(x, frame(&auditv1.ExportFrame{Frame: &auditv1.ExportFrame_Head{Head: s.other.head}})...)
		}},
		{"an empty frame at the end", func(_ *scene, x []byte) []byte { return append(x, 0) }},
		{"an empty frame at the front", func(_ *scene, x []byte) []byte { return slices.Insert(x, 0, 0) }},
	}
}
