package operatorapi

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/identity/identitystore"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// A REST answer means what it says, and nothing in it acts on a terminal.
func TestRESTAnswersCanBeShown(t *testing.T) {
	for _, label := range []string{"Anna", "p\x7f\x1b[31m", "p\u202egpj.exe", "\u009b31m\u2028\ufeff", "\U000e0041\U0010ffff", "å\U0001f468\u200d\U0001f469", `\u202e "quoted"`, "\u00a0"} {
		want := &operatorv1.ListIdentitiesResponse{Identities: []*operatorv1.Identity{{Id: "id-1", Label: label}}}
		var streamed bytes.Buffer
		if err := restJSON().NewEncoder(&streamed).Encode(want); err != nil {
			t.Fatal(err)
		}
		doc, err := restJSON().Marshal(want)
		if err != nil || streamed.String() != string(doc)+"\n" {
			t.Fatalf("%q, and encoded %q, %v", doc, streamed.String(), err)
		}
		if strings.ContainsFunc(string(doc), func(r rune) bool { return !unicode.IsPrint(r) }) || !json.Valid(doc) {
			t.Errorf("%q is written %q", label, doc)
		}
		got := new(operatorv1.ListIdentitiesResponse)
		if err := protojson.Unmarshal(doc, got); err != nil || !proto.Equal(got, want) {
			t.Errorf("%q became %v, %v", label, got, err)
		}
	}
}

// An answer over REST may be as large as the same over gRPC.
func TestRESTAnswersMayBeLarge(t *testing.T) {
	s := open(t)
	s.Policies = policystore.New(s.DB, records{}, time.Now, "msp")
	const people, label = 500, 20_000
	if err := s.DB.Do(t.Context(), func(x tx.Tx) error {
		for i := range people {
			if err := (identitystore.Store{}).Put(x, "fabrikam", identity.Identity{ID: fmt.Sprintf("id-%d", i), Kind: "human", Label: strings.Repeat("x", label)}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	inside := newPipe()
	defer inside.Close()
	translated := grpc.NewServer(grpc.UnaryInterceptor(s.restUnary))
	s.Register(translated)
	go translated.Serve(inside) //nolint:errcheck // it ends when the pipe is closed
	defer translated.Stop()
	rest, err := s.gateway(t.Context(), inside)
	if err != nil {
		t.Fatal(err)
	}
	kari := &x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "reeve.local", Path: "/operator/kari"}}}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/tenants/fabrikam/identities?page_size=1000", nil)
	r.TLS = &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{kari}, VerifiedChains: [][]*x509.Certificate{{kari}}}
	w := httptest.NewRecorder()
	rest.ServeHTTP(w, r)
	got := new(operatorv1.ListIdentitiesResponse)
	if w.Code != http.StatusOK || protojson.Unmarshal(w.Body.Bytes(), got) != nil || len(got.GetIdentities()) != people {
		t.Errorf("%d people: %d %.300s", len(got.GetIdentities()), w.Code, w.Body)
	}
}
