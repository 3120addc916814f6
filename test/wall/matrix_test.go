package wall

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net/url"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// audience is who a method serves.
type audience int

const (
	// anybody who completes the handshake at the agents' door.
	anybody audience = iota
	liveAgents
	operators
	// plugins serve it; the control plane does not.
	plugins
)

// row says of one method whom it serves and how a request names things. Whoever
// is not in its audience must get the same refusal whatever is named.
type row struct {
	method string
	serves audience
	probes []probe
	// volatile fields differ in any two answers, such as times.
	volatile []string
	// first: the stream goes on; its first message counts.
	first bool
	// plants: what was named stays with the caller's tenant, who may hear it again.
	plants bool
	// everybody: an operator asks about all tenants; there is no wall in it.
	everybody bool
	// last rows run after all others: they end things.
	last bool
}

// probe is one way in which the method names things.
type probe struct {
	name string
	// ask makes the messages of a request of c that names e's things.
	ask func(c *caller, e *estate) ([]proto.Message, error)
	// own are the codes that a served caller may get for its own things; OK if
	// empty.
	own []codes.Code
	// other is the code that a served caller gets for what is another's or
	// nobody's; codes.NotFound if it is not set, alike where it is OK.
	other codes.Code
	// alone says why the caller's own things are all that can be named.
	alone string
	// noOwn says why there is nothing of the caller's own to name.
	noOwn string
	// fits says whether the estate has a name of this kind that is none of the
	// caller's; nil is always.
	fits func(c *caller, e *estate) bool
	// got looks at an answer to the caller's own request.
	got func(c *caller, a answer) error
}

// alike is for names that are taken as they come, whoever else bears them.
const alike codes.Code = 99

func one(m proto.Message) ([]proto.Message, error) { return []proto.Message{m}, nil }

// just is an ask of one message.
func just(f func(c *caller, e *estate) proto.Message) func(*caller, *estate) ([]proto.Message, error) {
	return func(c *caller, e *estate) ([]proto.Message, error) { return one(f(c, e)) }
}

// request makes a certificate request that claims a SPIFFE ID.
func request(id string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{}
	if id != "" {
		u, err := url.Parse(id)
		if err != nil {
			return nil, err
		}
		template.URIs = []*url.URL{u}
	}
	return x509.CreateCertificateRequest(rand.Reader, template, key)
}

func agentURI(tenant, agent string) string {
	return "spiffe://" + domain + "/tenant/" + tenant + "/agent/" + agent
}

// issuedTo checks that a certificate is for the caller alone.
func issuedTo(c *caller, der [][]byte) error {
	leaf, err := x509.ParseCertificate(der[0])
	if err != nil {
		return err
	}
	if want := agentURI(c.agent.tenant, c.agent.name); len(leaf.URIs) != 1 || leaf.URIs[0].String() != want {
		return fmt.Errorf("the certificate names %v, not %s", leaf.URIs, want)
	}
	return nil
}

// matrix has a row for every method of every service in proto/.
func matrix() []row {
	var all []row
	all = append(all, agentRows()...)
	all = append(all, operatorRows()...)
	for _, m := range []string{"Describe", "Configure", "Check", "Observe", "Changes", "Watch", "Read", "Apply"} {
		all = append(all, row{method: "reeve.connector.v1.ConnectorService." + m, serves: plugins, probes: []probe{{
			name: "nothing", alone: "connectors are reached through the agent alone",
			ask: func(*caller, *estate) ([]proto.Message, error) { return []proto.Message{}, nil },
		}}})
	}
	return all
}

// lacks compares the methods there are with the rows there are; each sentence
// says what to do.
func lacks(methods []protoreflect.FullName, rows []row) (sentences []string) {
	have := map[protoreflect.FullName]int{}
	for _, r := range rows {
		have[protoreflect.FullName(r.method)]++
	}
	for _, m := range methods {
		switch have[m] {
		case 0:
			sentences = append(sentences, fmt.Sprintf("%s has no row in the matrix of the tenant wall: add one to agentRows or operatorRows in test/wall that says whom it serves and, for each name in its request, how to name a thing of the caller's, of another tenant's and of nobody's", m))
		case 1:
		default:
			sentences = append(sentences, fmt.Sprintf("%s has several rows in the matrix of the tenant wall: keep one, with several probes", m))
		}
		delete(have, m)
	}
	for m := range have {
		sentences = append(sentences, fmt.Sprintf("the matrix of the tenant wall has a row for %s, which is no method any more: remove the row", m))
	}
	for _, r := range rows {
		for _, p := range r.probes {
			if p.ask == nil || p.name == "" {
				sentences = append(sentences, fmt.Sprintf("%s has a probe that asks nothing", r.method))
			}
		}
		if len(r.probes) == 0 {
			sentences = append(sentences, fmt.Sprintf("%s has a row without a probe: say how a request names things, or why it names none (alone)", r.method))
		}
	}
	return sentences
}
