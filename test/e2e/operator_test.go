package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/sources"
)

const domain = "reeve.local"

// holder is an SVID that a test holds.
type holder struct {
	cert  *tls.Certificate
	roots *x509.CertPool
}

func (h holder) Current() (*tls.Certificate, error) {
	if h.cert == nil {
		return &tls.Certificate{}, nil
	}
	return h.cert, nil
}
func (h holder) Roots() *x509.CertPool    { return h.roots }
func (h holder) Updated() <-chan struct{} { return nil }
func (h holder) Close() error             { return nil }

// held has authority issue to id, with roots to believe in.
func held(t *testing.T, authority *ca.CA, id spiffe.ID, roots *x509.CertPool) holder {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	var chain ca.Chain
	switch id := id.(type) {
	case spiffe.OperatorID:
		chain, err = authority.IssueOperator(csr, id, 0)
	case spiffe.AgentID:
		chain, err = authority.IssueAgent(csr, id, 0)
	default:
		t.Fatalf("no certificate for a %T", id)
	}
	if err != nil {
		t.Fatal(err)
	}
	return holder{&tls.Certificate{Certificate: chain.DER(), PrivateKey: key, Leaf: chain[0]}, roots}
}

// newTestStage is a stage for a Go test, in a folder whose path is short enough
// for sockets.
func newTestStage(t *testing.T) *stage {
	t.Helper()
	t.Parallel()
	dir, err := os.MkdirTemp("", "reeve-e2e")
	if err != nil {
		t.Fatal(err)
	}
	s := newStage(dir, func() []string { return []string{"HOME=" + dir} })
	t.Cleanup(func() {
		s.close()
		if t.Failed() {
			t.Log(s.logs())
		}
		os.RemoveAll(dir)
	})
	if err := writeEstate(dir); err != nil {
		t.Fatal(err)
	}
	return s
}

// fill writes FILE from FILE.in.
func (s *stage) fill(t *testing.T, name string, vars map[string]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name+".in"))
	if err != nil {
		t.Fatal(err)
	}
	vars["WORK"] = s.dir
	out := filled(string(text), func(name string) string { return vars[name] })
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
}

// must runs a program that has to succeed and returns what it printed.
func (s *stage) must(t *testing.T, name string, args ...string) string {
	t.Helper()
	stdout, stderr, code, err := s.run(name, args...)
	if err != nil || code != 0 {
		t.Fatalf("%s %s: exit code %d, %v\n%s%s", name, strings.Join(args, " "), code, err, stdout, stderr)
	}
	return stdout
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rest calls the operator API over HTTPS as h.
type rest struct {
	base   string
	client *http.Client
}

func restAs(h holder, address string) rest {
	config := mtls.ClientConfig(h, spiffe.ControlPlaneID{TrustDomain: domain}, time.Now)
	config.NextProtos = []string{"http/1.1"}
	return rest{"https://" + address, &http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: patience}}
}

func (r rest) do(t *testing.T, method, path string, body any, header http.Header) (int, map[string]any, error) {
	t.Helper()
	raw, err := json.Marshal(body)
	check(t, err)
	req, err := http.NewRequestWithContext(t.Context(), method, r.base+path, bytes.NewReader(raw))
	check(t, err)
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("%s %s: %s answers what is no JSON object: %q", method, path, resp.Status, text)
	}
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/json") {
		t.Errorf("%s %s: content type %q", method, path, got)
	}
	return resp.StatusCode, out, nil
}

// at walks through decoded JSON.
func at(v any, path ...any) any {
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[s]
		case int:
			l, _ := v.([]any)
			if s >= len(l) {
				return nil
			}
			v = l[s]
		}
	}
	return v
}

