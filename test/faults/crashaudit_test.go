package faults_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	"github.com/reevehq/reeve/test/rig"
)

// audit exports and verifies the log and holds it against the test's account:
// one receipt for each change that was asked for, and none besides; one
// admission, one sending and one end for each order; no connector without agent.
func (c *crash) audit() {
	c.t.Helper()
	shipped(c.t, c.r)
	list := c.r.Log()
	counts := map[auditv1.Type]map[string]int{}
	for _, e := range list {
		what := ""
		switch e.Header.GetType() {
		case auditv1.Type_TYPE_RECEIPT:
			what = rig.Story(e.Header)
		case auditv1.Type_TYPE_ORDER_SENT, auditv1.Type_TYPE_ORDER_ADMITTED, auditv1.Type_TYPE_ORDER_ENDED:
			what = e.Body.GetOrder().GetOrder()
		default:
			continue
		}
		if counts[e.Header.GetType()] == nil {
			counts[e.Header.GetType()] = map[string]int{}
		}
		counts[e.Header.GetType()][what]++
	}
	for kind, of := range counts {
		for what, n := range of {
			if n != 1 {
				c.t.Errorf("%s of %s stands %d times in the log", kind, what, n)
			}
		}
	}
	receipts := counts[auditv1.Type_TYPE_RECEIPT]
	for id, plan := range c.asked {
		if receipts[id] == 0 {
			c.t.Errorf("change %s of plan %s has no receipt in the log", id, plan)
		}
	}
	for id := range receipts {
		if c.asked[id] == "" {
			c.t.Errorf("the log has a receipt of change %s, which nobody asked for", id)
		}
	}
	sent := counts[auditv1.Type_TYPE_ORDER_SENT]
	for _, kind := range []auditv1.Type{auditv1.Type_TYPE_ORDER_ADMITTED, auditv1.Type_TYPE_ORDER_ENDED} {
		if !slices.Equal(slices.Sorted(maps.Keys(counts[kind])), slices.Sorted(maps.Keys(sent))) {
			c.t.Errorf("%d orders were sent and %d have %s", len(sent), len(counts[kind]), kind)
		}
	}
	// A disabled account opens with no password.
	c.r.Passwords(list, slices.DeleteFunc(c.e.People(), c.e.Suspended))
	rig.Until(c.t, "no connector runs without its agent", func() (bool, string) {
		orphans := c.orphans()
		return len(orphans) == 0, fmt.Sprint(orphans)
	})
	c.f.with(func() { c.f.audits++; c.f.records = max(c.f.records, len(list)) })
}

// orphans are connectors of this estate whose agent is gone.
func (c *crash) orphans() (list []int) {
	known := rig.Descendants(c.r.Agent.PID())
	found, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, file := range found {
		raw, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(raw), "PLUGIN_UNIX_SOCKET_DIR="+c.r.State+"/") {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/environ", &pid); err == nil && !slices.Contains(known, pid) && rig.Alive(pid) {
			list = append(list, pid)
		}
	}
	return list
}
