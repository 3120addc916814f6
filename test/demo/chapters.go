package demo

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
)

type story struct {
	*shell
	estate   *estate
	address  string
	agent    int // index in runs
	helpdesk *age.X25519Identity
	msp      *age.X25519Identity
	pin      string
	before   map[string]string
}

// stopDirectory ends slapd, if there is one.
func (d *story) stopDirectory() {
	if d.estate != nil && d.estate.corp != nil {
		d.estate.corp.server.Stop()
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (d *story) noc() (err error) {
	d.chapter(1, "The MSP starts a control plane and adds a client")
	d.say("One process, one folder, nothing else to install. --dev makes the root document on the\nspot and lets one person make and approve a plan; both are said loudly and not for real use.")
	if d.address, err = freePort(); err != nil {
		return err
	}
	if err := d.start("control-plane.log", "reeve-controlplane", "run", "--data", "noc", "--dev", "--listen", d.address); err != nil {
		return err
	}
	if err := d.until("the control plane answers", 20*time.Second, func() (bool, error) {
		var list struct{}
		err := d.ask(&list, "reeve", "tenant", "list")
		return err == nil, err
	}); err != nil {
		return err
	}
	if err := d.run("reeve", "tenant", "add", "fabrikam", "--owner", "it@fabrikam.example", "--zone", "Europe/Oslo"); err != nil {
		return err
	}
	d.say("The agent's join token goes into a file; the fingerprint it must pin travels another way.")
	if err := d.run("reeve", "agent", "invite", "fabrikam", "dc1", "--token-file", "dc1.token"); err != nil {
		return err
	}
	_, after, _ := strings.Cut(d.last.String(), "root_sha256:")
	d.pin = strings.Fields(after)[0]
	return nil
}

// join enrols an agent under its configuration and runs it.
func (d *story) join(name, config, token string) error {
	if err := d.run("reeve-agent", "join", "--config", config, "--token-file", token); err != nil {
		return err
	}
	return d.start(name+".log", "reeve-agent", "run", "--config", config)
}

func (d *story) client() (err error) {
	d.chapter(2, "The client's administrator installs the agent")
	if d.estate, err = makeEstate(filepath.Join(d.dir, "client")); err != nil {
		return err
	}
	if d.estate.corp, err = startDirectory(d.dir, d.estate); err != nil {
		return err
	}
	if d.estate.corp != nil {
		d.say("OpenLDAP is installed here, so Fabrikam has a directory too: slapd on %s.", d.estate.corp.server.TLSURL)
	}
	if d.helpdesk, err = age.GenerateX25519Identity(); err != nil {
		return err
	}
	if d.msp, err = age.GenerateX25519Identity(); err != nil {
		return err
	}
	d.say("Fabrikam has 250 people on a staff list (client/hr/staff.csv), a web server's htpasswd file\nand a file server's passwd files, all grown by hand. Its administrator writes agent.yaml: what\nmay leave, what may be changed, who is never touched. No key of the MSP can lift these limits.")
	if err := d.configure("adopt"); err != nil {
		return err
	}
	if d.before, err = d.targets(); err != nil {
		return err
	}
	if err := d.join("agent", "agent.yaml", "dc1.token"); err != nil {
		return err
	}
	d.agent = len(d.runs) - 1
	if err := d.until("the agent has observed everything", 60*time.Second, d.observed("fabrikam", d.connectors())); err != nil {
		return err
	}
	d.say("What the client sees: what is reachable, as whom, and what could and may be written.")
	return d.run("reeve-agent", "connector", "check", "--config", "agent.yaml")
}

// connectors is how many the client has.
func (d *story) connectors() int {
	if d.estate.corp != nil {
		return 4
	}
	return 3
}

func (d *story) configure(mode string) error {
	return os.WriteFile(filepath.Join(d.dir, "agent.yaml"),
		[]byte(d.estate.agentConfig(filepath.Join(d.dir, "agent-state"), d.address, d.pin, d.helpdesk.Recipient().String(), d.msp.Recipient().String(), mode)), 0o600)
}

func (d *story) adopt() error {
	d.chapter(3, "An existing estate is adopted: the first plan is nearly empty")
	d.say("Nothing a source says counts before its fingerprint was compared with the client.")
	if err := d.run("reeve", "source", "show", "fabrikam", "hr"); err != nil {
		return err
	}
	if err := d.confirm("fabrikam", "hr"); err != nil {
		return err
	}
	bind, err := d.policies()
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"policy", "test", "policy"}, {"policy", "apply", "policy"}, bind, {"inventory", "show", "fabrikam"}} {
		if err := d.run("reeve", args...); err != nil {
			return err
		}
	}
	d.say("The connectors are in mode adopt: what is there is taken over as it is, what is missing from\na group is added, nothing is created. 250 people, and two of them lacked a group.")
	if err := d.plan("fabrikam", ""); err != nil {
		return err
	}
	d.say("Now the client sets its targets to enforce, in its own file, and restarts its agent.")
	if err := d.configure("enforce"); err != nil {
		return err
	}
	if err := d.stop(d.runs[d.agent]); err != nil {
		return err
	}
	if err := d.start("agent.log", "reeve-agent", "run", "--config", "agent.yaml"); err != nil {
		return err
	}
	d.agent = len(d.runs) - 1
	return d.until("the connectors are in mode enforce", 30*time.Second, func() (bool, error) {
		var list struct {
			Connectors []struct{ State struct{ Mode, Alias string } }
		}
		if err := d.ask(&list, "reeve", "connector", "list", "fabrikam"); err != nil {
			return false, err
		}
		return slices.ContainsFunc(list.Connectors, func(c struct{ State struct{ Mode, Alias string } }) bool {
			return c.State.Alias == "unix" && c.State.Mode == "MODE_ENFORCE"
		}), nil
	})
}

