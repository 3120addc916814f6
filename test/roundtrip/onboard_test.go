package roundtrip

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/test/slapd"
)

func number(p *person) string { return fmt.Sprint(p.number) }

// TestAllOfTheMSPsDoingComesBack: what an MSP-caused policy does to a grown
// directory is exactly what the policy says, and offboarding leaves the
// directory as it was, to the byte.
func TestAllOfTheMSPsDoingComesBack(t *testing.T) {
	e := newEstate(6000)
	e.everybodyWorks()
	comesBack(t, e, false, nothing)
}

func nothing(string, string) bool { return false }

// TestWhoLeftStaysOut is the same with people who left or are suspended: that is
// their story and not the MSP's, so the MSP's end does not let them in again.
func TestWhoLeftStaysOut(t *testing.T) {
	comesBack(t, newEstate(640), false, nothing)
}

// TestWhatAuthorityTookComesBack is the same under a policy that also decides who
// is not in two groups. Those whom it took out come back, at the end: values of
// one attribute have no order (RFC 4512 2.2) that anybody could restore.
func TestWhatAuthorityTookComesBack(t *testing.T) {
	e := newEstate(6000)
	e.everybodyWorks()
	comesBack(t, e, true, func(dn, attribute string) bool {
		return dn == canonical(groupIT) && attribute == "member" || dn == canonical(groupUnixIT) && attribute == "memberUid"
	})
}

// bundle is the bundle in testdata/msp, with authority over two groups or without.
func bundle(t *testing.T, authoritative bool) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "msp", "msp.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !authoritative {
		plain := bytes.ReplaceAll(text, []byte(" authority: authoritative,"), nil)
		if bytes.Equal(plain, text) {
			t.Fatal("the bundle claims no authority to leave out")
		}
		text = plain
	}
	dir := filepath.Join(t.TempDir(), "msp")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "msp.yaml"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func comesBack(t *testing.T, e *estate, authoritative bool, given func(dn, attribute string) bool) {
	server := slapd.Start(t, e.options())
	h := newHouse(t, e, server, bundle(t, authoritative))
	before := h.dump()
	laps := &laps{t: t}

	laps.measure(fmt.Sprintf("observe %d people and 300 groups", len(e.people)), h.connect)
	laps.measure("  ldapsearch of the same", func() { search(t, server) })
	model := search(t, server)
	var p plan
	laps.measure("plan make", func() { p = h.makePlan() })
	if p.Rehearsal.Verdict == "VERDICT_FAILED" {
		t.Errorf("the rehearsal failed: %v", p.Findings)
	}
	laps.measure("guardrails' dry run", func() { h.made(p.ID) })
	laps.measure(fmt.Sprintf("apply %d changes", p.State.Total), func() { p = h.carryOut(p.ID) })
	if p.State.Applied != p.State.Total {
		t.Errorf("of %d changes %d were applied: %+v", p.State.Total, p.State.Applied, p.State)
	}

	middle := search(t, server)
	wildcardPasswords(t, model, middle)
	want := policyOver(model, e.people, authoritative)
	report(t, "after applying", differences(want, middle))
	sameOutOfScope(t, before, h.dump())
	h.observe()
	h.nothingToDo()

	for _, how := range []struct {
		what   string
		single bool
	}{{"  ldapmodify of the same, one request an entry", false}, {"  ldapmodify of the same, one request a value", true}} {
		twin, script := slapd.Start(t, e.options()), changes(model, middle, how.single)
		laps.measure(how.what, func() { edit(t, twin, script) })
		report(t, how.what, differences(middle, search(t, twin)))
		twin.Kill()
	}

	var residue []finding
	laps.measure("offboard", func() { residue = h.offboard() })
	for _, f := range residue {
		// What is handed over is told by the comparison.
		if f.Kind != "handed_over" && (f.Kind != "residue" || f.Object != "timestamps" && !strings.Contains(f.Sentence, "credential")) {
			t.Errorf("unexpected residue %+v", f)
		}
	}
	sameBytes(t, before, lasting(treeOf(before, nil), e.people), h.dump(), given)
	h.verify()
	laps.tell()
}

