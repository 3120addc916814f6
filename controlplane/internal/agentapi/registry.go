package agentapi

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"

	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// Registry knows the live sessions and connections of this process. It keeps
// nothing: what must arrive waits in a store and is told again at the next
// hello. It is safe for concurrent use.
type Registry struct {
	connections connections
	log         *slog.Logger
	now         func() time.Time

	mu       sync.Mutex
	sessions map[agentKey]*session
}

// NewRegistry returns an empty registry. enrollment cuts through it, dispatch
// and inventory send directives through it, New serves with it.
func NewRegistry(now func() time.Time, log *slog.Logger) *Registry {
	return &Registry{
		connections: connections{live: map[agentKey]map[*connection]struct{}{}, now: now},
		log:         log, now: now, sessions: map[agentKey]*session{},
	}
}

// Cut ends every live connection of an agent within a second, streams included.
// It implements enrollment.Sessions.
func (r *Registry) Cut(tenant, agent, reason string) {
	if n := r.connections.cut(agentKey{tenant, agent}); n > 0 {
		r.log.Info("agent's connections cut", "tenant", tenant, "agent", agent, "connections", n, "reason", reason)
	}
}

// Observe asks an agent for a fresh snapshot and reports whether it is
// connected.
func (r *Registry) Observe(tenant, agent, connector string) bool {
	return r.send(tenant, agent, &agentv1.SessionResponse{Message: &agentv1.SessionResponse_Observe{Observe: &agentv1.Observe{Connector: connector}}})
}

// Fetch tells an agent that an order waits and reports whether it is connected.
func (r *Registry) Fetch(tenant, agent, order string) bool {
	return r.send(tenant, agent, fetch(&agentv1.Fetch{Order: order}))
}

// FetchDryRun tells an agent that a plan waits to be tried and reports whether it
// is connected.
func (r *Registry) FetchDryRun(tenant, agent string, digest []byte) bool {
	return r.send(tenant, agent, fetch(&agentv1.Fetch{DryRun: digest}))
}

func fetch(f *agentv1.Fetch) *agentv1.SessionResponse {
	return &agentv1.SessionResponse{Message: &agentv1.SessionResponse_Fetch{Fetch: f}}
}

func (r *Registry) send(tenant, agent string, m *agentv1.SessionResponse) bool {
	r.mu.Lock()
	s := r.sessions[agentKey{tenant, agent}]
	r.mu.Unlock()
	return s != nil && s.push(m)
}

// Live is one connected agent.
type Live struct {
	Agent string
	Since time.Time
	// Heard is when the agent last said anything, LastWork when it says that it
	// last did something; zero for never.
	Heard, LastWork time.Time
	Paused          bool
	// Spooled records wait at the agent.
	Spooled uint64
	Version string
}

// Connected are the tenant's connected agents, sorted.
func (r *Registry) Connected(tenant string) []Live {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Live
	for key, s := range r.sessions {
		if key.tenant == tenant {
			list = append(list, s.live())
		}
	}
	slices.SortFunc(list, func(a, b Live) int { return cmp.Compare(a.Agent, b.Agent) })
	return list
}

// Count is how many agents have a session.
func (r *Registry) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions)
}

// has reports whether the agent has a session.
func (r *Registry) has(key agentKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions[key] != nil
}

// open makes s the agent's session: one that it moved away from gets no more
// directives. close undoes that unless another took its place.
func (r *Registry) open(key agentKey, s *session) (close func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[key] = s
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.sessions[key] == s {
			delete(r.sessions, key)
		}
	}
}
