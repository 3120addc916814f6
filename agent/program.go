package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/reevehq/reeve/agent/internal/cli"
	"github.com/reevehq/reeve/agent/internal/config"
	"github.com/reevehq/reeve/agent/internal/enroll"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/agent/internal/pluginhost"
	"github.com/reevehq/reeve/agent/internal/secrets"
	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/jointoken"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/tlogproof"
	"github.com/reevehq/reeve/plugins/sdk"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Join implements cli.Program.
func (p *program) Join(ctx context.Context, o cli.JoinOptions) (*cli.Joined, error) {
	options := enroll.JoinOptions{ControlPlane: o.ControlPlane, Pin: strings.ToLower(o.RootSHA256), Name: o.Name, Version: buildVersion(), Now: p.now}
	state := o.State
	if o.Config != "" {
		f, err := config.Load(o.Config)
		if err != nil {
			return nil, coded(fmt.Errorf("%w (or give --control-plane, --root-sha256 and --state)", err))
		}
		options.TrustDomain = f.TrustDomain
		fill(&options.ControlPlane, f.ControlPlane)
		fill(&options.Pin, f.RootSHA256)
		fill(&state, f.State)
	}
	if fault := config.CheckAddress(options.ControlPlane); fault != "" {
		return nil, cli.Usagef("--control-plane %s", fault)
	}
	if fault := config.CheckPin(options.Pin); fault != "" {
		return nil, cli.Usagef("--root-sha256 %s", fault)
	}
	text, err := io.ReadAll(o.Token)
	if err != nil {
		return nil, cli.Usagef("the token cannot be read: %w", err)
	}
	options.Token, err = jointoken.Parse(string(text))
	clear(text)
	if err != nil {
		return nil, coded(err)
	}
	if options.State, err = statedir.Open(state); err != nil {
		return nil, coded(err)
	}
	unlock, err := options.State.Lock()
	if err != nil {
		return nil, coded(err)
	}
	defer unlock()
	id, again, err := enroll.Join(ctx, options)
	if err != nil {
		return nil, coded(err)
	}
	return p.joined(options.State, id, again)
}

func fill(v *string, from string) {
	if *v == "" {
		*v = from
	}
}

func (p *program) joined(d statedir.Dir, id statedir.Identity, again bool) (*cli.Joined, error) {
	key, err := keys.LoadPrivate(d.WitnessKey())
	if err != nil {
		return nil, err
	}
	pub, _ := key.Public().(ed25519.PublicKey) // crypto/ed25519 returns no other type
	verifier, err := tlogproof.NewCosignatureVerifier(witnessName(id), pub)
	if err != nil {
		return nil, err
	}
	vkey, err := tlogproof.FormatVerifierKey(verifier)
	if err != nil {
		return nil, err
	}
	out := &cli.Joined{
		ID: id.ID().String(), Tenant: id.Tenant, Agent: id.Agent, Epoch: id.Epoch, TrustDomain: id.TrustDomain, State: d.Path(),
		LogOrigin: id.LogOrigin, WitnessKey: vkey, SVIDNotAfter: enroll.NotAfter(d), Again: again,
	}
	roots, err := d.Roots(id.RootSHA256, p.now, nil)
	if err != nil {
		return nil, coded(err)
	}
	if doc, err := roots.Current(); err == nil {
		out.RootVersion = doc.Version
	}
	return out, nil
}

// Validate implements cli.Program.
func (p *program) Validate(_ context.Context, path string) (*cli.Validated, error) {
	s, err := p.load(path)
	if err != nil {
		return nil, err
	}
	out := &cli.Validated{Path: s.Path, GuardrailsDigest: s.digest(), Warnings: slices.Clone(s.Warnings), Connectors: []string{}}
	resolver := secrets.Resolver{Getenv: p.getenv}
	for _, c := range s.Connectors {
		out.Connectors = append(out.Connectors, c.Alias)
		for _, reference := range c.Secrets {
			// Another user may be able to read what this one cannot.
			if _, err := resolver.Resolve(reference); errors.Is(err, secrets.ErrReference) {
				return nil, coded(fmt.Errorf("%w: %s:%d: connector %s: %w", config.ErrInvalid, s.Path, c.Line, c.Alias, err))
			} else if err != nil {
				out.Warnings = append(out.Warnings, fmt.Sprintf("connector %s: %v", c.Alias, err))
			}
		}
	}
	if out.Warnings == nil {
		out.Warnings = []string{}
	}
	slices.Sort(out.Warnings)
	return out, nil
}

