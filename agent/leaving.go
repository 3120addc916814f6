package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/cli"
	"github.com/reevehq/reeve/agent/internal/executor"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/leave"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// leave takes back what the MSP caused. From its first step on no order is
// admitted or goes on; it can be run again until nothing is left to do.
func (c *core) leave(ctx context.Context, dryRun bool) (*cli.Left, error) {
	for _, i := range c.host.Instances() {
		// One that does not come up is said by the first step that needs it.
		_ = i.Ready(ctx)
	}
	if !dryRun {
		if err := c.markLeft(ctx); err != nil {
			return nil, err
		}
		// What is under way ends here, and what was sent is read back, so that
		// nothing is done behind the back of what follows.
		if err := c.executor.Resume(ctx); err != nil && !errors.Is(err, executor.ErrPaused) {
			return nil, err
		}
	}
	var receipts []*auditv1.Receipt
	err := c.journal.View(ctx, func(tx *journal.Tx) error {
		effects, err := tx.Effects()
		if err != nil {
			return err
		}
		for _, raw := range effects {
			r := new(auditv1.Receipt)
			if err := planv1.Decode(raw, r); err != nil {
				return fmt.Errorf("kept receipt: %w", err)
			}
			receipts = append(receipts, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	result, err := leave.Undo(ctx, leave.Options{
		Receipts: receipts, DryRun: dryRun,
		Directory: func(alias string) (leave.Directory, error) { return c.host.Instance(alias) },
		Record: func(ctx context.Context, r *auditv1.Receipt) error {
			return c.journal.Commit(ctx, func(tx *journal.Tx) error {
				_, err := c.audit.Receipt(tx, audit.Context{Change: r.GetChange()}, r)
				return err
			})
		},
	})
	if err != nil {
		return nil, err
	}
	return &cli.Left{DryRun: dryRun, Undone: list(result.Undone), Kept: list(result.Kept), Residue: list(result.Residue), Failed: list(result.Failed)}, nil
}

func (c *core) markLeft(ctx context.Context) error {
	return c.journal.Commit(ctx, func(tx *journal.Tx) error {
		left, err := tx.Get(journal.VarLeft)
		if err != nil || left != "" {
			return err
		}
		const reason = "the client has left"
		if err := tx.Set(journal.VarLeft, reason); err != nil {
			return err
		}
		if err := tx.Set(journal.VarPaused, reason); err != nil {
			return err
		}
		return c.audit.Left(tx, reason)
	})
}

// list is never null in JSON.
func list(lines []string) []string {
	if lines == nil {
		return []string{}
	}
	return lines
}
