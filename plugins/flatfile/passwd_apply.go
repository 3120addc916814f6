package flatfile

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func shellFault(value string) string {
	if fault := fieldFault(value); fault != "" {
		return fault
	}
	if value != "" && !path.IsAbs(value) {
		return "the value is not an absolute path"
	}
	return ""
}

func (f *passwdFormat) create(t tables, op *connectorv1.Operation) (tables, *sdk.Problem) {
	typeName, create := op.GetObject().GetType(), op.GetCreate()
	part := "login"
	if typeName == "group" {
		part = "group"
	}
	name, ok := leafOf(create.GetName(), part)
	object := f.alias + ": " + typeName + " " + create.GetName().Text()
	if !ok {
		return nil, invalid(object, "create", "the name must be one component "+part+"=…")
	}
	if fault := strictNameFault(name); fault != "" {
		return nil, invalid(object, "create", fault)
	}
	given := map[string]string{}
	for _, a := range create.GetAttributes() {
		if len(a.GetValues()) == 0 {
			continue
		}
		value, p := f.value(t, typeName, object, a.GetName(), a.GetValues()[0])
		if p != nil {
			return nil, p
		}
		given[a.GetName()] = value
	}
	there, p := f.lookup(t, &connectorv1.ObjectRef{Type: typeName, Name: create.GetName()})
	if p != nil {
		return nil, p
	}
	if there != nil {
		for name, value := range given {
			if got := there.object.Attribute(name); value != "" && (len(got) == 0 || string(got[0]) != value) {
				return nil, sdk.NewProblem(sdk.CodeAlreadyExists, object, "create", "adopt the "+typeName+" that is there, or choose another name").
					WithSaid("it has another " + name)
			}
		}
	}
	if typeName == "group" {
		return f.createGroup(t, there, object, name, given, create)
	}
	if there != nil {
		return t, nil
	}
	return f.createUser(t, object, name, given)
}

func (f *passwdFormat) createUser(t tables, object, login string, given map[string]string) (tables, *sdk.Problem) {
	users := f.place(passwdTable)
	uid, p := f.allocate(t[users], object, "uid", given["uid"], f.settings.UIDMin, f.settings.UIDMax)
	if p != nil {
		return nil, p
	}
	gid := given["gid"]
	if gid == "" {
		value, p := f.value(t, "user", object, "gid", strconv.AppendUint(nil, uint64(f.settings.DefaultGID), 10))
		if p != nil {
			return nil, p
		}
		gid = value
	}
	home, shell := given["home"], given["shell"]
	if home == "" {
		home = path.Join(f.settings.HomeBase, login)
	}
	if shell == "" {
		shell = f.settings.DefaultShell
	}
	day := f.edge.now().Unix() / 86400
	shadow := fmt.Sprintf("%s:%s:%d:0:99999:7:::", login, lockHash(noPassword), day)
	after := slices.Clone(t)
	// A shadow line without a passwd line is left over from a create that was
	// cut off, or from another person: nothing of it may live on.
	for at := t[shadowTable].find(login); len(at) > 0; at = after[shadowTable].find(login) {
		after[shadowTable] = after[shadowTable].remove(at[0])
	}
	after[shadowTable] = after[shadowTable].add(shadow)
	after[users] = t[users].add(strings.Join([]string{login, "x", uid, gid, given["gecos"], home, shell}, ":"))
	return after, nil
}

func (f *passwdFormat) createGroup(t tables, there *entry, object, name string, given map[string]string, create *connectorv1.Create) (tables, *sdk.Problem) {
	var logins []string
	for _, ref := range create.GetMembers() {
		login, p := f.memberOf(t, object, ref)
		if p != nil {
			return nil, p
		}
		logins = append(logins, login)
	}
	if there != nil {
		return existingGroup(t, there, logins, object)
	}
	gid, p := f.allocate(t[groupTable], object, "gid", given["gid"], f.settings.GIDMin, f.settings.GIDMax)
	if p != nil {
		return nil, p
	}
	members := strings.Join(logins, ",")
	after := slices.Clone(t)
	after[groupTable] = t[groupTable].add(strings.Join([]string{name, "x", gid, members}, ":"))
	if f.hasGshadow {
		for at := t[gshadowTable].find(name); len(at) > 0; at = after[gshadowTable].find(name) {
			after[gshadowTable] = after[gshadowTable].remove(at[0])
		}
		after[gshadowTable] = after[gshadowTable].add(strings.Join([]string{name, "!", "", members}, ":"))
	}
	return after, nil
}

