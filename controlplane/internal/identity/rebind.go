package identity

import (
	"strings"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// rebind ties people whose anchor is gone to the new row that is theirs: the one
// that shares a login, mail address or staff number with them and with nobody
// else who is gone, and of which there is no second. Who is not found so counts as
// absent, and the row as somebody new, as ever.
func (f *folding) rebind(src SourceSnapshot, rows []read, present map[string]bool, known map[string]Link) error {
	byCall := map[string][]string{}
	for anchor, link := range known {
		if !present[anchor] {
			for _, call := range calls(f.identities[link.Identity].Attributes) {
				byCall[call] = append(byCall[call], anchor)
			}
		}
	}
	theirs := map[string][]string{}
	for _, r := range rows {
		if _, linked := known[r.anchor]; linked {
			continue
		}
		fits := map[string]bool{}
		for _, call := range calls(r.row.Attributes) {
			for _, old := range byCall[call] {
				fits[old] = true
			}
		}
		if len(fits) == 1 {
			for old := range fits {
				theirs[old] = append(theirs[old], r.anchor)
			}
		}
	}
	for _, old := range sortedKeys(theirs) {
		if len(theirs[old]) != 1 {
			continue
		}
		link := known[old]
		link.Anchor = theirs[old][0]
		if err := f.store.DeleteLink(f.t, f.tenant, src.Connector, old); err != nil {
			return err
		}
		delete(f.links[link.Identity], place{src.Connector, old})
		if err := f.putLink(link); err != nil {
			return err
		}
		delete(known, old)
		known[link.Anchor] = link
		if err := f.record(f.t, f.tenant,
			&auditv1.Header{Type: auditv1.Type_TYPE_IDENTITY_CHANGED, Actor: "control-plane", Subject: link.Identity},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "rebind identity", Object: link.Identity, Details: []*auditv1.Act_Detail{
				{Name: "connector", Value: src.Connector}, {Name: "from", Value: old}, {Name: "to", Value: link.Anchor},
			}}}}); err != nil {
			return err
		}
	}
	return nil
}

// calls are what somebody is called by, each with its attribute's name.
func calls(attributes map[string][]string) []string {
	var list []string
	for _, name := range called {
		for _, v := range attributes[name] {
			if v != "" {
				list = append(list, name+"\x00"+strings.ToLower(v))
			}
		}
	}
	return list
}
