package agentapi

import (
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
)

// strangerLife is how long a connection without a certificate may last: joining
// takes seconds.
const strangerLife = 5 * time.Minute

// connections are all live TLS connections by agent. A connection is here from
// its handshake on, before any request on it is authorised, so that a cut finds
// it whichever comes first.
type connections struct {
	mu   sync.Mutex
	live map[agentKey]map[*connection]struct{}
	now  func() time.Time
}

type agentKey struct{ tenant, agent string }

// connection removes itself when it is closed, by either side.
type connection struct {
	net.Conn
	of    *connections
	key   agentKey
	timer *time.Timer
	once  sync.Once
}

func (c *connection) Close() error {
	c.once.Do(func() {
		// Under the lock, since the timer may fire before add has stored it.
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		c.timer.Stop()
		delete(c.of.live[c.key], c)
		if len(c.of.live[c.key]) == 0 {
			delete(c.of.live, c.key)
		}
	})
	return c.Conn.Close()
}

// add watches a connection until end, when it is closed whatever runs on it.
func (cs *connections) add(raw net.Conn, key agentKey, end time.Time) *connection {
	c := &connection{Conn: raw, of: cs, key: key}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.live[key] == nil {
		cs.live[key] = map[*connection]struct{}{}
	}
	cs.live[key][c] = struct{}{}
	c.timer = time.AfterFunc(end.Sub(cs.now()), func() { _ = c.Close() })
	return c
}

// cutGrace lets the answer that tells an agent why go out before its connection
// ends. Requests are refused from the commit on, so only streams that were open
// already run on for this long.
const cutGrace = 500 * time.Millisecond

// cut ends every connection of an agent: what runs on them ends with an error at
// both ends.
func (cs *connections) cut(key agentKey) int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.live[key] {
		c.timer.Reset(cutGrace)
	}
	return len(cs.live[key])
}

// watching wraps TLS credentials so that connections are held by whose they are.
type watching struct {
	credentials.TransportCredentials
	connections *connections
}

// ServerHandshake implements credentials.TransportCredentials.
func (w watching) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	state, ok := info.(credentials.TLSInfo)
	if !ok {
		_ = conn.Close()
		return nil, nil, mtls.ErrPeer
	}
	id, leaf, err := mtls.PeerOf(state.State)
	if errors.Is(err, mtls.ErrNoPeerCertificate) {
		return w.connections.add(conn, agentKey{}, w.connections.now().Add(strangerLife)), info, nil
	}
	agent, ok := id.(spiffe.AgentID)
	if err != nil || !ok {
		_ = conn.Close()
		return nil, nil, errors.Join(mtls.ErrPeer, err)
	}
	// A federated trust domain may use the same names; the registered name
	// decides who it is, and a cut reaches too far rather than too short.
	return w.connections.add(conn, agentKey{agent.Tenant, agent.Agent}, leaf.NotAfter), info, nil
}

// Clone implements credentials.TransportCredentials.
func (w watching) Clone() credentials.TransportCredentials {
	return watching{w.TransportCredentials.Clone(), w.connections}
}
