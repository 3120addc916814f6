package host

import (
	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// tally is the host's own account of a stream, held against the connector's.
type tally struct {
	client *Client
	tried  string
	count  uint64
	end    *connectorv1.ObserveEnd
	// present tells that objects were named as present.
	present bool
}

func (t *tally) objects(objects []*connectorv1.Object, batch func([]*connectorv1.Object) error) error {
	if t.end != nil {
		return t.client.bug(t.tried, "objects after the end")
	}
	for _, o := range objects {
		if err := t.client.checkObject(t.tried, o); err != nil {
			return err
		}
	}
	t.count += uint64(len(objects))
	return batch(objects)
}

func (t *tally) names(anchors []string, take func([]string) error) error {
	if t.end != nil {
		return t.client.bug(t.tried, "anchors after the end")
	}
	return take(anchors)
}

func (t *tally) endWith(end *connectorv1.ObserveEnd) error {
	if t.end != nil {
		return t.client.bug(t.tried, "two ends")
	}
	for i, p := range end.GetProblems() {
		end.Problems[i] = sdk.FromProto(p).Proto()
		switch end.Problems[i].GetSeverity() {
		case connectorv1.Severity_SEVERITY_INCOMPLETE, connectorv1.Severity_SEVERITY_ERROR:
			if end.GetComplete() {
				return t.client.bug(t.tried, "calls itself complete and says what it left out: %s", p.GetCode())
			}
		}
	}
	end.Method = sdk.Clean(end.GetMethod())
	t.end = end
	return nil
}

func (t *tally) finish() (*connectorv1.ObserveEnd, error) {
	if t.end == nil {
		return nil, t.client.bug(t.tried, "the stream stopped after %d objects without an end", t.count)
	}
	if t.end.GetCount() != t.count {
		return nil, t.client.bug(t.tried, "counts %d objects, %d arrived", t.end.GetCount(), t.count)
	}
	if t.end.GetComplete() && t.end.GetMethod() == "" {
		return nil, t.client.bug(t.tried, "calls itself complete and does not say how it knows")
	}
	return t.end, nil
}

// finishChanges is finish for a read from a cursor on.
func (t *tally) finishChanges() (*connectorv1.ObserveEnd, error) {
	end, err := t.finish()
	switch {
	case err != nil:
		return nil, err
	case end.GetEnumerated() && !end.GetComplete():
		return nil, t.client.bug(t.tried, "calls itself enumerated and incomplete")
	case t.present && end.GetComplete() && !end.GetEnumerated():
		return nil, t.client.bug(t.tried, "names objects that are present without saying whether those were all")
	case end.GetComplete() && len(end.GetCursor()) == 0:
		return nil, t.client.bug(t.tried, "gives no cursor to go on from")
	}
	return end, nil
}

// checkObject refuses what the connector did not declare, secret attributes
// above all: nothing after this place would hold them back.
func (c *Client) checkObject(tried string, o *connectorv1.Object) error {
	c.mu.Lock()
	attributes, known := c.attributes[o.GetType()]
	c.mu.Unlock()
	if !known {
		return c.bug(tried, "an object of type %q, which is not declared", o.GetType())
	}
	if o.GetAnchor() == "" {
		return c.bug(tried, "an object without an anchor: %s", o.GetName().Text())
	}
	for i, a := range o.GetAttributes() {
		declared := attributes[a.GetName()]
		switch {
		case declared == nil:
			return c.bug(tried, "attribute %q of type %q is not declared", a.GetName(), o.GetType())
		case declared.GetSecret():
			return c.bug(tried, "attribute %q of type %q is secret and was sent", a.GetName(), o.GetType())
		case len(a.GetValues()) == 0, len(a.GetValues()) > 1 && !declared.GetMultiValued():
			return c.bug(tried, "attribute %q of type %q has %d values", a.GetName(), o.GetType(), len(a.GetValues()))
		case i > 0 && o.GetAttributes()[i-1].GetName() >= a.GetName():
			return c.bug(tried, "attributes of type %q are not sorted by name", o.GetType())
		}
	}
	return nil
}
