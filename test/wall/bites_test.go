package wall

import (
	"context"
	"encoding/base64"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// fakeGrants answers EndGrant as its test wants it answered.
type fakeGrants struct {
	operatorv1.UnimplementedGrantServiceServer
	own, foreign string
	// answer is for a grant that is not the caller's.
	answer func(ctx context.Context, grant string, foreign bool) (*operatorv1.EndGrantResponse, error)
}

func (f fakeGrants) EndGrant(ctx context.Context, r *operatorv1.EndGrantRequest) (*operatorv1.EndGrantResponse, error) {
	if r.GetGrant() == f.own {
		return &operatorv1.EndGrantResponse{Grant: &operatorv1.Grant{Id: f.own}}, nil
	}
	return f.answer(ctx, r.GetGrant(), r.GetGrant() == f.foreign)
}

func problem(code codes.Code, said, remedy string) error {
	st, err := status.New(code, said).WithDetails(&connectorv1.Problem{Code: "NOT_FOUND", Said: said, Remedy: remedy})
	if err != nil {
		return err
	}
	return st.Err()
}

// TestTheWallBites: a service that tells another tenant's things from nobody's in
// any way, or says what only another tenant knows, is found out.
func TestTheWallBites(t *testing.T) {
	home, theirs := newEstate(""), newEstate("")
	home.grant, theirs.grant = "grant-0a0a0a0a0a0a0a0a", "grant-0b0b0b0b0b0b0b0b"
	theirs.secrets = []string{"order-77777777"}
	theirs.receipt = new(auditv1.Receipt)
	none, err := nobody(theirs)
	check(t, err)
	secret := theirs.word("reason")
	honest := func(_ context.Context, grant string, _ bool) (*operatorv1.EndGrantResponse, error) {
		return nil, problem(codes.NotFound, "grant not found: "+grant, "list what there is")
	}
	// either answers as leak does where the grant is another's, or always.
	either := func(always bool, leak func(ctx context.Context, grant string) (*operatorv1.EndGrantResponse, error)) func(context.Context, string, bool) (*operatorv1.EndGrantResponse, error) {
		return func(ctx context.Context, grant string, foreign bool) (*operatorv1.EndGrantResponse, error) {
			if foreign || always {
				return leak(ctx, grant)
			}
			return honest(ctx, grant, foreign)
		}
	}
	type response = operatorv1.EndGrantResponse
	for name, c := range map[string]struct {
		answer func(context.Context, string, bool) (*response, error)
		want   string
	}{
		"honest": {answer: honest},
		"another code": {either(false, func(_ context.Context, grant string) (*response, error) {
			return nil, problem(codes.PermissionDenied, "grant not found: "+grant, "list what there is")
		}), "and what does not exist"},
		"another sentence": {either(false, func(_ context.Context, grant string) (*response, error) {
			return nil, problem(codes.NotFound, "grant not found here: "+grant, "list what there is")
		}), "and what does not exist"},
		"another detail": {either(false, func(_ context.Context, grant string) (*response, error) {
			return nil, problem(codes.NotFound, "grant not found: "+grant, "ask its tenant")
		}), "and what does not exist"},
		"no detail": {either(false, func(_ context.Context, grant string) (*response, error) {
			return nil, status.Error(codes.NotFound, "grant not found: "+grant)
		}), "and what does not exist"},
		"another field in the header": {either(false, func(ctx context.Context, grant string) (*response, error) {
			_ = grpc.SetTrailer(ctx, metadata.Pairs("seen", "yes"))
			return honest(ctx, grant, true)
		}), "and what does not exist"},
		"the thing itself": {either(false, func(_ context.Context, grant string) (*response, error) {
			return &response{Grant: &operatorv1.Grant{Id: grant}}, nil
		}), "and what does not exist"},
		"a canary in the message": {either(true, func(context.Context, string) (*response, error) {
			return nil, problem(codes.NotFound, "not found beside "+secret, "")
		}), "canary came"},
		"a canary in capitals": {either(true, func(context.Context, string) (*response, error) {
			return nil, problem(codes.NotFound, "not found beside "+strings.ToUpper(secret), "")
		}), "canary came"},
		"a canary in a detail": {either(true, func(context.Context, string) (*response, error) {
			return nil, problem(codes.NotFound, "not found", secret)
		}), "canary came"},
		"a canary in a trailer": {either(true, func(ctx context.Context, grant string) (*response, error) {
			_ = grpc.SetTrailer(ctx, metadata.Pairs("hint", secret))
			return honest(ctx, grant, true)
		}), "canary came"},
		"a canary in base64 in a header": {either(true, func(ctx context.Context, grant string) (*response, error) {
			_ = grpc.SetHeader(ctx, metadata.Pairs("token", base64.RawURLEncoding.EncodeToString([]byte("k\x00"+secret))))
			return honest(ctx, grant, true)
		}), "canary came"},
		"a canary in the answer": {either(true, func(context.Context, string) (*response, error) {
			return &response{Grant: &operatorv1.Grant{Reason: secret}}, nil
		}), "canary came"},
		"an id that was made for another": {either(true, func(context.Context, string) (*response, error) {
			return &response{Grant: &operatorv1.Grant{Ticket: "order-77777777"}}, nil
		}), "canary came"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "bites")
			check(t, err)
			defer os.RemoveAll(dir)
			path := filepath.Join(dir, "s")
			listener, err := net.Listen("unix", path)
			check(t, err)
			server := grpc.NewServer()
			operatorv1.RegisterGrantServiceServer(server, fakeGrants{own: home.grant, foreign: theirs.grant, answer: c.answer})
			go server.Serve(listener) //nolint:errcheck // it ends with Stop
			defer server.Stop()
			who := &caller{role: "operator", at: socket, door: openSocket(path), home: home, foreign: []*estate{theirs}, nobody: none}
			defer who.door.close()
			var faults []string
			for _, r := range operatorRows() {
				if strings.HasSuffix(r.method, ".EndGrant") {
					faults = who.judge(r)
				}
			}
			if who.cells != 3 {
				t.Errorf("%d cells, want own, foreign and absent", who.cells)
			}
			if found := strings.Join(faults, "\n"); c.want == "" && found != "" || !strings.Contains(found, c.want) {
				t.Errorf("found %q, want %q", found, c.want)
			}
		})
	}
}

