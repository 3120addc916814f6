package tlogproof

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// Signature algorithm bytes of C2SP signed-note.
const (
	algEd25519     = 0x01
	algCosignature = 0x04
)

const cosignatureSize = 8 + ed25519.SignatureSize

// ErrKey means a key or key name that cannot sign or verify notes.
var ErrKey = errors.New("unusable note key")

// Cosignature says that a witness saw a checkpoint, consistent with all it had
// seen of that log before, at Time (whole seconds, UTC, by the witness's clock).
type Cosignature struct {
	Name    string
	KeyHash uint32
	Time    time.Time
}

// noteKey is a note.Verifier for both algorithms, and the base of the signers.
type noteKey struct {
	name string
	hash uint32
	alg  byte
	pub  ed25519.PublicKey
}

func (k *noteKey) Name() string    { return k.name }
func (k *noteKey) KeyHash() uint32 { return k.hash }

func (k *noteKey) Verify(msg, sig []byte) bool {
	if k.alg == algEd25519 {
		return ed25519.Verify(k.pub, msg, sig)
	}
	if len(sig) != cosignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(sig)
	if seconds == 0 || seconds > math.MaxInt64 {
		return false
	}
	return ed25519.Verify(k.pub, cosigned(seconds, msg), sig[8:])
}

type noteSigner struct {
	noteKey
	key crypto.Signer
	now func() time.Time
}

func (s *noteSigner) Sign(msg []byte) ([]byte, error) {
	if s.alg == algEd25519 {
		return s.key.Sign(nil, msg, crypto.Hash(0))
	}
	unix := s.now().Unix()
	if unix <= 0 {
		return nil, fmt.Errorf("%w: the clock says %d seconds, and a cosignature needs a positive time", ErrKey, unix)
	}
	sig, err := s.key.Sign(nil, cosigned(uint64(unix), msg), crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint64(nil, uint64(unix)), sig...), nil
}

// cosigned is the message under a cosignature/v1.
func cosigned(seconds uint64, text []byte) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", seconds), text...)
}

func newKey(name string, alg byte, pub ed25519.PublicKey) (*noteKey, error) {
	if name == "" || !utf8.ValidString(name) || strings.Contains(name, "+") ||
		strings.IndexFunc(name, func(r rune) bool { return unicode.IsSpace(r) || r < 0x20 }) >= 0 {
		return nil, fmt.Errorf("%w: name %q", ErrKey, name)
	}
	if len(pub) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: %d bytes", ErrKey, len(pub))
	}
	h := sha256.New()
	h.Write([]byte(name))
	h.Write([]byte{'\n', alg})
	h.Write(pub)
	return &noteKey{name: name, hash: binary.BigEndian.Uint32(h.Sum(nil)), alg: alg, pub: pub}, nil
}

func newSigner(name string, alg byte, key crypto.Signer, now func() time.Time) (note.Signer, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: %T is not Ed25519", ErrKey, key.Public())
	}
	k, err := newKey(name, alg, pub)
	if err != nil {
		return nil, err
	}
	return &noteSigner{*k, key, now}, nil
}

// NewVerifier verifies a log's own signatures (C2SP signed-note, Ed25519).
func NewVerifier(name string, pub ed25519.PublicKey) (note.Verifier, error) {
	k, err := newKey(name, algEd25519, pub)
	if err != nil {
		return nil, err
	}
	return k, nil
}

// NewSigner signs as a log; key holds an Ed25519 key.
func NewSigner(name string, key crypto.Signer) (note.Signer, error) {
	return newSigner(name, algEd25519, key, nil)
}

// NewCosignatureVerifier verifies a witness's cosignatures.
func NewCosignatureVerifier(name string, pub ed25519.PublicKey) (note.Verifier, error) {
	k, err := newKey(name, algCosignature, pub)
	if err != nil {
		return nil, err
	}
	return k, nil
}

// NewCosigner signs as a witness, at the time that now says. The witness must
// have checked consistency with what it saw before, and must sign nothing older.
func NewCosigner(name string, key crypto.Signer, now func() time.Time) (note.Signer, error) {
	return newSigner(name, algCosignature, key, now)
}

// FormatVerifierKey writes a verifier made here as a C2SP vkey:
// name+hash+base64(algorithm byte, key).
func FormatVerifierKey(v note.Verifier) (string, error) {
	k, ok := v.(*noteKey)
	if !ok {
		return "", fmt.Errorf("%w: %T", ErrKey, v)
	}
	return fmt.Sprintf("%s+%08x+%s", k.name, k.hash, base64.StdEncoding.EncodeToString(append([]byte{k.alg}, k.pub...))), nil
}

// ParseVerifierKey reads a C2SP vkey of a log (0x01) or a witness (0x04).
func ParseVerifierKey(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: want name+hash+key", ErrKey)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != algEd25519 && raw[0] != algCosignature {
		return nil, fmt.Errorf("%w: want an Ed25519 log or witness key", ErrKey)
	}
	k, err := newKey(parts[0], raw[0], raw[1:])
	if err != nil {
		return nil, err
	}
	if again, err := FormatVerifierKey(k); err != nil || again != vkey {
		return nil, fmt.Errorf("%w: its hash does not fit, or it is not in canonical form", ErrKey)
	}
	return k, nil
}

// CosignatureTime reads the time out of a cosignature that was verified.
func CosignatureTime(s note.Signature) (time.Time, error) {
	raw, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(raw) != 4+cosignatureSize {
		return time.Time{}, fmt.Errorf("%w: signature of %q is not a cosignature", ErrMalformed, s.Name)
	}
	seconds := binary.BigEndian.Uint64(raw[4:])
	if seconds == 0 || seconds > math.MaxInt64 {
		return time.Time{}, fmt.Errorf("%w: cosignature of %q has no usable time", ErrMalformed, s.Name)
	}
	return time.Unix(int64(seconds), 0).UTC(), nil
}
