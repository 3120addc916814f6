package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reevehq/reeve/pki/keys"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

func (a *app) audit() *cobra.Command {
	return noun("audit", "Tenants' verifiable logs", a.auditList(), a.auditCheckpoint(), a.auditExport(), a.auditVerify())
}

func (a *app) auditList() *cobra.Command {
	return &cobra.Command{
		Use: "list TENANT", Short: "List the records of a tenant's log", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := pages(ctx, a, s.audit.ListRecords, &operatorv1.ListRecordsRequest{Tenant: args[0]})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				var rows [][]string
				for _, rec := range r.GetRecords() {
					by := rec.GetHeader().GetActor()
					if rec.GetAgent() != "" {
						by = "agent:" + rec.GetAgent()
					}
					rows = append(rows, []string{number(rec.GetIndex()), p.time(rec.GetHeader().GetAt()), word(rec.GetHeader().GetType(), "TYPE_"), by, bodyWords(rec.GetBody())})
				}
				p.table("", []string{"RECORD", "TIME", "TYPE", "BY", "WHAT"}, rows)
				p.none(len(rows), "no records")
			})
		}),
	}
}

// bodyWords says a record's body in a few words.
func bodyWords(b *auditv1.Body) string {
	switch body := b.GetBody().(type) {
	case *auditv1.Body_Receipt:
		r := body.Receipt
		words := r.GetOperation().Word() + " " + r.GetType() + " on " + r.GetConnector() + ": " + receiptWords(r)
		if r.GetGrant() != "" {
			words += ", grant " + r.GetGrant()
		}
		return words
	case *auditv1.Body_Refusal:
		return body.Refusal.GetCode() + ": " + body.Refusal.GetSentence()
	case *auditv1.Body_Order:
		o := body.Order
		t := tally(&operatorv1.PlanState{Applied: o.GetApplied(), Already: o.GetAlready(), Conflicts: o.GetConflicts(), Skipped: o.GetSkipped(), Refused: o.GetRefused(), Failed: o.GetFailed()})
		if t != "" {
			t = ": " + t
		}
		return "order " + o.GetOrder() + t
	case *auditv1.Body_Obligation:
		o := body.Obligation
		words := "take back " + o.GetObject() + " on " + o.GetConnector()
		if o.GetOutcome() != "" {
			words += ": " + o.GetOutcome()
		}
		if pr := o.GetProblem(); pr != nil {
			words += "; " + pr.GetSaid()
		}
		return words
	case *auditv1.Body_Key:
		words := "keys of " + body.Key.GetAgent() + ", epoch " + number(body.Key.GetEpoch())
		if body.Key.GetEnded() != "" {
			words += ", ended: " + body.Key.GetEnded()
		}
		return words
	case *auditv1.Body_Act:
		words := strings.TrimSpace(body.Act.GetVerb() + " " + body.Act.GetObject())
		if body.Act.GetReason() != "" {
			words += ": " + body.Act.GetReason()
		}
		return words
	case *auditv1.Body_Snapshot:
		h := body.Snapshot.GetHeader()
		return h.GetConnector() + ": " + count(h.GetObjects(), "object", "objects")
	}
	return "erased"
}

func (a *app) auditCheckpoint() *cobra.Command {
	return &cobra.Command{
		Use: "checkpoint TENANT", Short: "Print the newest signed checkpoint, to be kept", Args: takes,
		Long: "Prints the checkpoint with the cosignatures of the tenant's agents. Keep one, by\n" +
			"`reeve audit checkpoint TENANT > FILE`: with it `audit verify` finds any later change\n" +
			"of what it covers.",
		ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.audit.GetCheckpoint(ctx, &operatorv1.GetCheckpointRequest{Tenant: args[0]})
			if err != nil {
				return err
			}
			if a.output == outputJSON || a.env.IsTerminal(a.env.Out) {
				return a.show(r, func(p *printer) { p.lines(r.GetCheckpoint()) })
			}
			// Into a file it goes to the byte: it is signed.
			_, err = io.WriteString(a.env.Out, r.GetCheckpoint())
			return err
		}),
	}
}

// exported is the result of `audit export` as JSON.
type exported struct {
	Tenant string `json:"tenant"`
	File   string `json:"file"`
	Bytes  uint64 `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func (a *app) auditExport() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "export TENANT", Short: "Write a tenant's whole log to a file", Args: takes,
		Long: "Writes everything that `audit verify` needs into one file. It is complete or not there:\n" +
			"an export that breaks off leaves FILE as it was.",
		ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			if out == "" {
				return usageError{said: "--out is missing", remedy: "name the file to write with --out FILE"}
			}
			r, err := a.export(ctx, s, args[0], out)
			if err != nil {
				return err
			}
			return a.showData(r, func(p *printer) {
				p.line("The log of %s is in %s, %s bytes", r.Tenant, r.File, number(r.Bytes))
				p.facts("  ", "sha256", r.SHA256)
				p.line("")
				p.line("Next: reeve audit verify --export %s --checkpoint FILE --root-sha256 PIN", shellWord(r.File))
			})
		}),
	}
	c.Flags().StringVar(&out, "out", "", "file to write")
	return c
}

// export streams into a temporary file beside out, which takes its name once it
// is complete and durable.
func (a *app) export(ctx context.Context, s services, tenant, out string) (_ exported, err error) {
	const remedy = "name a file in a folder that you may write, on a disk with room, with --out"
	stream, err := s.audit.ExportAudit(ctx, &operatorv1.ExportAuditRequest{Tenant: tenant})
	if err != nil {
		return exported{}, err
	}
	f, err := os.CreateTemp(filepath.Dir(out), ".reeve-export-*")
	if err != nil {
		return exported{}, badFile(out, err, remedy)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	r := exported{Tenant: tenant, File: out}
	sum := sha256.New()
	progress := a.progress()
	defer progress.end()
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return exported{}, err
		}
		if _, err := f.Write(m.GetData()); err != nil {
			return exported{}, badFile(out, err, remedy)
		}
		sum.Write(m.GetData())
		r.Bytes += uint64(len(m.GetData()))
		progress.say("exporting… %s bytes", number(r.Bytes))
	}
	r.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return exported{}, badFile(out, err, remedy)
	}
	if err := os.Rename(f.Name(), out); err != nil {
		return exported{}, badFile(out, err, remedy)
	}
	if err := keys.SyncDir(filepath.Dir(out)); err != nil {
		return exported{}, badFile(out, err, remedy)
	}
	return r, nil
}
