package agent

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/cli"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// errNoPlan means that no such plan has reached this agent.
var errNoPlan = errors.New("no such plan has reached this agent; the MSP sends it with `reeve plan make`")

// keptPlans is how many plans that were tried stay for review, keptBytes how much
// of the disk they may take together.
const (
	keptPlans = 20
	keptBytes = 256 << 20
)

// keptPlan is a plan as it arrived: manifest, then chunks, verbatim. On disk each
// has its length in four bytes before it.
type keptPlan struct {
	manifest []byte
	chunks   [][]byte
}

func newKeptPlan(manifest []byte) *keptPlan { return &keptPlan{manifest: manifest} }

// tee keeps what passes by.
func (k *keptPlan) tee(next func() ([]byte, error)) func() ([]byte, error) {
	return func() ([]byte, error) {
		chunk, err := next()
		if err == nil {
			k.chunks = append(k.chunks, chunk)
		}
		return chunk, err
	}
}

func (k *keptPlan) save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var out []byte
	for _, part := range append([][]byte{k.manifest}, k.chunks...) {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
		out = append(out, part...)
	}
	path := filepath.Join(dir, hex.EncodeToString(planv1.Digest(k.manifest))+".plan")
	if err := keys.WriteFile(path, out, 0o600); err != nil {
		return err
	}
	return forgetOld(dir)
}

