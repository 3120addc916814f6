package wall

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/spiffe"
)

// place is a listener with the protocol spoken there.
type place int

const (
	agentsDoor place = iota
	operatorsDoor
	operatorsREST
	socket
)

// caller is one role at one door.
type caller struct {
	role string
	at   place
	door *door
	// home is the tenant whose things are the caller's own; foreign are others'.
	home    *estate
	foreign []*estate
	nobody  *estate
	// shut: the handshake refuses it.
	shut bool
	// live agents are served; refusal is what the others get there.
	live    bool
	refusal codes.Code
	agent   *fakeAgent
	token   string
	// heard is all that it received for its own things.
	heard []byte
	cells int
}

// served says what the caller must get from a method: codes.OK where it is
// served.
func (c *caller) served(r row) codes.Code {
	switch {
	case c.at == agentsDoor && r.serves == anybody:
		return codes.OK
	case c.at == agentsDoor && r.serves == liveAgents:
		if c.live {
			return codes.OK
		}
		return c.refusal
	case c.at != agentsDoor && r.serves == operators:
		return codes.OK
	}
	return codes.Unimplemented
}

// reaches reports whether the row's method can be called at the caller's door.
func (c *caller) reaches(r row) bool { return c.at != operatorsREST || paths[r.method].verb != "" }

// judge calls a method as the row says and returns what is wrong, if anything.
func (c *caller) judge(r row) (faults []string) {
	for _, p := range r.probes {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Sprintf("%s, %s as %s: ", r.method, p.name, c.role)+fmt.Sprintf(format, args...))
		}
		want := codes.OK
		if !c.shut {
			want = c.served(r)
		}
		call := func(kind string, e *estate) (answer, bool) {
			messages, err := p.ask(c, e)
			if err != nil {
				fault("%s cannot be asked for: %v", kind, err)
				return answer{}, false
			}
			return c.call(r, kind, messages, fault), true
		}
		refused := func(kind string, a answer) {
			if want != codes.OK && !c.shut && a.code != want {
				fault("%s: not refused with %v but %v %q", kind, want, a.code, a.message)
			}
		}
		compared := map[string]string{}
		if p.alone != "" || p.noOwn == "" || want != codes.OK || c.shut {
			if a, ok := call("own", c.home); ok {
				refused("own", a)
				c.own(p, a, want, fault)
				if want != codes.OK || c.shut {
					compared["own"] = a.text(r.volatile, c.home.names())
				}
			}
		}
		if p.alone != "" {
			c.nowhere(r, p, want, fault)
			continue
		}
		for _, e := range append(slices.Clone(c.foreign), c.nobody) {
			kind := "foreign"
			if e == c.nobody {
				kind = "absent"
			}
			if p.fits != nil && !p.fits(c, e) {
				continue
			}
			a, ok := call(kind, e)
			if !ok {
				continue
			}
			refused(kind, a)
			if want == codes.OK && !c.shut && a.code != p.elsewhere() {
				fault("%s: %v %q, not %v", kind, a.code, a.message, p.elsewhere())
			}
			if p.got != nil && a.failed == nil && a.code == codes.OK && len(a.messages) > 0 {
				if err := p.got(c, a); err != nil {
					fault("%s: %v", kind, err)
				}
			}
			compared[kind+" "+e.tenant] = a.text(r.volatile, e.names())
		}
		absent := compared["absent "+c.nobody.tenant]
		for kind, text := range compared {
			if text != absent {
				fault("%s answers\n%s\nand what does not exist\n%s", kind, text, absent)
			}
		}
	}
	return faults
}

// elsewhere is the code for what is not the caller's.
func (p probe) elsewhere() codes.Code {
	switch p.other {
	case codes.OK:
		return codes.NotFound
	case alike:
		return codes.OK
	}
	return p.other
}

// own judges the answer to a request for the caller's own things.
func (c *caller) own(p probe, a answer, want codes.Code, fault func(string, ...any)) {
	if c.shut || want != codes.OK {
		return
	}
	c.heard = append(c.heard, a.received()...)
	expected := p.own
	if len(expected) == 0 {
		expected = []codes.Code{codes.OK}
	}
	if c.at == agentsDoor && !c.live {
		return
	}
	if !slices.Contains(expected, a.code) {
		fault("its own: %v %q", a.code, a.message)
	} else if p.got != nil {
		if err := p.got(c, a); err != nil {
			fault("its own: %v", err)
		}
	}
}

// call makes one request and looks for others' canaries in all that comes.
func (c *caller) call(r row, kind string, messages []proto.Message, fault func(string, ...any)) answer {
	c.cells++
	a := c.door.call(r.method, r.first, messages)
	switch {
	case c.shut && a.failed == nil:
		fault("%s: who should not come through the handshake got %v %q", kind, a.code, a.message)
	case !c.shut && a.failed != nil:
		fault("%s: no answer: %v", kind, a.failed)
	}
	asked := said(messages)
	all := strings.Join(asked, "\n")
	for _, e := range append(slices.Clone(c.foreign), c.nobody) {
		for name := range e.names() {
			if strings.Contains(all, name) {
				asked = append(asked, name)
			}
		}
	}
	if r.plants {
		c.home.planted = append(c.home.planted, asked...)
		slices.Sort(c.home.planted)
		c.home.planted = slices.Compact(c.home.planted)
	}
	if r.everybody && c.at != agentsDoor {
		return a
	}
	received := a.received()
	for _, e := range c.foreign {
		if e == c.home {
			continue
		}
		for _, what := range e.found(received, append(asked, c.home.planted...)) {
			fault("%s: another tenant's canary came: %s", kind, what)
		}
	}
	return a
}

