package planner

import (
	"slices"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// index finds objects by a text that mostly one of them has.
type index struct {
	one map[string]*connectorv1.Object
	// more are all that have it, by anchor, where there are several.
	more map[string][]*connectorv1.Object
}

func newIndex(size int) index {
	return index{one: make(map[string]*connectorv1.Object, size), more: map[string][]*connectorv1.Object{}}
}

// only is the object that alone has the text, nil where none or several do.
func (x *index) only(text string) *connectorv1.Object {
	if len(x.more) > 0 && x.more[text] != nil {
		return nil
	}
	return x.one[text]
}

// last is the one of the greatest anchor, nil where none has the text.
func (x *index) last(text string) *connectorv1.Object {
	if len(x.more) > 0 {
		if list := x.more[text]; list != nil {
			return list[len(list)-1]
		}
	}
	return x.one[text]
}

// all that have the text, by anchor.
func (x *index) all(text string) []*connectorv1.Object {
	if list := x.more[text]; list != nil {
		return list
	}
	if o := x.one[text]; o != nil {
		return []*connectorv1.Object{o}
	}
	return nil
}

func (x *index) put(text string, o *connectorv1.Object) {
	had := x.one[text]
	if had == nil {
		x.one[text] = o
		return
	}
	list := x.more[text]
	if list == nil {
		list = []*connectorv1.Object{had}
	}
	at, _ := slices.BinarySearchFunc(list, o, byAnchor)
	x.more[text] = slices.Insert(list, at, o)
}

func (x *index) remove(text string, o *connectorv1.Object) {
	list := slices.Clone(x.all(text))
	if at := slices.IndexFunc(list, func(have *connectorv1.Object) bool { return byAnchor(have, o) == 0 }); at >= 0 {
		list = slices.Delete(list, at, at+1)
	}
	delete(x.more, text)
	delete(x.one, text)
	for _, left := range list {
		x.put(text, left)
	}
}

func byAnchor(a, b *connectorv1.Object) int { return strings.Compare(a.GetAnchor(), b.GetAnchor()) }
