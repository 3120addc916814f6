package faults_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/rig"
)

// count has every process of one undisturbed plan traced, and again with agent
// and control plane started while it waits: where they can be killed.
func (c *crash) count() {
	c.t.Helper()
	read := func(victim string, logs ...string) {
		var list []call
		for _, log := range logs {
			more, err := calls(log)
			if err != nil {
				c.t.Fatal(err)
			}
			list = append(list, more...)
		}
		w := &walk{}
		for name, n := range most(list) {
			// Reading its own program takes a process a thousand calls.
			for i := 0; i < n; i += 1 + n/200 {
				w.all = append(w.all, point{name, i + 1})
			}
		}
		if len(w.all) == 0 {
			c.t.Fatalf("strace saw no calls of %s", victim)
		}
		slices.SortFunc(w.all, func(a, b point) int { return strings.Compare(a.call, b.call)*1000 + a.n - b.n })
		c.walks[victim] = w
	}
	touched, made := c.change()
	c.round++
	p := c.plan()
	w := watchEffects(c.t, c.e, c.server)
	logs := map[string][]string{}
	var tracers []*tracer
	for victim, pids := range map[string][]int{agentAlone: {c.r.Agent.PID()}, connector: c.connectors(), controlPlane: {c.r.ControlPlane.PID()}} {
		for _, pid := range pids {
			log := filepath.Join(c.r.Dir, fmt.Sprintf("count%d.log", len(tracers)))
			logs[victim] = append(logs[victim], log)
			tracers = append(tracers, attach(c.t, log, "", pid))
		}
	}
	c.r.Approve(p)
	c.r.Ended(p.GetId())
	for _, tr := range tracers {
		tr.detach()
	}
	c.finish(p)
	w.once(touched, made)
	for v, list := range logs {
		read(v, list...)
	}
	c.walks[agentAndAll] = &walk{all: c.walks[agentAlone].all}

	for _, v := range []string{agentStarting, controlStarting} {
		touched, made = c.change()
		c.round++
		p = c.plan()
		w = watchEffects(c.t, c.e, c.server)
		process := c.r.Agent
		if v == controlStarting {
			process = c.r.ControlPlane
		}
		process.Stop()
		if v == agentStarting {
			c.r.Approve(p)
		}
		process.StartUnder("strace", traceArgs(c.log, "")...)
		if v == controlStarting {
			c.approveWhenUp(p)
		}
		c.r.Ended(p.GetId())
		process.KillTree()
		read(v, c.log)
		if v == controlStarting {
			c.r.StartControlPlane()
			c.r.Connected()
		} else {
			process.Start()
		}
		c.finish(p)
		w.once(touched, made)
	}
	c.round += c.round % 2
}

// calm measures how long it takes when nothing breaks, untraced: from a start to
// the end of a plan that waits, to a session, and with no start at all.
func (c *crash) calm() {
	c.t.Helper()
	for range 2 {
		touched, made := c.change()
		c.round++
		p := c.plan()
		w := watchEffects(c.t, c.e, c.server)
		c.r.Agent.Stop()
		c.r.Approve(p)
		began := time.Now()
		c.r.Agent.Start()
		c.finish(p)
		c.quiet("agent", began)
		w.once(touched, made)
		began = time.Now()
		c.r.ControlPlane.Stop()
		c.r.StartControlPlane()
		c.r.Connected()
		c.quiet("control plane", began)
		c.r.Agent.Stop()
		c.r.Agent.Start()
		c.r.Connected()
		touched, made = c.change()
		c.round++
		p = c.plan()
		w = watchEffects(c.t, c.e, c.server)
		began = time.Now()
		c.r.Approve(p)
		c.finish(p)
		c.quiet("nothing restarted", began)
		w.once(touched, made)
	}
	c.round += c.round % 2
}

func (c *crash) quiet(what string, began time.Time) {
	d := time.Since(began)
	c.f.with(func() { c.f.quiet[what] = append(c.f.quiet[what], d) })
}

func (c *crash) approveWhenUp(p *operatorv1.Plan) {
	c.t.Helper()
	rig.Until(c.t, "the control plane takes the approval", func() (bool, string) {
		got := c.r.TryApprove(p)
		return got.Code == 0, got.Stderr
	})
}
