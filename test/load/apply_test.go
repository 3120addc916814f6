package load

import (
	"bytes"
	"context"
	"flag"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/rig"
	"github.com/reevehq/reeve/test/slapd"
)

var (
	changes = flag.Int("changes", 100, "changes that TestApply carries out")
	entries = flag.Int("entries", 300, "people in TestApply's directory")
)

// TestApply carries a mix of changes out twice, on two copies of one directory:
// with ldapmodify, and with Reeve, from the plan's approval until the control plane
// holds the record of the order's end and with it all receipts. Then both copies
// must hold the same. slapd syncs every write to disk.
func TestApply(t *testing.T) {
	for _, run := range []struct {
		name     string
		distance time.Duration
	}{{"loopback", 0}, {"distant", 10 * time.Millisecond}} {
		t.Run(run.name, func(t *testing.T) { applied(t, newMix(*changes, *entries), run.distance) })
	}
}

func applied(t *testing.T, m *mix, distance time.Duration) {
	options := m.directory()
	byHand, byReeve := slapd.Start(t, options), slapd.Start(t, options)
	peer := modify(t, byHand, far(t, byHand.URL, distance), m.ldif())

	secret := filepath.Join(t.TempDir(), "secret")
	check(t, os.WriteFile(secret, []byte(byReeve.RootPassword), 0o600))
	e := rig.NewEstate(0)
	e.Own = m.client(far(t, byReeve.URL, distance), byReeve.RootDN, secret)
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	p := r.Plan()
	if total := int(p.GetState().GetTotal()); total != m.planned() {
		t.Fatalf("the plan has %d changes, and not %d", total, m.planned())
	}
	began := time.Now()
	r.Approve(p)
	ended(t, r, p.GetId())
	took := time.Since(began)
	r.Applied(r.Ended(p.GetId()))

	want, have := contents(t, byHand), contents(t, byReeve)
	for _, dn := range slices.Sorted(maps.Keys(want)) {
		if want[dn] != have[dn] {
			t.Errorf("%s is\n%sand with ldapmodify\n%s", dn, have[dn], want[dn])
		}
		delete(have, dn)
	}
	for dn := range have {
		t.Errorf("%s is there, and with ldapmodify it is not", dn)
	}
	per := func(d time.Duration) float64 { return float64(m.changes()) / d.Seconds() }
	t.Logf("%d changes among %d people, %v away: ldapmodify %.1f s (%.0f/s), Reeve from approval to the last receipt's acknowledgement %.1f s (%.0f/s): %.1f times as fast",
		m.changes(), m.entries, distance, peer.Seconds(), per(peer), took.Seconds(), per(took), peer.Seconds()/took.Seconds())
}

// modify is the peer: one ldapmodify, one request for each change.
func modify(t *testing.T, s *slapd.Server, address, ldif string) time.Duration {
	t.Helper()
	cmd := exec.Command("ldapmodify", "-x", "-H", address, "-D", s.RootDN, "-w", s.RootPassword)
	cmd.Stdin = strings.NewReader(ldif)
	var said bytes.Buffer
	cmd.Stderr = &said
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("ldapmodify: %v: %s", err, said.String())
	}
	return time.Since(began)
}

// ended waits for a plan's end over one connection: a command for each look would
// take time from those who work.
func ended(t *testing.T, r *rig.Rig, id string) {
	t.Helper()
	desk, err := grpc.NewClient("unix:"+filepath.Join(r.Dir, "noc", "operator.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(t, err)
	defer desk.Close()
	for deadline := time.Now().Add(20 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		got, err := operatorv1.NewPlanServiceClient(desk).GetPlan(context.Background(), &operatorv1.GetPlanRequest{Plan: id})
		check(t, err)
		if got.GetPlan().GetState().GetPhase() == operatorv1.PlanState_PHASE_ENDED {
			return
		}
	}
	t.Fatalf("plan %s does not end", id)
}

// contents are the entries as ldapsearch shows them, by DN.
func contents(t *testing.T, s *slapd.Server) map[string]string {
	t.Helper()
	cmd := exec.Command("ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", s.URL, "-D", s.RootDN, "-w", s.RootPassword, "-b", s.Suffix)
	printed, err := cmd.Output()
	check(t, err)
	out := map[string]string{}
	for entry := range strings.SplitSeq(strings.TrimSpace(string(printed)), "\n\n") {
		dn, rest, _ := strings.Cut(entry, "\n")
		lines := strings.Split(rest, "\n")
		slices.Sort(lines)
		out[dn] = strings.Join(lines, "\n") + "\n"
	}
	return out
}

// far is a server's URL from a distance, a round trip long.
func far(t *testing.T, address string, distance time.Duration) string {
	t.Helper()
	if distance == 0 {
		return address
	}
	u, err := url.Parse(address)
	check(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", u.Host)
			if err != nil {
				_ = near.Close()
				continue
			}
			go late(there, near, distance/2)
			go late(near, there, distance/2)
		}
	}()
	return "ldap://" + l.Addr().String()
}

// late hands on what comes, a while later, however much is on its way.
func late(to, from net.Conn, by time.Duration) {
	type parcel struct {
		bytes []byte
		due   time.Time
	}
	way := make(chan parcel, 1<<16)
	go func() {
		defer close(way)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if n > 0 {
				way <- parcel{b[:n], time.Now().Add(by)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range way {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.bytes); err != nil {
			break
		}
	}
	_, _ = to.Close(), from.Close()
}