// TestREST: the operator API as JSON over HTTPS says what the command line says,
// to operators alone, and takes a caller's name from the certificate alone.
func TestREST(t *testing.T) {
	sources.Look(t, "../..")
	s := newTestStage(t)
	agents, err := freeAddress()
	check(t, err)
	operators, err := freeAddress()
	check(t, err)
	pin, err := s.controlPlane(agents, "--dev", "--operator-listen", operators)
	check(t, err)
	s.must(t, "reeve", "tenant", "add", "fabrikam", "--owner", "it@fabrikam.example", "--zone", "Europe/Oslo")
	s.fill(t, "agent.yaml", map[string]string{"ADDRESS": agents, "PIN": pin})
	check(t, s.join("fabrikam", "dc1", "agent.yaml", 3))
	check(t, s.confirm("fabrikam", "hr"))
	policies, err := filepath.Abs("../../deploy/policy")
	check(t, err)
	s.must(t, "reeve", "policy", "apply", policies)
	s.must(t, "reeve", "policy", "bind", "fabrikam", "baseline", "-p", "site=oslo")

	authority, err := ca.Load(filepath.Join(s.dir, "reeve-data", "ca"), ca.Config{TrustDomain: domain})
	check(t, err)
	kari := restAs(held(t, authority, spiffe.OperatorID{TrustDomain: domain, Name: "kari"}, authority.Pool()), operators)

	t.Run("says what the command line says", func(t *testing.T) {
		for path, args := range map[string][]string{
			"/v1/tenants":                    {"tenant", "list"},
			"/v1/tenants/fabrikam":           {"tenant", "show", "fabrikam"},
			"/v1/tenants/fabrikam/inventory": {"inventory", "show", "fabrikam"},
			"/v1/tenants/fabrikam/cases":     {"case", "list", "fabrikam"},
			"/v1/policies":                   {"policy", "list"},
		} {
			code, got, err := kari.do(t, "GET", path, nil, nil)
			check(t, err)
			var want map[string]any
			check(t, s.ask(&want, "reeve", args...))
			// `identity`, say, is asked for in pages; one page is a response of its own.
			if code != http.StatusOK || !reflect.DeepEqual(got, want) {
				t.Errorf("GET %s: %d %v\nreeve %s: %v", path, code, got, strings.Join(args, " "), want)
			}
		}
	})

	// Headers that name somebody else, in every spelling that a gateway may know.
	forged := http.Header{
		"Reeve-Operator": {"ola"}, "Grpc-Metadata-Reeve-Operator": {"ola"}, "Grpcgateway-Reeve-Operator": {"ola"},
		"X-Forwarded-For": {"127.0.0.1"}, "Forwarded": {"for=ola"},
	}
	code, made, err := kari.do(t, "POST", "/v1/tenants/fabrikam/plans", map[string]any{"purpose": "PURPOSE_CHANGE"}, forged)
	check(t, err)
	if code != http.StatusOK || at(made, "plan", "madeBy") != "operator:kari" {
		t.Fatalf("%d %v", code, made)
	}
	plan, _ := at(made, "plan", "id").(string)
	digest, _ := at(made, "plan", "digest").(string)
	check(t, until("the guardrails were asked", func() (bool, error) {
		_, got, err := kari.do(t, "GET", "/v1/plans/"+plan, nil, nil)
		return at(got, "plan", "dryRunDone") == true, err
	}))

	t.Run("a wrong digest is a Problem", func(t *testing.T) {
		code, got, err := kari.do(t, "POST", "/v1/plans/"+plan+":approve", map[string]any{"digest": strings.Repeat("A", len(digest)-1) + "="}, nil)
		check(t, err)
		problem := at(got, "details", 0)
		if code != http.StatusBadRequest || at(problem, "@type") != "type.googleapis.com/reeve.connector.v1.Problem" || at(problem, "code") != "DIGEST" {
			t.Fatalf("%d %v", code, got)
		}
		if said, _ := at(problem, "said").(string); !strings.Contains(said, plan) || !strings.Contains(said, "show it again") {
			t.Errorf("it says %q", said)
		}
		if _, got, _ := kari.do(t, "GET", "/v1/plans/"+plan, nil, nil); at(got, "plan", "state", "phase") != "PHASE_WAITING" {
			t.Errorf("the plan is %v", at(got, "plan", "state"))
		}
	})
	t.Run("what is not there is a Problem", func(t *testing.T) {
		for _, path := range []string{"/v1/plans/plan-0", "/v1/tenants/nobody", "/v1/tenants/nobody/plans", "/v1/tenants/fabrikam/identities/nobody:explain"} {
			code, got, err := kari.do(t, "GET", path, nil, nil)
			check(t, err)
			if code != http.StatusNotFound || at(got, "details", 0, "code") != "NOT_FOUND" {
				t.Errorf("GET %s: %d %v", path, code, got)
			}
		}
		code, got, err := kari.do(t, "POST", "/v1/tenants", map[string]any{"id": "contoso", "unheard": true}, nil)
		check(t, err)
		if code != http.StatusBadRequest {
			t.Errorf("an unknown member: %d %v", code, got)
		}
	})
	t.Run("the right digest is approved, by the certificate's name", func(t *testing.T) {
		code, got, err := kari.do(t, "POST", "/v1/plans/"+plan+":approve", map[string]any{"digest": digest}, forged)
		check(t, err)
		if code != http.StatusOK {
			t.Fatalf("%d %v", code, got)
		}
		s.must(t, "reeve", "plan", "watch", plan)
		if log := s.must(t, "reeve", "audit", "list", "fabrikam"); !regexp.MustCompile(`plan approved +operator:kari`).MatchString(log) || strings.Contains(log, "operator:ola") {
			t.Errorf("records say\n%s", log)
		}
	})
	t.Run("gRPC takes no name from metadata", func(t *testing.T) {
		h := held(t, authority, spiffe.OperatorID{TrustDomain: domain, Name: "kari"}, authority.Pool())
		conn, err := grpc.NewClient(operators, grpc.WithTransportCredentials(credentials.NewTLS(mtls.ClientConfig(h, spiffe.ControlPlaneID{TrustDomain: domain}, time.Now))))
		check(t, err)
		defer conn.Close()
		ctx := metadata.AppendToOutgoingContext(t.Context(), "reeve-operator", "ola", "grpcgateway-reeve-operator", "ola")
		r, err := operatorv1.NewPlanServiceClient(conn).MakePlan(ctx, &operatorv1.MakePlanRequest{Tenant: "fabrikam", Purpose: 1})
		check(t, err)
		if r.GetPlan().GetMadeBy() != "operator:kari" {
			t.Errorf("made by %s", r.GetPlan().GetMadeBy())
		}
	})

	t.Run("nobody else gets in", func(t *testing.T) {
		foreign, err := ca.New(ca.Config{TrustDomain: domain})
		check(t, err)
		strange, err := ca.New(ca.Config{TrustDomain: "fabrikam.example"})
		check(t, err)
		for name, h := range map[string]holder{
			"no certificate":                held0(authority),
			"an agent":                      held(t, authority, spiffe.AgentID{TrustDomain: domain, Tenant: "fabrikam", Agent: "dc1"}, authority.Pool()),
			"an operator of another CA":     held(t, foreign, spiffe.OperatorID{TrustDomain: domain, Name: "kari"}, authority.Pool()),
			"an operator of another domain": held(t, strange, spiffe.OperatorID{TrustDomain: "fabrikam.example", Name: "kari"}, authority.Pool()),
		} {
			code, got, err := restAs(h, operators).do(t, "GET", "/v1/tenants", nil, http.Header{"Reeve-Operator": {"kari"}, "Grpc-Metadata-Reeve-Operator": {"kari"}})
			if err == nil {
				t.Errorf("%s: %d %v", name, code, got)
			}
		}
		// The port for agents is none for operators.
		if code, got, err := restAs(held(t, authority, spiffe.OperatorID{TrustDomain: domain, Name: "kari"}, authority.Pool()), agents).do(t, "GET", "/v1/tenants", nil, nil); err == nil {
			t.Errorf("at the agents' port: %d %v", code, got)
		}
	})
}

