package signing

import (
	"crypto/ed25519"
	"fmt"

	"github.com/reevehq/reeve/pki/dsse"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Format is the order format this version signs.
const Format = 1

// Signer signs orders with one plan key. It is safe for concurrent use.
type Signer struct {
	key ed25519.PrivateKey
}

// New returns a signer for a key that the root document names as a plan key.
func New(key ed25519.PrivateKey) *Signer {
	return &Signer{key: key}
}

// Sign marshals the order, once, and returns its DSSE envelope. The envelope's
// bytes are what is kept, sent and verified from then on.
func (s *Signer) Sign(order *planv1.Order) ([]byte, error) {
	order.Format = Format
	payload, err := planv1.Encode(order)
	if err != nil {
		return nil, fmt.Errorf("encode order %s: %w", order.GetOrder(), err)
	}
	envelope, err := dsse.Sign(dsse.Order, payload, s.key)
	if err != nil {
		return nil, fmt.Errorf("sign order %s: %w", order.GetOrder(), err)
	}
	return envelope, nil
}
