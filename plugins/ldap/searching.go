package ldap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/ldap/internal/message"
)

// Bounds of one message beside maxElement. A group of more values than that
// does not fit into a message to the agent.
const (
	maxAttributes = 1 << 14
	maxValues     = 1 << 20
)

const oidStartTLS = "1.3.6.1.4.1.1466.20037" // RFC 4511 4.14.1

// searchConn is a connection that carries one request at a time and reads the
// answers itself: go-ldap makes a tree of every entry, which for a large
// directory takes most of the time and memory of reading it. It has the methods
// of *ldap.Conn that greeting a server needs. It is for one goroutine; closing
// the raw connection ends its calls.
type searchConn struct {
	conn    net.Conn
	reader  *message.Reader
	timeout time.Duration
	id      int32
	// bounded tells that the caller has set one deadline over all requests.
	bounded bool
	// begun tells that the deadline of the message under way is set.
	begun bool
}

func newSearchConn(conn net.Conn, timeout time.Duration) *searchConn {
	c := &searchConn{conn: conn, timeout: timeout}
	c.reader = message.NewReader(c, message.Limits{Octets: maxElement, Attributes: maxAttributes, Values: maxValues})
	return c
}

// Read implements io.Reader for the message reader. A message has the timeout
// from when it is waited for, however it trickles in; what the caller does
// between messages does not count.
func (c *searchConn) Read(b []byte) (int, error) {
	if !c.bounded && !c.begun {
		c.begun = true
		if err := c.conn.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
			return 0, err
		}
	}
	return c.conn.Read(b)
}

// send sends one request. Requests are of ours and small.
func (c *searchConn) send(op *ber.Packet, controls []ldap.Control) error {
	c.id++
	envelope := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	envelope.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, int64(c.id), ""))
	envelope.AppendChild(op)
	if len(controls) > 0 {
		list := ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "")
		for _, control := range controls {
			list.AppendChild(control.Encode())
		}
		envelope.AppendChild(list)
	}
	if !c.bounded {
		if err := c.conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return err
		}
	}
	_, err := c.conn.Write(envelope.Bytes())
	return c.broken(err)
}

// receive returns the next message that answers the last request.
func (c *searchConn) receive() (*message.Message, error) {
	c.begun = false
	m, err := c.reader.Next()
	switch {
	case err != nil:
		return nil, c.broken(err)
	case m.ID == 0 && m.Op == message.ExtendedResponse && string(m.Name) == message.NoticeOfDisconnection:
		// No answer to the request, though it has a result code.
		return nil, fmt.Errorf("the server ends the connection: %s", said(resultError(m.Result)))
	case m.ID != c.id:
		return nil, fmt.Errorf("%w: an answer to request %d, not to %d", message.ErrMalformed, m.ID, c.id)
	}
	return m, nil
}

// broken says what became of the connection.
func (c *searchConn) broken(err error) error {
	var late net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &late) && late.Timeout():
		return fmt.Errorf("no answer for %s: %w", c.timeout, context.DeadlineExceeded)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return fmt.Errorf("the connection closed before the answer ended: %w", err)
	default:
		return err
	}
}

// answer is a result as go-ldap's error, nil for success.
func answer(r message.Result) error {
	if r.Code == ldap.LDAPResultSuccess {
		return nil
	}
	return resultError(r)
}

func resultError(r message.Result) *ldap.Error {
	return &ldap.Error{ResultCode: r.Code, MatchedDN: string(r.MatchedDN), Err: errors.New(string(r.Diagnostic))}
}

// ask sends a request that has one answer, of kind want.
func (c *searchConn) ask(request *ber.Packet, want message.Op) error {
	if err := c.send(request, nil); err != nil {
		return err
	}
	m, err := c.receive()
	if err != nil {
		return err
	}
	if m.Op != want {
		return fmt.Errorf("%w: operation %d where %d was due", message.ErrMalformed, m.Op, want)
	}
	return answer(m.Result)
}

// StartTLS is (*ldap.Conn).StartTLS.
func (c *searchConn) StartTLS(config *tls.Config) error {
	request := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationExtendedRequest, nil, "")
	request.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, oidStartTLS, ""))
	if err := c.ask(request, message.ExtendedResponse); err != nil {
		return err
	}
	if c.reader.Buffered() > 0 {
		// What was said in the clear must not be taken for what TLS protects.
		return fmt.Errorf("%w: octets between the answer to StartTLS and the handshake", message.ErrMalformed)
	}
	secure := tls.Client(c.conn, config)
	if err := secure.Handshake(); err != nil {
		return fmt.Errorf("TLS handshake failed: %w", err)
	}
	c.conn = secure
	return nil
}

// TLSConnectionState is (*ldap.Conn).TLSConnectionState.
func (c *searchConn) TLSConnectionState() (tls.ConnectionState, bool) {
	secure, ok := c.conn.(*tls.Conn)
	if !ok {
		return tls.ConnectionState{}, false
	}
	return secure.ConnectionState(), true
}

