package dsse

// PayloadType names what an envelope holds. It is inside the signature, so an
// envelope cannot be taken for another kind.
type PayloadType string

// Every payload type of Reeve. A change of meaning takes a new version here and
// never a new meaning for an old name.
const (
	// Root is a root document, signed by root keys.
	Root PayloadType = "application/vnd.reeve.root.v1+json"
	// Order is an order to one agent, signed by a plan key.
	Order PayloadType = "application/vnd.reeve.order.v1+protobuf"
	// ChainHead is the head of an agent's record chain, signed by its audit key.
	ChainHead PayloadType = "application/vnd.reeve.chain-head.v1+protobuf"
	// Rehearsal is the result of a rehearsal, where it travels on its own; within
	// an order the order's signature covers it. A plan key does not sign it.
	Rehearsal PayloadType = "application/vnd.reeve.rehearsal.v1+protobuf"
	// Attestation answers a challenge, signed by an agent's identity key.
	Attestation PayloadType = "application/vnd.reeve.attestation.v1+protobuf"
	// Release describes an agent binary, signed by release keys named in agent.yaml.
	Release PayloadType = "application/vnd.reeve.release.v1+json"
)