// allocate checks the wanted number, or takes the lowest free one of the range:
// the same files and the same plan give the same number.
func (f *passwdFormat) allocate(t *table, object, what, wanted string, low, high uint32) (string, *sdk.Problem) {
	taken := map[uint32]bool{}
	for _, line := range t.lines {
		if fields := strings.Split(line, ":"); !t.skipped(line) && len(fields) > 2 {
			if n, ok := number(fields[2]); ok {
				taken[n] = true
			}
		}
	}
	if wanted != "" {
		if n, _ := number(wanted); taken[n] {
			return "", sdk.NewProblem(sdk.CodeAlreadyExists, object, "create with "+what+" "+wanted, "leave the "+what+" out, or choose one that is free")
		}
		return wanted, nil
	}
	for n := uint64(low); n <= uint64(high); n++ {
		if !taken[uint32(n)] && uint32(n) != 0xffff {
			return strconv.FormatUint(n, 10), nil
		}
	}
	return "", sdk.NewProblem(sdk.CodeInvalidValue, object, "find a free "+what, fmt.Sprintf("widen %s_min and %s_max in agent.yaml", what, what)).
		WithSaid(fmt.Sprintf("%d to %d are all taken", low, high))
}

// value checks one value and brings numbers into the form in which they are
// read.
func (f *passwdFormat) value(t tables, typeName, object, name string, raw []byte) (string, *sdk.Problem) {
	value, fault := string(raw), ""
	switch name {
	case "gecos":
		fault = fieldFault(value)
	case "home", "shell":
		fault = shellFault(value)
	case "uid", "gid":
		value = string(connectorv1.Canonical(connectorv1.MatchingRule_MATCHING_RULE_INTEGER, raw))
		if _, ok := number(value); !ok {
			fault = "the value is not a number of 32 bits"
		} else if name == "gid" && typeName == "user" && !f.hasGID(t, value) {
			return "", sdk.NewProblem(sdk.CodeNotFound, object, "use gid "+value, "create the group first, or set default_gid in agent.yaml to one that is there")
		}
	}
	if fault != "" {
		return "", invalid(object, "write "+name, fault)
	}
	return value, nil
}

func (f *passwdFormat) hasGID(t tables, gid string) bool {
	return slices.ContainsFunc(t[groupTable].lines, func(line string) bool {
		fields := strings.Split(line, ":")
		return !t[groupTable].skipped(line) && len(fields) == 4 && fields[2] == gid
	})
}

func (f *passwdFormat) memberOf(t tables, object string, ref *connectorv1.ObjectRef) (string, *sdk.Problem) {
	e, p := f.lookup(t, ref)
	if p != nil {
		return "", p
	}
	if e == nil || e.object.GetType() != "user" {
		return "", sdk.NewProblem(sdk.CodeNotFound, object, "add member", "create the user first").WithSaid("no such user: " + ref.GetAnchor() + ref.GetName().Text())
	}
	login, _ := memberLogin(&connectorv1.ObjectRef{Type: "user", Name: e.object.GetName()}, true)
	return login, nil
}

func (f *passwdFormat) change(t tables, e *entry, op *connectorv1.Operation) (tables, *sdk.Problem) {
	object := f.alias + ": " + e.object.GetType() + " " + e.object.GetName().Text()
	name := e.object.GetDisplay()
	if e.object.GetType() == "group" {
		return f.changeGroup(t, object, name, op)
	}
	users := f.place(passwdTable)
	n := t[users].find(name)[0]
	after := slices.Clone(t)
	switch act := op.GetAction().(type) {
	case *connectorv1.Operation_Update:
		fields := strings.Split(t[users].lines[n], ":")
		if p := f.update(t, object, fields, act.Update); p != nil {
			return nil, p
		}
		after[users] = t[users].replace(n, strings.Join(fields, ":"))
	case *connectorv1.Operation_Delete:
		after[users] = t[users].remove(n)
		for at := t[shadowTable].find(name); len(at) > 0; at = after[shadowTable].find(name) {
			after[shadowTable] = after[shadowTable].remove(at[0])
		}
		after[groupTable] = editMembers(t[groupTable], "", name, list.remove)
		if f.hasGshadow {
			after[gshadowTable] = editMembers(t[gshadowTable], "", name, list.remove)
		}
	default:
		hash, p := f.hash(object, e.hash, op)
		if p != nil {
			return nil, p
		}
		return f.setHash(t, name, n, e.hash, hash), nil
	}
	return after, nil
}

// setHash writes the hash where the system looks for it.
func (f *passwdFormat) setHash(t tables, login string, n int, old, hash string) tables {
	if hash == old {
		return t
	}
	after := slices.Clone(t)
	users := f.place(passwdTable)
	if fields := strings.Split(t[users].lines[n], ":"); fields[1] != "x" {
		fields[1] = hash
		after[users] = t[users].replace(n, strings.Join(fields, ":"))
		return after
	}
	at := t[shadowTable].find(login)[0]
	fields := strings.Split(t[shadowTable].lines[at], ":")
	fields[1] = hash
	if strings.HasPrefix(strings.TrimLeft(hash, "!"), "$6$") && strings.TrimLeft(hash, "!") != strings.TrimLeft(old, "!") && len(fields) > 2 {
		// A new password: shadow(5) counts its age from today.
		fields[2] = strconv.FormatInt(f.edge.now().Unix()/86400, 10)
	}
	after[shadowTable] = t[shadowTable].replace(at, strings.Join(fields, ":"))
	return after
}

