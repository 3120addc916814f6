package wall

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
)

const (
	domain = "reeve.local"
	// patience bounds one call.
	patience = 20 * time.Second
)

// holder is an SVID that a role holds, or none.
type holder struct {
	cert  *tls.Certificate
	roots *x509.CertPool
}

func (h *holder) Current() (*tls.Certificate, error) {
	if h.cert == nil {
		return &tls.Certificate{}, nil
	}
	return h.cert, nil
}
func (h *holder) Roots() *x509.CertPool    { return h.roots }
func (h *holder) Updated() <-chan struct{} { return nil }
func (h *holder) Close() error             { return nil }

// issued has authority issue a certificate for id; trust is what its holder
// believes in.
func issued(authority *ca.CA, id spiffe.ID, trust *x509.CertPool) (*holder, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		return nil, err
	}
	var chain ca.Chain
	switch id := id.(type) {
	case spiffe.OperatorID:
		chain, err = authority.IssueOperator(csr, id, 0)
	case spiffe.AgentID:
		chain, err = authority.IssueAgent(csr, id, 0)
	default:
		err = fmt.Errorf("no certificate for a %T", id)
	}
	if err != nil {
		return nil, err
	}
	return &holder{&tls.Certificate{Certificate: chain.DER(), PrivateKey: key, Leaf: chain[0]}, trust}, nil
}

// door is one connection of a role to a listener. What it receives is kept whole:
// status line, headers, body and trailers. It is for one goroutine.
type door struct {
	client *http.Client
	base   string
	rest   bool

	address string
	config  *tls.Config

	mu    sync.Mutex
	state *tls.ConnectionState
}

// turnedAway waits for what the door says right after a handshake that this side
// finds complete (RFC 8446 4.4.4), and fails unless it is an alert: the refusal is
// then the server's and not our own.
func (d *door) turnedAway() error {
	conn, err := tls.Dial("tcp", d.address, d.config)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "remote error: tls") {
		return fmt.Errorf("the handshake is not refused: %w", err)
	}
	return nil
}

// open is a door over TLS, for gRPC or for REST.
func open(address string, h *holder, rest bool) *door {
	d := &door{base: "https://" + address, rest: rest, address: address}
	server := spiffe.ControlPlaneID{TrustDomain: domain}
	config := mtls.ClientConfig(h, server, time.Now)
	if h.cert == nil {
		config = mtls.PinnedClientConfig(h.roots, server, time.Now)
	}
	config.NextProtos = []string{"h2"}
	if rest {
		config.NextProtos = []string{"http/1.1"}
	}
	d.config = config
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		state := conn.(*tls.Conn).ConnectionState()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.state = &state
		return conn, nil
	}
	d.client = &http.Client{Transport: &http.Transport{DialTLSContext: dial, ForceAttemptHTTP2: !rest, DisableCompression: true}}
	return d
}

// openSocket is a door through the operators' local socket.
func openSocket(path string) *door {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &door{base: "http://socket", client: &http.Client{Transport: &http.Transport{
		Protocols: protocols, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}
}

func (d *door) close() { d.client.CloseIdleConnections() }

// exporter is the keying material of the connection that the next call uses.
func (d *door) exporter() ([]byte, error) {
	d.call("reeve.agent.v1.EnrollmentService.GetRoot", false, nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == nil {
		return make([]byte, 32), nil
	}
	return mtls.ExporterBinding(*d.state)
}

// answer is what a call got.
type answer struct {
	// failed says that no answer came at all: the handshake was refused.
	failed error
	// http is the status line's code.
	http     int
	header   http.Header
	trailer  http.Header
	body     []byte
	code     codes.Code
	message  string
	details  []proto.Message
	messages []proto.Message
}

// received is every byte of the answer, and once more what it means: names in
// base64 or in escapes come to light there.
func (a answer) received() []byte {
	var b bytes.Buffer
	for _, h := range []http.Header{a.header, a.trailer} {
		// What stands there in base64 is looked at as what it says, so that a name
		// that was asked for is known again.
		_ = h.WriteSubset(&b, map[string]bool{statusDetails: true}) // a buffer takes everything
		if raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(h.Get(statusDetails), "=")); err == nil {
			b.Write(raw)
		} else {
			b.WriteString(h.Get(statusDetails))
		}
	}
	b.Write(a.body)
	b.WriteString("\n" + a.message + "\n")
	for _, m := range slices.Concat(a.details, a.messages) {
		raw, err := proto.MarshalOptions{AllowPartial: true}.Marshal(m)
		if err != nil {
			b.WriteString(err.Error())
		}
		b.Write(raw)
	}
	return b.Bytes()
}

// text is what two answers are compared by, without the fields that differ in any
// two and with the names that were asked for made equal.
func (a answer) text(volatile []string, names map[string]string) string {
	if a.failed != nil {
		return "no answer"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP %d, %v, %s\n", a.http, a.code, a.message)
	fields := slices.Sorted(maps.Keys(a.header))
	fields = append(fields, slices.Sorted(maps.Keys(a.trailer))...)
	fmt.Fprintf(&b, "fields %v\n", fields)
	for _, m := range a.details {
		fmt.Fprintf(&b, "detail %s\n", prototext.MarshalOptions{}.Format(m))
	}
	for _, m := range a.messages {
		m = proto.Clone(m)
		without(m.ProtoReflect(), volatile)
		fmt.Fprintf(&b, "message %s\n", prototext.MarshalOptions{}.Format(m))
	}
	text := b.String()
	for _, name := range slices.SortedFunc(maps.Keys(names), func(a, b string) int { return len(b) - len(a) }) {
		text = strings.ReplaceAll(text, name, "⟨"+names[name]+"⟩")
	}
	return text
}

// without empties the fields of these names at any depth.
func without(m protoreflect.Message, fields []string) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case slices.Contains(fields, string(fd.Name())):
			m.Clear(fd)
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				without(v.List().Get(i).Message(), fields)
			}
		default:
			without(v.Message(), fields)
		}
		return true
	})
}