func forgetOld(dir string) error {
	found, err := filepath.Glob(filepath.Join(dir, "*.plan"))
	if err != nil {
		return err
	}
	info := map[string]fs.FileInfo{}
	for _, path := range found {
		if info[path], err = os.Stat(path); err != nil {
			return err
		}
	}
	slices.SortFunc(found, func(a, b string) int { return info[b].ModTime().Compare(info[a].ModTime()) })
	size := int64(0)
	for n, path := range found {
		if size += info[path].Size(); n < keptPlans && size <= keptBytes {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func readKept(path string) (*keptPlan, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var parts [][]byte
	for len(raw) >= 4 {
		n := binary.BigEndian.Uint32(raw)
		if uint64(n) > uint64(len(raw)-4) {
			break
		}
		parts, raw = append(parts, raw[4:4+n]), raw[4+n:]
	}
	if len(raw) != 0 || len(parts) == 0 {
		return nil, fmt.Errorf("%s is damaged", path)
	}
	return &keptPlan{manifest: parts[0], chunks: parts[1:]}, nil
}

// findPlan looks for a plan by name, digest or order: among those tried, then
// among the open orders.
func (c *core) findPlan(ctx context.Context, name string) (*keptPlan, *planv1.Manifest, error) {
	found, err := filepath.Glob(filepath.Join(c.dir.Plans(), "*.plan"))
	if err != nil {
		return nil, nil, err
	}
	for _, path := range found {
		k, err := readKept(path)
		if err != nil {
			return nil, nil, err
		}
		var m planv1.Manifest
		if err := planv1.Decode(k.manifest, &m); err != nil {
			continue // of another version; it was refused when it came
		}
		if name == m.GetPlan() || strings.EqualFold(name, hex.EncodeToString(planv1.Digest(k.manifest))) {
			return k, &m, nil
		}
	}
	var k *keptPlan
	var m planv1.Manifest
	err = c.journal.View(ctx, func(tx *journal.Tx) error {
		orders, err := tx.OpenOrders()
		if err != nil {
			return err
		}
		for _, o := range orders {
			if err := planv1.Decode(o.Manifest, &m); err != nil {
				return err
			}
			if name != m.GetPlan() && name != o.ID && !strings.EqualFold(name, hex.EncodeToString(o.PlanDigest)) {
				continue
			}
			k = &keptPlan{manifest: o.Manifest}
			k.chunks, err = tx.Chunks(o.ID)
			return err
		}
		return nil
	})
	if err == nil && k == nil {
		err = cli.Fail(cli.ExitRefused, fmt.Errorf("%s: %w", sdk.Clean(name), errNoPlan))
	}
	return k, &m, err
}

// review shows a plan as the agent itself reads it: every object looked up now,
// under its anchor, beside what the plan calls it; and what would be refused.
func (c *core) review(ctx context.Context, name string) (*cli.Reviewed, error) {
	k, m, err := c.findPlan(ctx, name)
	if err != nil {
		return nil, err
	}
	out := &cli.Reviewed{Plan: m.GetPlan(), Digest: hex.EncodeToString(planv1.Digest(k.manifest)), Guardrails: c.digest(),
		Changes: []cli.ReviewedChange{}, Refusals: []cli.ReviewRefusal{}}
	for _, raw := range k.chunks {
		var chunk planv1.Chunk
		if err := planv1.Decode(raw, &chunk); err != nil {
			return nil, err
		}
		for part := range slices.Chunk(chunk.GetChanges(), 50) {
			out.Changes = append(out.Changes, c.look(ctx, part)...)
		}
	}
	i := 0
	refusals, err := c.admitter.DryRun(ctx, admission.Delivery{Manifest: k.manifest, Chunks: chunks(func() ([]byte, error) {
		if i == len(k.chunks) {
			return nil, io.EOF
		}
		i++
		return k.chunks[i-1], nil
	})})
	if err != nil {
		return nil, err
	}
	for _, r := range refusals {
		out.Refusals = append(out.Refusals, cli.ReviewRefusal{Change: r.GetChange(), Code: r.GetCode(), Rule: r.GetRule(), Sentence: r.GetSentence()})
	}
	return out, nil
}

// look reads what some changes are about.
func (c *core) look(ctx context.Context, changes []*planv1.Change) []cli.ReviewedChange {
	out := make([]cli.ReviewedChange, len(changes))
	for i, change := range changes {
		op := change.GetOperation()
		out[i] = cli.ReviewedChange{
			ID: change.GetId(), Connector: change.GetConnector(), Level: change.GetLevel(), Operation: op.Kind().Word(),
			Claimed: change.GetDisplay(), Reason: change.GetReason(), Cause: enumWord(change.GetCause().String(), "CAUSE_"),
		}
		if change.GetEndsAt() != nil {
			out[i].EndsAt = change.GetEndsAt().AsTime().Format(time.RFC3339)
		}
		c.lookAt(ctx, change.GetConnector(), op, &out[i])
	}
	return out
}

func (c *core) lookAt(ctx context.Context, alias string, op *connectorv1.Operation, out *cli.ReviewedChange) {
	if create := op.GetCreate(); create != nil {
		out.Object = create.GetName().Text()
		var names []string
		for _, a := range create.GetAttributes() {
			names = append(names, a.GetName())
		}
		out.Detail = "with " + strings.Join(names, ", ")
		return
	}
	object, problem := c.resolve(ctx, alias, op.GetObject())
	out.Object, out.Problem = object, problem
	switch a := op.GetAction().(type) {
	case *connectorv1.Operation_AddMember:
		member, problem := c.resolve(ctx, alias, a.AddMember.GetMember())
		out.Detail = "member " + member
		out.Problem = strings.TrimSpace(out.Problem + " " + problem)
	case *connectorv1.Operation_RemoveMember:
		member, problem := c.resolve(ctx, alias, a.RemoveMember.GetMember())
		out.Detail = "member " + member
		out.Problem = strings.TrimSpace(out.Problem + " " + problem)
	case *connectorv1.Operation_Update:
		var names []string
		for _, d := range a.Update.GetDeltas() {
			names = append(names, d.GetAttribute())
		}
		out.Detail = strings.Join(names, ", ")
	case *connectorv1.Operation_Rename:
		out.Detail = "to " + a.Rename.GetTo().Text()
	case *connectorv1.Operation_Move:
		out.Detail = "to " + (&connectorv1.Name{Components: a.Move.GetTo()}).Text()
	}
}

// resolve is the name that the directory gives now under an anchor.
func (c *core) resolve(ctx context.Context, alias string, ref *connectorv1.ObjectRef) (name, problem string) {
	if ref.GetChange() != "" {
		return "what change " + ref.GetChange() + " creates", ""
	}
	i, err := c.host.Instance(alias)
	if err != nil {
		return ref.GetAnchor(), err.Error()
	}
	results, err := i.Read(ctx, []*connectorv1.ObjectRef{ref})
	if err != nil {
		return ref.GetAnchor(), "it could not be read: " + sdk.Clean(err.Error())
	}
	switch r := results[0].GetOutcome().(type) {
	case *connectorv1.ReadResult_Object:
		return r.Object.GetName().Text(), ""
	case *connectorv1.ReadResult_Absent:
		return ref.GetAnchor(), "the directory has no such object"
	case *connectorv1.ReadResult_Problem:
		return ref.GetAnchor(), "it could not be read: " + sdk.FromProto(r.Problem).Error()
	}
	return ref.GetAnchor(), "the connector did not answer"
}
