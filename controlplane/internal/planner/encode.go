package planner

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// Format of manifests and chunks.
	Format = 1
	// MaxChunk is the most octets a chunk may have.
	MaxChunk = 1 << 20
	// SaltSize is the least octets of a chunk's salt.
	SaltSize = 16
)

// ErrEncoded is wrapped by Decode when a manifest and its chunks do not belong
// together or break the format.
var ErrEncoded = errors.New("plan's bytes do not hold together")

// Encoded is a plan in the bytes that are stored, approved and signed. They are
// made once and never again.
type Encoded struct {
	Manifest []byte
	// Digest of the manifest: the plan digest.
	Digest []byte
	// Chunks in the manifest's order.
	Chunks [][]byte
}

// Encode writes a plan down: each agent's changes in chunks of at most MaxChunk,
// each with a salt of its own, under one manifest. salt is called once a chunk
// and returns at least SaltSize octets; with the same salts equal inputs give
// equal bytes. A single change that does not fit into a chunk is an error.
func Encode(in Input, out Output, salt func() []byte) (Encoded, error) {
	in = sorted(in)
	m := &planv1.Manifest{
		Format: Format, Plan: in.Plan, TrustDomain: in.TrustDomain, Tenant: in.Tenant, Purpose: in.Purpose,
		AsOf: timestamppb.New(in.AsOf), PolicyVersion: in.PolicyVersion, PolicyDigest: in.PolicyDigest,
		ParametersDigest: in.ParametersDigest, SoloOperator: in.SoloOperator,
	}
	for _, c := range in.Connectors {
		if c.Snapshot != nil {
			m.Snapshots = append(m.Snapshots, c.Snapshot)
		}
	}
	var e Encoded
	for _, a := range out.Agents {
		m.Audiences = append(m.Audiences, &planv1.Audience{Agent: a.Agent, Connectors: a.Connectors})
		for rest := a.Changes; len(rest) > 0; {
			chunk := &planv1.Chunk{Salt: salt()}
			if len(chunk.Salt) < SaltSize {
				return Encoded{}, fmt.Errorf("encode plan %s: a salt of %d octets is shorter than %d", in.Plan, len(chunk.Salt), SaltSize)
			}
			n := fill(chunk, rest)
			if n == 0 {
				return Encoded{}, fmt.Errorf("encode plan %s: change %s on %s does not fit into %d octets; shorten its values",
					in.Plan, rest[0].GetId(), rest[0].GetDisplay(), MaxChunk)
			}
			rest = rest[n:]
			encoded, err := planv1.Encode(chunk)
			if err != nil {
				return Encoded{}, fmt.Errorf("encode plan %s: %w", in.Plan, err)
			}
			e.Chunks = append(e.Chunks, encoded)
			m.Chunks = append(m.Chunks, &planv1.ChunkRef{
				Agent: a.Agent, Digest: planv1.Digest(encoded), Size: uint32(len(encoded)), Changes: uint32(n),
			})
		}
	}
	var err error
	if e.Manifest, err = planv1.Encode(m); err != nil {
		return Encoded{}, fmt.Errorf("encode plan %s: %w", in.Plan, err)
	}
	e.Digest = planv1.Digest(e.Manifest)
	return e, nil
}

// fill puts as many changes into the chunk as fit and returns how many.
func fill(chunk *planv1.Chunk, changes []*planv1.Change) int {
	// Each field costs its tag and a length of at most four octets.
	size := len(chunk.GetSalt()) + 5
	for i, c := range changes {
		size += proto.Size(c) + 5
		if size > MaxChunk {
			return i
		}
		chunk.Changes = append(chunk.Changes, c)
	}
	return len(changes)
}

// Decode reads a plan strictly: nothing unknown, every chunk the one that the
// manifest names, in its order. Errors wrap ErrEncoded or planv1.ErrUnknown.
func Decode(manifest []byte, chunks [][]byte) (*planv1.Manifest, []AgentChanges, error) {
	m := &planv1.Manifest{}
	if err := planv1.Decode(manifest, m); err != nil {
		return nil, nil, fmt.Errorf("manifest: %w", err)
	}
	if m.GetFormat() != Format {
		return nil, nil, fmt.Errorf("%w: manifest has format %d, this version reads %d", ErrEncoded, m.GetFormat(), Format)
	}
	if len(chunks) != len(m.GetChunks()) {
		return nil, nil, fmt.Errorf("%w: %d chunks where the manifest names %d", ErrEncoded, len(chunks), len(m.GetChunks()))
	}
	agents := make([]AgentChanges, len(m.GetAudiences()))
	for i, a := range m.GetAudiences() {
		agents[i] = AgentChanges{Agent: a.GetAgent(), Connectors: a.GetConnectors()}
	}
	for i, ref := range m.GetChunks() {
		if len(chunks[i]) > MaxChunk || uint32(len(chunks[i])) != ref.GetSize() || !bytes.Equal(planv1.Digest(chunks[i]), ref.GetDigest()) {
			return nil, nil, fmt.Errorf("%w: chunk %d is not the one that the manifest names", ErrEncoded, i)
		}
		chunk := &planv1.Chunk{}
		if err := planv1.Decode(chunks[i], chunk); err != nil {
			return nil, nil, fmt.Errorf("chunk %d: %w", i, err)
		}
		at := slices.IndexFunc(agents, func(a AgentChanges) bool { return a.Agent == ref.GetAgent() })
		if at < 0 || len(chunk.GetChanges()) != int(ref.GetChanges()) {
			return nil, nil, fmt.Errorf("%w: chunk %d does not fit its reference in the manifest", ErrEncoded, i)
		}
		agents[at].Changes = append(agents[at].Changes, chunk.GetChanges()...)
	}
	return m, agents, nil
}
