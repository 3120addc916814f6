package cli

import (
	"fmt"
	"strings"
	"time"
)

// text is a result that can put itself into words.
type text interface{ print(p *printer) }

func (j *Joined) print(p *printer) {
	if j.Again {
		p.line("This agent has joined before, as %s; nothing was changed.", j.ID)
	} else {
		p.line("Joined as %s", styled(p.bold(j.ID)))
	}
	p.line("  state        %s", j.State)
	p.line("  log          %s", j.LogOrigin)
	p.line("  witness key  %s", j.WitnessKey)
	p.line("  root         version %d", j.RootVersion)
	p.line("  certificate  until %s; the running agent renews it", when(j.SVIDNotAfter))
	p.line("Next: reeve-agent connector check, then reeve-agent run")
}

func (v *Validated) print(p *printer) {
	p.line("%s is valid: %d connectors (%s)", v.Path, len(v.Connectors), strings.Join(v.Connectors, ", "))
	p.line("guardrails %s", v.GuardrailsDigest)
	for _, w := range v.Warnings {
		p.line("%s %s", styled(p.bad("warning:")), w)
	}
}

func (c *Checked) print(p *printer) {
	for i := range c.Connectors {
		if i > 0 {
			p.line("")
		}
		c.Connectors[i].print(p)
	}
}

func (c *CheckedConnector) print(p *printer) {
	p.line("%s  %s %s, %s, %s", styled(p.bold(c.Alias)), c.Connector, c.Version, c.Role, c.Mode)
	reachable := p.good("yes")
	if !c.Reachable {
		reachable = p.bad("no")
	}
	p.line("  reachable  %s", styled(reachable))
	p.line("  server     %s", dash(c.Server))
	p.line("  bound as   %s", dash(c.BoundAs))
	for _, f := range c.Fingerprint {
		p.line("  fingerprint  %s: %s", f.Name, f.Value)
	}
	for _, r := range c.Rights {
		word, sure := "may not", ""
		if r.Allowed {
			word = "may"
		}
		if !r.Certain {
			sure = " (as far as can be told without changing anything)"
		}
		p.line("  the directory: %s %s in %s%s", word, r.What, dash(r.Where), sure)
	}
	for _, t := range c.Types {
		p.line("  %s (%s)", t.Type, t.Kind)
		p.line("    the connector can   %s", words(t.Can, "only read"))
		p.line("    guardrails let it   %s", words(t.May, "change nothing"))
		if len(t.Withheld) > 0 {
			p.line("    stays in the network: %s", strings.Join(t.Withheld, ", "))
		}
	}
	p.line("  leaves the network: %s", words(c.Release, "no attribute values"))
	printProblems(p, "  ", c.Problems)
}

func printProblems(p *printer, indent string, problems []Problem) {
	for _, q := range problems {
		p.line("%s%s %s: %s", styled(indent), styled(p.bad(q.Code)), dash(q.Object), q.Tried)
		if q.Said != "" {
			p.line("%s  it said: %s", styled(indent), q.Said)
		}
		if q.Remedy != "" {
			p.line("%s  to do: %s", styled(indent), q.Remedy)
		}
	}
}

func (l *ConnectorList) print(p *printer) {
	rows := make([][]string, len(l.Connectors))
	for i, c := range l.Connectors {
		rows[i] = []string{c.Name, c.Version, strings.Join(c.Types, ", ")}
	}
	p.table([]string{"CONNECTOR", "VERSION", "TYPES"}, rows)
}

func (e *Explained) print(p *printer) {
	for _, c := range e.Connectors {
		p.line("%s", styled(p.bold(c.Alias)))
		for _, l := range c.Lines {
			p.line("  %s", l)
		}
	}
	p.line("guardrails %s", e.Digest)
}

