package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/config"
	"github.com/reevehq/reeve/agent/internal/executor"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/pluginhost"
	"github.com/reevehq/reeve/agent/internal/secrets"
	"github.com/reevehq/reeve/agent/internal/session"
	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/plugins/sdk/host"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// setup is agent.yaml with everything that is read from it.
type setup struct {
	*config.File
	guardrails map[string]*guardrails.Guardrails
	approvers  []guardrails.Approver
	recipients *secrets.Recipients
}

// load reads agent.yaml and all it says about connectors, guardrails and keys.
func (p *program) load(path string) (*setup, error) {
	f, err := config.Load(path)
	if err != nil {
		return nil, coded(err)
	}
	s := &setup{File: f, guardrails: map[string]*guardrails.Guardrails{}}
	var faults []error
	for i := range f.Connectors {
		c := &f.Connectors[i]
		if c.Name != "" && !slices.Contains(builtInNames(), c.Name) {
			faults = append(faults, fmt.Errorf("%s:%d: %q is not a built-in connector; there are %s, or give command and sha256", f.Path, c.Line, c.Name, strings.Join(builtInNames(), " and ")))
		}
		g, err := guardrails.Parse(c.Alias, &c.Guardrails)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", f.Path, err))
			continue
		}
		for _, name := range g.ClientSignature.Approvers {
			if !slices.ContainsFunc(f.Approvers, func(a config.Approver) bool { return a.Name == name }) {
				faults = append(faults, fmt.Errorf("%s:%d: connector %s: guardrails.client_signature.approvers names %q, whom approvers does not have", f.Path, c.Line, c.Alias, name))
			}
		}
		s.guardrails[c.Alias] = g
	}
	for _, a := range f.Approvers {
		s.approvers = append(s.approvers, guardrails.Approver{Name: a.Name, Key: a.Key})
	}
	if s.recipients, err = secrets.ParseRecipients(f.Recipients); err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		return nil, coded(fmt.Errorf("%w: %w", config.ErrInvalid, errors.Join(faults...)))
	}
	return s, nil
}

func (s *setup) digest() string { return guardrails.Digest(s.guardrails, s.approvers) }

// specs are the connectors to run; with an alias only that one.
func (p *program) specs(s *setup, alias string) ([]pluginhost.Spec, error) {
	resolver := secrets.Resolver{Getenv: p.getenv}
	var out []pluginhost.Spec
	for _, c := range s.Connectors {
		if alias != "" && c.Alias != alias {
			continue
		}
		spec := pluginhost.Spec{
			Alias: c.Alias, Connector: c.Name, Role: c.Role.Proto(), Mode: c.Mode.Proto(),
			Settings: c.Settings.JSON, Release: c.Release, Command: c.Command,
			Secrets: func() ([]*connectorv1.Secret, error) { return resolve(resolver, c.Secrets) },
		}
		var err error
		if c.Name != "" {
			if spec.Command, err = builtInCommand(c.Name); err != nil {
				return nil, err
			}
		} else {
			spec.Connector = c.Command[0]
			if spec.SHA256, err = hex.DecodeString(c.SHA256); err != nil {
				return nil, fmt.Errorf("connector %s: sha256: %w", c.Alias, err)
			}
		}
		if spec.User, err = osUser(c.User); err != nil {
			return nil, coded(fmt.Errorf("%w: %s:%d: connector %s: %w", config.ErrInvalid, s.Path, c.Line, c.Alias, err))
		}
		out = append(out, spec)
	}
	if alias != "" && len(out) == 0 {
		return nil, coded(fmt.Errorf("%w: %q: %w", config.ErrInvalid, alias, pluginhost.ErrUnknownAlias))
	}
	return out, nil
}

