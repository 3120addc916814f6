package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/executor"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/session"
	"github.com/reevehq/reeve/plugins/sdk"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

var (
	_ session.Handler  = (*running)(nil)
	_ session.Receiver = (*running)(nil)
)

func (r *running) paused(ctx context.Context) bool {
	reason, err := r.journal.Get(ctx, journal.VarPaused)
	return err == nil && reason != ""
}

func (r *running) hello(ctx context.Context) (*agentv1.Hello, error) {
	doc, err := r.roots.Current()
	if err != nil {
		return nil, err
	}
	head := r.journal.Head()
	return &agentv1.Hello{
		Version: buildVersion(), Epoch: r.id.Epoch, Connectors: r.host.States(), Sequence: r.journal.Sequence(),
		ChainLength: head.Next, ChainHash: head.Link[:], GuardrailsDigest: r.digest(), RootVersion: doc.Version, Paused: r.paused(ctx),
	}, nil
}

func (r *running) beat() *agentv1.Heartbeat {
	h := &agentv1.Heartbeat{
		At: timestamppb.New(r.clock.Now()), Connectors: r.host.States(), Paused: r.paused(context.Background()),
		Spooled: r.spool.waiting(),
	}
	r.mu.Lock()
	last := r.lastWork
	r.mu.Unlock()
	for _, i := range r.host.Instances() {
		if at := i.Health().LastWork; at.After(last) {
			last = at
		}
	}
	if !last.IsZero() {
		h.LastWork = timestamppb.New(last)
	}
	return h
}

// Welcome implements session.Handler: it takes newer root documents, and notices
// a journal that is behind what the control plane has seen of it.
func (r *running) Welcome(ctx context.Context, w *agentv1.Welcome) error {
	doc, err := r.roots.Accept(w.GetRootDocuments())
	if err != nil {
		return fmt.Errorf("root documents: %w", err)
	}
	if doc.Version > r.journal.RootVersion() {
		if err := r.journal.Commit(ctx, func(tx *journal.Tx) error { return tx.SetRootVersion(doc.Version) }); err != nil {
			return err
		}
	}
	if have := r.journal.Head().Next; w.GetChainLength() > have && r.journal.Quarantined() == "" {
		return r.journal.Quarantine(ctx, fmt.Sprintf("the control plane holds %d records of this epoch and the journal %d: an older copy was put back, or two copies run", w.GetChainLength(), have))
	}
	return nil
}

// Observe implements session.Handler.
func (r *running) Observe(o *agentv1.Observe) {
	if !r.schedule.Observe(o.GetConnector()) {
		r.p.log.Warn("asked to observe a connector that agent.yaml does not have", "alias", sdk.Clean(o.GetConnector()))
	}
}

// Fetch implements session.Handler.
func (r *running) Fetch(f *agentv1.Fetch) { r.orders.Add(f) }

// Checkpoint implements session.Handler.
func (r *running) Checkpoint(ctx context.Context, c *agentv1.Checkpoint) *agentv1.Cosignature {
	return r.witness.Consider(ctx, c)
}

// Quarantine implements session.Handler.
func (r *running) Quarantine(q *agentv1.Quarantine) {
	reason := sdk.Clean(q.GetReason())
	r.p.log.Error("the control plane has put this agent into quarantine: no order runs until `reeve-agent recover`", "reason", reason)
	if r.journal.Quarantined() != "" {
		return
	}
	if err := r.journal.Quarantine(context.Background(), "the control plane says: "+reason); err != nil {
		r.p.log.Error("quarantine could not be kept", "error", err)
	}
}

// forked records a fork of the log, durably.
func (r *running) forked(ctx context.Context, _, offered, reason string) error {
	return r.journal.Commit(ctx, func(tx *journal.Tx) error { return r.audit.ForkSeen(tx, offered, sdk.Clean(reason)) })
}

