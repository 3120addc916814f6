package roundtrip

import (
	"encoding/json"
	"errors"
)

type finding struct{ Kind, Connector, Object, Identity, Sentence string }

type plan struct {
	ID    string `json:"id"`
	State struct {
		Phase                                                        string
		Total, Applied, Already, Conflicts, Skipped, Refused, Failed int
	}
	Blocked    string
	DryRunDone bool
	Findings   []finding
	Rehearsal  struct{ Verdict string }
}

// made waits until the guardrails were asked about a plan.
func (h *house) made(id string) plan {
	h.t.Helper()
	var shown struct{ Plan plan }
	h.until("the guardrails were asked", func() error {
		err := h.ask(&shown, "plan", "show", id)
		if err == nil && !shown.Plan.DryRunDone && shown.Plan.State.Total > 0 {
			err = errors.New("not yet")
		}
		return err
	})
	return shown.Plan
}

func (h *house) makePlan() plan {
	h.t.Helper()
	var made struct{ Plan plan }
	if err := h.ask(&made, "plan", "make", tenant); err != nil {
		h.t.Fatal(err)
	}
	return made.Plan
}

// carryOut approves a plan and follows it to its end.
func (h *house) carryOut(id string) plan {
	h.t.Helper()
	if p := h.made(id); p.Blocked != "" {
		h.t.Fatalf("plan %s is blocked: %s\n%s", id, p.Blocked, h.run("reeve", "plan", "show", id))
	}
	h.run("reeve", "plan", "approve", id, "--yes")
	out, err := h.try("reeve", "plan", "watch", id)
	p := h.made(id)
	if err != nil {
		h.t.Errorf("plan %s: %v\n%s", id, err, tail(out, 3000))
		for _, line := range h.failures(id) {
			h.t.Errorf("  %s", line)
		}
	}
	return p
}

// changeList is what `plan show --changes` answers.
type changeList struct {
	Changes []struct {
		Change struct {
			ID        string `json:"id"`
			Display   string
			Operation map[string]json.RawMessage
		}
		Receipt *struct {
			Result  string
			Problem json.RawMessage
		}
		Sentence string
	}
}

func (h *house) changesOf(id string) changeList {
	h.t.Helper()
	var list changeList
	if err := h.ask(&list, "plan", "show", id, "--changes"); err != nil {
		h.t.Fatal(err)
	}
	return list
}

func (h *house) failures(id string) []string {
	var out []string
	for _, c := range h.changesOf(id).Changes {
		if c.Receipt == nil || c.Receipt.Result != "RESULT_APPLIED" {
			what := "no receipt"
			if c.Receipt != nil {
				what = c.Receipt.Result + " " + string(c.Receipt.Problem)
			}
			out = append(out, c.Sentence+": "+what)
		}
		if len(out) == 20 {
			break
		}
	}
	return out
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// nothingToDo makes a plan and expects no change in it.
func (h *house) nothingToDo() plan {
	h.t.Helper()
	p := h.makePlan()
	if p.State.Total != 0 {
		h.t.Errorf("planning again finds %d changes:", p.State.Total)
		for i, c := range h.changesOf(p.ID).Changes {
			if i == 20 {
				break
			}
			operation, _ := json.Marshal(c.Change.Operation)
			h.t.Errorf("  %s %s", c.Sentence, tail(string(operation), 400))
		}
	}
	return p
}

// offboard takes everything back and returns the residue that is told.
func (h *house) offboard() []finding {
	h.t.Helper()
	var begun struct{ Plan plan }
	if err := h.ask(&begun, "tenant", "offboard", tenant, "--reason", "contract ended"); err != nil {
		h.t.Fatal(err)
	}
	if begun.Plan.State.Total > 0 {
		h.carryOut(begun.Plan.ID)
	}
	h.observe()
	var ended struct {
		Residue  []finding
		Finished bool
	}
	if err := h.ask(&ended, "tenant", "offboard", tenant, "--finish"); err != nil {
		h.t.Fatal(err)
	}
	if !ended.Finished {
		h.t.Error("the offboarding did not finish")
	}
	return ended.Residue
}
