package spiffe

import (
	"crypto/x509"
	"errors"
	"fmt"
)

// Kind is the sort of party an ID names.
type Kind int

const (
	KindControlPlane Kind = iota + 1
	KindOperator
	KindAgent
)

func (k Kind) String() string {
	switch k {
	case KindControlPlane:
		return "control-plane"
	case KindOperator:
		return "operator"
	case KindAgent:
		return "agent"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// ErrKind means that a CA certificate marked for one kind of party signed a
// certificate for another.
var ErrKind = errors.New("issued by an intermediate of another kind")

// The arc is 2.25.<UUID as integer> (ITU-T X.667), which needs no registration.
const policyArc = "2.25.172056358209336701056708809085116100910"

// PolicyOID is the certificate policy that marks the CA's intermediate for one
// kind of party, and the certificates below it. X.509 name constraints on URIs
// reach hosts only (RFC 5280, 4.2.1.10), so they cannot hold an agent
// intermediate off an operator's path; this mark does.
func PolicyOID(k Kind) (x509.OID, error) {
	if k < KindControlPlane || k > KindAgent {
		return x509.OID{}, fmt.Errorf("no policy for %v", k)
	}
	return x509.ParseOID(fmt.Sprintf("%s.%d", policyArc, int(k)))
}

// MarkedKinds lists the kinds a certificate is marked for. Certificates from
// another issuer than pki/ca, such as SPIRE, carry no mark.
func MarkedKinds(cert *x509.Certificate) []Kind {
	var kinds []Kind
	for k := KindControlPlane; k <= KindAgent; k++ {
		oid, err := PolicyOID(k)
		if err != nil {
			continue
		}
		for _, p := range cert.Policies {
			if p.Equal(oid) {
				kinds = append(kinds, k)
			}
		}
	}
	return kinds
}

// CheckKind walks a verified chain, leaf first, and returns an error wrapping
// ErrKind if any certificate in it is marked for kinds but not for k. Unmarked
// chains pass: a mark narrows what a key may do, and since it is inside the
// certificate the holder of that key cannot shed it.
func CheckKind(chain []*x509.Certificate, k Kind) error {
	for _, cert := range chain {
		marked := MarkedKinds(cert)
		if len(marked) == 0 {
			continue
		}
		if len(marked) != 1 || marked[0] != k {
			return fmt.Errorf("%w: %v certificate under %v", ErrKind, k, marked)
		}
	}
	return nil
}