func methodOf(full string) protoreflect.MethodDescriptor {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(full))
	if err != nil {
		return nil
	}
	m, _ := found.(protoreflect.MethodDescriptor)
	return m
}

func newMessage(d protoreflect.MessageDescriptor) (proto.Message, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		return nil, err
	}
	return t.New().Interface(), nil
}

// call calls a method, named as package.Service.Method. Of a stream that does not
// end by itself only the first message is waited for.
func (d *door) call(full string, first bool, messages []proto.Message) answer {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if d.rest {
		return d.callREST(ctx, full, first, messages)
	}
	var body bytes.Buffer
	if len(messages) == 0 && !methodOf(full).IsStreamingClient() {
		body.Write(make([]byte, 5))
	}
	for _, m := range messages {
		raw, err := proto.Marshal(m)
		if err != nil {
			return answer{failed: err}
		}
		body.WriteByte(0)
		body.Write(binary.BigEndian.AppendUint32(nil, uint32(len(raw))))
		body.Write(raw)
	}
	at := strings.LastIndexByte(full, '.')
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.base+"/"+full[:at]+"/"+full[at+1:], &body)
	if err != nil {
		return answer{failed: err}
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := d.client.Do(req)
	if err != nil {
		return answer{failed: err}
	}
	defer resp.Body.Close()
	a := answer{http: resp.StatusCode, header: resp.Header}
	if a.messages, a.body, err = frames(resp.Body, methodOf(full).Output(), first); err != nil {
		return answer{failed: err}
	}
	a.trailer = resp.Trailer
	if len(a.messages) > 0 && first {
		return a
	}
	return a.withStatus()
}

// frames reads messages as gRPC has them on the wire.
func frames(r io.Reader, d protoreflect.MessageDescriptor, first bool) (messages []proto.Message, raw []byte, err error) {
	for {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			return messages, raw, nil
		} else if err != nil {
			return nil, nil, err
		}
		if head[0] != 0 {
			return nil, nil, errors.New("the answer is compressed, and nobody asked for that")
		}
		one := make([]byte, binary.BigEndian.Uint32(head[1:]))
		if _, err := io.ReadFull(r, one); err != nil {
			return nil, nil, err
		}
		m, err := newMessage(d)
		if err != nil {
			return nil, nil, err
		}
		if err := proto.Unmarshal(one, m); err != nil {
			return nil, nil, err
		}
		messages, raw = append(messages, m), append(append(raw, head[:]...), one...)
		if first {
			return messages, raw, nil
		}
	}
}

// statusDetails is the field of google.rpc.Status.
const statusDetails = "Grpc-Status-Details-Bin"

// withStatus reads the status, which stands in the trailers, or in the headers
// where there is nothing else.
func (a answer) withStatus() answer {
	get := func(name string) string {
		if v := a.trailer.Get(name); v != "" {
			return v
		}
		return a.header.Get(name)
	}
	n, err := strconv.Atoi(get("Grpc-Status"))
	if err != nil {
		a.code, a.message = codes.Unknown, fmt.Sprintf("no status: HTTP %d", a.http)
		return a
	}
	a.code = codes.Code(n)
	if a.message, err = url.PathUnescape(get("Grpc-Message")); err != nil {
		a.message = get("Grpc-Message")
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(get(statusDetails), "="))
	if err == nil {
		a.details = detailsOf(raw)
	}
	return a
}

// detailsOf reads a google.rpc.Status.
func detailsOf(raw []byte) (list []proto.Message) {
	st := status.New(codes.OK, "").Proto()
	if proto.Unmarshal(raw, st) != nil {
		return nil
	}
	for _, d := range st.GetDetails() {
		if m, err := d.UnmarshalNew(); err == nil {
			list = append(list, m)
		} else {
			list = append(list, d)
		}
	}
	return list
}
