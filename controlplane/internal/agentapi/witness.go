package agentapi

import (
	"context"
	"errors"
	"fmt"

	"github.com/reevehq/reeve/controlplane/internal/auditlog"
	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// witness is one session's part in witnessing: at most one checkpoint is on its
// way at a time.
type witness struct {
	service *agentService
	caller  Caller
	session *session
	// asked is true until the agent has answered; from is the size the proof
	// began with.
	asked bool
	from  uint64
	// refused ends the asking for this session.
	refused bool
}

// offer sends the newest checkpoint if the agent has not cosigned it. Trouble
// with it ends no session: the next heartbeat tries again.
func (w *witness) offer(ctx context.Context) {
	if w.asked || w.refused {
		return
	}
	c, err := w.service.Checkpoints.Next(ctx, w.caller.Tenant, w.caller.Agent)
	w.send(ctx, c, err)
}

func (w *witness) send(ctx context.Context, c *agentv1.Checkpoint, err error) {
	if err != nil {
		w.service.Log.ErrorContext(ctx, "checkpoint cannot be offered", "tenant", w.caller.Tenant, "agent", w.caller.Agent, "error", err)
		return
	}
	if c == nil {
		return
	}
	w.asked, w.from = true, c.GetFromSize()
	if !w.session.push(&agentv1.SessionResponse{Message: &agentv1.SessionResponse_Checkpoint{Checkpoint: c}}) {
		w.asked = false
	}
}

func (w *witness) answer(ctx context.Context, c *agentv1.Cosignature) {
	asked, from := w.asked, w.from
	w.asked = false
	if err := w.service.Checkpoints.Cosigned(ctx, w.caller.Tenant, w.caller.Agent, c); err != nil {
		w.service.Log.ErrorContext(ctx, "cosignature not taken", "tenant", w.caller.Tenant, "agent", w.caller.Agent, "error", err)
		w.refused = true
		return
	}
	if c.GetRefused() != "" {
		w.refused = true
		return
	}
	switch {
	case c.GetSize() > from:
		// Cosigned as asked, or further than was believed; both are stored now.
		w.offer(ctx)
	case asked && c.GetSize() < from:
		// The agent holds less than was believed: prove from there.
		next, err := w.service.Checkpoints.From(ctx, w.caller.Tenant, c.GetSize())
		w.send(ctx, next, err)
	}
}

// Witnessing is Checkpoints over a log and the agents' enrolled witness keys.
type Witnessing struct {
	DB         *tx.DB
	Log        *auditlog.Log
	Enrollment *enrollment.Service
}

// Next implements Checkpoints.
func (w Witnessing) Next(ctx context.Context, tenant, agent string) (*agentv1.Checkpoint, error) {
	var from uint64
	err := w.DB.View(ctx, func(t tx.Tx) (err error) { from, err = w.Log.Cosigned(t, tenant, agent); return err })
	if err != nil {
		return nil, err
	}
	return w.From(ctx, tenant, from)
}

// From implements Checkpoints.
func (w Witnessing) From(ctx context.Context, tenant string, size uint64) (*agentv1.Checkpoint, error) {
	c, err := w.Log.Checkpoint(ctx, tenant)
	if errors.Is(err, auditlog.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if c.Size == size {
		return nil, nil
	}
	if c.Size < size {
		return nil, fmt.Errorf("%w: the witness cosigned %d entries of %s, the log holds %d", auditlog.ErrCorrupt, size, tenant, c.Size)
	}
	out := &agentv1.Checkpoint{Note: c.Note, FromSize: size}
	err = w.DB.View(ctx, func(t tx.Tx) (err error) {
		out.Consistency, err = w.Log.Consistency(t, tenant, size, c.Size)
		return err
	})
	return out, err
}

// Growth implements Checkpoints.
func (w Witnessing) Growth(ctx context.Context, tenant string, from, to uint64) (hashes [][]byte, err error) {
	if from == 0 || from > to {
		return nil, fmt.Errorf("%w: no proof leads from %d to %d entries", enrollment.ErrInvalid, from, to)
	}
	err = w.DB.View(ctx, func(t tx.Tx) (err error) {
		hashes, err = w.Log.Consistency(t, tenant, from, to)
		return err
	})
	return hashes, err
}

// Cosigned implements Checkpoints.
func (w Witnessing) Cosigned(ctx context.Context, tenant, agent string, c *agentv1.Cosignature) error {
	return w.DB.Do(ctx, func(t tx.Tx) error {
		if c.GetRefused() != "" {
			return w.Log.CosignRefused(t, tenant, agent, c.GetSize(), c.GetRefused())
		}
		if c.GetLine() == "" {
			// It holds nothing yet: a hint where to prove from.
			return nil
		}
		who, err := w.Enrollment.Lookup(t, tenant, agent)
		if err != nil {
			return err
		}
		key, _, err := w.Enrollment.PublicKey(t, tenant, agent, who.Epoch, auditv1.KeyEvent_PURPOSE_WITNESS)
		if err != nil {
			return err
		}
		return w.Log.Cosign(t, tenant, agent, key, c.GetSize(), c.GetLine())
	})
}
