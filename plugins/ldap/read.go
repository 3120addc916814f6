package ldap

import (
	"context"
	"sync"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// inFlight bounds the requests that wait for an answer on one connection: over a
// distance one batch is then on its way at once, and OpenLDAP takes up to a thousand
// of one that is bound (slapd-config(5), olcConnMaxPendingAuth).
const inFlight = 64

// parallel runs f for 0 to n-1, at most inFlight at once, and waits.
func parallel(n int, f func(int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, inFlight)
	for k := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(k)
		})
	}
	wg.Wait()
}

// Read implements sdk.Reader: one search for all anchors of a type, one for
// each name.
func (i *Instance) Read(ctx context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error) {
	results := make([]*connectorv1.ReadResult, len(refs))
	for _, t := range i.types {
		if err := i.readAnchors(ctx, t, refs, results); err != nil {
			return nil, err
		}
	}
	var named []int
	for n := range refs {
		if results[n] == nil {
			named = append(named, n)
		}
	}
	parallel(len(named), func(k int) {
		n := named[k]
		results[n] = i.readName(ctx, refs[n])
	})
	return results, nil
}

func (i *Instance) readAnchors(ctx context.Context, t *objectType, refs []*connectorv1.ObjectRef, results []*connectorv1.ReadResult) error {
	var anchors []string
	for _, ref := range refs {
		if ref.GetType() == t.name && ref.GetAnchor() != "" {
			anchors = append(anchors, ref.GetAnchor())
		}
	}
	if len(anchors) == 0 {
		return nil
	}
	f, err := i.find(ctx, &i.reading, t.settings.Bases, anchors, t.everything(i))
	if err != nil {
		return err
	}
	for n, ref := range refs {
		if ref.GetType() != t.name || ref.GetAnchor() == "" {
			continue
		}
		switch e := f.entries[ref.GetAnchor()]; {
		case e != nil:
			results[n] = i.readResult(ctx, t, f.anchor, e)
		case f.unsure != nil:
			results[n] = notRead(f.unsure)
		default:
			results[n] = absent()
		}
	}
	return nil
}

// everything are the attributes that make an object, members included.
func (t *objectType) everything(i *Instance) []string {
	attributes := t.requested(i)
	if t.member != "" {
		attributes = append(attributes, t.member)
	}
	return attributes
}

func (i *Instance) readName(ctx context.Context, ref *connectorv1.ObjectRef) *connectorv1.ReadResult {
	t := i.typeNamed(ref.GetType())
	if t == nil {
		return notRead(sdk.NewProblem(sdk.CodeUnknownType, i.alias+": "+ref.GetType(), "read", "use a type that the instance has"))
	}
	e, err := i.lookup(ctx, &i.reading, ref.GetName().Text(), t.everything(i))
	switch {
	case err != nil:
		return notRead(i.problem(err, ref.GetName().Text(), "read"))
	case e == nil:
		return absent()
	}
	anchor, err := i.anchorAttribute(ctx)
	if err != nil {
		return notRead(i.problem(err, ref.GetName().Text(), "read"))
	}
	return i.readResult(ctx, t, anchor, e)
}

func (i *Instance) anchorAttribute(ctx context.Context) (string, error) {
	var anchor string
	err := i.ask(ctx, &i.reading, func(s *session) error {
		anchor = s.server.anchor
		return nil
	})
	return anchor, err
}

func (i *Instance) readResult(ctx context.Context, t *objectType, anchor string, e *ldap.Entry) *connectorv1.ReadResult {
	lent := lentEntry(e)
	if err := i.completeRanges(ctx, lent); err != nil {
		return notRead(i.problem(err, displayDN(e.DN), "read all values"))
	}
	if len(shown(lent, "objectClass")) > 0 && !shows(lent, "objectClass", t.name) {
		return notRead(sdk.NewProblem(sdk.CodeUnknownType, displayDN(e.DN), "read it as "+t.name, "the entry there is of another type: choose another name, or ask for its own type"))
	}
	o, p := newBuilder(i).object(t, anchor, lent)
	if p != nil {
		return notRead(p)
	}
	return &connectorv1.ReadResult{Outcome: &connectorv1.ReadResult_Object{Object: o}}
}

func notRead(p *sdk.Problem) *connectorv1.ReadResult {
	return &connectorv1.ReadResult{Outcome: &connectorv1.ReadResult_Problem{Problem: p.Proto()}}
}

func absent() *connectorv1.ReadResult {
	return &connectorv1.ReadResult{Outcome: &connectorv1.ReadResult_Absent{Absent: &connectorv1.Absent{}}}
}
