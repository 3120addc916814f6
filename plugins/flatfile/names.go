package flatfile

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// invalid is the problem of a value that the file's format cannot hold.
func invalid(object, tried, said string) *sdk.Problem {
	return sdk.NewProblem(sdk.CodeInvalidValue, object, tried, "use a value without the character or form that the file's format gives a meaning").WithSaid(said)
}

// leafOf returns the value of a name of one component of that part type.
func leafOf(n *connectorv1.Name, part string) (string, bool) {
	c := n.GetComponents()
	if len(c) != 1 || len(c[0].GetParts()) != 1 || !strings.EqualFold(c[0].GetParts()[0].GetType(), part) {
		return "", false
	}
	return c[0].GetParts()[0].GetValue(), true
}

func nameOf(part, value string) *connectorv1.Name {
	return &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent(part, value)}}
}

// unprintable reports what has no place in a line of any format: control and
// formatting characters, and octets that are not text.
func unprintable(s string) bool {
	return !utf8.ValidString(s) || strings.IndexFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) >= 0
}

// looseNameFault holds a htpasswd or AuthGroupFile name against those formats.
func looseNameFault(name string) string {
	switch {
	case name == "":
		return "the name is empty"
	case len(name) > 255:
		return "the name is longer than 255 bytes"
	case unprintable(name):
		return "the name holds a line break or another character that cannot be printed"
	case strings.ContainsRune(name, ':'):
		return `the name holds ":", which ends it in the file`
	case strings.IndexFunc(name, unicode.IsSpace) >= 0:
		return "the name holds a space, which ends it in a group file"
	case name[0] == '#':
		return `the name begins with "#", which makes the line a comment`
	}
	return ""
}

// strictNameFault is what shadow-utils accepts, dots and capitals included.
func strictNameFault(name string) string {
	if fault := looseNameFault(name); fault != "" {
		return fault
	}
	if len(name) > 32 {
		return "the name is longer than 32 characters"
	}
	for i, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == '_'
		if !letter && (i == 0 || !('0' <= r && r <= '9' || r == '.' || r == '-')) {
			return fmt.Sprintf("the name holds %q; letters, digits, _ . - are allowed, a letter or _ first", r)
		}
	}
	return ""
}

// fieldFault holds a value against a field of a passwd line.
func fieldFault(value string) string {
	switch {
	case unprintable(value):
		return "the value holds a line break or another character that cannot be printed"
	case strings.ContainsRune(value, ':'):
		return `the value holds ":", which ends it in the file`
	case len(value) > 1024:
		return "the value is longer than 1024 bytes"
	}
	return ""
}

// quarantined is the finding of a line that is no entry.
func quarantined(alias, path string, line int, said string) *connectorv1.Problem {
	return sdk.NewProblem(sdk.CodeQuarantined, fmt.Sprintf("%s: %s:%d", alias, path, line+1), "read the line",
		"correct the line by hand; until then nothing is taken for gone").WithSaid(said).Incomplete()
}

// ambiguous says that a name stands on several lines.
func ambiguous(object string, at []int) *sdk.Problem {
	lines := make([]string, len(at))
	for i, n := range at {
		lines[i] = fmt.Sprint(n + 1)
	}
	return sdk.NewProblem(sdk.CodeQuarantined, object, "find the entry", "remove all but one of the lines by hand").
		WithSaid("it stands on lines " + strings.Join(lines, ", "))
}

func attribute(name, value string) *connectorv1.Attribute {
	return &connectorv1.Attribute{Name: name, Values: [][]byte{[]byte(value)}}
}

// withAttributes leaves out what is empty: an attribute that is not set is
// absent.
func withAttributes(o *connectorv1.Object, pairs ...string) *connectorv1.Object {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			o.Attributes = append(o.Attributes, attribute(pairs[i], pairs[i+1]))
		}
	}
	return o
}

func enablement(hash string) connectorv1.Enablement {
	if locked(hash) {
		return connectorv1.Enablement_ENABLEMENT_DISABLED
	}
	return connectorv1.Enablement_ENABLEMENT_ENABLED
}

func emptyUnlock(object string) *sdk.Problem {
	return sdk.NewProblem(sdk.CodeNotAllowed, object, "enable", "set a credential first").
		WithSaid("there is no password under the lock: taking the lock away would let everybody in, or its form is not ours")
}

// Users and groups of one name stand side by side: anchors tell them apart.
const (
	userAnchor  = "user:"
	groupAnchor = "group:"
)

// memberLogin reads the login out of a reference to a user: its name, or its
// anchor without the number that follows in the passwd format.
func memberLogin(ref *connectorv1.ObjectRef, numbered bool) (string, bool) {
	if ref.GetType() != "user" {
		return "", false
	}
	if ref.GetAnchor() != "" {
		login, ours := strings.CutPrefix(ref.GetAnchor(), userAnchor)
		if !ours {
			return "", false
		}
		if at := strings.LastIndexByte(login, '#'); numbered && at > 0 {
			login = login[:at]
		}
		return login, true
	}
	return leafOf(ref.GetName(), "login")
}
