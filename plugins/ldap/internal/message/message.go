package message

import "errors"

var (
	// ErrMalformed is wrapped when octets are not an LDAPMessage this package
	// reads. The stream cannot be followed any further.
	ErrMalformed = errors.New("malformed LDAP message")
	// ErrTooLarge is wrapped when a message is over a bound of Limits.
	ErrTooLarge = errors.New("LDAP message too large")
)

// Limits bound what one message may hold. Memory stays below twice Octets and
// 24 octets for each value.
type Limits struct {
	// Octets of one message with its header.
	Octets int
	// Attributes, and values over all attributes, of one entry.
	Attributes, Values int
}

// Op is a protocol operation that a server sends, by its tag number of class
// APPLICATION.
type Op byte

// The operations that Reader knows.
const (
	BindResponse          Op = 1
	SearchResultEntry     Op = 4
	SearchResultDone      Op = 5
	SearchResultReference Op = 19
	ExtendedResponse      Op = 24
	IntermediateResponse  Op = 25
)

// NoticeOfDisconnection is the responseName of RFC 4511 section 4.4.1.
const NoticeOfDisconnection = "1.3.6.1.4.1.1466.20036"

// Message is one LDAPMessage. It and all it holds is valid until the next Next.
type Message struct {
	ID int32
	Op Op
	// Entry of a SearchResultEntry.
	Entry Entry
	// Result of BindResponse, SearchResultDone and ExtendedResponse.
	Result Result
	// References of a SearchResultReference: URIs, at least one.
	References [][]byte
	// Name is the responseName of an ExtendedResponse or IntermediateResponse,
	// empty if it has none; Value is the responseValue of the latter.
	Name, Value []byte
	// Controls that came with the message.
	Controls []Control
}

// Entry is one entry as the server showed it: names, types and values are its
// octets, in its order.
type Entry struct {
	Name       []byte
	Attributes []Attribute
}

// Attribute is one PartialAttribute; a server may show it without values.
type Attribute struct {
	Type   []byte
	Values [][]byte
}

// Result is an LDAPResult; referrals are left out.
type Result struct {
	Code       uint16
	MatchedDN  []byte
	Diagnostic []byte
}

// Control is one response control. Value is nil if it has none.
type Control struct {
	Type, Value []byte
}

// Control returns the first control of that type, nil if there is none.
func (m *Message) Control(oid string) *Control {
	for i := range m.Controls {
		if string(m.Controls[i].Type) == oid {
			return &m.Controls[i]
		}
	}
	return nil
}

// Paging reads the value of a control of simple paged results (RFC 2696). The
// cookie is valid as long as the message; it is empty, not nil, on the last
// page.
func Paging(value []byte) (size int32, cookie []byte, err error) {
	d := decoder{}
	outer := element{content: value}
	body := d.take(&outer, tagSequence, "paging control")
	size = d.integer(d.take(&body, tagInteger, "page size"), "page size")
	cookie = d.take(&body, tagOctetString, "cookie").content
	if d.err == nil && len(outer.content) > 0 {
		d.fail("octets after the paging control")
	}
	if d.err != nil {
		return 0, nil, d.err
	}
	if cookie == nil {
		cookie = []byte{}
	}
	return size, cookie, nil
}
