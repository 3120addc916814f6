package executor

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/secrets"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

var (
	// ErrPaused means that local root has paused orders or left, or that the
	// journal is in quarantine; the order stays open. What had been sent is read
	// back and settled all the same, so that timed access is known to be there.
	ErrPaused = errors.New("orders are paused; run `reeve-agent resume`")
	// ErrUnreachable means that a directory could not be read for as long as the
	// executor tries; the order stays open and goes on with the next Run.
	ErrUnreachable = errors.New("directory cannot be reached")
	// ErrNoOrder means an order that is not in the journal.
	ErrNoOrder = errors.New("no such order was admitted")
)

// MaxBatch is the greatest number of changes in one batch.
const MaxBatch = 100

// Directory is a configured connector that can be written. pluginhost's instances
// have it; sdk/host.Client has Read and Apply.
type Directory interface {
	admission.Directory
	Capabilities() []connectorv1.Capability
	// Apply carries out up to MaxBatch operations that are independent of each
	// other, on a stream of its own, and answers them by id. A missing answer,
	// and every one after an error, is unknown.
	Apply(ctx context.Context, operations []*connectorv1.Operation) ([]*connectorv1.ApplyResult, error)
	// Released takes from an object, in place, what may not leave the network.
	Released(o *connectorv1.Object)
}

// Connector is one configured connector as the client set it up.
type Connector struct {
	Guardrails *guardrails.Guardrails
	Directory  Directory
}

// Progress is how far an order is, for people to watch.
type Progress struct {
	Order       string
	Total, Done int
	Level       uint32
	Ended       bool
}

// Options are what an Executor stands on.
type Options struct {
	Journal    *journal.Journal
	Clock      *journal.Clock
	Audit      audit.Recorder
	Connectors map[string]Connector
	Recipients *secrets.Recipients
	// Progress is called after each batch, if set; it must not block.
	Progress func(Progress)
	// MaxConflicts stops an order that met more conflicts; by default the
	// greater of 20 and a tenth of its changes.
	MaxConflicts int
	// Retry waits before attempt n (1, 2, …) to read a directory that could not
	// be read, and reports whether to go on; by default 1, 2, 4, 8 s and then no.
	Retry func(ctx context.Context, n int) bool
	// Rand makes passwords; crypto/rand.Reader by default.
	Rand io.Reader
	Log  *slog.Logger
}

// Executor runs one order at a time; TakeBack may run beside it.
type Executor struct {
	o     Options
	order sync.Mutex       // one order at a time
	turns map[string]*turn // by alias
}

// New returns an Executor.
func New(o Options) *Executor {
	if o.Retry == nil {
		o.Retry = backoff
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Executor{o: o, turns: map[string]*turn{}}
	for alias := range o.Connectors {
		e.turns[alias] = &turn{}
	}
	return e
}

func backoff(ctx context.Context, n int) bool {
	if n > 4 {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Second << (n - 1)):
		return true
	}
}
