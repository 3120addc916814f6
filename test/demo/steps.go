package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// observed waits until every connector of a tenant has a snapshot.
func (d *story) observed(tenant string, connectors int) func() (bool, error) {
	return func() (bool, error) {
		var list struct {
			Connectors []struct {
				FingerprintSha256 string
				Snapshot          *struct{ Snapshot string }
			}
		}
		if err := d.ask(&list, "reeve", "connector", "list", tenant); err != nil {
			return false, err
		}
		seen := 0
		for _, c := range list.Connectors {
			if c.Snapshot != nil && c.FingerprintSha256 != "" {
				seen++
			}
		}
		return seen == connectors, fmt.Errorf("%d of %d connectors observed", seen, connectors)
	}
}

// targets reads the client's files as they are.
func (d *story) targets() (map[string]string, error) {
	files := map[string]string{}
	for _, path := range []string{d.estate.web(), d.estate.groups(), filepath.Join(d.estate.etc(), "passwd"), filepath.Join(d.estate.etc(), "shadow"), filepath.Join(d.estate.etc(), "group")} {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files[path] = string(content)
	}
	return files, nil
}

// policies copies the example bundle beside the demo, as an operator would, and
// says how to bind it.
func (d *story) policies() (bind []string, err error) {
	from, bind := filepath.Join("deploy", "policy", "baseline.yaml"), []string{"policy", "bind", "fabrikam", "baseline", "-p", "site=oslo"}
	files := []string{from}
	if d.estate.corp != nil {
		bind = []string{"policy", "bind", "fabrikam", "with-ldap", "-p", "site=oslo", "-p", "people_base=" + people, "-p", "groups_base=" + groups}
		if files, err = filepath.Glob(filepath.Join("deploy", "policy", "with-ldap", "*.yaml")); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Join(d.dir, "policy"), 0o755); err != nil {
		return nil, err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("run the demo from the top of the repository: %w", err)
		}
		if err := os.WriteFile(filepath.Join(d.dir, "policy", filepath.Base(file)), content, 0o644); err != nil {
			return nil, err
		}
	}
	return bind, nil
}

func (d *story) confirm(tenant, source string) error {
	var list struct {
		Connectors []struct {
			State             struct{ Alias string }
			FingerprintSha256 string
		}
	}
	if err := d.ask(&list, "reeve", "connector", "list", tenant); err != nil {
		return err
	}
	for _, c := range list.Connectors {
		if c.State.Alias == source {
			return d.run("reeve", "source", "confirm", tenant, source, "--fingerprint", c.FingerprintSha256)
		}
	}
	return fmt.Errorf("tenant %s has no source %s", tenant, source)
}

// snapshots tells the current snapshot of every connector.
func (d *story) snapshots(tenant string) (map[string]string, error) {
	var list struct {
		Connectors []struct {
			State    struct{ Alias string }
			Snapshot struct{ Snapshot string }
		}
	}
	err := d.ask(&list, "reeve", "connector", "list", tenant)
	current := map[string]string{}
	for _, c := range list.Connectors {
		current[c.State.Alias] = c.Snapshot.Snapshot
	}
	return current, err
}

// observe asks for fresh snapshots and waits until each has come.
func (d *story) observe(tenant string) error {
	old, err := d.snapshots(tenant)
	if err != nil {
		return err
	}
	if err := d.run("reeve", "observe", tenant); err != nil {
		return err
	}
	return d.until("every connector was observed again", 60*time.Second, func() (bool, error) {
		current, err := d.snapshots(tenant)
		if err != nil {
			return false, err
		}
		for alias, id := range current {
			if id == old[alias] {
				return false, fmt.Errorf("%s not yet", alias)
			}
		}
		return true, nil
	})
}

type shownPlan struct {
	Plan struct {
		ID      string `json:"id"`
		Digest  string
		Blocked string
		State   struct {
			Phase string
			Total int
		}
		DryRunDone bool
	}
}

// make makes a plan and waits until the agents' guardrails were asked.
func (d *story) make(tenant string, args ...string) (shownPlan, error) {
	var p shownPlan
	d.typed("reeve", append([]string{"plan", "make", tenant}, args...)...)
	if err := d.ask(&p, "reeve", append([]string{"plan", "make", tenant}, args...)...); err != nil {
		return p, err
	}
	id := p.Plan.ID
	return p, d.until("the guardrails were asked", 30*time.Second, func() (bool, error) {
		err := d.ask(&p, "reeve", "plan", "show", id)
		return err == nil && (p.Plan.DryRunDone || p.Plan.State.Total == 0), err
	})
}

// plan makes a plan, shows it, approves it and watches it to its end.
func (d *story) plan(tenant, want string) error {
	p, err := d.make(tenant)
	if err != nil {
		return err
	}
	if err := d.run("reeve", "plan", "show", p.Plan.ID); err != nil {
		return err
	}
	if p.Plan.State.Total == 0 {
		return fmt.Errorf("plan %s is empty; %s was expected", p.Plan.ID, want)
	}
	return d.carryOut(p.Plan.ID)
}

func (d *story) carryOut(plan string) error {
	if err := d.run("reeve", "plan", "approve", plan, "--yes"); err != nil {
		return err
	}
	return d.run("reeve", "plan", "watch", plan)
}