func resolve(r secrets.Resolver, references map[string]string) ([]*connectorv1.Secret, error) {
	var out []*connectorv1.Secret
	for name, reference := range references {
		s, err := r.Resolve(reference)
		if err != nil {
			return nil, err
		}
		out = append(out, &connectorv1.Secret{Name: name, Value: s.Reveal()})
	}
	slices.SortFunc(out, func(a, b *connectorv1.Secret) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out, nil
}

// osUser looks a connector's user up; none is the agent's own.
func osUser(name string) (*host.User, error) {
	if name == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("user: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s has no numeric id on this system", name)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s has no numeric group on this system", name)
	}
	out := &host.User{UID: uint32(uid), GID: uint32(gid)}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of user %s: %w", name, err)
	}
	for _, g := range groups {
		if n, err := strconv.ParseUint(g, 10, 32); err == nil {
			out.Groups = append(out.Groups, uint32(n))
		}
	}
	return out, nil
}

// core is the agent without its edge: enough for what local root may command
// when no agent runs.
type core struct {
	*setup
	p       *program
	dir     statedir.Dir
	id      statedir.Identity
	roots   *statedir.Roots
	journal *journal.Journal
	clock   *journal.Clock
	audit   audit.Recorder
	unlock  func()

	// What follows is set by connect.
	host     *pluginhost.Host
	admitter *admission.Admitter
	executor *executor.Executor
	// link is nil where the agent does not run, as for a local command.
	link *session.Link
}

// claimPatience is how long the state folder's holder may need to let go. A local
// command such as status holds it for a moment while no agent runs, and must not
// keep the agent from starting.
const claimPatience = 5 * time.Second