func (d *story) joinerMoverLeaver() error {
	d.chapter(4, "A joiner, a mover and a leaver, from the client's own staff list")
	e := d.estate
	mover, leaver := 20, 40
	e.people = append(e.people, person{
		id: "2001", given: "Nora", family: "Ny", login: "nny", department: "Finance", title: "Controller", manager: "1001", start: "2020-01-01", status: "active",
	})
	e.people[mover].department = "Finance"
	e.people[leaver].end = time.Now().AddDate(0, 0, -1).Format("2006-01-02")
	if err := e.writeHR(); err != nil {
		return err
	}
	d.say("HR adds Nora Ny in finance, moves %s to finance, and gives %s yesterday as the last day.", e.people[mover].login, e.people[leaver].login)
	if err := d.observe("fabrikam"); err != nil {
		return err
	}
	if err := d.plan("fabrikam", "a joiner, a mover and a leaver"); err != nil {
		return err
	}
	d.say("Read from outside, in the files themselves:")
	for _, line := range []string{
		"grep -E '^(nny|" + e.people[leaver].login + "):' client/web/htpasswd", "grep finance client/web/groups | tail -c 60",
		"grep -E '^nny:' client/fileserver/etc/passwd",
	} {
		if err := d.look(line); err != nil {
			return err
		}
	}
	d.say("Nora's password was made by the agent and sealed to Fabrikam's help desk: the MSP never had it.")
	return nil
}