func (s *Status) print(p *printer) {
	running := p.bad("not running")
	switch {
	case s.Connected:
		running = p.good("running, connected")
	case s.Running:
		running = p.bad("running, not connected")
	}
	p.line("%s epoch %d  %s", styled(p.bold(dash(s.ID))), s.Epoch, styled(running))
	if s.Paused {
		p.line("%s no order runs until `reeve-agent resume`; timed removals go on", styled(p.bad("paused:")))
	}
	if s.Quarantined != "" {
		p.line("%s %s; run `reeve-agent recover` as root", styled(p.bad("quarantined:")), s.Quarantined)
	}
	if s.Fork != "" {
		p.line("%s %s", styled(p.bad("FORKED LOG:")), s.Fork)
	}
	p.line("orders up to %d, %d records (%d not yet proven in the log), %d timed removals owed, root document %d, checkpoint of %d entries",
		s.Sequence, s.Records, s.Spooled, s.Obligations, s.RootVersion, s.Checkpoint)
	rows := make([][]string, len(s.Connectors))
	for i, c := range s.Connectors {
		state := "down"
		if c.Reachable {
			state = "up"
		}
		rows[i] = []string{c.Alias, c.Connector, c.Role, c.Mode, state, when(c.LastWork), when(c.LastObserved)}
	}
	if len(rows) > 0 {
		p.table([]string{"ALIAS", "CONNECTOR", "ROLE", "MODE", "STATE", "LAST WORK", "LAST OBSERVED"}, rows)
	}
	for _, c := range s.Connectors {
		printProblems(p, c.Alias+": ", c.Problems)
	}
}

func (a *Acknowledged) print(p *printer) { p.line("%s: %s", styled(p.bold(a.Act)), a.Detail) }

func (l *Left) print(p *printer) {
	undone := "undone"
	if l.DryRun {
		undone = "would undo"
	}
	for _, group := range []struct {
		word  string
		lines []string
	}{{undone, l.Undone}, {"left to the client", l.Kept}, {"stays behind", l.Residue}, {"could not be undone", l.Failed}} {
		p.line("%s: %d", group.word, len(group.lines))
		for _, line := range group.lines {
			p.line("  %s", line)
		}
	}
}

func (r RecordLine) print(p *printer) {
	p.line("%d/%d  %s  %s  %s", r.Epoch, r.Index, when(r.At), styled(p.bold(r.Type)), r.Summary)
}

func (r *Reviewed) print(p *printer) {
	p.line("plan %s", styled(p.bold(dash(r.Plan))))
	p.line("digest %s", r.Digest)
	p.line("guardrails %s", r.Guardrails)
	for _, c := range r.Changes {
		p.line("%s  %s: %s %s %s", c.ID, c.Connector, c.Operation, c.Object, c.Detail)
		if c.Claimed != "" && c.Claimed != c.Object {
			p.line("    the plan calls it %s", c.Claimed)
		}
		if c.EndsAt != "" {
			p.line("    ends by itself at %s", c.EndsAt)
		}
		p.line("    because %s (%s)", dash(c.Reason), c.Cause)
		if c.Problem != "" {
			p.line("    %s", styled(p.bad(c.Problem)))
		}
	}
	for _, f := range r.Refusals {
		p.line("%s %s %s: %s", styled(p.bad(f.Code)), dash(f.Change), f.Rule, f.Sentence)
	}
	if len(r.Refusals) == 0 {
		p.line("%s", styled(p.good("The guardrails let every change pass.")))
	}
}

func (l *OrderList) print(p *printer) {
	rows := make([][]string, len(l.Orders))
	for i, o := range l.Orders {
		rows[i] = []string{o.Order, o.Plan, fmt.Sprint(o.Sequence), o.State, fmt.Sprintf("%d/%d", o.Done, o.Total)}
	}
	p.table([]string{"ORDER", "PLAN", "SEQUENCE", "STATE", "DONE"}, rows)
}

func (v *Version) print(p *printer) { p.line("reeve-agent %s (%s, %s)", v.Version, v.Go, v.Platform) }

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func words(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}
