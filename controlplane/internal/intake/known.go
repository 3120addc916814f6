package intake

import (
	"crypto/ed25519"
	"sync"
)

// maxKnown bounds the keys that are remembered.
const maxKnown = 1 << 16

// signer is one agent's epoch, which has one audit key.
type signer struct {
	tenant, agent string
	epoch         uint64
}

// known are keys that enrollment named before, so that signatures can be checked
// side by side before the one writer takes a batch. It believes none of them: take
// asks enrollment again and checks again when the key is another.
type known struct {
	mu   sync.Mutex
	keys map[signer]ed25519.PublicKey
}

func (k *known) get(of signer) ed25519.PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[of]
}

func (k *known) put(of signer, pub ed25519.PublicKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil || len(k.keys) >= maxKnown {
		k.keys = map[signer]ed25519.PublicKey{}
	}
	k.keys[of] = pub
}

// foresee checks the signature by the key that the agent is known to have. One
// that fails is left to take, which knows whether the key still is the one.
func (s *Service) foresee(tenant, agent string, r *read) {
	pub := s.known.get(signer{tenant, agent, r.batch.GetEpoch()})
	if pub != nil && r.signed(pub) == nil {
		r.by = pub
	}
}
