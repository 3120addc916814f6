package spiffe

import (
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseAccepts(t *testing.T) {
	long := strings.Repeat("a", 63)
	for uri, want := range map[string]ID{
		"spiffe://reeve.example/control-plane":                    ControlPlaneID{"reeve.example"},
		"spiffe://reeve.example/operator/kari":                    OperatorID{"reeve.example", "kari"},
		"spiffe://reeve.example/tenant/fabrikam/agent/dc1":        AgentID{"reeve.example", "fabrikam", "dc1"},
		"spiffe://a_b-c.1/tenant/1/agent/2":                       AgentID{"a_b-c.1", "1", "2"},
		"spiffe://r/tenant/tenant/agent/agent":                    AgentID{"r", "tenant", "agent"},
		"spiffe://r/tenant/" + long + "/agent/" + long:            AgentID{"r", long, long},
		"spiffe://r/operator/control-plane":                       OperatorID{"r", "control-plane"},
		"spiffe://r/tenant/a--b/agent/x-1":                        AgentID{"r", "a--b", "x-1"},
		"spiffe://" + strings.Repeat("d", 255) + "/control-plane": ControlPlaneID{strings.Repeat("d", 255)},
	} {
		got, err := Parse(uri)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %v, %v, want %v", uri, got, err, want)
			continue
		}
		if got.String() != uri || got.URL().String() != uri || !strings.HasPrefix(uri, "spiffe://"+got.Domain()+"/") {
			t.Errorf("Parse(%q) does not give itself back: %q, %q", uri, got.String(), got.URL())
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, uri := range []string{
		"", "spiffe://", "spiffe:///control-plane", "spiffe://r", "spiffe://r/", "spiffe://r/control-plane/",
		"SPIFFE://r/control-plane", "spiffe://R/control-plane", "https://r/control-plane", "spiffe:/r/control-plane",
		"spiffe://r:443/control-plane", "spiffe://u@r/control-plane", "spiffe://r/control-plane?x", "spiffe://r/control-plane#x",
		"spiffe://r/control%2Dplane", "spiffe://r//control-plane", "spiffe://r/./control-plane", "spiffe://r/Control-Plane",
		"spiffe://r/operator", "spiffe://r/operator/", "spiffe://r/operator/a/b", "spiffe://r/operator/..", "spiffe://r/operator/A",
		"spiffe://r/tenant/a", "spiffe://r/tenant/a/agent", "spiffe://r/tenant/a/agent/", "spiffe://r/tenant//agent/b",
		"spiffe://r/tenant/a/agent/b/c", "spiffe://r/tenant/a/operator/b", "spiffe://r/tenant/-a/agent/b", "spiffe://r/tenant/a-/agent/b",
		"spiffe://r/tenant/a_b/agent/b", "spiffe://r/tenant/a.b/agent/b", "spiffe://r/tenant/å/agent/b", "spiffe://r/tenant/a/agent/b\n",
		"spiffe://r/tenant/" + strings.Repeat("a", 64) + "/agent/b", "spiffe://" + strings.Repeat("d", 256) + "/control-plane",
		"spiffe://r/tenant/a\x00/agent/b", " spiffe://r/control-plane", strings.Repeat("spiffe://r/", 400),
	} {
		if id, err := Parse(uri); !errors.Is(err, ErrMalformed) {
			t.Errorf("Parse(%q) = %v, %v, want ErrMalformed", uri, id, err)
		}
	}
}

func TestFromCertificate(t *testing.T) {
	good := AgentID{"reeve.example", "fabrikam", "dc1"}
	if id, err := FromCertificate(&x509.Certificate{URIs: []*url.URL{good.URL()}}); err != nil || id != good {
		t.Fatalf("got %v, %v", id, err)
	}
	for name, cert := range map[string]*x509.Certificate{
		"nil":  nil,
		"none": {},
		"two":  {URIs: []*url.URL{good.URL(), good.URL()}},
	} {
		if _, err := FromCertificate(cert); !errors.Is(err, ErrURISAN) {
			t.Errorf("%s: %v, want ErrURISAN", name, err)
		}
	}
	escaped := &url.URL{Scheme: "spiffe", Host: "reeve.example", Path: "/operator/kari", RawQuery: "x=1"}
	if _, err := FromCertificate(&x509.Certificate{URIs: []*url.URL{escaped}}); !errors.Is(err, ErrMalformed) {
		t.Errorf("query: %v, want ErrMalformed", err)
	}
}

func TestNamesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`)
		td := rapid.StringMatching(`[a-z0-9._-]{1,100}`).Draw(t, "td")
		for _, id := range []ID{
			AgentID{td, name.Draw(t, "tenant"), name.Draw(t, "agent")},
			OperatorID{td, name.Draw(t, "operator")},
			ControlPlaneID{td},
		} {
			back, err := Parse(id.String())
			if err != nil || back != id {
				t.Fatalf("%v came back as %v, %v", id, back, err)
			}
		}
	})
}

func TestCheckKind(t *testing.T) {
	marked := func(ks ...Kind) *x509.Certificate {
		c := &x509.Certificate{}
		for _, k := range ks {
			oid, err := PolicyOID(k)
			if err != nil {
				t.Fatal(err)
			}
			c.Policies = append(c.Policies, oid)
		}
		return c
	}
	if err := CheckKind([]*x509.Certificate{marked(KindAgent), marked(KindAgent), marked()}, KindAgent); err != nil {
		t.Errorf("matching: %v", err)
	}
	if err := CheckKind([]*x509.Certificate{marked(), marked()}, KindOperator); err != nil {
		t.Errorf("unmarked: %v", err)
	}
	for name, chain := range map[string][]*x509.Certificate{
		"agent intermediate for an operator": {marked(), marked(KindAgent)},
		"leaf marked as both":                {marked(KindAgent, KindOperator), marked(KindOperator)},
		"leaf of another kind":               {marked(KindAgent), marked(KindOperator)},
	} {
		if err := CheckKind(chain, KindOperator); !errors.Is(err, ErrKind) {
			t.Errorf("%s: %v, want ErrKind", name, err)
		}
	}
	if _, err := PolicyOID(0); err == nil {
		t.Error("a policy for no kind")
	}
}