var passwdField = map[string]int{"gid": 3, "gecos": 4, "home": 5, "shell": 6}

func (f *passwdFormat) update(t tables, object string, fields []string, u *connectorv1.Update) *sdk.Problem {
	for _, d := range u.GetDeltas() {
		i, ok := passwdField[d.GetAttribute()]
		if !ok {
			return sdk.NewProblem(sdk.CodeUnsupported, object, "update "+d.GetAttribute(),
				"leave it out of the mapping: with another uid it would be another user, whose files belong to nobody")
		}
		rule := connectorv1.MatchingRule_MATCHING_RULE_EXACT
		if d.GetAttribute() == "gid" {
			rule = connectorv1.MatchingRule_MATCHING_RULE_INTEGER
		}
		now := fields[i]
		if now != "" && connectorv1.HasValue(rule, d.GetRemove(), []byte(now)) {
			now = ""
		}
		for _, add := range d.GetAdd() {
			value, p := f.value(t, "user", object, d.GetAttribute(), add)
			if p != nil {
				return p
			}
			if now != "" && now != value {
				return sdk.NewProblem(sdk.CodeConflict, object, "update "+d.GetAttribute(), "plan again: a field holds one value, and another than the plan removes is there")
			}
			now = value
		}
		if now == "" && d.GetAttribute() == "gid" {
			return invalid(object, "update gid", "a user has a primary group")
		}
		fields[i] = now
	}
	return nil
}

func (f *passwdFormat) changeGroup(t tables, object, name string, op *connectorv1.Operation) (tables, *sdk.Problem) {
	after := slices.Clone(t)
	edit := func(login string, edit func(list, string) string) {
		after[groupTable] = editMembers(t[groupTable], name, login, edit)
		if f.hasGshadow {
			after[gshadowTable] = editMembers(t[gshadowTable], name, login, edit)
		}
	}
	switch act := op.GetAction().(type) {
	case *connectorv1.Operation_Delete:
		n := t[groupTable].find(name)[0]
		gid := strings.Split(t[groupTable].lines[n], ":")[2]
		users := t[f.place(passwdTable)]
		for _, line := range users.lines {
			if fields := strings.Split(line, ":"); !users.skipped(line) && len(fields) == 7 && fields[3] == gid {
				return nil, sdk.NewProblem(sdk.CodeNotAllowed, object, "delete", "give the user another primary group first").
					WithSaid("it is the primary group of " + fields[0])
			}
		}
		after[groupTable] = t[groupTable].remove(n)
		if f.hasGshadow {
			for at := t[gshadowTable].find(name); len(at) > 0; at = after[gshadowTable].find(name) {
				after[gshadowTable] = after[gshadowTable].remove(at[0])
			}
		}
	case *connectorv1.Operation_AddMember:
		login, p := f.memberOf(t, object, act.AddMember.GetMember())
		if p != nil {
			return nil, p
		}
		edit(login, list.add)
	case *connectorv1.Operation_RemoveMember:
		if login, ok := memberLogin(act.RemoveMember.GetMember(), true); ok {
			edit(login, list.remove)
		}
	default:
		return nil, sdk.NewProblem(sdk.CodeUnsupported, object, op.Kind().Word(), "plan only operations that the type declares")
	}
	return after, nil
}

// editMembers edits the last field of the named group's line, or of all groups'.
func editMembers(t *table, name, login string, edit func(list, string) string) *table {
	for n, line := range t.lines {
		fields := strings.Split(line, ":")
		if t.skipped(line) || len(fields) != 4 || (name != "" && fields[0] != name) {
			continue
		}
		fields[3] = edit(list{text: fields[3], separator: ","}, login)
		t = t.replace(n, strings.Join(fields, ":"))
	}
	return t
}

func (f *passwdFormat) hash(object, old string, op *connectorv1.Operation) (string, *sdk.Problem) {
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
		if p := checkSecret(object, secret, 512); p != nil {
			return "", p
		}
		if sha512Matches(strings.TrimPrefix(old, "!"), secret) {
			return old, nil
		}
		salt, err := newSalt(f.edge.random)
		if err != nil {
			return "", sdk.AsProblem(err, object, "set credential")
		}
		return withHash(old, sha512Crypt(secret, salt, f.settings.Rounds)), nil
	default:
		return "", sdk.NewProblem(sdk.CodeUnsupported, object, op.Kind().Word(), "plan only operations that the type declares")
	}
}
