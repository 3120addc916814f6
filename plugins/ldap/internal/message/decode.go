package message

import "math"

// decode reads one whole message, header included, into m, whose slices it uses
// again. values is the room that all attributes' values share.
func decode(raw []byte, limits Limits, m *Message, values [][]byte) ([][]byte, error) {
	d := decoder{limits: limits}
	attributes, references, controls := m.Entry.Attributes[:0], m.References[:0], m.Controls[:0]
	*m = Message{Entry: Entry{Attributes: attributes}, References: references, Controls: controls}
	values = values[:0]

	outer := element{content: raw}
	body := d.take(&outer, tagSequence, "message")
	if m.ID = d.integer(d.take(&body, tagInteger, "message ID"), "message ID"); m.ID < 0 {
		d.fail("a negative message ID")
	}
	op := d.next(&body, "operation")
	if d.err == nil && op.tag&classMask != classApplication {
		d.fail("operation has the tag %#x", op.tag)
	}
	if d.err != nil {
		return values, d.err
	}
	if op.tag&constructed == 0 {
		d.fail("operation %d is primitive", op.tag&0x1f)
		return values, d.err
	}
	switch m.Op = Op(op.tag & 0x1f); m.Op {
	case SearchResultEntry:
		values = d.entry(op, &m.Entry, values)
	case SearchResultReference:
		for len(op.content) > 0 && d.err == nil {
			m.References = append(m.References, d.take(&op, tagOctetString, "reference").content)
			if len(m.References) > limits.Values {
				d.err = tooLong(len(m.References), limits.Values)
			}
		}
		if len(m.References) == 0 {
			d.fail("a reference to nowhere")
		}
	case BindResponse, SearchResultDone, ExtendedResponse:
		d.result(op, m)
	case IntermediateResponse:
		for len(op.content) > 0 && d.err == nil {
			switch e := d.next(&op, "intermediate response"); e.tag {
			case tagIntermediateName:
				m.Name = e.content
			case tagIntermediateValue:
				m.Value = e.content
			}
		}
	default:
		d.fail("operation %d is none that answers", m.Op)
	}
	// RFC 4511 section 4: what follows with other tags is of later versions and
	// is passed over, here and below.
	for len(body.content) > 0 && d.err == nil {
		if e := d.next(&body, "controls"); e.tag == tagControls {
			d.controls(e, m)
		}
	}
	return values, d.err
}

func (d *decoder) entry(op element, e *Entry, values [][]byte) [][]byte {
	e.Name = d.take(&op, tagOctetString, "entry's name").content
	list := d.take(&op, tagSequence, "attributes")
	for len(list.content) > 0 && d.err == nil {
		if len(e.Attributes) == d.limits.Attributes {
			d.err = tooLong(len(e.Attributes)+1, d.limits.Attributes)
			break
		}
		attribute := d.take(&list, tagSequence, "attribute")
		typ := d.take(&attribute, tagOctetString, "attribute's type").content
		set := d.take(&attribute, tagSet, "values")
		first := len(values)
		for len(set.content) > 0 && d.err == nil {
			if len(values) == d.limits.Values {
				d.err = tooLong(len(values)+1, d.limits.Values)
				break
			}
			values = append(values, d.take(&set, tagOctetString, "value").content)
		}
		e.Attributes = append(e.Attributes, Attribute{Type: typ, Values: values[first:len(values):len(values)]})
	}
	return values
}

func (d *decoder) result(op element, m *Message) {
	code := d.integer(d.take(&op, tagEnumerated, "result code"), "result code")
	if code < 0 || code > math.MaxUint16 {
		d.fail("result code %d", code)
	}
	m.Result = Result{Code: uint16(code), MatchedDN: d.take(&op, tagOctetString, "matched DN").content,
		Diagnostic: d.take(&op, tagOctetString, "diagnostic message").content}
	for len(op.content) > 0 && d.err == nil {
		if e := d.next(&op, "result"); m.Op == ExtendedResponse && e.tag == tagName {
			m.Name = e.content
		}
	}
}

// maxControls is more than any server sends with one message.
const maxControls = 64

func (d *decoder) controls(list element, m *Message) {
	for len(list.content) > 0 && d.err == nil {
		if len(m.Controls) == maxControls {
			d.err = tooLong(maxControls+1, maxControls)
			return
		}
		body := d.take(&list, tagSequence, "control")
		c := Control{Type: d.take(&body, tagOctetString, "control's type").content}
		for len(body.content) > 0 && d.err == nil {
			switch e := d.next(&body, "control"); e.tag {
			case tagBoolean: // criticality, which means nothing in a response
			case tagOctetString:
				if c.Value = e.content; c.Value == nil {
					c.Value = []byte{}
				}
			}
		}
		m.Controls = append(m.Controls, c)
	}
}