// TestWhoIsServedBites: a method that serves whom it should not is found out, and
// so is one that does not serve whom it should.
func TestWhoIsServedBites(t *testing.T) {
	home := newEstate("")
	home.grant = "grant-0a0a0a0a0a0a0a0a"
	home.receipt = new(auditv1.Receipt)
	none, err := nobody(home)
	check(t, err)
	dir, err := os.MkdirTemp("", "bites")
	check(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	check(t, err)
	server := grpc.NewServer()
	operatorv1.RegisterGrantServiceServer(server, fakeGrants{answer: func(context.Context, string, bool) (*operatorv1.EndGrantResponse, error) {
		return nil, status.Error(codes.NotFound, "no such grant")
	}})
	go server.Serve(listener) //nolint:errcheck // it ends with Stop
	defer server.Stop()
	rows := operatorRows()
	row := rows[slices.IndexFunc(rows, func(r row) bool { return strings.HasSuffix(r.method, ".EndGrant") })]
	for name, c := range map[string]struct {
		who  caller
		want string
	}{
		"an agent":                       {caller{at: agentsDoor, live: true}, "not refused with Unimplemented"},
		"one whom the handshake refuses": {caller{at: operatorsDoor, shut: true}, "who should not come through the handshake"},
		"an operator without a grant":    {caller{at: socket}, "its own: NotFound"},
	} {
		t.Run(name, func(t *testing.T) {
			who := c.who
			who.door, who.home, who.nobody = openSocket(path), home, none
			defer who.door.close()
			if found := strings.Join(who.judge(row), "\n"); !strings.Contains(found, c.want) {
				t.Errorf("found %q, want %q", found, c.want)
			}
		})
	}
}

// TestLacksBites: a method without a row, a row without a method, a row twice and
// an empty row are each said.
func TestLacksBites(t *testing.T) {
	rows, all := matrix(), methods()
	for name, c := range map[string]struct {
		methods []protoreflect.FullName
		rows    []row
		want    string
	}{
		"a new method":     {append(slices.Clone(all), "reeve.operator.v1.PlanService.CopyPlan"), rows, "CopyPlan has no row in the matrix"},
		"a lost row":       {all, rows[1:], "has no row in the matrix"},
		"a method is gone": {all[1:], rows, "which is no method any more"},
		"a row twice":      {all, append(slices.Clone(rows), rows[0]), "has several rows"},
		"an empty row":     {all, append(slices.Clone(rows[1:]), row{method: rows[0].method}), "has a row without a probe"},
		"an empty probe":   {all, append(slices.Clone(rows[1:]), row{method: rows[0].method, probes: []probe{{}}}), "has a probe that asks nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			got := lacks(c.methods, c.rows)
			if len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("said %q", got)
			}
		})
	}
	if got := lacks(all, rows); len(got) > 0 {
		t.Errorf("said %q", got)
	}
}

// TestFormsAreFound: a text is found in whatever surroundings it was encoded.
func TestFormsAreFound(t *testing.T) {
	c := newCanaries()
	word := c.word("any")
	for shift := range 7 {
		around := strings.Repeat("x", shift) + word + strings.Repeat("y", 9-shift)
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
			if text := []byte(enc.EncodeToString([]byte(around))); c.found(text, nil) == nil {
				t.Errorf("not found in %s", text)
			} else if got := c.found(text, []string{word}); got != nil {
				t.Errorf("found in %s, although it was asked for: %q", text, got)
			}
		}
	}
	raw, err := proto.Marshal(&operatorv1.Grant{Reason: word})
	check(t, err)
	if c.found(raw, nil) == nil || newCanaries().found(raw, nil) != nil {
		t.Error("a canary must be found by its own tenant's marker, and by that alone")
	}
	if c.found(append(raw, []byte(word)...), []string{c.marker + "another"}) == nil {
		t.Error("what was asked for excuses nothing else")
	}
}
