package roundtrip

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// value is one line of an entry: an attribute with one value, decoded.
type value struct{ attribute, text string }

// entry is one record of an LDIF dump, its lines in the order of the dump.
type entry struct {
	dn    string
	lines []value
	// raw are the lines as they stand, without operational attributes that every
	// write changes.
	raw string
}

// fleeting are the operational attributes that a server changes by itself at
// every write. Others, such as entryUUID, createTimestamp and pwdChangedTime,
// must come back as they were.
func fleeting(attribute string) bool {
	switch strings.ToLower(attribute) {
	case "entrycsn", "modifytimestamp", "modifiersname", "contextcsn":
		return true
	}
	return false
}

// parseLDIF reads a dump without line folding (RFC 2849).
func parseLDIF(dump []byte) ([]entry, error) {
	var out []entry
	for _, record := range strings.Split(strings.TrimSpace(string(dump)), "\n\n") {
		var e entry
		var raw strings.Builder
		for _, line := range strings.Split(record, "\n") {
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			name, rest, ok := strings.Cut(line, ":")
			if !ok {
				return nil, fmt.Errorf("line %q is no LDIF", line)
			}
			text := strings.TrimPrefix(rest, " ")
			if encoded, is := strings.CutPrefix(rest, ":"); is {
				decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
				if err != nil {
					return nil, fmt.Errorf("line %q: %w", line, err)
				}
				text = string(decoded)
			}
			switch {
			case e.dn == "" && name == "dn":
				e.dn = text
				raw.WriteString(line + "\n")
			case fleeting(name):
			default:
				e.lines = append(e.lines, value{name, text})
				raw.WriteString(line + "\n")
			}
		}
		if e.dn == "" {
			continue
		}
		e.raw = raw.String()
		out = append(out, e)
	}
	return out, nil
}

// tree is a directory as a model: entries by DN, each with sets of values.
type tree map[string]node

// node maps an attribute to its values.
type node map[string]map[string]bool

func treeOf(entries []entry, skip func(attribute string) bool) tree {
	t := tree{}
	for _, e := range entries {
		n := node{}
		for _, l := range e.lines {
			if skip == nil || !skip(l.attribute) {
				text := l.text
				if refers(l.attribute) {
					text = canonical(text)
				}
				n.add(l.attribute, text)
			}
		}
		t[canonical(e.dn)] = n
	}
	return t
}

func (n node) add(attribute string, values ...string) {
	for _, v := range values {
		if n[attribute] == nil {
			n[attribute] = map[string]bool{}
		}
		n[attribute][v] = true
	}
}

func (n node) remove(attribute string, values ...string) {
	for _, v := range values {
		delete(n[attribute], v)
	}
	if len(n[attribute]) == 0 {
		delete(n, attribute)
	}
}

func (n node) replace(attribute string, values ...string) {
	delete(n, attribute)
	n.add(attribute, values...)
}

func (n node) first(attribute string) string {
	for _, v := range slices.Sorted(maps.Keys(n[attribute])) {
		return v
	}
	return ""
}

// has compares as caseIgnoreMatch does.
func (n node) has(attribute, v string) bool {
	for have := range n[attribute] {
		if fold(have) == fold(v) {
			return true
		}
	}
	return false
}

func fold(v string) string { return strings.ToLower(strings.Join(strings.Fields(v), " ")) }

func (t tree) clone() tree {
	out := tree{}
	for dn, n := range t {
		c := node{}
		for a, values := range n {
			c[a] = maps.Clone(values)
		}
		out[dn] = c
	}
	return out
}

// differences tells, object by object and attribute by attribute, how got is not
// want.
func differences(want, got tree) []difference {
	var out []difference
	for _, dn := range slices.Sorted(maps.Keys(want)) {
		if got[dn] == nil {
			out = append(out, difference{dn, "", "the entry is missing"})
		}
	}
	for _, dn := range slices.Sorted(maps.Keys(got)) {
		if want[dn] == nil {
			out = append(out, difference{dn, "", "nobody expects the entry"})
			continue
		}
		names := map[string]bool{}
		for a := range want[dn] {
			names[a] = true
		}
		for a := range got[dn] {
			names[a] = true
		}
		for _, a := range slices.Sorted(maps.Keys(names)) {
			for _, v := range slices.Sorted(maps.Keys(want[dn][a])) {
				if !got[dn][a][v] {
					out = append(out, difference{dn, a, fmt.Sprintf("lacks %q", v)})
				}
			}
			for _, v := range slices.Sorted(maps.Keys(got[dn][a])) {
				if !want[dn][a][v] {
					out = append(out, difference{dn, a, fmt.Sprintf("has %q, which nobody expects", v)})
				}
			}
		}
	}
	return out
}

type difference struct{ dn, attribute, what string }

func (d difference) String() string { return fmt.Sprintf("%q %s: %s", d.dn, d.attribute, d.what) }

// ldifWriter writes records for slapadd and ldapmodify.
type ldifWriter struct{ strings.Builder }

func (w *ldifWriter) line(attribute, v string) {
	safe := v == strings.TrimSpace(v) && utf8.ValidString(v) && !strings.HasPrefix(v, ":") && !strings.HasPrefix(v, "<")
	for _, r := range v {
		safe = safe && r >= 0x20 && r < 0x7f
	}
	if safe {
		fmt.Fprintf(w, "%s: %s\n", attribute, v)
	} else {
		fmt.Fprintf(w, "%s:: %s\n", attribute, base64.StdEncoding.EncodeToString([]byte(v)))
	}
}

func (w *ldifWriter) entry(dn string, lines ...value) {
	w.line("dn", dn)
	for _, l := range lines {
		w.line(l.attribute, l.text)
	}
	w.WriteString("\n")
}

// changes writes what leads from one tree to another, as ldapmodify takes it: one
// request an entry, or one a value.
func changes(from, to tree, single bool) string {
	var w ldifWriter
	for _, dn := range slices.Sorted(maps.Keys(to)) {
		if from[dn] != nil {
			continue
		}
		lines := []value{{"changetype", "add"}}
		for _, a := range slices.Sorted(maps.Keys(to[dn])) {
			for _, v := range slices.Sorted(maps.Keys(to[dn][a])) {
				lines = append(lines, value{a, v})
			}
		}
		w.entry(dn, lines...)
	}
	for _, dn := range slices.Sorted(maps.Keys(to)) {
		if from[dn] != nil {
			w.modify(dn, from[dn], to[dn], single)
		}
	}
	return w.String()
}

func (w *ldifWriter) modify(dn string, from, to node, single bool) {
	var mods []string
	for _, side := range []struct {
		verb       string
		here, gone node
	}{{"delete", from, to}, {"add", to, from}} {
		for _, a := range slices.Sorted(maps.Keys(side.here)) {
			for _, v := range slices.Sorted(maps.Keys(side.here[a])) {
				if !side.gone[a][v] {
					var m ldifWriter
					m.line(side.verb, a)
					m.line(a, v)
					mods = append(mods, m.String()+"-\n")
				}
			}
		}
	}
	if !single && len(mods) > 0 {
		mods = []string{strings.Join(mods, "")}
	}
	for _, m := range mods {
		w.line("dn", dn)
		w.WriteString("changetype: modify\n" + m + "\n")
	}
}