// ExplainGuardrails implements cli.Program.
func (p *program) ExplainGuardrails(path, alias string) (*cli.Explained, error) {
	s, err := p.load(path)
	if err != nil {
		return nil, err
	}
	out := &cli.Explained{Digest: s.digest()}
	for _, c := range s.Connectors {
		if alias == "" || c.Alias == alias {
			out.Connectors = append(out.Connectors, cli.ExplainedText{Alias: c.Alias, Lines: s.guardrails[c.Alias].Explain()})
		}
	}
	if alias != "" && len(out.Connectors) == 0 {
		return nil, coded(fmt.Errorf("%w: %q: %w", config.ErrInvalid, alias, pluginhost.ErrUnknownAlias))
	}
	return out, nil
}

// checkTimeout bounds the start and the check of all connectors.
const checkTimeout = 90 * time.Second

// CheckConnectors implements cli.Program. It starts its own connector processes,
// so it works beside a running agent and without one, joined or not.
func (p *program) CheckConnectors(ctx context.Context, path, alias string) (*cli.Checked, error) {
	s, err := p.load(path)
	if err != nil {
		return nil, err
	}
	specs, err := p.specs(s, alias)
	if err != nil {
		return nil, err
	}
	h, err := pluginhost.New(specs, pluginhost.Options{Logger: p.log, Now: p.now})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	out := &cli.Checked{Connectors: []cli.CheckedConnector{}}
	for _, i := range h.Instances() {
		out.Connectors = append(out.Connectors, checkOne(ctx, i, s.guardrails[i.Alias()]))
	}
	return out, nil
}

func checkOne(ctx context.Context, i *pluginhost.Instance, g *guardrails.Guardrails) cli.CheckedConnector {
	spec := i.Spec()
	out := cli.CheckedConnector{
		Alias: spec.Alias, Connector: spec.Connector, Release: spec.Release, Types: []cli.CheckedType{}, Rights: []cli.Right{},
		Fingerprint: []cli.Pair{}, Problems: []cli.Problem{},
		Role: enumWord(spec.Role.String(), "ROLE_"), Mode: enumWord(spec.Mode.String(), "MODE_"),
	}
	if out.Release == nil {
		out.Release = []string{}
	}
	checked, err := i.Check(ctx)
	out.Version = i.Version()
	for _, t := range i.Types() {
		out.Types = append(out.Types, checkType(t, spec, g, i.Withheld(t)))
	}
	if err != nil {
		out.Problems = problems([]*connectorv1.Problem{sdk.AsProblem(err, spec.Alias, "check").Proto()})
		return out
	}
	out.Reachable, out.Server, out.BoundAs = checked.GetReachable(), checked.GetServer(), checked.GetBoundAs()
	for _, r := range checked.GetRights() {
		out.Rights = append(out.Rights, cli.Right{What: r.GetWhat(), Where: r.GetWhere(), Allowed: r.GetAllowed(), Certain: r.GetCertain()})
	}
	for _, f := range checked.GetFingerprint() {
		out.Fingerprint = append(out.Fingerprint, cli.Pair{Name: f.GetName(), Value: f.GetValue()})
	}
	out.Problems = problems(checked.GetProblems())
	return out
}

// checkType is what the connector can do to a type, and what of it mode and
// guardrails let a plan do somewhere.
func checkType(t *connectorv1.ObjectType, spec pluginhost.Spec, g *guardrails.Guardrails, withheld []string) cli.CheckedType {
	out := cli.CheckedType{Type: t.GetName(), Kind: enumWord(t.GetKind().String(), "KIND_"), Can: []string{}, May: []string{}, Withheld: withheld}
	writable := spec.Role == agentv1.ConnectorState_ROLE_TARGET && spec.Mode != agentv1.ConnectorState_MODE_OBSERVE
	for _, op := range t.GetOperations() {
		out.Can = append(out.Can, op.Word())
		if op == connectorv1.OperationKind_OPERATION_KIND_CREATE && spec.Mode != agentv1.ConnectorState_MODE_ENFORCE {
			continue
		}
		name := strings.ReplaceAll(op.Word(), " ", "_")
		if writable && slices.ContainsFunc(g.Scope, func(r guardrails.ScopeRule) bool {
			return slices.Contains(r.Types, t.GetName()) && slices.Contains(r.Operations, name)
		}) {
			out.May = append(out.May, op.Word())
		}
	}
	if out.Withheld == nil {
		out.Withheld = []string{}
	}
	return out
}

func enumWord(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

func problems(list []*connectorv1.Problem) []cli.Problem {
	out := make([]cli.Problem, len(list))
	for i, q := range list {
		q = sdk.FromProto(q).Proto()
		out[i] = cli.Problem{
			Code: q.GetCode(), Object: q.GetObject(), Tried: q.GetTried(), Said: q.GetSaid(), Remedy: q.GetRemedy(),
			Severity: enumWord(q.GetSeverity().String(), "SEVERITY_"),
		}
	}
	return out
}