// Bind is (*ldap.Conn).Bind.
func (c *searchConn) Bind(dn, password string) error {
	if password == "" {
		// RFC 4513 section 5.1.2: the server would take it for anonymous.
		return ldap.NewError(ldap.ErrorEmptyPassword, errors.New("ldap: empty password not allowed by the client"))
	}
	return c.bind(dn, ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, password, ""))
}

// ExternalBind is (*ldap.Conn).ExternalBind.
func (c *searchConn) ExternalBind() error {
	sasl := ber.Encode(ber.ClassContext, ber.TypeConstructed, 3, nil, "")
	sasl.AppendChild(octetString("EXTERNAL"))
	sasl.AppendChild(octetString(""))
	return c.bind("", sasl)
}

func (c *searchConn) bind(dn string, authentication *ber.Packet) error {
	request := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationBindRequest, nil, "")
	request.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, int64(3), ""))
	request.AppendChild(octetString(dn))
	request.AppendChild(authentication)
	return c.ask(request, message.BindResponse)
}

func octetString(s string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
}

// maxHeld bounds what Search holds.
const maxHeld = 100

// Search is (*ldap.Conn).Search for a few entries.
func (c *searchConn) Search(request *ldap.SearchRequest) (*ldap.SearchResult, error) {
	result := &ldap.SearchResult{}
	_, err := c.each(request, func(m *message.Message) error {
		if m.Op != message.SearchResultEntry {
			return nil
		}
		if len(result.Entries) == maxHeld {
			return fmt.Errorf("%w: more than %d entries where one was asked for", message.ErrTooLarge, maxHeld)
		}
		result.Entries = append(result.Entries, heldEntry(&m.Entry))
		return nil
	})
	return result, err
}

// each searches and hands over every entry and reference, which are valid until
// found returns. The cookie is that of the paging control of the result: nil if
// there was none, empty at the last page. An error of found ends it and leaves
// the connection unusable.
func (c *searchConn) each(request *ldap.SearchRequest, found func(*message.Message) error) (cookie []byte, err error) {
	m, err := c.exchange(request, func(m *message.Message) error {
		if m.Op == message.IntermediateResponse {
			return nil
		}
		return found(m)
	})
	if err != nil {
		return nil, err
	}
	if control := m.Control(oidPaging); control != nil {
		_, paged, err := message.Paging(control.Value)
		if err != nil {
			return nil, err
		}
		cookie = append([]byte{}, paged...)
	}
	return cookie, answer(m.Result)
}

// exchange searches and hands over every message but the last, which it returns:
// the result, whatever its code.
func (c *searchConn) exchange(request *ldap.SearchRequest, found func(*message.Message) error) (*message.Message, error) {
	packet, err := encodeSearch(request)
	if err != nil {
		return nil, err
	}
	if err := c.send(packet, request.Controls); err != nil {
		return nil, err
	}
	for {
		m, err := c.receive()
		if err != nil {
			return nil, err
		}
		switch m.Op {
		case message.SearchResultEntry, message.SearchResultReference, message.IntermediateResponse:
			if err := found(m); err != nil {
				return nil, err
			}
		case message.SearchResultDone:
			return m, nil
		default:
			return nil, fmt.Errorf("%w: operation %d in answer to a search", message.ErrMalformed, m.Op)
		}
	}
}

func encodeSearch(r *ldap.SearchRequest) (*ber.Packet, error) {
	filter, err := ldap.CompileFilter(r.Filter)
	if err != nil {
		return nil, err
	}
	op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchRequest, nil, "")
	op.AppendChild(octetString(r.BaseDN))
	for _, enumerated := range []int{r.Scope, r.DerefAliases} {
		op.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, int64(enumerated), ""))
	}
	for _, limit := range []int{r.SizeLimit, r.TimeLimit} {
		op.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, int64(limit), ""))
	}
	op.AppendChild(ber.NewBoolean(ber.ClassUniversal, ber.TypePrimitive, ber.TagBoolean, r.TypesOnly, ""))
	op.AppendChild(filter)
	attributes := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	for _, a := range r.Attributes {
		attributes.AppendChild(octetString(a))
	}
	op.AppendChild(attributes)
	return op, nil
}

// heldEntry is an entry in go-ldap's form, in memory of its own.
func heldEntry(e *message.Entry) *ldap.Entry {
	out := &ldap.Entry{DN: string(e.Name)}
	for _, a := range e.Attributes {
		held := &ldap.EntryAttribute{Name: string(a.Type)}
		for _, v := range a.Values {
			held.Values, held.ByteValues = append(held.Values, string(v)), append(held.ByteValues, append([]byte{}, v...))
		}
		out.Attributes = append(out.Attributes, held)
	}
	return out
}

// lentEntry is go-ldap's entry in the other form; it shares its memory.
func lentEntry(e *ldap.Entry) *message.Entry {
	out := &message.Entry{Name: []byte(e.DN), Attributes: make([]message.Attribute, len(e.Attributes))}
	for n, a := range e.Attributes {
		out.Attributes[n] = message.Attribute{Type: []byte(a.Name), Values: a.ByteValues}
	}
	return out
}
