package sshsig

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	begin    = "-----BEGIN SSH SIGNATURE-----"
	end      = "-----END SSH SIGNATURE-----"
	preamble = "SSHSIG"
	version  = 1

	maxArmored = 64 << 10
)

// Flags of a security key's signature (CTAP2, PROTOCOL.u2f).
const (
	flagUserPresent  = 0x01
	flagUserVerified = 0x04
)

var (
	// ErrMalformed means that a text is not one armoured SSH signature.
	ErrMalformed = errors.New("malformed SSH signature")
	// ErrNamespace means a signature that was made for another purpose.
	ErrNamespace = errors.New("SSH signature is for another namespace")
	// ErrNotAllowed means a signature by a key that is not an allowed signer's, or
	// not for this namespace or time.
	ErrNotAllowed = errors.New("SSH signature is not by an allowed signer")
	// ErrSignature means that the signature is not one of this message.
	ErrSignature = errors.New("SSH signature does not verify")
	// ErrUserVerification means a security key that did not verify its user
	// although the signer's line demands it.
	ErrUserVerification = errors.New("security key did not verify its user")
)

// Signature is an SSHSIG, parsed and not verified.
type Signature struct {
	Key       ssh.PublicKey
	Namespace string
	// HashAlgorithm is sha256 or sha512.
	HashAlgorithm string

	reserved string
	sig      ssh.Signature
}

// Verified says who signed and how.
type Verified struct {
	Signer AllowedSigner
	// SecurityKey tells that the key lives in hardware; the two below are false
	// without it.
	SecurityKey  bool
	UserPresent  bool
	UserVerified bool
	// Counter is the security key's signature counter, zero if it keeps none.
	Counter uint32
}

// blob is the wire form after the preamble (PROTOCOL.sshsig, section 2).
type blob struct {
	Version       uint32
	PublicKey     string
	Namespace     string
	Reserved      string
	HashAlgorithm string
	Signature     string
}

// Parse reads one armoured signature. White space around it is allowed.
func Parse(armored []byte) (*Signature, error) {
	if len(armored) > maxArmored {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrMalformed, len(armored), maxArmored)
	}
	text := strings.TrimSpace(strings.ReplaceAll(string(armored), "\r\n", "\n"))
	text, okBegin := strings.CutPrefix(text, begin+"\n")
	text, okEnd := strings.CutSuffix(text, "\n"+end)
	if !okBegin || !okEnd {
		return nil, fmt.Errorf("%w: it must begin with %s and end with %s", ErrMalformed, begin, end)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	body, ok := bytes.CutPrefix(raw, []byte(preamble))
	if !ok {
		return nil, fmt.Errorf("%w: no %s preamble", ErrMalformed, preamble)
	}
	var b blob
	if err := ssh.Unmarshal(body, &b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if b.Version != version {
		return nil, fmt.Errorf("%w: version %d, known is %d", ErrMalformed, b.Version, version)
	}
	if b.Namespace == "" {
		return nil, fmt.Errorf("%w: empty namespace", ErrMalformed)
	}
	key, err := ssh.ParsePublicKey([]byte(b.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("%w: public key: %w", ErrMalformed, err)
	}
	if _, ok := keyTypes[key.Type()]; !ok {
		return nil, fmt.Errorf("%w: key type %q is not accepted", ErrMalformed, key.Type())
	}
	s := &Signature{Key: key, Namespace: b.Namespace, HashAlgorithm: b.HashAlgorithm, reserved: b.Reserved}
	if err := ssh.Unmarshal([]byte(b.Signature), &s.sig); err != nil {
		return nil, fmt.Errorf("%w: signature: %w", ErrMalformed, err)
	}
	if s.sig.Format != key.Type() {
		return nil, fmt.Errorf("%w: signature of type %q by a key of type %s", ErrMalformed, clip(s.sig.Format), key.Type())
	}
	return s, nil
}

// Verify checks that armored is a signature of message in namespace by one of
// signers, allowed at now. The first line of signers with the key that allows it
// decides. Errors wrap ErrMalformed, ErrNamespace, ErrNotAllowed, ErrSignature or
// ErrUserVerification. For a security key a touch is always demanded.
func Verify(armored, message []byte, namespace string, signers []AllowedSigner, now time.Time) (Verified, error) {
	s, err := Parse(armored)
	if err != nil {
		return Verified{}, err
	}
	if s.Namespace != namespace || namespace == "" {
		return Verified{}, fmt.Errorf("%w: %q, want %q", ErrNamespace, clip(s.Namespace), namespace)
	}
	v, err := s.verify(message)
	if err != nil {
		return Verified{}, err
	}
	refusal := fmt.Errorf("%w: key %s is not listed", ErrNotAllowed, ssh.FingerprintSHA256(s.Key))
	wire := s.Key.Marshal()
	for _, a := range signers {
		if a.Key == nil || !bytes.Equal(a.Key.Marshal(), wire) {
			continue
		}
		if err := a.may(namespace, now); err != nil {
			refusal = err
			continue
		}
		if a.VerifyRequired && !v.UserVerified {
			refusal = fmt.Errorf("%w: key %s; sign again with PIN or biometrics", ErrUserVerification, ssh.FingerprintSHA256(s.Key))
			continue
		}
		v.Signer = a
		return v, nil
	}
	return Verified{}, refusal
}

func (s *Signature) verify(message []byte) (Verified, error) {
	var digest []byte
	switch s.HashAlgorithm {
	case "sha256":
		sum := sha256.Sum256(message)
		digest = sum[:]
	case "sha512":
		sum := sha512.Sum512(message)
		digest = sum[:]
	default:
		return Verified{}, fmt.Errorf("%w: hash algorithm %q", ErrMalformed, clip(s.HashAlgorithm))
	}
	signed := append([]byte(preamble), ssh.Marshal(struct{ Namespace, Reserved, HashAlgorithm, Hash string }{
		s.Namespace, s.reserved, s.HashAlgorithm, string(digest),
	})...)
	var v Verified
	if v.SecurityKey = keyTypes[s.Key.Type()]; v.SecurityKey {
		var rest struct {
			Flags   byte
			Counter uint32
		}
		if err := ssh.Unmarshal(s.sig.Rest, &rest); err != nil {
			return Verified{}, fmt.Errorf("%w: security key's flags: %w", ErrMalformed, err)
		}
		v.UserPresent, v.UserVerified, v.Counter = rest.Flags&flagUserPresent != 0, rest.Flags&flagUserVerified != 0, rest.Counter
		if !v.UserPresent {
			return Verified{}, fmt.Errorf("%w: security key was not touched", ErrSignature)
		}
	} else if len(s.sig.Rest) != 0 {
		return Verified{}, fmt.Errorf("%w: data after the signature", ErrMalformed)
	}
	if err := s.Key.Verify(signed, &s.sig); err != nil {
		return Verified{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return v, nil
}
