package demo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func (d *story) offboard() error {
	d.chapter(8, "The client leaves: the same path, backward")
	d.say("In the meantime somebody at Fabrikam edits by hand, outside of Reeve. That is theirs to keep.")
	f, err := os.OpenFile(d.estate.groups(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString("printers: anna\n"); err != nil {
		return err
	}
	f.Close()
	if err := d.observe("fabrikam"); err != nil {
		return err
	}
	if err := d.run("reeve", "tenant", "offboard", "fabrikam", "--reason", "contract ended"); err != nil {
		return err
	}
	var list struct {
		Plans []struct {
			ID    string `json:"id"`
			State struct{ Total int }
		}
	}
	if err := d.ask(&list, "reeve", "plan", "list", "fabrikam"); err != nil {
		return err
	}
	plan := list.Plans[0].ID
	if err := d.until("the guardrails were asked", 30*time.Second, func() (bool, error) {
		var p shownPlan
		err := d.ask(&p, "reeve", "plan", "show", plan)
		return err == nil && p.Plan.DryRunDone, err
	}); err != nil {
		return err
	}
	if list.Plans[0].State.Total > 0 {
		if err := d.carryOut(plan); err != nil {
			return err
		}
	}
	if err := d.observe("fabrikam"); err != nil {
		return err
	}
	if err := d.run("reeve", "tenant", "offboard", "fabrikam", "--finish"); err != nil {
		return err
	}
	d.say("What is left, file by file, against the day before onboarding:")
	return d.differences()
}

// differences shows what is not as it was, and fails when anything of the MSP's
// is among it.
func (d *story) differences() error {
	now, err := d.targets()
	if err != nil {
		return err
	}
	for path, content := range now {
		if strings.Contains(content, "msp-") {
			return fmt.Errorf("%s still holds an account of the MSP", path)
		}
	}
	before := filepath.Join(d.dir, "before")
	if d.estate.corp != nil {
		if err := d.directoryDifferences(before); err != nil {
			return err
		}
	}
	for path, content := range d.before {
		rel, err := filepath.Rel(d.estate.dir, path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(before, rel)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(before, rel), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return d.look("diff -r --brief before client | grep -v hr; diff before/web/htpasswd client/web/htpasswd; diff before/fileserver/etc/passwd client/fileserver/etc/passwd; test ! -e before/corp.ldif || diff before/corp.ldif client/corp.ldif | grep -vE 'CSN|odif|entryUUID|creat'; true")
}

// directoryDifferences keeps slapcat's view of the directory, before and after.
func (d *story) directoryDifferences(before string) error {
	after, err := d.estate.corp.server.Dump()
	if err != nil {
		return err
	}
	if strings.Contains(string(after), "msp-") {
		return errors.New("the directory still holds an account of the MSP")
	}
	if err := os.MkdirAll(before, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(before, "corp.ldif"), d.estate.corp.before, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.estate.dir, "corp.ldif"), after, 0o644)
}

func (d *story) proof() error {
	d.chapter(9, "What happened, proven without asking the MSP")
	if err := d.run("reeve", "audit", "export", "fabrikam", "--out", "fabrikam.reevelog"); err != nil {
		return err
	}
	args := []string{"audit", "verify", "--export", "fabrikam.reevelog", "--root-sha256", d.pin}
	if latest := filepath.Join("agent-state", "checkpoints", "latest"); exists(filepath.Join(d.dir, latest)) {
		args = append(args, "--checkpoint", latest)
	}
	if err := d.run("reeve", args...); err != nil {
		return err
	}
	d.say("Look at:\n  %s\n  %s\n  %s\n  %s",
		filepath.Join(d.dir, "agent.yaml")+"            the client's limits",
		filepath.Join(d.dir, "client")+"                its files, as they are now",
		filepath.Join(d.dir, "fabrikam.reevelog")+"     the whole history, verifiable offline",
		filepath.Join(d.dir, "noc")+"                   the control plane's folder")
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// look runs a shell line over the client's files: outside of Reeve.
func (d *story) look(line string) error {
	fmt.Fprintf(d.out, "\n  $ %s\n", line)
	cmd := d.command("sh", "-c", line)
	cmd.Path = "/bin/sh"
	w := &indent{w: d.out}
	cmd.Stdout, cmd.Stderr = w, w
	return cmd.Run()
}