// nowhere asks for a tenant, or a plan, that is not there.
func (c *caller) nowhere(r row, p probe, want codes.Code, fault func(string, ...any)) {
	if c.shut || want != codes.OK || r.serves != operators || strings.HasSuffix(r.method, ".AddTenant") {
		return
	}
	messages, err := p.ask(c, c.home)
	if err != nil || len(messages) != 1 {
		return
	}
	m := proto.Clone(messages[0]).ProtoReflect()
	changed := false
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() == protoreflect.StringKind && !fd.IsList() {
			switch v.String() {
			case c.home.tenant:
				m.Set(fd, protoreflect.ValueOfString(c.nobody.tenant))
				changed = true
			case c.home.plan:
				m.Set(fd, protoreflect.ValueOfString(c.nobody.plan))
				changed = true
			}
		}
		return true
	})
	if !changed {
		return
	}
	if a := c.call(r, "nowhere", []proto.Message{m.Interface()}, fault); a.code != codes.NotFound {
		fault("what is not there answers %v %q", a.code, a.message)
	}
}

// callers are all roles at all doors. Those who may change another tenant's things
// only if the wall is broken come first.
func (w *world) callers() ([]*caller, error) {
	strange, err := ca.New(ca.Config{TrustDomain: domain})
	if err != nil {
		return nil, err
	}
	var list []*caller
	add := func(c *caller, a *fakeAgent, h *holder) error {
		c.nobody, c.agent = w.nobody, a
		for _, e := range []*estate{w.ours, w.theirs, w.msp} {
			if e != c.home {
				c.foreign = append(c.foreign, e)
			}
		}
		if c.agent == nil {
			var err error
			if c.agent, err = newFakeAgent(c.home.tenant, c.home.word("nobody's agent")); err != nil {
				return err
			}
		}
		switch c.at {
		case socket:
			c.door = openSocket(w.socket)
		case agentsDoor:
			c.door = open(w.agents, h, false)
			c.token, err = w.token(c.home.tenant, fmt.Sprintf("invited-%d", len(list)))
		default:
			c.door = open(w.operators, h, c.at == operatorsREST)
		}
		list = append(list, c)
		return err
	}
	held := func(authority *ca.CA, id spiffe.ID) *holder {
		h, e := issued(authority, id, w.roots)
		if e != nil {
			err = e
		}
		return h
	}
	none := &holder{roots: w.roots}
	ourMain := spiffe.AgentID{TrustDomain: domain, Tenant: w.ours.tenant, Agent: mainAgent}
	kari := spiffe.OperatorID{TrustDomain: domain, Name: "kari"}
	unregistered := spiffe.AgentID{TrustDomain: domain, Tenant: w.ours.tenant, Agent: "unregistered"}
	at := func(c caller, a *fakeAgent, h *holder) {
		if e := add(&c, a, h); e != nil {
			err = e
		}
	}
	at(caller{role: "stranger", home: w.ours, refusal: codes.Unauthenticated}, nil, none)
	at(caller{role: "agent of a foreign CA", home: w.ours, shut: true}, nil, held(strange, ourMain))
	at(caller{role: "operator at the agents' door", home: w.ours, shut: true}, nil, held(w.authority, kari))
	at(caller{role: "agent that nobody registered", home: w.ours, refusal: codes.PermissionDenied}, nil, held(w.authority, unregistered))
	at(caller{role: "revoked agent of ours", home: w.ours, refusal: codes.PermissionDenied}, w.ours.ended, w.ours.ended.svid)
	at(caller{role: "agent of ours", home: w.ours, live: true}, w.ours.main, w.ours.main.svid)
	at(caller{role: "second agent of ours", home: w.ours, live: true}, w.ours.sibling, w.ours.sibling.svid)
	at(caller{role: "agent of the MSP", home: w.msp, live: true}, w.msp.main, w.msp.main.svid)
	for _, door := range []struct {
		at   place
		name string
	}{{operatorsDoor, "gRPC"}, {operatorsREST, "REST"}} {
		for _, who := range []struct {
			name string
			h    *holder
		}{
			{"stranger", none}, {"operator of a foreign CA", held(strange, kari)}, {"agent of ours", w.ours.main.svid},
			{"agent of theirs", w.theirs.main.svid}, {"revoked agent of ours", w.ours.ended.svid}, {"agent of the MSP", w.msp.main.svid},
		} {
			at(caller{role: who.name + " at the operators' " + door.name, at: door.at, home: w.ours, shut: true}, nil, who.h)
		}
	}
	at(caller{role: "operator over gRPC", at: operatorsDoor, home: w.ours}, nil, held(w.authority, kari))
	at(caller{role: "operator over REST", at: operatorsREST, home: w.ours}, nil, held(w.authority, kari))
	at(caller{role: "operator at the socket", at: socket, home: w.ours}, nil, nil)
	return list, err
}
