package ldap

import (
	"errors"
	"slices"
	"strings"
	"testing"

	ldapv3 "github.com/go-ldap/ldap/v3"
	"go.uber.org/goleak"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	"github.com/reevehq/reeve/test/slapd"
)

func (b *bench) enable(display string) *connectorv1.Operation {
	return &connectorv1.Operation{Object: b.ref(display), Action: &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}}
}

func (b *bench) disable(display string) *connectorv1.Operation {
	return &connectorv1.Operation{Object: b.ref(display), Action: &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}}
}

func (b *bench) setPassword(display, secret string) *connectorv1.Operation {
	return &connectorv1.Operation{Object: b.ref(display), Action: &connectorv1.Operation_SetCredential{
		SetCredential: &connectorv1.SetCredential{Kind: "password", Secret: []byte(secret)}}}
}

func (b *bench) revoke(display string) *connectorv1.Operation {
	return &connectorv1.Operation{Object: b.ref(display), Action: &connectorv1.Operation_RevokeCredential{RevokeCredential: &connectorv1.RevokeCredential{Kind: "password"}}}
}

func (b *bench) read(ref *connectorv1.ObjectRef) *connectorv1.ReadResult {
	b.Helper()
	r, err := b.i.Read(b.Context(), []*connectorv1.ObjectRef{ref})
	if err != nil {
		b.Fatal(err)
	}
	return r[0]
}

func TestPPolicyLockStopsABind(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: estate(3), ACL: leastPrivilege, Overlays: []string{"ppolicy"}}, map[string]any{"disable": map[string]any{"method": "ppolicy"}})
	login := func(want bool, when string) {
		t.Helper()
		if got := canBind(t, b.server, user(1), "first-Secret-9"); got != want {
			t.Errorf("%s: bind succeeds: %v", when, got)
		}
		enablement := connectorv1.Enablement_ENABLEMENT_DISABLED
		if want {
			enablement = connectorv1.Enablement_ENABLEMENT_ENABLED
		}
		if got := b.read(b.ref(user(1))).GetObject().GetEnablement(); got != enablement {
			t.Errorf("%s: reads %s", when, got)
		}
	}
	b.want(done, b.setPassword(user(1), "first-Secret-9"))
	login(true, "password set")
	b.want(done, b.disable(user(1)))
	login(false, "disabled")
	b.want(done, b.setPassword(user(1), "first-Secret-9"))
	login(false, "password set while disabled")
	b.want(done, b.disable(user(1)))
	login(false, "disabled again")
	b.want(done, b.enable(user(1)))
	login(true, "enabled")
	// A lock by failed binds is not the administrator's, and gives way to it.
	b.meddle(user(1), change(ldapv3.AddAttribute, lockAttribute, "20200101000000Z"))
	if got := b.read(b.ref(user(1))).GetObject().GetEnablement(); got != connectorv1.Enablement_ENABLEMENT_ENABLED {
		t.Errorf("locked by failed binds reads %s", got)
	}
	b.want(done, b.disable(user(1)))
	if got := b.values(user(1), lockAttribute); !slices.Equal(got, []string{lockedForever}) {
		t.Errorf("lock is %q", got)
	}
	b.want(done, b.enable(user(1)))
	login(true, "enabled at the end")
	b.want(done, b.disable(user(1)))
	b.want(done, b.revoke(user(1)))
	login(false, "revoked while disabled")
}

func TestDisableByAttribute(t *testing.T) {
	shell := map[string]any{"disable": map[string]any{"method": "attribute", "attribute": map[string]any{"name": "employeeType", "enabled": "active", "disabled": "locked"}}}
	b := newBench(t, slapd.Options{LDIF: skeleton() + person(user(0), "user0000", "U", "employeeType", "contractor", "employeeType", "active"), ACL: leastPrivilege}, shell)
	b.want(done, b.disable(user(0)))
	if got := b.values(user(0), "employeeType"); !slices.Equal(got, []string{"contractor", "locked"}) {
		t.Errorf("employeeType is %q", got)
	}
	b.want(refused, b.update(user(0), deltaOf("employeeType", "locked", "active")))
	b.want(done, b.enable(user(0)))
	if got := b.values(user(0), "employeeType"); !slices.Equal(got, []string{"active", "contractor"}) {
		t.Errorf("employeeType is %q", got)
	}
}

