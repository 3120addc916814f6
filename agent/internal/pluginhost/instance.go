package pluginhost

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/host"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Instance is one configured connector. Its calls wait until the process is up,
// as long as the context lets them; their errors are *sdk.Problem. It is safe
// for concurrent use.
type Instance struct {
	spec    Spec
	options *Options
	release map[string]bool

	mu sync.Mutex
	// ready is closed when an attempt to start has ended, well or not.
	ready  chan struct{}
	up     *process
	health Health
	// last is why there is no process now.
	last error
	// known is what the connector said of itself when last up.
	known *process
}

// process is a connector that was started and configured.
type process struct {
	client       *host.Client
	version      string
	caseRule     connectorv1.CaseRule
	types        []*connectorv1.ObjectType
	capabilities []connectorv1.Capability
	// leaves tells by type and declared name what may leave the network.
	leaves map[string]map[string]bool
}

// Health is how a connector does its work.
type Health struct {
	Running   bool
	Reachable bool
	Restarts  int
	// LastWork is when a call last succeeded.
	LastWork    time.Time
	Fingerprint []*connectorv1.Fact
	Problems    []*connectorv1.Problem
}

func newInstance(spec Spec, o *Options) *Instance {
	i := &Instance{spec: spec, options: o, ready: make(chan struct{}), release: map[string]bool{}}
	for _, name := range spec.Release {
		i.release[strings.ToLower(name)] = true
	}
	return i
}

// Alias is the instance's name in agent.yaml.
func (i *Instance) Alias() string { return i.spec.Alias }

// Spec is what agent.yaml says of the instance.
func (i *Instance) Spec() Spec { return i.spec }

// supervise keeps a process running until ctx ends.
func (i *Instance) supervise(ctx context.Context) {
	pause := i.options.FirstPause
	for ctx.Err() == nil {
		started := i.options.Now()
		p, err := i.launch(ctx)
		if err != nil {
			i.options.Logger.Warn("connector did not start", "alias", i.spec.Alias, "error", sdk.Clean(err.Error()))
			i.failed(err)
		} else {
			i.succeeded(p)
			select {
			case <-p.client.Exited():
				i.options.Logger.Warn("connector ended by itself", "alias", i.spec.Alias)
			case <-ctx.Done():
			}
			i.gone()
			p.client.Kill()
			// A process that worked for a while has earned a quick restart.
			if i.options.Now().Sub(started) > i.options.MostPause {
				pause = i.options.FirstPause
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		}
		pause = min(2*pause, i.options.MostPause)
	}
}

func (i *Instance) launch(ctx context.Context) (*process, error) {
	client, err := host.Launch(ctx, host.Options{
		Alias: i.spec.Alias, Command: i.spec.Command, SHA256: i.spec.SHA256, User: i.spec.User,
		Dir: i.options.Dir, Logger: i.options.Logger,
	})
	if err != nil {
		return nil, err
	}
	p, err := i.configure(ctx, client)
	if err != nil {
		client.Kill()
		return nil, err
	}
	return p, nil
}

func (i *Instance) configure(ctx context.Context, client *host.Client) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, i.options.CallTimeout)
	defer cancel()
	described, err := client.Describe(ctx)
	if err != nil {
		return nil, err
	}
	var secrets []*connectorv1.Secret
	if i.spec.Secrets != nil {
		if secrets, err = i.spec.Secrets(); err != nil {
			return nil, sdk.NewProblem(sdk.CodeConfig, i.spec.Alias, "resolve the connector's secrets", "correct the reference under secrets in agent.yaml").WithCause(err)
		}
	}
	configured, err := client.Configure(ctx, &connectorv1.ConfigureRequest{
		Alias: i.spec.Alias, SettingsJson: i.spec.Settings, Secrets: secrets,
	})
	for _, s := range secrets {
		clear(s.Value)
	}
	if err != nil {
		return nil, err
	}
	return &process{
		client: client, version: sdk.Clean(described.GetVersion()), caseRule: described.GetCaseRule(),
		types: configured.GetTypes(), capabilities: configured.GetCapabilities(),
		leaves: leaving(configured.GetTypes(), i.release),
	}, nil
}

func (i *Instance) succeeded(p *process) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.up, i.known, i.last = p, p, nil
	i.health.Running = true
	close(i.ready)
}

func (i *Instance) gone() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.up = nil
	i.ready = make(chan struct{})
	i.health.Running, i.health.Reachable = false, false
	i.health.Restarts++
	i.last = sdk.NewProblem(sdk.CodeUnreachable, i.spec.Alias, "call the connector", "the agent starts it again; see the agent's log for why it ended")
}

func (i *Instance) failed(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.last = err
	close(i.ready)
	i.ready = make(chan struct{})
	i.health.Reachable = false
	i.health.Problems = []*connectorv1.Problem{sdk.AsProblem(err, i.spec.Alias, "start the connector").Proto()}
}

// process waits until the connector is up or an attempt to start it has failed.
func (i *Instance) process(ctx context.Context) (*process, error) {
	i.mu.Lock()
	up, ready := i.up, i.ready
	i.mu.Unlock()
	if up != nil {
		return up, nil
	}
	select {
	case <-ready:
	case <-ctx.Done():
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.up != nil:
		return i.up, nil
	case i.last != nil && !errors.Is(ctx.Err(), context.Canceled):
		// Why it is not up says more than that time passed.
		return nil, sdk.AsProblem(i.last, i.spec.Alias, "start the connector")
	default:
		return nil, sdk.AsProblem(ctx.Err(), i.spec.Alias, "wait for the connector to start")
	}
}

// call runs one call under a bound and keeps the account of health. A process
// that does not answer within the bound is ended: what hangs once hangs again.
func (i *Instance) call(ctx context.Context, bound time.Duration, do func(context.Context, *process) error) error {
	bounded, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	p, err := i.process(bounded)
	if err != nil {
		return err
	}
	err = do(bounded, p)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		i.options.Logger.Warn("connector did not answer in time and is ended", "alias", i.spec.Alias)
		p.client.Kill()
	}
	i.account(ctx, err)
	return err
}

func (i *Instance) account(ctx context.Context, err error) {
	if err != nil && ctx.Err() != nil {
		return // the caller gave up; that says nothing of the connector
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err == nil {
		i.health.LastWork, i.health.Reachable = i.options.Now(), true
		i.health.Problems = nil
		return
	}
	var p *sdk.Problem
	if !errors.As(err, &p) {
		return // the caller's own error, returned as it is
	}
	i.health.Problems = []*connectorv1.Problem{p.Proto()}
	switch p.Code() {
	case sdk.CodeUnreachable, sdk.CodeBindRefused, sdk.CodeTLSRefused, sdk.CodeTimeLimit:
		i.health.Reachable = false
	}
}

// Health returns how the connector is.
func (i *Instance) Health() Health {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.health
}

// State is what the control plane is told of the instance.
func (i *Instance) State() *agentv1.ConnectorState {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := &agentv1.ConnectorState{
		Alias: i.spec.Alias, Connector: i.spec.Connector, Role: i.spec.Role, Mode: i.spec.Mode,
		Reachable: i.health.Reachable, Problems: i.health.Problems, Fingerprint: i.health.Fingerprint,
	}
	if i.known != nil {
		s.Types, s.Capabilities, s.CaseRule = i.known.types, i.known.capabilities, i.known.caseRule
	}
	return proto.CloneOf(s)
}