// Order implements session.Receiver.
func (r *running) Order(ctx context.Context, order string, head *agentv1.OrderHead, next func() ([]byte, error)) (func(context.Context) error, error) {
	admitted, err := r.admitter.Admit(ctx, admission.Delivery{Order: order, Envelope: head.GetEnvelope(), Manifest: head.GetManifest(), Chunks: chunks(next)})
	var refused *admission.Refused
	switch {
	case errors.As(err, &refused):
		r.p.log.Warn("order refused", "order", sdk.Clean(order), "code", refused.Code(), "reason", sdk.Clean(refused.Error()))
		r.worked()
		return nil, nil
	case err != nil:
		return nil, err
	case admitted.Ended:
		return nil, nil
	}
	if admitted.Again {
		r.p.log.Info("order taken up again", "order", admitted.Order)
	}
	return func(ctx context.Context) error { return r.execute(ctx, admitted.Order, head.GetManifest()) }, nil
}

// execute runs an admitted order and has what it touched observed. What stays
// open goes on by itself later (resumeOrders).
func (r *running) execute(ctx context.Context, order string, manifest []byte) error {
	err := r.executor.Run(ctx, order)
	r.worked()
	// What is owed from now on may be due sooner than the keeper looks again.
	r.keeper.Kick()
	var m planv1.Manifest
	if planv1.Decode(manifest, &m) == nil {
		for _, a := range m.GetAudiences() {
			if a.GetAgent() != r.id.Agent {
				continue
			}
			for _, alias := range a.GetConnectors() {
				r.schedule.Observe(alias)
			}
		}
	}
	switch {
	case err == nil:
		r.p.log.Info("order ended", "order", order)
	case ctx.Err() == nil:
		r.p.log.Warn("order stays open", "order", order, "error", sdk.Clean(err.Error()))
	}
	return nil
}

// DryRun implements session.Receiver: the result goes back by itself, since no
// order stands for it. The plan is kept for `plan review`.
func (r *running) DryRun(ctx context.Context, digest []byte, head *agentv1.OrderHead, next func() ([]byte, error)) error {
	kept := newKeptPlan(head.GetManifest())
	refusals, err := r.admitter.DryRun(ctx, admission.Delivery{Manifest: head.GetManifest(), Chunks: chunks(kept.tee(next))})
	if err != nil {
		return err
	}
	r.worked()
	if err := kept.save(r.dir.Plans()); err != nil {
		r.p.log.Warn("plan could not be kept for review", "plan", hex.EncodeToString(digest), "error", err)
	}
	client, release, err := r.link.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	_, err = client.ReportProgress(ctx, &agentv1.ReportProgressRequest{
		DryRun: digest, Refusals: refusals, GuardrailsDigest: r.digest(), Ended: true,
	})
	return err
}

func chunks(next func() ([]byte, error)) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			chunk, err := next()
			if errors.Is(err, io.EOF) || !yield(chunk, err) || err != nil {
				return
			}
		}
	}
}

func (r *running) worked() {
	r.mu.Lock()
	r.lastWork = r.clock.Now()
	r.mu.Unlock()
}

// report takes progress from the executor, which must not wait: what does not
// fit is overtaken by the next.
func (r *running) report(p executor.Progress) {
	select {
	case r.progress <- p:
	default:
	}
}

// sendProgress tells the control plane how far orders are, for people to watch.
// What cannot be sent is not kept: records tell it for good.
func (r *running) sendProgress(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-r.progress:
			if connected, _, _ := r.link.State(); !connected {
				continue
			}
			client, release, err := r.link.Acquire(ctx)
			if err != nil {
				return
			}
			_, err = client.ReportProgress(ctx, &agentv1.ReportProgressRequest{
				Order: p.Order, Total: uint32(p.Total), Done: uint32(p.Done), Level: p.Level, Ended: p.Ended,
			})
			release()
			if err != nil && ctx.Err() == nil {
				r.p.log.Debug("progress was not reported", "error", err)
			}
		}
	}
}