func TestPasswords(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: estate(3), ACL: leastPrivilege, Overlays: []string{"ppolicy"}}, nil)
	b.want(done, b.setPassword(user(1), "pâss/word one"))
	if !canBind(t, b.server, user(1), "pâss/word one") {
		t.Error("the new password does not bind")
	}
	if got := b.values(user(1), "userPassword"); len(got) != 1 || !strings.HasPrefix(got[0], "{SSHA}") {
		t.Errorf("the password is not hashed by the server: %q", got)
	}
	r := b.want(refused, b.setPassword(user(1), "x"))
	if p := r[0].GetProblem(); !strings.Contains(p.GetRemedy(), "password policy") {
		t.Errorf("%v", p)
	}
	b.want(done, b.revoke(user(1)))
	b.want(done, b.revoke(user(1)))
	if canBind(t, b.server, user(1), "pâss/word one") {
		t.Error("the revoked password binds")
	}
	other := b.setPassword(user(1), "abcdefg")
	other.GetSetCredential().Kind = "otp"
	b.want(refused, other)
}

func TestPasswordWithoutTheExtension(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: estate(3), ACL: leastPrivilege}, nil)
	s, err := b.i.writing.get(t.Context(), b.i)
	if err != nil {
		t.Fatal(err)
	}
	s.server.extensions = nil
	b.i.writing.put(s, b.i)
	b.want(done, b.setPassword(user(1), "attribute-9"))
	if !canBind(t, b.server, user(1), "attribute-9") {
		t.Error("the new password does not bind")
	}
}

func TestReadTellsAbsentFromUnreadable(t *testing.T) {
	disclosed, noAnchor := "uid=user0001,"+peopleBase, "uid=user0002,"+peopleBase
	acl := append([]string{`to dn.exact="` + disclosed + `" by * disclose`, `to dn.exact="` + noAnchor + `" attrs=entryUUID by * none`}, leastPrivilege...)
	b := newBench(t, slapd.Options{LDIF: estate(5) + groups(), ACL: acl}, nil)
	byName := func(typ, dn string) *connectorv1.ReadResult {
		return b.read(&connectorv1.ObjectRef{Type: typ, Name: dnOf(t, dn)})
	}
	if r := byName("inetOrgPerson", "uid=nobody,"+peopleBase); r.GetAbsent() == nil {
		t.Errorf("not there: %v", r)
	}
	if r := byName("inetOrgPerson", "uid=nobody,ou=nowhere,"+peopleBase); r.GetAbsent() == nil {
		t.Errorf("not there, nor its parent: %v", r)
	}
	if r := byName("inetOrgPerson", disclosed); r.GetProblem().GetCode() != sdk.CodeNotAllowed {
		t.Errorf("there, unreadable: %v", r)
	}
	if r := byName("inetOrgPerson", noAnchor); r.GetProblem().GetCode() != codeUnreadable {
		t.Errorf("there, without anchor: %v", r)
	}
	if r := byName("inetOrgPerson", staff); r.GetProblem().GetCode() != sdk.CodeUnknownType {
		t.Errorf("another type: %v", r)
	}
	if r := byName("inetOrgPerson", strings.ToUpper(user(3))); r.GetObject().GetAnchor() != b.objects[user(3)].GetAnchor() {
		t.Errorf("by name in other case: %v", r)
	}
	// Out of its base is not gone.
	if err := root(t, b.server).ModifyDN(ldapv3.NewModifyDNRequest(user(3), "uid=user0003", false, "ou=services,"+suffix)); err != nil {
		t.Fatal(err)
	}
	if r := b.read(b.ref(user(3))); r.GetObject().GetDisplay() != "uid=user0003,ou=services,"+suffix {
		t.Errorf("moved out of its base: %v", r)
	}
	b.server.Stop()
	if _, err := b.i.Read(t.Context(), []*connectorv1.ObjectRef{b.ref(user(4))}); !sdk.HasCode(err, sdk.CodeUnreachable) {
		t.Errorf("a stopped server: %v", err)
	}
}

