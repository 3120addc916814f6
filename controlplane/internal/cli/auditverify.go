package cli

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/auditlog/verify"
	"github.com/reevehq/reeve/pki/root"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// verified is the result of `audit verify` as JSON.
type verified struct {
	Sound       bool   `json:"sound"`
	TrustDomain string `json:"trustDomain"`
	Tenant      string `json:"tenant"`
	Origin      string `json:"origin"`
	RootVersion uint64 `json:"rootVersion"`
	// RootSHA256 is the pin that was used; Pinned is false when it was taken from
	// the export itself.
	RootSHA256 string    `json:"rootSha256"`
	Pinned     bool      `json:"pinned"`
	Made       time.Time `json:"made"`
	Entries    uint64    `json:"entries"`
	Records    uint64    `json:"agentRecords"`
	Erased     uint64    `json:"erased"`
	// SavedEntries is the size of the saved checkpoint, absent without one.
	SavedEntries *uint64           `json:"savedEntries,omitempty"`
	Epochs       []verifiedEpoch   `json:"epochs"`
	Checkpoint   string            `json:"checkpoint"`
	Findings     []verifiedFinding `json:"findings"`
	More         int               `json:"moreFindings"`
}

type verifiedEpoch struct {
	Agent   string `json:"agent"`
	Epoch   uint64 `json:"epoch"`
	Records uint64 `json:"records"`
	Ended   string `json:"ended,omitempty"`
}

type verifiedFinding struct {
	Code     string `json:"code"`
	Entry    int64  `json:"entry"`
	Sentence string `json:"sentence"`
}

func (a *app) auditVerify() *cobra.Command {
	var export, checkpoint, pin string
	c := &cobra.Command{
		Use: "verify", Short: "Check an export, offline", Args: takes,
		Long: "Checks an export with nothing else than what the client kept: a saved checkpoint shows\n" +
			"that history was not changed since, and the pin, root_sha256 of agent.yaml, shows whose\n" +
			"log it is. Without a pin the export's own root document is taken, and that is said.\n" +
			"It needs no control plane. Exit code 7 means that something does not hold.",
		Example: "  reeve audit verify --export fabrikam.log --checkpoint kept.txt --root-sha256 1f3a…",
		RunE: func(_ *cobra.Command, _ []string) error {
			if export == "" {
				return usageError{said: "--export is missing", remedy: "name an export, made with `reeve audit export TENANT --out FILE`"}
			}
			a.object = export
			const remedy = "name an export, made with `reeve audit export TENANT --out FILE`"
			f, err := os.Open(export)
			if err != nil {
				return badFile(export, err, remedy)
			}
			defer f.Close()
			var saved []byte
			if checkpoint != "" {
				if saved, err = os.ReadFile(checkpoint); err != nil {
					return badFile(checkpoint, err, "name a file with a checkpoint, as `reeve audit checkpoint` or the agent wrote it")
				}
				if len(saved) == 0 {
					return local(ExitFailed, "FILE", checkpoint, "", "it is empty", "name a file with a checkpoint, as `reeve audit checkpoint` or the agent wrote it")
				}
			}
			used := pin
			if used == "" {
				used = ownPin(f)
				if _, err := f.Seek(0, io.SeekStart); err != nil {
					return badFile(export, err, remedy)
				}
			}
			report, err := verify.Verify(f, string(saved), used)
			if err != nil {
				return badFile(export, err, remedy)
			}
			if err := a.showReport(report, used, pin != ""); err != nil {
				return err
			}
			if !report.Sound() {
				return outcome(ExitUnverified)
			}
			return nil
		},
	}
	c.Flags().StringVar(&export, "export", "", "the export")
	c.Flags().StringVar(&checkpoint, "checkpoint", "", "a checkpoint that was kept")
	c.Flags().StringVar(&pin, "root-sha256", "", "pin of the first root document, as in agent.yaml")
	return c
}

// longestHead bounds the first frame of an export in bytes.
const longestHead = 32 << 20

// ownPin is the pin of an export's own first root document; empty when there is
// none, which is for Verify to say.
func ownPin(r io.Reader) string {
	in := bufio.NewReader(r)
	size, err := binary.ReadUvarint(in)
	if err != nil || size > longestHead {
		return ""
	}
	raw, err := io.ReadAll(io.LimitReader(in, int64(size)))
	frame := new(auditv1.ExportFrame)
	if err != nil || proto.Unmarshal(raw, frame) != nil || len(frame.GetHead().GetRootDocuments()) == 0 {
		return ""
	}
	pin, err := root.Pin(frame.GetHead().GetRootDocuments()[0])
	if err != nil {
		return ""
	}
	return pin
}

func (a *app) showReport(r verify.Report, pin string, pinned bool) error {
	v := verified{
		Sound: r.Sound(), TrustDomain: r.TrustDomain, Tenant: r.Tenant, Origin: r.Origin, RootVersion: r.RootVersion, RootSHA256: pin, Pinned: pinned,
		Made: r.Made.UTC(), Entries: r.Entries, Records: r.Records, Erased: r.Erased, Checkpoint: r.Checkpoint, More: r.More,
		Epochs: []verifiedEpoch{}, Findings: []verifiedFinding{},
	}
	if r.HasSaved {
		v.SavedEntries = &r.Saved
	}
	for _, e := range r.Epochs {
		v.Epochs = append(v.Epochs, verifiedEpoch{e.Agent, e.Epoch, e.Records, e.Ended})
	}
	for _, f := range r.Findings {
		v.Findings = append(v.Findings, verifiedFinding{string(f.Code), f.Entry, f.Sentence})
	}
	return a.showData(v, func(p *printer) {
		if !pinned && pin != "" {
			p.line("%s: no pin was given, so the export's own root document vouches for it; compare with root_sha256 of agent.yaml:", p.warn("note"))
			p.line("  %s", pin)
		}
		if err := r.Print(p.w); p.err == nil {
			p.err = err
		}
	})
}