// held0 believes in authority and has no certificate.
func held0(authority *ca.CA) holder { return holder{roots: authority.Pool()} }

// TestRESTIsWhole: every call of the operator API has a path, and the OpenAPI
// document lists it with its method.
func TestRESTIsWhole(t *testing.T) {
	sources.Look(t, "../..")
	const folder = "../../proto/reeve/operator/v1/"
	var service struct {
		HTTP struct {
			Rules []map[string]string `yaml:"rules"`
		} `yaml:"http"`
	}
	text, err := os.ReadFile(folder + "rest.yaml")
	check(t, err)
	check(t, yaml.Unmarshal(text, &service))
	var openapi struct {
		Paths map[string]map[string]struct{ OperationID string } `json:"paths"`
	}
	text, err = os.ReadFile(folder + "operator.swagger.json")
	check(t, err)
	check(t, json.Unmarshal(text, &openapi))
	listed := 0
	for _, methods := range openapi.Paths {
		listed += len(methods)
	}
	paths := map[string]string{}
	for _, rule := range service.HTTP.Rules {
		for _, method := range []string{"get", "post", "put", "delete", "patch"} {
			if path := rule[method]; path != "" {
				paths[rule["selector"]] = method + " " + path
			}
		}
	}
	calls := 0
	services := operatorv1.File_reeve_operator_v1_operator_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			calls++
			m := methods.Get(j)
			path, ok := paths[string(m.FullName())]
			if !ok {
				t.Errorf("%s has no path in rest.yaml", m.FullName())
				continue
			}
			verb, at, _ := strings.Cut(path, " ")
			want := fmt.Sprintf("%s_%s", services.Get(i).Name(), m.Name())
			if got := openapi.Paths[at][verb].OperationID; got != want {
				t.Errorf("operator.swagger.json has %q at %s, not %s", got, path, want)
			}
		}
	}
	if listed != calls {
		t.Errorf("operator.swagger.json lists %d calls, there are %d", listed, calls)
	}
}