func TestLostConnections(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: estate(5) + groups(), ACL: leastPrivilege}, map[string]any{"timeout": "1s"})
	b.want(done, b.update(user(0), deltaOf("title", "", "One")))
	if err := b.server.Restart(); err != nil {
		t.Fatal(err)
	}
	// The connection broke while it rested: nothing was sent, so it is tried
	// on a new one.
	b.want(done, b.update(user(0), deltaOf("title", "One", "Two")))
	b.server.Stop()
	r := b.want(refused, b.update(user(0), deltaOf("title", "Two", "Three")), b.add(staff, user(2)))
	if r[0].GetProblem().GetCode() != sdk.CodeUnreachable {
		t.Errorf("%v", r)
	}
	if err := b.server.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := b.values(user(0), "title"); !slices.Equal(got, []string{"Two"}) {
		t.Errorf("a refused operation had an effect: %q", got)
	}
}

func TestNoAnswerIsUnknown(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: estate(5) + groups(), ACL: leastPrivilege}, map[string]any{"timeout": "1s"})
	op := b.update(user(0), deltaOf("title", "", "One"))
	op.Id = "1"
	batch := &batch{Instance: b.i}
	var err error
	if batch.targets, err = b.i.find(t.Context(), &b.i.writing, b.i.bases(), anchorsOf([]*connectorv1.Operation{op}), b.i.targetAttributes([]*connectorv1.Operation{op})); err != nil {
		t.Fatal(err)
	}
	if err := b.server.Pause(); err != nil {
		t.Fatal(err)
	}
	r := batch.single(t.Context(), b.i.types[0], op)
	if err := b.server.Resume(); err != nil {
		t.Fatal(err)
	}
	if r.GetOutcome() != unknown || r.GetProblem().GetRemedy() == "" {
		t.Errorf("%v", r)
	}
	// What became of it is read, and repeating it does no harm.
	b.want(done, b.update(user(0), deltaOf("title", "", "One")))
	if got := b.values(user(0), "title"); !slices.Equal(got, []string{"One"}) {
		t.Errorf("title is %q", got)
	}
}

func TestRefusalsNameTheRemedy(t *testing.T) {
	readOnly := []string{`to * by * read`}
	b := newBench(t, slapd.Options{LDIF: estate(5) + groups(), ACL: readOnly}, nil)
	before := state(t, b.server)
	ops := []*connectorv1.Operation{
		b.update(user(0), deltaOf("title", "", "x")), b.add(staff, user(3)), b.drop(staff, user(0)),
		{Object: b.ref(user(2)), Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}},
		{Object: b.ref(user(4)), Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: connectorv1.NewComponent("uid", "z")}}},
		b.revoke(user(3)),
	}
	for _, r := range b.want(refused, ops...) {
		if p := r.GetProblem(); p.GetCode() != sdk.CodeNotAllowed || !strings.Contains(p.GetRemedy(), reeveDN) {
			t.Errorf("%v", p)
		}
	}
	if state(t, b.server) != before {
		t.Error("a refused operation changed something")
	}
}

func TestNothingRunsOnAfterClose(t *testing.T) {
	s := slapd.Start(t, slapd.Options{LDIF: estate(200)})
	// slapd's own waiting goroutine stays.
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	i, err := New().Open(t.Context(), sdk.Settings{Alias: "corp", JSON: settings(s, map[string]any{"page_size": 10}), Secrets: secrets()})
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	count := 0
	if _, err := i.Observe(t.Context(), func(*connectorv1.Object) error {
		if count++; count == 25 {
			return enough
		}
		return nil
	}); !errors.Is(err, enough) {
		t.Error(err)
	}
	if _, err := i.Read(t.Context(), []*connectorv1.ObjectRef{{Type: "inetOrgPerson", Anchor: "none"}, {Type: "inetOrgPerson", Name: dnOf(t, user(1))}}); err != nil {
		t.Error(err)
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
}

func TestCreateIsDoneWhateverItsEnablementSince(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: estate(1), ACL: leastPrivilege, Overlays: []string{"ppolicy"}}, map[string]any{"disable": map[string]any{"method": "ppolicy"}})
	op := &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "inetOrgPerson"}, Action: &connectorv1.Operation_Create{
		Create: below(t, peopleBase, "uid", "kari", "cn", "Kari", "sn", "N")}}
	b.want(done, op)
	if got := b.values("uid=kari,"+peopleBase, lockAttribute); !slices.Equal(got, []string{lockedForever}) {
		t.Errorf("created with lock %q", got)
	}
	b.objects, _ = observe(t, b.i)
	b.want(done, b.enable("uid=kari,"+peopleBase))
	b.want(done, op)
	if got := b.values("uid=kari,"+peopleBase, lockAttribute); len(got) != 0 {
		t.Errorf("a repeated create locked the account again: %q", got)
	}
}
