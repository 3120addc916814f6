package spiffe

import (
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"
)

// FuzzParse: what is taken has one spelling, is what net/url reads, is of exactly
// one type, and is the same party exactly when the string is the same. What is
// refused says why in words that are safe to show.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		id, err := Parse(s)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || id != nil {
				t.Fatalf("Parse(%q) = %v, %v", s, id, err)
			}
			if strings.ContainsAny(err.Error(), "\x00\x1b\n\r\u202e") {
				t.Fatalf("the refusal of %q is not fit for a log: %q", s, err)
			}
			return
		}
		if id.String() != s || id.Validate() != nil {
			t.Fatalf("Parse(%q) spells itself %q, %v", s, id.String(), id.Validate())
		}
		u, err := url.Parse(s)
		if err != nil || u.String() != s || *u != *id.URL() {
			t.Fatalf("net/url reads %q as %v, %v, not %v", s, u, err, id.URL())
		}
		var kind Kind
		switch of := id.(type) {
		case AgentID:
			kind = KindAgent
			if s != "spiffe://"+of.TrustDomain+"/tenant/"+of.Tenant+"/agent/"+of.Agent {
				t.Fatalf("%q has other parts: %+v", s, of)
			}
		case OperatorID:
			kind = KindOperator
		case ControlPlaneID:
			kind = KindControlPlane
		}
		if kind == 0 || kind != id.Kind() {
			t.Fatalf("%q is a %T and says that it is a %v", s, id, id.Kind())
		}
		again, err := FromCertificate(&x509.Certificate{URIs: []*url.URL{id.URL()}})
		if err != nil || again != id {
			t.Fatalf("a certificate for %q names %v, %v", s, again, err)
		}
	})
}
