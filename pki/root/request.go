package root

import (
	"fmt"

	"github.com/reevehq/reeve/pki/dsse"
	"github.com/reevehq/reeve/pki/internal/strictjson"
	"github.com/reevehq/reeve/pki/spiffe"
)

// Request is what a control plane wishes a root document to name. It is not
// signed: who signs the document compares it with the control plane's own output.
type Request struct {
	TrustDomain string `json:"trust_domain"`
	// CARoots are self-signed certificates in PEM, one to a string.
	CARoots        []string        `json:"ca_roots"`
	PlanKeys       []Key           `json:"plan_keys"`
	CheckpointKeys []CheckpointKey `json:"checkpoint_keys"`
}

// ParseRequest reads a request strictly: unknown and repeated members are
// refused. Errors wrap ErrInvalid.
func ParseRequest(text []byte) (Request, error) {
	var r Request
	if err := strictjson.Decode(text, &r); err != nil {
		return Request{}, fmt.Errorf("%w: request: %w", ErrInvalid, err)
	}
	if err := spiffe.ValidateTrustDomain(r.TrustDomain); err != nil {
		return Request{}, fmt.Errorf("%w: request: %w", ErrInvalid, err)
	}
	return r, nil
}

// Inspect reads an envelope by itself: the document and the IDs of those of its
// own root keys whose signatures it carries. They may be fewer than its
// threshold, while it goes from one holder of a root key to the next; whether to
// believe it is for Open and Walk to say.
func Inspect(envelope []byte) (Document, []string, error) {
	payload, err := dsse.UnverifiedPayload(envelope, dsse.Root)
	if err != nil {
		return Document{}, nil, err
	}
	d, err := parse(payload)
	if err != nil {
		return Document{}, nil, err
	}
	set, err := keySet(d.RootKeys)
	if err != nil {
		return Document{}, nil, err
	}
	_, signed, err := dsse.Verify(envelope, dsse.Root, set, 1)
	return d, signed, err
}
