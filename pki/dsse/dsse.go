package dsse

import (
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/reevehq/reeve/pki/internal/strictjson"
	"github.com/reevehq/reeve/pki/keys"
)

// MaxEnvelope is the greatest envelope in bytes that is looked at.
const MaxEnvelope = 8 << 20

// maxSignatures bounds the work one envelope can ask for.
const maxSignatures = 64

var (
	// ErrMalformed means that bytes are not an envelope in strict form.
	ErrMalformed = errors.New("malformed envelope")
	// ErrPayloadType means an envelope of another payload type than was asked for.
	ErrPayloadType = errors.New("envelope is of another payload type")
	// ErrSignature means a signature that names a known key and does not verify.
	ErrSignature = errors.New("signature does not verify")
	// ErrThreshold means that too few distinct known keys have signed.
	ErrThreshold = errors.New("too few valid signatures")
	// ErrSigner means a signer or key set that cannot be used.
	ErrSigner = errors.New("unusable signing or verification key")
)

// Envelope is the JSON form that DSSE version 1 gives to a signed payload.
// Binary members are base64 with the standard alphabet and padding.
type Envelope struct {
	PayloadType PayloadType `json:"payloadType"`
	Payload     string      `json:"payload"`
	Signatures  []Signature `json:"signatures"`
}

// Signature is one signature over the PAE of payload type and payload.
type Signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// PAE is DSSE's pre-authentication encoding: the bytes that are signed.
func PAE(t PayloadType, payload []byte) []byte {
	b := make([]byte, 0, len(payload)+len(t)+48)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(t)), 10)
	b = append(b, ' ')
	b = append(b, t...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

// Sign wraps payload and signs it with every signer, in order. Signers hold
// Ed25519 keys, each different; errors wrap ErrSigner. The same inputs give the
// same bytes.
func Sign(t PayloadType, payload []byte, signers ...crypto.Signer) ([]byte, error) {
	if len(signers) == 0 {
		return nil, fmt.Errorf("%w: none given", ErrSigner)
	}
	e := Envelope{PayloadType: t, Payload: base64.StdEncoding.EncodeToString(payload), Signatures: []Signature{}}
	if err := e.sign(payload, signers); err != nil {
		return nil, err
	}
	return e.marshal()
}

// AddSignatures adds signatures to an envelope of type t, as a ceremony with
// key holders in several places needs. Payload and earlier signatures stay as
// they are; those are not verified. A key that has signed already is refused.
func AddSignatures(env []byte, t PayloadType, signers ...crypto.Signer) ([]byte, error) {
	e, payload, err := decode(env, t)
	if err != nil {
		return nil, err
	}
	if err := e.sign(payload, signers); err != nil {
		return nil, err
	}
	return e.marshal()
}

func (e *Envelope) sign(payload []byte, signers []crypto.Signer) error {
	used := map[string]bool{}
	for _, s := range e.Signatures {
		used[s.KeyID] = true
	}
	pae := PAE(e.PayloadType, payload)
	for _, s := range signers {
		pub, ok := s.Public().(ed25519.PublicKey)
		if !ok {
			return fmt.Errorf("%w: %T is not Ed25519", ErrSigner, s.Public())
		}
		id := keys.ID(pub)
		if used[id] {
			return fmt.Errorf("%w: key %s signs twice", ErrSigner, id)
		}
		used[id] = true
		// Ed25519 signs the message itself, hence no reader and no hash.
		sig, err := s.Sign(nil, pae, crypto.Hash(0))
		if err != nil {
			return fmt.Errorf("sign with key %s: %w", id, err)
		}
		e.Signatures = append(e.Signatures, Signature{KeyID: id, Sig: base64.StdEncoding.EncodeToString(sig)})
	}
	return nil
}

func (e *Envelope) marshal() ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode envelope: %w", err)
	}
	if len(b) > MaxEnvelope {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrMalformed, len(b), MaxEnvelope)
	}
	return b, nil
}

// Verify gives out the payload of an envelope of exactly type t that at least
// threshold distinct keys of the set have signed, with their IDs in the
// envelope's order. Anything else yields no payload and an error:
//
//   - ErrMalformed: not an envelope, unknown or duplicate members, base64 that
//     has a second spelling, or two signatures under one key ID;
//   - ErrPayloadType: another type, found before any signature is looked at;
//   - ErrSignature: a known key's signature is wrong, even if others suffice;
//   - ErrThreshold: too few distinct keys. Signatures by keys outside the set do
//     not count and do no harm;
//   - ErrSigner: threshold below one, or a set in which a name is not its key's ID.
func Verify(env []byte, t PayloadType, set map[string]ed25519.PublicKey, threshold int) (payload []byte, signerIDs []string, err error) {
	if threshold < 1 {
		return nil, nil, fmt.Errorf("%w: threshold %d", ErrSigner, threshold)
	}
	for id, pub := range set {
		// A key under two names would count twice, so a name must be the key's own.
		if id == "" || keys.ID(pub) != id {
			return nil, nil, fmt.Errorf("%w: key listed as %q has the ID %q", ErrSigner, id, keys.ID(pub))
		}
	}
	e, payload, err := decode(env, t)
	if err != nil {
		return nil, nil, err
	}
	pae := PAE(t, payload)
	for _, s := range e.Signatures {
		pub, known := set[s.KeyID]
		if !known {
			continue
		}
		sig, err := decode64(s.Sig)
		if err != nil || !ed25519.Verify(pub, pae, sig) {
			return nil, nil, fmt.Errorf("%w: key %s", ErrSignature, s.KeyID)
		}
		signerIDs = append(signerIDs, s.KeyID)
	}
	if len(signerIDs) < threshold {
		return nil, nil, fmt.Errorf("%w: %d of %d needed", ErrThreshold, len(signerIDs), threshold)
	}
	return payload, signerIDs, nil
}

// UnverifiedPayload gives out the payload of an envelope of type t without
// looking at its signatures. It is for finding out which keys to verify with,
// and for pins, where a digest of the payload itself is what is trusted.
func UnverifiedPayload(env []byte, t PayloadType) ([]byte, error) {
	_, payload, err := decode(env, t)
	return payload, err
}

func decode(env []byte, t PayloadType) (*Envelope, []byte, error) {
	if len(env) > MaxEnvelope {
		return nil, nil, fmt.Errorf("%w: %d bytes, limit %d", ErrMalformed, len(env), MaxEnvelope)
	}
	var e Envelope
	if err := strictjson.Decode(env, &e); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if t == "" || e.PayloadType != t {
		return nil, nil, fmt.Errorf("%w: %q, want %q", ErrPayloadType, clip(string(e.PayloadType)), t)
	}
	if n := len(e.Signatures); n > maxSignatures {
		return nil, nil, fmt.Errorf("%w: %d signatures, limit %d", ErrMalformed, n, maxSignatures)
	}
	seen := map[string]bool{}
	for _, s := range e.Signatures {
		if seen[s.KeyID] {
			return nil, nil, fmt.Errorf("%w: two signatures by key %q", ErrMalformed, clip(s.KeyID))
		}
		seen[s.KeyID] = true
	}
	payload, err := decode64(e.Payload)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: payload: %w", ErrMalformed, err)
	}
	return &e, payload, nil
}

// decode64 takes the one canonical spelling only; encoding/base64 by itself
// skips line breaks and, unless strict, ignores stray trailing bits.
func decode64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, err
	}
	if base64.StdEncoding.EncodedLen(len(b)) != len(s) {
		return nil, errors.New("base64 with line breaks")
	}
	return b, nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
