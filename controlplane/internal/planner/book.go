package planner

import (
	"slices"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Book is a ledger in memory that takes many receipts without reading all of
// itself for each. It is not safe for concurrent use.
type Book struct {
	pages map[page][]Entry
	// of lists the membership pages on which an object is the group or the member.
	of map[object]map[page]bool
}

type object struct{ connector, anchor string }

// page holds what one receipt can touch: an object's own items, or one
// membership.
type page struct {
	object
	member string
}

// NewBook returns a Book of the entries.
func NewBook(entries []Entry) *Book {
	b := &Book{pages: map[page][]Entry{}, of: map[object]map[page]bool{}}
	for _, e := range entries {
		b.put(page{object{e.Connector, e.Anchor}, e.Member}, e)
	}
	return b
}

func (b *Book) put(p page, e Entry) {
	b.pages[p] = append(b.pages[p], e)
	if p.member == "" || len(b.pages[p]) > 1 {
		return
	}
	for _, o := range []object{p.object, {p.connector, p.member}} {
		if b.of[o] == nil {
			b.of[o] = map[page]bool{}
		}
		b.of[o][p] = true
	}
}

// Advance is the function Advance on the whole book.
func (b *Book) Advance(look Look, change *planv1.Change, receipt *auditv1.Receipt) {
	own := object{receipt.GetConnector(), receipt.GetAnchor()}
	pages := []page{{own, receipt.GetMember()}}
	if receipt.GetOperation() == connectorv1.OperationKind_OPERATION_KIND_DELETE {
		for p := range b.of[own] {
			pages = append(pages, p)
		}
	}
	var entries []Entry
	for _, p := range pages {
		entries = append(entries, b.pages[p]...)
		delete(b.pages, p)
	}
	for _, e := range Advance(entries, look, change, receipt) {
		b.put(page{object{e.Connector, e.Anchor}, e.Member}, e)
	}
}

// Entries returns the ledger, sorted.
func (b *Book) Entries() []Entry {
	var out []Entry
	for _, entries := range b.pages {
		out = append(out, entries...)
	}
	slices.SortFunc(out, CompareEntries)
	return out
}
