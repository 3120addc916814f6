package faults_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// direction of what passes the proxy.
type direction int

const (
	up   direction = iota // from the agent
	down                  // to the agent
)

// fault is what happens to a connection.
type fault struct {
	direction direction
	// after so many bytes in that direction, counted from when the fault was set.
	after int64
	// half closes that direction only; else the connection is reset.
	half bool
	// stall passes nothing more for that long before the end.
	stall time.Duration
}

// proxy stands between agent and control plane and breaks what passes.
type proxy struct {
	listener net.Listener
	backend  string
	passed   [2]atomic.Int64

	mu     sync.Mutex
	faults []fault
	live   map[*link]bool
	all    sync.WaitGroup
}

// link is one connection through the proxy.
type link struct {
	p            *proxy
	agent, plane net.Conn
	mu           sync.Mutex
	fault        *fault
	left         int64
	gone         chan struct{}
	once         sync.Once
}

func newProxy(t *testing.T) (*proxy, func(address string) string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, live: map[*link]bool{}}
	t.Cleanup(func() {
		_ = l.Close()
		p.cutAll()
		p.all.Wait()
	})
	return p, func(address string) string {
		p.backend = address
		p.all.Go(p.serve)
		return l.Addr().String()
	}
}

func (p *proxy) serve() {
	for {
		agent, err := p.listener.Accept()
		if err != nil {
			return
		}
		plane, err := net.Dial("tcp", p.backend)
		if err != nil {
			_ = agent.Close()
			continue
		}
		k := &link{p: p, agent: agent, plane: plane, gone: make(chan struct{})}
		p.mu.Lock()
		p.live[k] = true
		k.take()
		p.mu.Unlock()
		p.all.Go(func() { k.copy(plane, agent, up) })
		p.all.Go(func() { k.copy(agent, plane, down) })
	}
}

// take gives the connection the next fault; p.mu is held.
func (k *link) take() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fault != nil || len(k.p.faults) == 0 {
		return
	}
	k.fault, k.p.faults = &k.p.faults[0], k.p.faults[1:]
	k.left = k.fault.after
}

// breakNext has the present connections, and those that come after them, meet
// with these faults, one each.
func (p *proxy) breakNext(faults ...fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, faults...)
	for k := range p.live {
		k.take()
	}
}

// pending is how many faults have not happened yet.
func (p *proxy) pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.faults)
	for k := range p.live {
		k.mu.Lock()
		if k.fault != nil {
			n++
		}
		k.mu.Unlock()
	}
	return n
}

// forgive takes back faults that have not happened.
func (p *proxy) forgive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
	for k := range p.live {
		k.mu.Lock()
		k.fault = nil
		k.mu.Unlock()
	}
}

func (p *proxy) cutAll() {
	for _, k := range p.links() {
		k.cut()
	}
}

// links are the connections there are.
func (p *proxy) links() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*link
	for k := range p.live {
		list = append(list, k)
	}
	return list
}

func (k *link) cut() {
	k.once.Do(func() {
		for _, c := range []net.Conn{k.agent, k.plane} {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // a reset, not a farewell
			}
			_ = c.Close()
		}
		k.p.mu.Lock()
		delete(k.p.live, k)
		k.p.mu.Unlock()
		close(k.gone)
	})
}

// allowed is how many of n bytes still pass in a direction, and the fault that
// comes after them.
func (k *link) allowed(d direction, n int) (int, *fault) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fault == nil || k.fault.direction != d {
		return n, nil
	}
	if k.left -= int64(n); k.left > 0 {
		return n, nil
	}
	f := k.fault
	k.fault = nil
	return n + int(k.left), f
}

func (k *link) copy(to, from net.Conn, d direction) {
	defer k.cut()
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		pass, broken := k.allowed(d, n)
		k.p.passed[d].Add(int64(pass))
		if _, werr := to.Write(buffer[:pass]); werr != nil {
			return
		}
		if broken != nil {
			if broken.stall > 0 {
				select {
				case <-k.gone:
					return
				case <-time.After(broken.stall):
				}
			}
			if tcp, ok := to.(*net.TCPConn); ok && broken.half {
				// The other direction goes on until its side has had enough.
				_ = tcp.CloseWrite()
				_, _ = io.Copy(io.Discard, from)
			}
			return
		}
		if err != nil {
			return
		}
	}
}
