package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/cli"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/localapi"
	"github.com/reevehq/reeve/agent/internal/statedir"
)

// started records the start, once the journal is sound.
func (c *core) started(ctx context.Context) error {
	return c.journal.Commit(ctx, func(tx *journal.Tx) error { return c.audit.Started(tx, buildVersion(), c.digest()) })
}

// asked is what the local calls take; each reads what it needs.
type asked struct {
	Reason string `json:"reason,omitempty"`
	Plan   string `json:"plan,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
	After  uint64 `json:"after,omitempty"`
	Last   int    `json:"last,omitempty"`
	Newest bool   `json:"newest,omitempty"`
}

// act is a local command that works on a core, whether the agent runs or not.
type act struct {
	name string
	// needs says that connectors must be up for it.
	needs bool
	do    func(ctx context.Context, c *core, in asked) (any, error)
}

var (
	actPause   = act{"pause", false, func(ctx context.Context, c *core, in asked) (any, error) { return c.pause(ctx, in.Reason) }}
	actResume  = act{"resume", false, func(ctx context.Context, c *core, _ asked) (any, error) { return c.unpause(ctx) }}
	actLeave   = act{"leave", true, func(ctx context.Context, c *core, in asked) (any, error) { return c.leave(ctx, in.DryRun) }}
	actClock   = act{"clock-accept", false, func(ctx context.Context, c *core, _ asked) (any, error) { return c.acceptClock(ctx) }}
	actReview  = act{"review", true, func(ctx context.Context, c *core, in asked) (any, error) { return c.review(ctx, in.Plan) }}
	actOrders  = act{"orders", false, func(ctx context.Context, c *core, in asked) (any, error) { return c.orderList(ctx, in.Plan) }}
	actRecords = act{"records", false, func(ctx context.Context, c *core, in asked) (any, error) { return c.records(ctx, in) }}
)

// localAPI answers the commands of a running agent.
func (r *running) localAPI() *localapi.Server {
	s := &localapi.Server{Calls: map[string]localapi.Call{}, Code: cli.Code}
	for _, a := range []act{actPause, actResume, actClock, actLeave, actReview, actOrders, actRecords} {
		s.Calls[a.name] = func(ctx context.Context, input json.RawMessage) (any, error) {
			var in asked
			if err := json.Unmarshal(input, &in); err != nil {
				return nil, fmt.Errorf("the call cannot be read: %w", err)
			}
			out, err := a.do(ctx, r.core, in)
			if a.name == actResume.name && err == nil {
				select {
				case r.resume <- struct{}{}:
				default:
				}
			}
			return out, coded(err)
		}
	}
	s.Calls["status"] = func(ctx context.Context, _ json.RawMessage) (any, error) { return r.status(ctx) }
	return s
}

// run asks the running agent, or does it on the journal when none runs.
func run[T any](ctx context.Context, p *program, path string, a act, in asked) (*T, error) {
	s, err := p.load(path)
	if err != nil {
		return nil, err
	}
	out := new(T)
	err = localapi.Do(ctx, statedir.At(s.State).Socket(), a.name, in, out)
	if !errors.Is(err, localapi.ErrNotRunning) {
		return out, coded(err)
	}
	c, err := p.open(ctx, s)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if a.needs {
		if err := c.connect(nil); err != nil {
			return nil, err
		}
	}
	got, err := a.do(ctx, c, in)
	if err != nil {
		return nil, coded(err)
	}
	result, ok := got.(*T)
	if !ok {
		return nil, fmt.Errorf("%s answered with %T", a.name, got)
	}
	return result, nil
}

// Pause implements cli.Program.
func (p *program) Pause(ctx context.Context, path, reason string) (*cli.Acknowledged, error) {
	return run[cli.Acknowledged](ctx, p, path, actPause, asked{Reason: reason})
}

// Resume implements cli.Program.
func (p *program) Resume(ctx context.Context, path string) (*cli.Acknowledged, error) {
	return run[cli.Acknowledged](ctx, p, path, actResume, asked{})
}

// Leave implements cli.Program.
func (p *program) Leave(ctx context.Context, path string, dryRun bool) (*cli.Left, error) {
	return run[cli.Left](ctx, p, path, actLeave, asked{DryRun: dryRun})
}

// Review implements cli.Program.
func (p *program) Review(ctx context.Context, path, plan string) (*cli.Reviewed, error) {
	return run[cli.Reviewed](ctx, p, path, actReview, asked{Plan: plan})
}

// Orders implements cli.Program.
func (p *program) Orders(ctx context.Context, path, plan string) (*cli.OrderList, error) {
	return run[cli.OrderList](ctx, p, path, actOrders, asked{Plan: plan})
}

// AcceptClock implements cli.Program.
func (p *program) AcceptClock(ctx context.Context, path string) (*cli.Acknowledged, error) {
	return run[cli.Acknowledged](ctx, p, path, actClock, asked{})
}

func (c *core) acceptClock(ctx context.Context) (*cli.Acknowledged, error) {
	err := c.clock.Accept(ctx, func(tx *journal.Tx) error {
		return c.audit.Clock(tx, audit.LocalRoot, "the clock was accepted as right")
	})
	return &cli.Acknowledged{Act: "accepted", Detail: "the clock is taken as right; orders are admitted again"}, err
}

func (c *core) pause(ctx context.Context, reason string) (*cli.Acknowledged, error) {
	if reason == "" {
		reason = "no reason given"
	}
	err := c.journal.Commit(ctx, func(tx *journal.Tx) error {
		if err := tx.Set(journal.VarPaused, reason); err != nil {
			return err
		}
		return c.audit.Paused(tx, reason)
	})
	return &cli.Acknowledged{Act: "paused", Detail: "no order runs until `reeve-agent resume`; timed removals go on"}, err
}

func (c *core) unpause(ctx context.Context) (*cli.Acknowledged, error) {
	was := false
	err := c.journal.Commit(ctx, func(tx *journal.Tx) error {
		left, err := tx.Get(journal.VarLeft)
		if err != nil {
			return err
		}
		if left != "" {
			return cli.Fail(cli.ExitRefused, errors.New("the agent has left; join in a new state folder to begin again"))
		}
		reason, err := tx.Get(journal.VarPaused)
		if err != nil || reason == "" {
			return err
		}
		was = true
		if err := tx.Set(journal.VarPaused, ""); err != nil {
			return err
		}
		return c.audit.Resumed(tx, reason)
	})
	detail := "orders run again"
	if !was {
		detail = "the agent was not paused"
	}
	return &cli.Acknowledged{Act: "resumed", Detail: detail}, err
}

// Status implements cli.Program. Without a running agent the journal alone is
// asked, and no connector started.
func (p *program) Status(ctx context.Context, path string) (*cli.Status, error) {
	s, err := p.load(path)
	if err != nil {
		return nil, err
	}
	out := new(cli.Status)
	err = localapi.Do(ctx, statedir.At(s.State).Socket(), "status", asked{}, out)
	if !errors.Is(err, localapi.ErrNotRunning) {
		return out, coded(err)
	}
	c, err := p.open(ctx, s)
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.status(ctx)
}

// status is what the journal tells.
func (c *core) status(ctx context.Context) (*cli.Status, error) {
	out := &cli.Status{
		ID: c.id.ID().String(), Epoch: c.id.Epoch, Sequence: c.journal.Sequence(), Records: c.journal.Head().Next,
		Spooled: c.journal.Head().Next - c.journal.Purged().Next, Quarantined: c.journal.Quarantined(), Connectors: []cli.ConnectorHealth{},
	}
	if doc, err := c.roots.Current(); err == nil {
		out.RootVersion = doc.Version
	}
	err := c.journal.View(ctx, func(tx *journal.Tx) error {
		paused, err := tx.Get(journal.VarPaused)
		if err != nil {
			return err
		}
		out.Paused = paused != ""
		holds, err := tx.Holds()
		for _, h := range holds {
			if h.Timed() {
				out.Obligations++
			}
		}
		return err
	})
	for _, x := range c.Connectors {
		name := x.Name
		if name == "" {
			name = x.Command[0]
		}
		out.Connectors = append(out.Connectors, cli.ConnectorHealth{Alias: x.Alias, Connector: name, Role: string(x.Role), Mode: string(x.Mode), Problems: []cli.Problem{}})
	}
	return out, err
}

func (r *running) status(ctx context.Context) (*cli.Status, error) {
	out, err := r.core.status(ctx)
	if err != nil {
		return nil, err
	}
	out.Running = true
	out.Connected, out.LastWelcome, _ = r.link.State()
	out.Spooled, out.Fork, out.Checkpoint = r.spool.waiting(), r.witness.Fork(), uint64(r.witness.Held().Size)
	for i := range out.Connectors {
		x := &out.Connectors[i]
		instance, err := r.host.Instance(x.Alias)
		if err != nil {
			return nil, err
		}
		h := instance.Health()
		x.Running, x.Reachable, x.Restarts, x.LastWork = h.Running, h.Reachable, h.Restarts, h.LastWork
		x.LastObserved, x.Problems = r.schedule.LastObserved(x.Alias), problems(h.Problems)
	}
	return out, nil
}

// pollRecords is how often `records --tail` looks for new ones.
const pollRecords = time.Second

// Records implements cli.Program.
func (p *program) Records(ctx context.Context, path string, q cli.RecordQuery, each func(cli.RecordLine) error) error {
	in := asked{Last: q.Last, Newest: q.Last > 0}
	for {
		page, err := run[recordPage](ctx, p, path, actRecords, in)
		if err != nil {
			return err
		}
		for _, line := range page.Lines {
			if err := each(line); err != nil {
				return err
			}
		}
		in = asked{After: page.Next}
		if page.More {
			continue
		}
		if !q.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pollRecords):
		}
	}
}
