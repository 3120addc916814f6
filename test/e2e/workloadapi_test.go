package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/root"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid/fakeworkloadapi"
	"github.com/reevehq/reeve/test/sources"
)

// TestWorkloadAPI: both sides take their certificates from a SPIFFE Workload API
// that rotates every two seconds, from a CA that is not the control plane's own. A
// plan goes through, the session outlives the rotations, and no record is lost.
//
// Joining is as always: the token says which tenant's agent this is, and the root
// document, which has to name the other CA's root, whom to believe. From then on
// the agent's own CA-issued certificate is not used.
func TestWorkloadAPI(t *testing.T) {
	sources.Look(t, "../..")
	s := newTestStage(t)
	spire, err := ca.New(ca.Config{TrustDomain: domain})
	check(t, err)
	fakes := map[string]*fakeworkloadapi.Server{}
	for name, id := range map[string]spiffe.ID{
		"noc": spiffe.ControlPlaneID{TrustDomain: domain}, "dc1": spiffe.AgentID{TrustDomain: domain, Tenant: "fabrikam", Agent: "dc1"},
	} {
		fakes[name], err = fakeworkloadapi.Start(fakeworkloadapi.Config{Socket: filepath.Join(s.dir, name+".sock"), CA: spire, ID: id, TTL: time.Minute, Every: 2 * time.Second})
		check(t, err)
		t.Cleanup(fakes[name].Close)
	}

	// The root document names the roots of both CAs.
	var request root.Request
	check(t, json.Unmarshal([]byte(s.must(t, "reeve-controlplane", "root-request", "--data", "reeve-data")), &request))
	request.CARoots = append(request.CARoots, spire.BundlePEM()...)
	text, err := json.Marshal(request)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(s.dir, "request.json"), text, 0o600))
	s.must(t, "reeve", "root", "init", "--request", "request.json", "--key-dir", "root-keys", "--out", "reeve-data/root/1.json")

	address, err := freeAddress()
	check(t, err)
	pin, err := s.controlPlane(address, "--solo", "--svid-source", "workload-api", "--workload-api", fakes["noc"].Addr())
	check(t, err)
	s.must(t, "reeve", "tenant", "add", "fabrikam", "--owner", "it@fabrikam.example", "--zone", "Europe/Oslo")
	s.fill(t, "agent.yaml", map[string]string{"ADDRESS": address, "PIN": pin})
	config, err := os.ReadFile(filepath.Join(s.dir, "agent.yaml"))
	check(t, err)
	config = append([]byte("svid_source: workload-api\nworkload_api: "+fakes["dc1"].Addr()+"\n"), config...)
	check(t, os.WriteFile(filepath.Join(s.dir, "agent.yaml"), config, 0o600))
	check(t, s.join("fabrikam", "dc1", "agent.yaml", 3))
	check(t, s.confirm("fabrikam", "hr"))
	policies, err := filepath.Abs("../../deploy/policy")
	check(t, err)
	s.must(t, "reeve", "policy", "apply", policies)
	s.must(t, "reeve", "policy", "bind", "fabrikam", "baseline", "-p", "site=oslo")

	type status struct {
		Connected bool   `json:"connected"`
		Records   uint64 `json:"records"`
		Spooled   uint64 `json:"spooled"`
	}
	rotated := func(n int) error {
		began := fakes["dc1"].Rotations()
		return until(fmt.Sprintf("certificates rotated %d times", n), func() (bool, error) {
			return fakes["dc1"].Rotations() >= began+n, nil
		})
	}
	// A plan, rotations, and another plan: what the first one settled is there,
	// and the session that carries the second has moved several times.
	for round, want := range []string{"fquist", "gholm"} {
		if round == 1 {
			staff := filepath.Join(s.dir, "hr", "staff.csv")
			text, err := os.ReadFile(staff)
			check(t, err)
			check(t, os.WriteFile(staff, append(text, "1007,Gro,Holm,gholm@fabrikam.example,gholm,Sales,Staff,1001,2019-08-01,,active\n"...), 0o644))
			check(t, s.observe("fabrikam"))
		}
		p, err := s.plan("fabrikam")
		check(t, err)
		s.must(t, "reeve", "plan", "approve", p.Plan.ID, "--yes")
		check(t, rotated(1))
		if out := s.must(t, "reeve", "plan", "watch", p.Plan.ID); !strings.Contains(out, "everything was applied") {
			t.Fatalf("plan %d: %s", round, out)
		}
		content, err := os.ReadFile(filepath.Join(s.dir, "web", "htpasswd"))
		check(t, err)
		if !strings.Contains(string(content), "\n"+want+":") {
			t.Fatalf("%s has no account:\n%s", want, content)
		}
		check(t, rotated(3))
	}
	var now status
	check(t, until("every record is proven in the log", func() (bool, error) {
		err := s.ask(&now, "reeve-agent", "status", "--config", "agent.yaml")
		return err == nil && now.Connected && now.Spooled == 0, fmt.Errorf("%+v, %w", now, err)
	}))
	log, err := os.ReadFile(filepath.Join(s.dir, "dc1.log"))
	check(t, err)
	// The very first dial may come before the first certificate.
	_, after, opened := strings.Cut(string(log), `msg="session open"`)
	if n := strings.Count(after, `msg="session moved to a new connection"`); !opened || n < 4 {
		t.Errorf("the session moved %d times; it did not follow the rotations", n)
	}
	if strings.Contains(after, "no session with the control plane") {
		t.Errorf("a rotation broke the session")
	}
	s.must(t, "reeve", "audit", "export", "fabrikam", "--out", "fabrikam.reevelog")
	var report struct {
		Sound        bool   `json:"sound"`
		AgentRecords uint64 `json:"agentRecords"`
	}
	check(t, s.ask(&report, "reeve", "audit", "verify", "--export", "fabrikam.reevelog", "--root-sha256", pin, "--checkpoint", "agent-state/checkpoints/latest"))
	if !report.Sound || report.AgentRecords != now.Records {
		t.Errorf("the log has %d records of the agent's %d, sound: %v", report.AgentRecords, now.Records, report.Sound)
	}
}
