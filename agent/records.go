package agent

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/reevehq/reeve/agent/internal/cli"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/plugins/sdk"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// recordPage is a part of the journal's records.
type recordPage struct {
	Lines []cli.RecordLine `json:"lines"`
	// Next is where the next page begins; More says that it is there already.
	Next uint64 `json:"next"`
	More bool   `json:"more"`
}

// pageRecords is about how many records one answer holds.
const pageRecords = 500

func (c *core) records(ctx context.Context, in asked) (*recordPage, error) {
	head := c.journal.Head().Next
	after := max(in.After, c.journal.Purged().Next)
	if in.Newest && head > uint64(in.Last) {
		after = max(after, head-uint64(in.Last))
	}
	page := &recordPage{Next: after, Lines: []cli.RecordLine{}}
	batch, err := c.journal.Spool(ctx, after, pageRecords)
	if err != nil || batch == nil {
		return page, err
	}
	for i, r := range batch.GetRecords() {
		line, err := recordLine(batch.GetEpoch(), after+uint64(i), r)
		if err != nil {
			return nil, err
		}
		page.Lines = append(page.Lines, line)
	}
	page.Next = after + uint64(len(batch.GetRecords()))
	page.More = page.Next < head
	return page, nil
}

func recordLine(epoch, index uint64, r *auditv1.Record) (cli.RecordLine, error) {
	var h auditv1.Header
	if err := planv1.Decode(r.GetHeader(), &h); err != nil {
		return cli.RecordLine{}, fmt.Errorf("record %d: %w", index, err)
	}
	line := cli.RecordLine{
		Epoch: epoch, Index: index, At: h.GetAt().AsTime(), Type: strings.TrimPrefix(h.GetType().String(), "TYPE_"), Actor: h.GetActor(),
		Plan: hex.EncodeToString(h.GetPlanDigest()), Change: h.GetChange(), Ticket: h.GetTicket(), Summary: "erased",
	}
	if len(r.GetSalt()) == 0 {
		return line, nil
	}
	var b auditv1.Body
	if err := planv1.Decode(r.GetBody(), &b); err != nil {
		return cli.RecordLine{}, fmt.Errorf("record %d: %w", index, err)
	}
	encoded, err := protojson.Marshal(&b)
	if err != nil {
		return cli.RecordLine{}, fmt.Errorf("record %d: %w", index, err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, encoded); err != nil {
		return cli.RecordLine{}, fmt.Errorf("record %d: %w", index, err)
	}
	line.Body, line.Summary = compact.Bytes(), sdk.Clean(summary(&b))
	return line, nil
}

// summary is a record in one line for people.
func summary(b *auditv1.Body) string {
	switch x := b.GetBody().(type) {
	case *auditv1.Body_Receipt:
		r := x.Receipt
		object := r.GetAfter().GetName().Text()
		if object == "" {
			object = r.GetBefore().GetName().Text()
		}
		if object == "" {
			object = r.GetAnchor()
		}
		text := fmt.Sprintf("%s: %s %s: %s", r.GetConnector(), r.GetOperation().Word(), object, enumWord(r.GetResult().String(), "RESULT_"))
		if p := r.GetProblem(); p.GetCode() != "" {
			text += " (" + sdk.FromProto(p).Error() + ")"
		}
		return text
	case *auditv1.Body_Refusal:
		return strings.TrimSpace(fmt.Sprintf("%s %s %s: %s", x.Refusal.GetCode(), x.Refusal.GetChange(), x.Refusal.GetRule(), x.Refusal.GetSentence()))
	case *auditv1.Body_Order:
		o := x.Order
		return fmt.Sprintf("order %s, sequence %d: %d applied, %d were so already, %d conflicts, %d skipped, %d refused, %d failed",
			o.GetOrder(), o.GetSequence(), o.GetApplied(), o.GetAlready(), o.GetConflicts(), o.GetSkipped(), o.GetRefused(), o.GetFailed())
	case *auditv1.Body_Obligation:
		return fmt.Sprintf("%s: membership due to end %s: %s", x.Obligation.GetConnector(), x.Obligation.GetDue().AsTime().Format("2006-01-02 15:04:05Z"), x.Obligation.GetOutcome())
	case *auditv1.Body_Act:
		return strings.TrimSpace(x.Act.GetVerb() + " " + x.Act.GetReason())
	}
	return ""
}

func (c *core) orderList(ctx context.Context, plan string) (*cli.OrderList, error) {
	out := &cli.OrderList{Orders: []cli.OrderLine{}}
	paused := ""
	err := c.journal.View(ctx, func(tx *journal.Tx) error {
		var err error
		if paused, err = tx.Get(journal.VarPaused); err != nil {
			return err
		}
		orders, err := tx.OpenOrders()
		if err != nil {
			return err
		}
		for _, o := range orders {
			var m planv1.Manifest
			if err := planv1.Decode(o.Manifest, &m); err != nil {
				return err
			}
			if plan != "" && plan != m.GetPlan() && plan != o.ID && plan != hex.EncodeToString(o.PlanDigest) {
				continue
			}
			progress, err := tx.Progress(o.ID)
			if err != nil {
				return err
			}
			line := cli.OrderLine{Order: o.ID, Plan: m.GetPlan(), Sequence: o.Sequence, State: "open", Total: o.Changes}
			for _, p := range progress {
				if p.Settled {
					line.Done++
				}
			}
			if paused != "" {
				line.State = "paused"
			}
			out.Orders = append(out.Orders, line)
		}
		return nil
	})
	return out, err
}
