package flatfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

type passwdSettings struct {
	Format       string `json:"format"`
	Root         string `json:"root"`
	UIDMin       uint32 `json:"uid_min"`
	UIDMax       uint32 `json:"uid_max"`
	GIDMin       uint32 `json:"gid_min"`
	GIDMax       uint32 `json:"gid_max"`
	DefaultGID   uint32 `json:"default_gid"`
	HomeBase     string `json:"home_base"`
	DefaultShell string `json:"default_shell"`
	Rounds       int    `json:"rounds"`
}

// The places of the files in a passwd target's tables, in writing order: a user
// that comes has its locked shadow line before its passwd line, a user that
// goes cannot log in from the first step on and is last known by passwd, so
// that a repeated delete finds it.
const (
	shadowTable = iota
	groupTable
	gshadowTable
	passwdTable
)

// passwdFormat is a folder of passwd(5), shadow(5), group(5) and gshadow(5).
type passwdFormat struct {
	alias      string
	settings   passwdSettings
	edge       edge
	paths      []targetFile
	hasGshadow bool
}

func openPasswd(s sdk.Settings, e edge) (sdk.Instance, error) {
	f := &passwdFormat{alias: s.Alias, edge: e, settings: passwdSettings{
		UIDMin: 1000, UIDMax: 60000, GIDMin: 1000, GIDMax: 60000, DefaultGID: 100,
		HomeBase: "/home", DefaultShell: "/usr/sbin/nologin", Rounds: defaultRounds,
	}}
	if err := s.Decode(&f.settings); err != nil {
		return nil, err
	}
	set := &f.settings
	switch {
	case set.UIDMin == 0 || set.UIDMin > set.UIDMax:
		return nil, s.Problem("uid_min", "must be above 0 and not above uid_max", "correct the range; 0 is root and is never given out")
	case set.GIDMin == 0 || set.GIDMin > set.GIDMax:
		return nil, s.Problem("gid_min", "must be above 0 and not above gid_max", "correct the range; 0 is root and is never given out")
	case set.Rounds < 1000 || set.Rounds > 999_999:
		return nil, s.Problem("rounds", "is out of range", "choose 1000 to 999999")
	case !filepath.IsAbs(set.HomeBase) || fieldFault(set.HomeBase) != "":
		return nil, s.Problem("home_base", "is not a path that a passwd line can hold", "give an absolute path without a colon")
	case shellFault(set.DefaultShell) != "":
		return nil, s.Problem("default_shell", "is not a path that a passwd line can hold", "give an absolute path without a colon")
	}
	for _, name := range []string{"shadow", "group", "gshadow", "passwd"} {
		path := filepath.Join(set.Root, name)
		if name == "gshadow" {
			if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
				f.paths = append(f.paths, targetFile{})
				continue
			}
			f.hasGshadow = true
		}
		real, err := resolve(s, "root", path)
		if err != nil {
			return nil, err
		}
		f.paths = append(f.paths, targetFile{path: real, nis: true})
	}
	if !f.hasGshadow {
		f.paths = slices.Delete(f.paths, gshadowTable, gshadowTable+1)
	}
	return &target{alias: s.Alias, format: f}, nil
}

func (f *passwdFormat) files() []targetFile { return f.paths }

// place returns where a table stands when there is no gshadow.
func (f *passwdFormat) place(table int) int {
	if !f.hasGshadow && table == passwdTable {
		return gshadowTable
	}
	return table
}

func (f *passwdFormat) lock(ctx context.Context) (func(), error) {
	return lockPasswd(ctx, f.settings.Root, []string{"passwd", "group", "shadow", "gshadow"})
}

func (f *passwdFormat) types() []*connectorv1.ObjectType {
	exact, integer := connectorv1.MatchingRule_MATCHING_RULE_EXACT, connectorv1.MatchingRule_MATCHING_RULE_INTEGER
	return []*connectorv1.ObjectType{
		{
			Name: "user", Kind: connectorv1.Kind_KIND_ACCOUNT, NamingAttribute: "login",
			Attributes: []*connectorv1.AttributeType{
				{Name: "gecos", Rule: exact},
				{Name: "gid", Rule: integer, Dangerous: true},
				{Name: "home", Rule: exact, Dangerous: true},
				{Name: "login", Rule: exact, ReadOnly: true},
				{Name: "password", Rule: exact, Secret: true},
				{Name: "shell", Rule: exact, Dangerous: true},
				{Name: "uid", Rule: integer, Dangerous: true},
			},
			Operations: []connectorv1.OperationKind{
				connectorv1.OperationKind_OPERATION_KIND_CREATE, connectorv1.OperationKind_OPERATION_KIND_UPDATE,
				connectorv1.OperationKind_OPERATION_KIND_ENABLE, connectorv1.OperationKind_OPERATION_KIND_DISABLE,
				connectorv1.OperationKind_OPERATION_KIND_DELETE, connectorv1.OperationKind_OPERATION_KIND_SET_CREDENTIAL,
				connectorv1.OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL,
			},
		},
		{
			Name: "group", Kind: connectorv1.Kind_KIND_GROUP, NamingAttribute: "group", MemberKey: "login:",
			Attributes: []*connectorv1.AttributeType{
				{Name: "gid", Rule: integer, Dangerous: true},
				{Name: "group", Rule: exact, ReadOnly: true},
			},
			Operations: []connectorv1.OperationKind{
				connectorv1.OperationKind_OPERATION_KIND_CREATE, connectorv1.OperationKind_OPERATION_KIND_DELETE,
				connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER, connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER,
			},
		},
	}
}

