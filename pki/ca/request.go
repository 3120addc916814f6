package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
)

// maxRequest bounds what is parsed; an honest request takes about 250 bytes.
const maxRequest = 8 << 10

// NewRequest makes a request (PKCS#10 in DER) for a key. It carries no names:
// who the key belongs to is for the issuer to know. ECDSA signatures are random,
// so a request that may have to be repeated verbatim must be kept.
func NewRequest(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// RequestKey gives out a request's public key once its own signature is checked
// and the key is ECDSA P-256. Errors wrap ErrRequest.
func RequestKey(csr []byte) (*ecdsa.PublicKey, error) {
	if len(csr) > maxRequest {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrRequest, len(csr), maxRequest)
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: not signed with its own key: %w", ErrRequest, err)
	}
	pub, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: key is not ECDSA P-256", ErrRequest)
	}
	return pub, nil
}