func (d *story) technician() error {
	d.chapter(5, "A technician's access that ends by itself")
	d.say("The MSP is a tenant too: its people come from its own staff list, through its own agent.")
	staff := filepath.Join(d.dir, "msp", "staff.csv")
	if err := os.MkdirAll(filepath.Dir(staff), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(staff, []byte("employee_id,login,display_name,email,end_date\nT-1,kari,Kari Vik,kari@msp.example,\nT-2,ola,Ola Moen,ola@msp.example,\n"), 0o644); err != nil {
		return err
	}
	config := fmt.Sprintf(`control_plane: %s
trust_domain: reeve.local
root_sha256: %s
state: %s
connectors:
  - alias: staff
    connector: flatfile
    role: source
    mode: observe
    settings: {format: csv, path: %q, key: employee_id}
    release: [employee_id, login, display_name, email, end_date]
`, d.address, d.pin, filepath.Join(d.dir, "msp-agent-state"), staff)
	if err := os.WriteFile(filepath.Join(d.dir, "msp-agent.yaml"), []byte(config), 0o600); err != nil {
		return err
	}
	if err := d.run("reeve", "agent", "invite", "msp", "noc1", "--token-file", "noc1.token"); err != nil {
		return err
	}
	if err := d.join("msp-agent", "msp-agent.yaml", "noc1.token"); err != nil {
		return err
	}
	if err := d.until("the MSP's staff list was observed", 30*time.Second, d.observed("msp", 1)); err != nil {
		return err
	}
	if err := d.confirm("msp", "staff"); err != nil {
		return err
	}
	bundle, err := filepath.Abs(filepath.Join("deploy", "policy", "msp-staff"))
	if err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Join(bundle, "msp-staff.yaml"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.dir, "msp", "policy.yaml"), content, 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"policy", "apply", "msp/policy.yaml"}, {"policy", "bind", "msp", "msp-staff"},
		{"grant", "add", "fabrikam", "--identity", "msp/kari", "--entitlement", "files/admins", "--for", "20s", "--reason", "restore a share", "--ticket", "T-1042"},
	} {
		if err := d.run("reeve", args...); err != nil {
			return err
		}
	}
	if err := d.plan("fabrikam", "a technician's account"); err != nil {
		return err
	}
	const admins = "grep files-admins client/fileserver/etc/group"
	if err := d.look(admins); err != nil {
		return err
	}
	d.say("The agent owes the removal from now on, control plane or not. So the control plane is stopped,\nand the agent keeps its word alone:")
	if err := d.stop(d.runs[0]); err != nil {
		return err
	}
	if err := d.until("the technician is out of the group", 90*time.Second, func() (bool, error) {
		content, err := os.ReadFile(filepath.Join(d.estate.etc(), "group"))
		return err == nil && !strings.Contains(string(content), "msp-kari"), err
	}); err != nil {
		return err
	}
	if err := d.look(admins); err != nil {
		return err
	}
	if err := d.start("control-plane.log", "reeve-controlplane", "run", "--data", "noc", "--dev", "--listen", d.address); err != nil {
		return err
	}
	d.runs[0], d.runs = d.runs[len(d.runs)-1], d.runs[:len(d.runs)-1]
	return d.until("the agent is back", 60*time.Second, func() (bool, error) {
		var list struct{ Agents []struct{ Connected bool } }
		err := d.ask(&list, "reeve", "agent", "list", "fabrikam")
		return err == nil && len(list.Agents) == 1 && list.Agents[0].Connected, err
	})
}

func (d *story) refused() error {
	d.chapter(6, "A plan that the client's guardrails refuse")
	d.say("An error in HR: the managing director is marked as gone. The client protected her account, so\nher agent refuses before anybody can approve.")
	d.estate.people[0].end = time.Now().AddDate(0, 0, -1).Format("2006-01-02")
	if err := d.estate.writeHR(); err != nil {
		return err
	}
	if err := d.observe("fabrikam"); err != nil {
		return err
	}
	p, err := d.make("fabrikam")
	if err != nil {
		return err
	}
	if p.Plan.Blocked == "" {
		return fmt.Errorf("plan %s would disable a protected person and is not blocked", p.Plan.ID)
	}
	if err := d.run("reeve", "plan", "show", p.Plan.ID); err != nil {
		return err
	}
	code, err := d.try("reeve", "plan", "approve", p.Plan.ID, "--yes")
	if err != nil {
		return err
	}
	if code == 0 {
		return fmt.Errorf("plan %s was approved although guardrails refuse it", p.Plan.ID)
	}
	fmt.Fprintf(d.out, "    (exit code %d)\n", code)
	d.say("HR corrects the line, and the next plan is without it.")
	d.estate.people[0].end = ""
	if err := d.estate.writeHR(); err != nil {
		return err
	}
	if err := d.observe("fabrikam"); err != nil {
		return err
	}
	if err := d.run("reeve", "plan", "reject", p.Plan.ID, "--reason", "error in HR"); err != nil {
		return err
	}
	return nil
}

func (d *story) explain() error {
	d.chapter(7, "Why does somebody have what they have?")
	return d.run("reeve", "identity", "explain", "fabrikam", "nny")
}
