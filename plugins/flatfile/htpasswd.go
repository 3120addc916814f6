package flatfile

import (
	"context"
	"slices"
	"strings"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

type htpasswdSettings struct {
	Format string `json:"format"`
	Path   string `json:"path"`
	Groups string `json:"groups"`
	Cost   int    `json:"cost"`
}

// htpasswdFormat is an Apache htpasswd file and, beside it, an AuthGroupFile.
type htpasswdFormat struct {
	alias    string
	settings htpasswdSettings
	paths    []targetFile
}

func openHtpasswd(s sdk.Settings, _ edge) (sdk.Instance, error) {
	f := &htpasswdFormat{alias: s.Alias, settings: htpasswdSettings{Cost: 10}}
	if err := s.Decode(&f.settings); err != nil {
		return nil, err
	}
	if f.settings.Cost < 5 || f.settings.Cost > 17 {
		return nil, s.Problem("cost", "is out of range", "choose 5 to 17; 10 is common")
	}
	users, err := resolve(s, "path", f.settings.Path)
	if err != nil {
		return nil, err
	}
	f.paths = []targetFile{{path: users}}
	if f.settings.Groups != "" {
		groups, err := resolve(s, "groups", f.settings.Groups)
		if err != nil {
			return nil, err
		}
		// Groups first: a user that goes is out of its groups before.
		f.paths = []targetFile{{path: groups}, {path: users}}
	}
	return &target{alias: s.Alias, format: f}, nil
}

func (f *htpasswdFormat) files() []targetFile { return f.paths }

func (f *htpasswdFormat) users(t tables) int { return len(t) - 1 }

func (f *htpasswdFormat) lock(ctx context.Context) (func(), error) {
	return lockFile(ctx, f.paths[len(f.paths)-1].path+".lock")
}

func (f *htpasswdFormat) types() []*connectorv1.ObjectType {
	exact := connectorv1.MatchingRule_MATCHING_RULE_EXACT
	types := []*connectorv1.ObjectType{{
		Name: "user", Kind: connectorv1.Kind_KIND_ACCOUNT, NamingAttribute: "login",
		Attributes: []*connectorv1.AttributeType{
			{Name: "login", Rule: exact, ReadOnly: true},
			{Name: "password", Rule: exact, Secret: true},
		},
		Operations: []connectorv1.OperationKind{
			connectorv1.OperationKind_OPERATION_KIND_CREATE, connectorv1.OperationKind_OPERATION_KIND_ENABLE,
			connectorv1.OperationKind_OPERATION_KIND_DISABLE, connectorv1.OperationKind_OPERATION_KIND_DELETE,
			connectorv1.OperationKind_OPERATION_KIND_SET_CREDENTIAL, connectorv1.OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL,
		},
	}}
	if f.settings.Groups == "" {
		return types
	}
	return append(types, &connectorv1.ObjectType{
		Name: "group", Kind: connectorv1.Kind_KIND_GROUP, NamingAttribute: "group", MemberKey: "login:",
		Attributes: []*connectorv1.AttributeType{{Name: "group", Rule: exact, ReadOnly: true}},
		Operations: []connectorv1.OperationKind{
			connectorv1.OperationKind_OPERATION_KIND_CREATE, connectorv1.OperationKind_OPERATION_KIND_DELETE,
			connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER, connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER,
		},
	})
}

// user parses "login:hash", whatever may follow the hash.
func (f *htpasswdFormat) user(line string) (*entry, string) {
	fields := strings.Split(line, ":")
	if len(fields) < 2 {
		return nil, `no ":" in the line`
	}
	if fault := looseNameFault(fields[0]); fault != "" {
		return nil, fault
	}
	login, hash := fields[0], fields[1]
	return &entry{hash: hash, object: withAttributes(&connectorv1.Object{
		Type: "user", Anchor: userAnchor + login, Name: nameOf("login", login), Keys: []string{"login:" + login},
		Display: login, Enablement: enablement(hash),
	}, "login", login)}, ""
}

// group parses "name: member member".
func (f *htpasswdFormat) group(line string) (*entry, string) {
	name, members, found := strings.Cut(line, ":")
	if !found {
		return nil, `no ":" in the line`
	}
	if fault := looseNameFault(name); fault != "" {
		return nil, fault
	}
	o := &connectorv1.Object{Type: "group", Anchor: groupAnchor + name, Name: nameOf("group", name), Keys: []string{"group:" + name}, Display: name}
	for _, m := range strings.FieldsFunc(members, whiteSpace) {
		if unprintable(m) {
			return nil, "a member's name cannot be printed"
		}
		o.Members = append(o.Members, "login:"+m)
	}
	return &entry{object: withAttributes(o, "group", name)}, ""
}

func (f *htpasswdFormat) entries(t tables) (out []*entry, findings []*connectorv1.Problem) {
	for i, table := range t {
		parse := f.group
		if i == f.users(t) {
			parse = f.user
		}
		out, findings = collect(out, findings, f.alias, f.paths[i].path, table, parse)
	}
	return out, findings
}

// collect parses a table's entries; names that stand twice are all left out.
func collect(out []*entry, findings []*connectorv1.Problem, alias, path string, t *table, parse func(string) (*entry, string)) ([]*entry, []*connectorv1.Problem) {
	count := map[string]int{}
	for _, line := range t.lines {
		if !t.skipped(line) {
			name, _, _ := strings.Cut(line, ":")
			count[name]++
		}
	}
	for n, line := range t.lines {
		if t.skipped(line) {
			continue
		}
		name, _, _ := strings.Cut(line, ":")
		e, fault := parse(line)
		switch {
		case fault != "":
			findings = append(findings, quarantined(alias, path, n, fault))
		case count[name] > 1:
			findings = append(findings, quarantined(alias, path, n, "the name "+name+" stands on several lines"))
		default:
			out = append(out, e)
		}
	}
	return out, findings
}

func (f *htpasswdFormat) lookup(t tables, ref *connectorv1.ObjectRef) (*entry, *sdk.Problem) {
	part, parse, at := "login", f.user, f.users(t)
	if ref.GetType() == "group" {
		part, parse, at = "group", f.group, 0
	}
	name, ok := strings.CutPrefix(ref.GetAnchor(), ref.GetType()+":")
	if ref.GetAnchor() == "" {
		name, ok = leafOf(ref.GetName(), part)
	}
	if !ok {
		return nil, nil
	}
	if looseNameFault(name) != "" {
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
	if fault != "" {
		return nil, sdk.FromProto(quarantined(f.alias, f.paths[at].path, lines[0], fault))
	}
	return e, nil
}

func (f *htpasswdFormat) create(t tables, op *connectorv1.Operation) (tables, *sdk.Problem) {
	typeName, create := op.GetObject().GetType(), op.GetCreate()
	part, at := "login", f.users(t)
	if typeName == "group" {
		part, at = "group", 0
	}
	name, ok := leafOf(create.GetName(), part)
	object := f.alias + ": " + typeName + " " + create.GetName().Text()
	if !ok {
		return nil, invalid(object, "create", "the name must be one component "+part+"=…")
	}
	if fault := looseNameFault(name); fault != "" {
		return nil, invalid(object, "create", fault)
	}
	there, p := f.lookup(t, &connectorv1.ObjectRef{Type: typeName, Name: create.GetName()})
	if p != nil {
		return nil, p
	}
	line := name + ":"
	if typeName == "user" {
		if there != nil {
			return t, nil
		}
		line += lockHash(noPassword)
	} else {
		members, p := f.members(t, object, create.GetMembers())
		if p != nil {
			return nil, p
		}
		if there != nil {
			return existingGroup(t, there, members, object)
		}
		if len(members) > 0 {
			line += " " + strings.Join(members, " ")
		}
	}
	after := slices.Clone(t)
	after[at] = t[at].add(line)
	return after, nil
}

// existingGroup accepts a create again if it would make the same group.
func existingGroup(t tables, there *entry, members []string, object string) (tables, *sdk.Problem) {
	want := make([]string, len(members))
	for i, m := range members {
		want[i] = "login:" + m
	}
	have := slices.Clone(there.object.GetMembers())
	slices.Sort(want)
	slices.Sort(have)
	if slices.Equal(slices.Compact(want), slices.Compact(have)) {
		return t, nil
	}
	return nil, sdk.NewProblem(sdk.CodeAlreadyExists, object, "create", "adopt the group that is there, or choose another name")
}

func (f *htpasswdFormat) members(t tables, object string, refs []*connectorv1.ObjectRef) ([]string, *sdk.Problem) {
	var logins []string
	for _, ref := range refs {
		login, ok := memberLogin(ref, false)
		if ok {
			if e, p := f.lookup(t, &connectorv1.ObjectRef{Type: "user", Name: nameOf("login", login)}); p != nil {
				return nil, p
			} else if e == nil {
				ok = false
			}
		}
		if !ok {
			return nil, sdk.NewProblem(sdk.CodeNotFound, object, "add member", "create the user first").WithSaid("no such user: " + login + ref.GetName().Text())
		}
		logins = append(logins, login)
	}
	return logins, nil
}

func (f *htpasswdFormat) change(t tables, e *entry, op *connectorv1.Operation) (tables, *sdk.Problem) {
	name, at := e.object.GetDisplay(), f.users(t)
	if e.object.GetType() == "group" {
		at = 0
	}
	object := f.alias + ": " + e.object.GetType() + " " + name
	n := t[at].find(name)[0]
	line := t[at].lines[n]
	after := slices.Clone(t)
	switch act := op.GetAction().(type) {
	case *connectorv1.Operation_Delete:
		after[at] = t[at].remove(n)
		if e.object.GetType() == "user" && f.settings.Groups != "" {
			after[0] = f.strip(t[0], name)
		}
	case *connectorv1.Operation_AddMember:
		logins, p := f.members(t, object, []*connectorv1.ObjectRef{act.AddMember.GetMember()})
		if p != nil {
			return nil, p
		}
		after[at] = t[at].replace(n, editGroup(line, logins[0], list.add))
	case *connectorv1.Operation_RemoveMember:
		if login, ok := memberLogin(act.RemoveMember.GetMember(), false); ok {
			after[at] = t[at].replace(n, editGroup(line, login, list.remove))
		}
	default:
		hash, p := f.hash(object, e.hash, op)
		if p != nil {
			return nil, p
		}
		fields := strings.Split(line, ":")
		fields[1] = hash
		after[at] = t[at].replace(n, strings.Join(fields, ":"))
	}
	return after, nil
}

// editGroup edits the members of "name: member member" and keeps its spacing.
func editGroup(line, login string, edit func(list, string) string) string {
	name, members, _ := strings.Cut(line, ":")
	edited := edit(list{text: members, separator: " "}, login)
	if members == "" && edited != "" {
		edited = " " + edited
	}
	return name + ":" + edited
}

// strip takes a login out of all groups.
func (f *htpasswdFormat) strip(t *table, login string) *table {
	for n, line := range t.lines {
		if !t.skipped(line) && strings.Contains(line, ":") {
			t = t.replace(n, editGroup(line, login, list.remove))
		}
	}
	return t
}

func (f *htpasswdFormat) hash(object, old string, op *connectorv1.Operation) (string, *sdk.Problem) {
	switch act := op.GetAction().(type) {
	case *connectorv1.Operation_Enable:
		hash, ok := unlockHash(old)
		if !ok {
			return "", emptyUnlock(object)
		}
		return hash, nil
	case *connectorv1.Operation_Disable:
		return lockHash(old), nil
	case *connectorv1.Operation_RevokeCredential:
		return withHash(old, noPassword), nil
	case *connectorv1.Operation_SetCredential:
		secret := act.SetCredential.GetSecret()
		// bcrypt looks at 72 bytes; more would be cut in silence.
		if p := checkSecret(object, secret, 72); p != nil {
			return "", p
		}
		if bcryptMatches(strings.TrimPrefix(old, "!"), secret) {
			return old, nil
		}
		hash, err := bcryptHash(secret, f.settings.Cost)
		if err != nil {
			return "", sdk.AsProblem(err, object, "set credential")
		}
		return withHash(old, hash), nil
	default:
		return "", sdk.NewProblem(sdk.CodeUnsupported, object, op.Kind().Word(), "plan only operations that the type declares")
	}
}
