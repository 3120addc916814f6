package policy

import (
	"encoding/binary"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// reads is what a condition asks of an identity: nothing else can change its
// verdict under one program.
type reads struct {
	attributes       []string
	kind, state, msp bool
}

func (r reads) equal(o reads) bool {
	return slices.Equal(r.attributes, o.attributes) && r.kind == o.kind && r.state == o.state && r.msp == o.msp
}

// readsOf returns what an expression asks of an identity, false where that cannot
// be told, or is the identity's id, which no two share.
func readsOf(parsed *cel.Ast) (reads, bool) {
	var r reads
	uses, told := 0, 0
	ast.PreOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		switch x.Kind() {
		case ast.IdentKind:
			if x.AsIdent() == "identity" {
				uses++
			}
		case ast.SelectKind:
			s := x.AsSelect()
			if !isIdentity(s.Operand()) || s.IsTestOnly() {
				return
			}
			switch s.FieldName() {
			case "kind":
				r.kind = true
			case "state":
				r.state = true
			case "msp":
				r.msp = true
			default:
				return
			}
			told++
		case ast.CallKind:
			if name, ok := attributeRead(x.AsCall()); ok {
				r.attributes = append(r.attributes, name)
				told++
			}
		}
	}))
	slices.Sort(r.attributes)
	r.attributes = slices.Compact(r.attributes)
	return r, uses == told
}

func isIdentity(x ast.Expr) bool { return x.Kind() == ast.IdentKind && x.AsIdent() == "identity" }

// attributeRead is the literal name in identity.attr("name") or identity.attrs("name").
func attributeRead(call ast.CallExpr) (string, bool) {
	if !call.IsMemberFunction() || len(call.Args()) != 1 || call.FunctionName() != "attr" && call.FunctionName() != "attrs" {
		return "", false
	}
	if !isIdentity(call.Target()) || call.Args()[0].Kind() != ast.LiteralKind {
		return "", false
	}
	name, ok := call.Args()[0].AsLiteral().(types.String)
	return string(name), ok
}

// alike are the roles whose conditions read the same.
type alike struct {
	reads
	roles int
}

// group puts roles together that read the same. A condition that is watched is
// not among them: what it costs is known only by running it.
func (p *Program) group() {
	for i := range p.roles {
		role := &p.roles[i]
		role.group = -1
		if role.when == nil || role.when.watched || role.when.reads == nil {
			continue
		}
		role.group = slices.IndexFunc(p.groups, func(g alike) bool { return g.equal(*role.when.reads) })
		if role.group < 0 {
			role.group = len(p.groups)
			p.groups = append(p.groups, alike{reads: *role.when.reads})
		}
		role.place = p.groups[role.group].roles
		p.groups[role.group].roles++
	}
}

// maxVerdicts bounds what is kept of one group: where more people differ in what
// it reads, keeping gains little.
const maxVerdicts = 4096

type verdict byte

const (
	unjudged verdict = iota
	holding
	failing
)

// verdicts are those of conditions, by what they read. They belong to one worker
// and one program.
type verdicts struct {
	groups []map[string][]verdict
	// now are the current subject's, nil where not looked up.
	now [][]verdict
	key []byte
}

func (p *Program) newVerdicts() *verdicts {
	k := &verdicts{groups: make([]map[string][]verdict, len(p.groups)), now: make([][]verdict, len(p.groups))}
	for i := range k.groups {
		k.groups[i] = map[string][]verdict{}
	}
	return k
}

// of returns the verdicts of a group on a subject, to be filled in.
func (k *verdicts) of(p *Program, group int, s *Subject) []verdict {
	if k.now[group] != nil {
		return k.now[group]
	}
	g := &p.groups[group]
	k.key = g.appendKey(k.key[:0], s)
	list, known := k.groups[group][string(k.key)]
	if !known {
		list = make([]verdict, g.roles)
		if len(k.groups[group]) < maxVerdicts {
			k.groups[group][string(k.key)] = list
		}
	}
	k.now[group] = list
	return list
}

// appendKey writes what the reads find; lengths go first, so that no value can
// imitate a boundary.
func (r *reads) appendKey(key []byte, s *Subject) []byte {
	for _, name := range r.attributes {
		values := s.Attributes[name]
		key = binary.AppendUvarint(key, uint64(len(values)))
		for _, v := range values {
			key = append(binary.AppendUvarint(key, uint64(len(v))), v...)
		}
	}
	if r.kind {
		key = append(binary.AppendUvarint(key, uint64(len(s.Kind))), s.Kind...)
	}
	if r.state {
		key = append(binary.AppendUvarint(key, uint64(len(s.State))), s.State...)
	}
	if r.msp && s.MSP {
		key = append(key, 1)
	}
	return key
}

// holds is whether a role's condition holds, and charges what evaluating it does.
func (d *draft) holds(role *roleProgram) (bool, error) {
	if d.known == nil || role.group < 0 {
		return d.program.truth(role.when, d.vars)
	}
	list := d.known.of(d.program, role.group, &d.subject)
	if v := list[role.place]; v != unjudged {
		return v == holding, d.program.allowance.charge(role.when.worst)
	}
	yes, err := d.program.truth(role.when, d.vars)
	switch {
	case err != nil: // is told of everybody whom it is about
	case yes:
		list[role.place] = holding
	default:
		list[role.place] = failing
	}
	return yes, err
}
