package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/host"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// ErrUnknownAlias means that agent.yaml has no connector of that alias.
var ErrUnknownAlias = errors.New("no connector of this alias in agent.yaml")

// Spec is one connector of agent.yaml.
type Spec struct {
	Alias string
	// Connector is what the connector is called, such as "ldap".
	Connector string
	// Command is the executable's absolute path and its arguments, SHA256 its
	// expected hash or nil, User the operating system's user or nil for the
	// agent's own.
	Command []string
	SHA256  []byte
	User    *host.User
	Role    agentv1.ConnectorState_Role
	Mode    agentv1.ConnectorState_Mode
	// Settings are JSON. Secrets resolves the instance's secrets; it is called
	// at every start, so that a rotated secret needs no restart of the agent.
	Settings []byte
	Secrets  func() ([]*connectorv1.Secret, error)
	// Release lists the attributes whose values may leave the network.
	Release []string
}

// Options are the same for all connectors.
type Options struct {
	// Dir is where sockets are made. Where it is empty or its path too long for a
	// socket, a folder of mode 0700 under a temporary one takes its place.
	Dir    string
	Logger *slog.Logger
	Now    func() time.Time
	// FirstPause and MostPause bound the pause before a restart; 0 is one
	// second and one minute.
	FirstPause, MostPause time.Duration
	// CallTimeout bounds a check or a read, ApplyTimeout an apply, and
	// ObserveTimeout a whole observation; 0 is one minute, five minutes and one
	// hour. A process that lets one pass is ended and started again.
	CallTimeout, ApplyTimeout, ObserveTimeout time.Duration
}

// maxDir is the longest path that plugins/sdk/host takes for its sockets.
const maxDir = 60

// Host owns the instances. It is safe for concurrent use.
type Host struct {
	options   Options
	instances []*Instance
	byAlias   map[string]*Instance
	tempDir   string
	stop      context.CancelFunc
	running   sync.WaitGroup
}

// New starts every connector in the background; an instance's calls wait for
// its process. Close ends them all.
func New(specs []Spec, o Options) (*Host, error) {
	o.defaults()
	h := &Host{byAlias: map[string]*Instance{}}
	if o.Dir == "" || len(o.Dir) > maxDir {
		dir, err := shortDir()
		if err != nil {
			return nil, fmt.Errorf("make folder for connector sockets: %w", err)
		}
		h.tempDir, o.Dir = dir, dir
	}
	h.options = o
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	for _, spec := range specs {
		i := newInstance(spec, &h.options)
		h.instances = append(h.instances, i)
		h.byAlias[spec.Alias] = i
		h.running.Add(1)
		go func() {
			defer h.running.Done()
			i.supervise(ctx)
		}()
	}
	return h, nil
}

// shortDir makes a folder whose path leaves room for a socket's name.
func shortDir() (string, error) {
	var errs []error
	for _, parent := range []string{os.TempDir(), "/run", "/tmp"} {
		dir, err := os.MkdirTemp(parent, "reeve-")
		if err == nil && len(dir) <= maxDir {
			return dir, nil
		}
		if err == nil {
			err = os.Remove(dir)
		}
		errs = append(errs, err)
	}
	return "", errors.Join(append(errs, fmt.Errorf("no folder with a path of at most %d bytes", maxDir))...)
}

func (o *Options) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.FirstPause, time.Second)
	set(&o.MostPause, time.Minute)
	set(&o.CallTimeout, time.Minute)
	set(&o.ApplyTimeout, 5*time.Minute)
	set(&o.ObserveTimeout, time.Hour)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Close ends every connector process and returns when they are gone.
func (h *Host) Close() {
	h.stop()
	h.running.Wait()
	if h.tempDir != "" {
		_ = os.RemoveAll(h.tempDir)
	}
}

// Instance returns the connector of that alias; ErrUnknownAlias without one.
func (h *Host) Instance(alias string) (*Instance, error) {
	i := h.byAlias[alias]
	if i == nil {
		return nil, fmt.Errorf("%q: %w", sdk.Clean(alias), ErrUnknownAlias)
	}
	return i, nil
}

// Instances returns all connectors in the order of agent.yaml.
func (h *Host) Instances() []*Instance { return h.instances }

// States is what the control plane is told of the connectors.
func (h *Host) States() []*agentv1.ConnectorState {
	out := make([]*agentv1.ConnectorState, len(h.instances))
	for i, instance := range h.instances {
		out[i] = instance.State()
	}
	return out
}
