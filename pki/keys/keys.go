package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
)

var (
	// ErrKeyType means a key of a type that has no place here: private keys are
	// Ed25519 for signing and ECDSA P-256 for TLS.
	ErrKeyType = errors.New("key is neither Ed25519 nor ECDSA P-256 as needed here")
	// ErrPEM means a file that is not exactly one PEM block of the wanted type.
	ErrPEM = errors.New("not exactly one PEM block of the expected type")
	// ErrPermissions means a private key file that others than its owner may
	// read or write.
	ErrPermissions = errors.New("private key file is accessible to group or others")
	// ErrExists means that a private key file is there already; it is never
	// overwritten, because what it signed for would be lost with it.
	ErrExists = errors.New("private key file exists already")
)

const (
	privateBlock = "PRIVATE KEY"
	publicBlock  = "PUBLIC KEY"
	maxFile      = 64 << 10
)

// Generate makes an Ed25519 key from 32 bytes of rand.
func Generate(rand io.Reader) (ed25519.PrivateKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return nil, fmt.Errorf("read randomness for a key: %w", err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// ID is the key's name everywhere: the lower-case hex of the SHA-256 of its
// SPKI in DER, 64 characters. A key that is not 32 bytes long has the empty ID,
// which no lookup finds.
func ID(pub ed25519.PublicKey) string {
	if len(pub) != ed25519.PublicKeySize {
		return ""
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// MarshalPrivate encodes an Ed25519 or ECDSA P-256 key as PKCS#8 in PEM.
func MarshalPrivate(key crypto.Signer) ([]byte, error) {
	switch k := key.(type) {
	case ed25519.PrivateKey:
	case *ecdsa.PrivateKey:
		if k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("%w: curve %s", ErrKeyType, k.Curve.Params().Name)
		}
	default:
		return nil, fmt.Errorf("%w: %T", ErrKeyType, key)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), nil
}

// ParsePrivate decodes what MarshalPrivate made of an Ed25519 key.
func ParsePrivate(text []byte) (ed25519.PrivateKey, error) {
	key, err := parsePrivate(text)
	if err != nil {
		return nil, err
	}
	k, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: %T, want Ed25519", ErrKeyType, key)
	}
	return k, nil
}

// ParseTLSPrivate decodes what MarshalPrivate made of an ECDSA P-256 key.
func ParseTLSPrivate(text []byte) (*ecdsa.PrivateKey, error) {
	key, err := parsePrivate(text)
	if err != nil {
		return nil, err
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: %T, want ECDSA P-256", ErrKeyType, key)
	}
	return k, nil
}

func parsePrivate(text []byte) (any, error) {
	der, err := oneBlock(text, privateBlock)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("decode private key: %w", err)
	}
	return key, nil
}

// MarshalPublic encodes the key as SPKI in PEM.
func MarshalPublic(pub ed25519.PublicKey) ([]byte, error) {
	if len(pub) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: Ed25519 key of %d bytes", ErrKeyType, len(pub))
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der}), nil
}

// ParsePublic decodes what MarshalPublic made.
func ParsePublic(text []byte) (ed25519.PublicKey, error) {
	der, err := oneBlock(text, publicBlock)
	if err != nil {
		return nil, err
	}
	return ParseSPKI(der)
}

// ParseSPKI decodes an Ed25519 public key from its SPKI in DER.
func ParseSPKI(der []byte) (ed25519.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("decode public key: %w", err)
	}
	k, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: %T, want Ed25519", ErrKeyType, key)
	}
	return k, nil
}

func oneBlock(text []byte, kind string) ([]byte, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != kind || len(block.Headers) != 0 {
		return nil, fmt.Errorf("%w: want %s", ErrPEM, kind)
	}
	for _, c := range rest {
		if c != '\n' && c != '\r' && c != ' ' && c != '\t' {
			return nil, fmt.Errorf("%w: data after the %s block", ErrPEM, kind)
		}
	}
	return block.Bytes, nil
}
