package planted

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestEveryBugFitsTheCode keeps the entries from growing stale between runs of
// `make planted`.
func TestEveryBugFitsTheCode(t *testing.T) {
	all, err := Bugs()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < enoughOf {
		t.Errorf("there are %d bugs, and must be %d", len(all), enoughOf)
	}
	dir := t.TempDir()
	for _, b := range all {
		if _, err := overlay("../..", dir, b); err != nil {
			t.Error(err)
		}
	}
}

func TestPlant(t *testing.T) {
	const file = "func a() {\n\tcheck()\n\tsync()\n}\n\nfunc b() {\n\tsync()\n}\n"
	for name, c := range map[string]struct {
		hunk, want string
	}{
		"a line beside it makes it the only one": {" check()\n-sync()", "func a() {\ncheck()\n}\n\nfunc b() {\n\tsync()\n}\n"},
		"one line for another":                   {"-check()\n+_ = 1", "func a() {\n_ = 1\n\tsync()\n}\n\nfunc b() {\n\tsync()\n}\n"},
		"twice is not once":                      {"-sync()", ""},
		"gone is not once":                       {"-flush()", ""},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, err := Parse("bug: x\ntakes: y\nfile: z.go\ntest: p TestQ\n" + c.hunk)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parsed[0].Plant(file)
			if got != c.want || (c.want == "") != errors.Is(err, ErrDoesNotFit) {
				t.Errorf("got %q and %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const whole = "bug: x\ntakes: y\nfile: z.go\ntest: p TestQ\n-a\n+b\n"
	if _, err := Parse(whole); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		strings.Replace(whole, "bug: x\n", "", 1),
		strings.Replace(whole, "takes: y\n", "", 1),
		strings.Replace(whole, "z.go", "../z.go", 1),
		strings.Replace(whole, "z.go", "z_test.go", 1),
		strings.Replace(whole, " TestQ", "", 1),
		strings.Replace(whole, "+b", "+a", 1),
		strings.Replace(whole, "-a\n+b", "", 1),
		whole + "reason: none\n",
	} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

// TestOnlyAFailedTestCounts reads what `go test -json` prints.
func TestOnlyAFailedTestCounts(t *testing.T) {
	for name, c := range map[string]struct {
		events string
		want   outcome
	}{
		"a test fails": {
			`{"Action":"fail","Test":"TestA/case"}` + "\n" + `{"Action":"fail","Test":"TestA"}` + "\n" + `{"Action":"fail"}`,
			outcome{failed: []string{"TestA"}, built: true},
		},
		"it does not compile": {
			`{"ImportPath":"p","Action":"build-fail"}` + "\n" + `{"Action":"fail","FailedBuild":"p"}`,
			outcome{},
		},
		"it hangs": {
			`{"Action":"output","Test":"TestA","Output":"panic: test timed out after 8m0s\n"}` + "\n" + `{"Action":"fail","Test":"TestA"}`,
			outcome{failed: []string{"TestA"}, built: true, hung: true},
		},
		"all pass": {
			`{"Action":"pass","Test":"TestA"}` + "\n" + `{"Action":"pass"}`,
			outcome{passed: []string{"TestA"}, built: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readEvents(bytes.NewBufferString(c.events))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Join(got.failed, " ") != strings.Join(c.want.failed, " ") || strings.Join(got.passed, " ") != strings.Join(c.want.passed, " ") ||
				got.built != c.want.built || got.hung != c.want.hung {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestTooFewCaughtIsAFailure counts 38 of 40.
func TestTooFewCaughtIsAFailure(t *testing.T) {
	caught := func(n, of int) []result {
		out := make([]result, of)
		for i := range n {
			out[i].by = "p TestQ"
		}
		return out
	}
	if err := judge(caught(38, 40)); err != nil {
		t.Error(err)
	}
	if judge(caught(37, 40)) == nil || judge(caught(0, 1)) == nil {
		t.Error("too few caught, and nothing said")
	}
	if judge(append(caught(40, 40), result{by: "p TestQ", wrong: ErrDoesNotFit})) == nil {
		t.Error("an entry that does not fit, and nothing said")
	}
}