// wildcardPasswords replaces the passwords of new accounts, which nobody can
// know, by a star, and requires each to have one.
func wildcardPasswords(t *testing.T, before, now tree) {
	t.Helper()
	for dn, n := range now {
		if before[dn] == nil && len(n["userPassword"]) == 1 {
			n.replace("userPassword", "*")
		}
	}
}

func report(t *testing.T, when string, list []difference) {
	t.Helper()
	for i, d := range list {
		if i == 25 {
			t.Errorf("%s: and %d more", when, len(list)-i)
			return
		}
		t.Errorf("%s: %s", when, d)
	}
}

// sameBytes compares two dumps to the byte, entry by entry in their order, where
// want, which is a tree, leaves the entry as it was before. Given names attributes of which Reeve took some of several values away and gave them
// back: the server lists them at the end, and as sets they must be the same.
func sameBytes(t *testing.T, before []entry, want tree, after []entry, given func(dn, attribute string) bool) {
	t.Helper()
	if len(before) != len(after) {
		t.Errorf("%d entries became %d", len(before), len(after))
	}
	report(t, "after offboarding", differences(want, treeOf(after, nil)))
	meant := map[string]bool{}
	for _, d := range differences(treeOf(before, nil), want) {
		meant[d.dn] = true
	}
	wrong, reordered, stay := 0, 0, 0
	for i := range min(len(before), len(after)) {
		if before[i].raw == after[i].raw {
			continue
		}
		if meant[canonical(before[i].dn)] {
			stay++
			continue
		}
		was, is := before[i].arranged(given), after[i].arranged(given)
		if was == is {
			reordered++
			continue
		}
		if wrong++; wrong <= 5 {
			t.Errorf("entry %d is not the same:\n%s\nwas\n%s", i, clip(is), clip(was))
		}
	}
	if wrong > 0 {
		t.Errorf("%d entries are not as they were to the byte", wrong)
	}
	t.Logf("%d of %d entries are the same to the byte, %d differ by what the client caused, in %d values that were given back stand in another order",
		len(after)-wrong-reordered-stay, len(after), stay, reordered)
}

// arranged is the entry with the values of some attributes in one order, each
// attribute in its place.
func (e entry) arranged(sorted func(dn, attribute string) bool) string {
	var w ldifWriter
	lines := slices.Clone(e.lines)
	for i := 0; i < len(lines); {
		end := i + 1
		for end < len(lines) && lines[end].attribute == lines[i].attribute {
			end++
		}
		if sorted(canonical(e.dn), lines[i].attribute) {
			slices.SortFunc(lines[i:end], func(a, b value) int { return strings.Compare(a.text, b.text) })
		}
		i = end
	}
	w.entry(e.dn, lines...)
	return w.String()
}

func clip(s string) string {
	if len(s) > 1500 {
		return s[:1500] + "…"
	}
	return s
}

// sameOutOfScope: what the guardrails leave out is untouched, operational
// attributes included.
func sameOutOfScope(t *testing.T, before, now []entry) {
	t.Helper()
	then := map[string]string{}
	for _, e := range before {
		if !inScope(e.dn) {
			then[e.dn] = e.raw
		}
	}
	for _, e := range now {
		if _, out := then[e.dn]; out && then[e.dn] != e.raw {
			t.Errorf("%q is out of scope and changed", e.dn)
		}
		delete(then, e.dn)
	}
	for dn := range then {
		t.Errorf("%q is out of scope and gone", dn)
	}
}

// laps are times to be told side by side; nothing is asserted of them.
type laps struct {
	t     *testing.T
	lines []string
}

func (l *laps) measure(what string, f func()) {
	began := time.Now()
	f()
	l.lines = append(l.lines, fmt.Sprintf("%8.2f s  %s", time.Since(began).Seconds(), what))
}

func (l *laps) tell() { l.t.Log("\n" + strings.Join(l.lines, "\n")) }
