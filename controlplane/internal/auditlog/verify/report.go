package verify

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Code classifies findings, for scripts.
type Code string

const (
	// CodeExport: the file itself is cut, mixed up or holds what this version
	// does not know.
	CodeExport Code = "EXPORT"
	// CodeRoot: the root documents do not lead from the pin.
	CodeRoot Code = "ROOT"
	// CodeCheckpoint: the final checkpoint is not the log's, or not of these
	// entries.
	CodeCheckpoint Code = "CHECKPOINT"
	// CodeHistory: the log does not continue the saved checkpoint.
	CodeHistory Code = "HISTORY"
	// CodeEntry: an entry is not what it must be.
	CodeEntry Code = "ENTRY"
	// CodeBody: a body is not what was hashed, or missing without an erasure.
	CodeBody Code = "BODY"
	// CodeKeys: the history of an agent's keys does not hold together.
	CodeKeys Code = "KEYS"
	// CodeChain: an agent's chain is broken, forged or incomplete.
	CodeChain Code = "CHAIN"
)

// Finding is one thing that does not hold.
type Finding struct {
	Code Code
	// Entry is the index of the log entry it is about, -1 for none.
	Entry int64
	// Sentence names the entry, agent or document and says what is wrong.
	Sentence string
}

// Epoch is what was found of one agent's epoch.
type Epoch struct {
	Agent string
	Epoch uint64
	// Records that are proven by their chain.
	Records uint64
	// Ended says why the keys ended; empty while they count.
	Ended string
}

// Report is the outcome. Without findings the export is sound.
type Report struct {
	TrustDomain, Tenant, Origin string
	RootVersion                 uint64
	// Made is when the export says that it was made.
	Made time.Time
	// Entries in the log, of which Records come from agents.
	Entries, Records uint64
	// Saved is the size of the saved checkpoint; HasSaved is false when none was
	// given, and then nothing says that the log is the one seen earlier.
	Saved    uint64
	HasSaved bool
	// Erased counts bodies that were erased, each by a record.
	Erased uint64
	// Epochs sorted by agent and epoch.
	Epochs []Epoch
	// Cosigned are the agents that witnessed the export's own checkpoint, sorted.
	// An agent cosigns after the fact, so a fresh checkpoint may have none.
	Cosigned []string
	// Checkpoint is the export's own, to be saved in place of the old one.
	Checkpoint string
	Findings   []Finding
	// More counts findings beyond the first ones.
	More int
}

// maxFindings is how many findings are kept: a rewritten log has one an entry.
const maxFindings = 100

// Sound reports whether nothing was found.
func (r *Report) Sound() bool { return len(r.Findings) == 0 }

func (r *Report) find(code Code, entry int64, format string, args ...any) {
	if len(r.Findings) >= maxFindings {
		r.More++
		return
	}
	r.Findings = append(r.Findings, Finding{code, entry, fmt.Sprintf(format, args...)})
}

// Print writes the report for people. All text in it is safe on a terminal.
func (r *Report) Print(w io.Writer) error {
	p := &printer{w: w}
	p.line("log %s, exported %s", clean(r.Origin), r.Made.UTC().Format(time.RFC3339))
	p.line("%d entries, %d of them from agents, %d erased", r.Entries, r.Records, r.Erased)
	for _, e := range r.Epochs {
		state := "in use"
		if e.Ended != "" {
			state = "ended: " + clean(e.Ended)
		}
		p.line("agent %s, epoch %d: %d records, keys %s", e.Agent, e.Epoch, e.Records, state)
	}
	if r.HasSaved {
		p.line("compared with the saved checkpoint over %d entries", r.Saved)
	} else {
		p.line("no saved checkpoint was given: nothing shows that this is the log you saw before")
	}
	if len(r.Cosigned) > 0 {
		p.line("the checkpoint was witnessed by %s", strings.Join(r.Cosigned, ", "))
	}
	for _, f := range r.Findings {
		p.line("%s: %s", f.Code, f.Sentence)
	}
	if r.More > 0 {
		p.line("and %d more", r.More)
	}
	if r.Sound() {
		p.line("sound")
	} else {
		p.line("NOT SOUND")
	}
	return p.err
}

type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// clean makes text from the export fit for a terminal.
func clean(s string) string {
	q := fmt.Sprintf("%+q", s)
	return q[1 : len(q)-1]
}