func claim(ctx context.Context, dir statedir.Dir) (release func(), err error) {
	patience := time.NewTimer(claimPatience)
	defer patience.Stop()
	for {
		release, err = dir.Lock()
		if !errors.Is(err, statedir.ErrLocked) {
			return release, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-patience.C:
			return nil, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// open claims the state folder and opens the journal. It works offline.
func (p *program) open(ctx context.Context, s *setup) (_ *core, err error) {
	c := &core{setup: s, p: p}
	if c.dir, err = statedir.Open(s.State); err != nil {
		return nil, coded(err)
	}
	if c.unlock, err = claim(ctx, c.dir); err != nil {
		return nil, coded(err)
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.id, err = c.dir.Identity(); err != nil {
		return nil, coded(err)
	}
	if c.id.RootSHA256 != s.RootSHA256 {
		p.log.Warn("root_sha256 was changed since the join; the stored root documents must lead from the new pin")
	}
	if c.roots, err = c.dir.Roots(s.RootSHA256, p.now, nil); err != nil {
		return nil, coded(err)
	}
	key, err := keys.LoadPrivate(c.dir.AuditKey())
	if err != nil {
		return nil, err
	}
	c.journal, err = journal.Open(ctx, journal.Options{
		Path: c.dir.Journal(), MarksPath: c.dir.Marks(), Key: key, Now: p.now, Log: p.log,
		Identity: journalIdentity(c.id),
	})
	if err != nil {
		return nil, coded(c.remedy(err))
	}
	boot, err := p.clock.BootID()
	if err != nil {
		return nil, err
	}
	c.clock = journal.NewClock(c.journal, journal.ClockOptions{Wall: p.now, Boot: p.clock.Boot, BootID: boot})
	c.audit = audit.Recorder{Actor: c.id.ID().String(), Now: c.clock.Now}
	return c, nil
}

// remedy adds what to do about a journal that cannot be believed.
func (c *core) remedy(err error) error {
	if errors.Is(err, journal.ErrForged) || errors.Is(err, journal.ErrDamaged) {
		return fmt.Errorf("%w; keep the state folder for whoever looks into it, ask the MSP to invite agent %s again and join in a new state folder", err, c.id.Agent)
	}
	return err
}

// connect starts the connectors and what acts on them.
func (c *core) connect(progress func(executor.Progress)) error {
	specs, err := c.p.specs(c.setup, "")
	if err != nil {
		return err
	}
	if c.host, err = pluginhost.New(specs, pluginhost.Options{Dir: c.dir.Plugins(), Logger: c.p.log, Now: c.p.now}); err != nil {
		return err
	}
	admit, execute := map[string]admission.Connector{}, map[string]executor.Connector{}
	for _, i := range c.host.Instances() {
		spec := i.Spec()
		admit[spec.Alias] = admission.Connector{Mode: spec.Mode, Role: spec.Role, Guardrails: c.guardrails[spec.Alias], Directory: i}
		execute[spec.Alias] = executor.Connector{Guardrails: c.guardrails[spec.Alias], Directory: i}
	}
	c.admitter = admission.New(admission.Options{
		Journal: c.journal, Clock: c.clock, Audit: c.audit, Trust: c.trust, LogOrigin: c.id.LogOrigin, Cosigned: c.cosigned, Growth: c.growth,
		Connectors: admit, Approvers: c.approvers, Recipients: c.recipients, Log: c.p.log,
	})
	c.executor = executor.New(executor.Options{
		Journal: c.journal, Clock: c.clock, Audit: c.audit, Connectors: execute, Recipients: c.recipients,
		Progress: progress, Log: c.p.log,
	})
	return nil
}

func (c *core) close() {
	if c.host != nil {
		c.host.Close()
	}
	if c.journal != nil {
		if err := c.journal.Close(); err != nil {
			c.p.log.Error("journal did not close", "error", err)
		}
	}
	if c.unlock != nil {
		c.unlock()
	}
}

// trust is what orders are held against: the newest root document, never one
// older than the journal has seen.
func (c *core) trust() (admission.Trust, error) {
	doc, err := c.roots.Usable()
	if err != nil {
		return admission.Trust{}, err
	}
	if seen := c.journal.RootVersion(); doc.Version < seen {
		return admission.Trust{}, fmt.Errorf("root document %d is held and %d was seen before: an older copy of the state folder was put back", doc.Version, seen)
	}
	set, err := doc.PlanKeySet()
	if err != nil {
		return admission.Trust{}, err
	}
	verifiers, err := c.logKeys()
	return admission.Trust{PlanKeys: set, Checkpoints: verifiers}, err
}

// growthPatience is how long an order waits for a session that went away between
// its coming and its admission; then it is fetched again.
const growthPatience = time.Minute

// growth asks the control plane, where there is a session, how the tenant's log
// grew from one size to another.
func (c *core) growth(ctx context.Context, from, to uint64) (tlog.TreeProof, error) {
	if c.link == nil {
		return nil, errors.New("there is no session with the control plane")
	}
	ctx, cancel := context.WithTimeout(ctx, growthPatience)
	defer cancel()
	client, release, err := c.link.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	resp, err := client.ProveGrowth(ctx, &agentv1.ProveGrowthRequest{FromSize: from, ToSize: to})
	if err != nil {
		return nil, err
	}
	proof := make(tlog.TreeProof, len(resp.GetHashes()))
	for i, h := range resp.GetHashes() {
		if len(h) != tlog.HashSize {
			return nil, fmt.Errorf("a hash of the proof has %d bytes", len(h))
		}
		proof[i] = tlog.Hash(h)
	}
	return proof, nil
}

// cosigned is the newest checkpoint that the witness has made durable.
func (c *core) cosigned() (string, error) {
	raw, err := os.ReadFile(filepath.Join(c.dir.Witness(), "latest"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(raw), err
}

// logKeys verify the tenant log's checkpoints, signed under the key's own name
// or under the log's.
func (c *core) logKeys() ([]note.Verifier, error) {
	doc, err := c.roots.Current()
	if err != nil {
		return nil, err
	}
	var out []note.Verifier
	for _, name := range []string{"", c.id.LogOrigin} {
		list, err := doc.CheckpointVerifiers(name)
		if err != nil {
			return nil, err
		}
		for _, v := range list {
			if !slices.ContainsFunc(out, func(o note.Verifier) bool { return o.Name() == v.Name() && o.KeyHash() == v.KeyHash() }) {
				out = append(out, v)
			}
		}
	}
	return out, nil
}
