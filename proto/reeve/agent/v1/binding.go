package agentv1

import (
	"crypto/sha256"
	"encoding/binary"
)

// EnrollmentBinding returns the bytes that each enrolled key signs: they tie the
// key to this TLS connection and to this CSR, so that a proof made for one
// cannot be used for another. exporter is 32 bytes of TLS keying material
// (RFC 9266 style, label in pki/mtls).
func EnrollmentBinding(exporter, csr []byte) []byte {
	return bind("reeve enroll v1", exporter, csr)
}

// RenewalBinding returns the bytes that the identity key signs to renew or to
// re-attest. challenge is empty for a renewal.
func RenewalBinding(exporter, challenge, csr []byte, counter uint64) []byte {
	return bind("reeve renew v1", exporter, challenge, csr, binary.BigEndian.AppendUint64(nil, counter))
}

// bind hashes length-prefixed parts, so that no two lists of parts give the
// same bytes.
func bind(label string, parts ...[]byte) []byte {
	h := sha256.New()
	h.Write([]byte(label))
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write(p)
	}
	return h.Sum(nil)
}