// number reads a uid or gid as the system does: decimal, 32 bits, and not the
// two values that mean "none".
func number(text string) (uint32, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil && n != 0xffffffff && n != 0xffff
}

// userEntry parses a passwd line and finds its hash.
func (f *passwdFormat) userEntry(t tables, hashes map[string]string, line string) (*entry, string) {
	fields := strings.Split(line, ":")
	if len(fields) != 7 {
		return nil, fmt.Sprintf("%d fields, passwd lines have 7", len(fields))
	}
	login := fields[0]
	if fault := looseNameFault(login); fault != "" {
		return nil, fault
	}
	uid, uidOK := number(fields[2])
	gid, gidOK := number(fields[3])
	if !uidOK || !gidOK {
		return nil, "uid or gid is not a number"
	}
	hash := fields[1]
	if hash == "x" {
		var known bool
		if hashes != nil {
			hash, known = hashes[login]
		} else if at := t[shadowTable].find(login); len(at) == 1 {
			hash, known = shadowHash(t[shadowTable].lines[at[0]])
		} else if len(at) > 1 {
			return nil, "several lines in shadow"
		}
		if !known {
			return nil, "no line in shadow"
		}
	}
	return &entry{hash: hash, object: withAttributes(&connectorv1.Object{
		Type: "user", Anchor: anchorOf(userAnchor, login, uid), Name: nameOf("login", login), Keys: []string{"login:" + login},
		Display: login, Enablement: enablement(hash),
	}, "gecos", fields[4], "gid", strconv.FormatUint(uint64(gid), 10), "home", fields[5], "login", login, "shell", fields[6],
		"uid", strconv.FormatUint(uint64(uid), 10))}, ""
}

func shadowHash(line string) (string, bool) {
	fields := strings.Split(line, ":")
	if len(fields) < 2 {
		return "", false
	}
	return fields[1], true
}

func anchorOf(prefix, name string, n uint32) string {
	return prefix + name + "#" + strconv.FormatUint(uint64(n), 10)
}

func (f *passwdFormat) groupEntry(line string) (*entry, string) {
	fields := strings.Split(line, ":")
	if len(fields) != 4 {
		return nil, fmt.Sprintf("%d fields, group lines have 4", len(fields))
	}
	if fault := looseNameFault(fields[0]); fault != "" {
		return nil, fault
	}
	gid, ok := number(fields[2])
	if !ok {
		return nil, "gid is not a number"
	}
	o := &connectorv1.Object{Type: "group", Anchor: anchorOf(groupAnchor, fields[0], gid), Name: nameOf("group", fields[0]), Keys: []string{"group:" + fields[0]}, Display: fields[0]}
	for _, m := range (list{text: fields[3], separator: ","}).split() {
		if unprintable(m) {
			return nil, "a member's name cannot be printed"
		}
		o.Members = append(o.Members, "login:"+strings.TrimSpace(m))
	}
	return &entry{object: withAttributes(o, "gid", strconv.FormatUint(uint64(gid), 10), "group", fields[0])}, ""
}

func (f *passwdFormat) entries(t tables) (out []*entry, findings []*connectorv1.Problem) {
	hashes, doubled := map[string]string{}, map[string]bool{}
	for n, line := range t[shadowTable].lines {
		if t[shadowTable].skipped(line) {
			continue
		}
		login, _, _ := strings.Cut(line, ":")
		if hash, ok := shadowHash(line); !ok {
			findings = append(findings, quarantined(f.alias, f.paths[shadowTable].path, n, "not a shadow line"))
		} else if _, twice := hashes[login]; twice {
			doubled[login] = true
			findings = append(findings, quarantined(f.alias, f.paths[shadowTable].path, n, "the name "+login+" stands on several lines"))
		} else {
			hashes[login] = hash
		}
	}
	// Which of several lines counts is not ours to say: lookup refuses them too.
	for login := range doubled {
		delete(hashes, login)
	}
	users := f.place(passwdTable)
	out, findings = collect(out, findings, f.alias, f.paths[users].path, t[users], func(line string) (*entry, string) { return f.userEntry(t, hashes, line) })
	return collect(out, findings, f.alias, f.paths[groupTable].path, t[groupTable], f.groupEntry)
}

func (f *passwdFormat) lookup(t tables, ref *connectorv1.ObjectRef) (*entry, *sdk.Problem) {
	at, part := f.place(passwdTable), "login"
	parse := func(line string) (*entry, string) { return f.userEntry(t, nil, line) }
	if ref.GetType() == "group" {
		at, part, parse = groupTable, "group", f.groupEntry
	}
	name, ok := strings.CutPrefix(ref.GetAnchor(), ref.GetType()+":")
	if ref.GetAnchor() == "" {
		name, ok = leafOf(ref.GetName(), part)
	} else if cut := strings.LastIndexByte(name, '#'); cut > 0 {
		name = name[:cut]
	}
	if !ok || looseNameFault(name) != "" {
		return nil, nil // such an entry cannot be
	}
	lines := t[at].find(name)
	switch {
	case len(lines) == 0:
		return nil, nil
	case len(lines) > 1:
		return nil, ambiguous(f.alias+": "+f.paths[at].path+": "+name, lines)
	}
	e, fault := parse(t[at].lines[lines[0]])
	switch {
	case fault != "":
		return nil, sdk.FromProto(quarantined(f.alias, f.paths[at].path, lines[0], fault))
	case ref.GetAnchor() != "" && e.object.GetAnchor() != ref.GetAnchor():
		return nil, nil // the name has another number now: another object
	}
	return e, nil
}
