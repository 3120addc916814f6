package faults_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// direction of what passes the proxy.
type direction int

const (
	up   direction = iota // from whoever dialled: the agent
	down                  // to it
)

// fault is what happens to a connection.
type fault struct {
	direction direction
	// after so many bytes in that direction, counted from when the fault was set.
	after int64
	// half closes that direction only, double sends the last bytes twice and goes
	// on; else the connection is reset.
	half, double bool
	// stall passes nothing more for that long before the end.
	stall time.Duration
}

// delay is how long bytes are on their way: least, and up to jitter more. They
// arrive in the order they were sent.
type delay struct{ least, jitter time.Duration }

// proxy stands between two who speak TCP, agent and control plane or connector
// and directory, and breaks what passes. Its zero faults pass everything on.
type proxy struct {
	listener net.Listener
	passed   [2]atomic.Int64
	// rewrite, unless nil, gives what passes up in the place of what came. Set it
	// before the first connection.
	rewrite func(io.Reader) io.Reader

	mu      sync.Mutex
	backend string
	faults  []fault
	delays  [2]delay
	// tape keeps what the connections made from now on send up, for replay.
	tape   []*link
	taping bool
	// parted is open while nothing passes, nil otherwise.
	parted chan struct{}
	live   map[*link]bool
	all    sync.WaitGroup
}

// link is one connection through the proxy.
type link struct {
	p            *proxy
	agent, plane net.Conn
	sent         *bytes.Buffer

	mu    sync.Mutex
	fault *fault
	left  int64
	gone  chan struct{}
	once  sync.Once
}

// piece is some bytes on their way, and the fault that comes after them.
type piece struct {
	bytes []byte
	due   time.Time
	fault *fault
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
		p.heal()
		p.cutAll()
		p.all.Wait()
	})
	return p, func(address string) string {
		p.lead(address)
		p.all.Go(p.serve)
		return l.Addr().String()
	}
}

// lead sends the connections made from now on to an address.
func (p *proxy) lead(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.backend = address
}

func (p *proxy) serve() {
	for {
		agent, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		backend, parted := p.backend, p.parted
		p.mu.Unlock()
		if parted != nil {
			// Nobody answers, and nobody says so.
			p.all.Go(func() { <-parted; _ = agent.Close() })
			continue
		}
		plane, err := net.Dial("tcp", backend)
		if err != nil {
			_ = agent.Close()
			continue
		}
		p.pass(agent, plane)
	}
}

func (p *proxy) pass(agent, plane net.Conn) {
	k := &link{p: p, agent: agent, plane: plane, gone: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live[k] = true
	k.take()
	if p.taping {
		k.sent = &bytes.Buffer{}
		p.tape = append(p.tape, k)
	}
	var from io.Reader = agent
	if p.rewrite != nil {
		from = p.rewrite(agent)
	}
	k.copy(plane, from, up)
	k.copy(agent, plane, down)
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

// slow delays what passes from now on.
func (p *proxy) slow(up, down delay) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delays = [2]delay{up, down}
}

// part keeps anything from passing, without a word, until heal: connections hang,
// new ones too. What hung is reset then, as after hours it would be.
func (p *proxy) part() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parted == nil {
		p.parted = make(chan struct{})
	}
}

func (p *proxy) heal() {
	p.mu.Lock()
	parted := p.parted
	p.parted = nil
	p.mu.Unlock()
	if parted != nil {
		p.cutAll()
		close(parted)
	}
}

// record keeps what connections made from now on send; recorded is that.
func (p *proxy) record() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taping, p.tape = true, nil
}

func (p *proxy) recorded() (streams [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.tape {
		k.mu.Lock()
		streams = append(streams, bytes.Clone(k.sent.Bytes()))
		k.mu.Unlock()
	}
	return streams
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
	if f.double {
		return n, f
	}
	return n + int(k.left), f
}

// copy passes one direction on: a reader that says when each piece is due, and a
// writer that waits for it.
func (k *link) copy(to net.Conn, from io.Reader, d direction) {
	pieces := make(chan piece, 1024)
	k.p.all.Go(func() {
		defer close(pieces)
		k.read(pieces, from, d)
	})
	k.p.all.Go(func() {
		defer k.cut()
		for next := range pieces {
			if !k.write(to, next) {
				break
			}
		}
	})
}

func (k *link) read(pieces chan<- piece, from io.Reader, d direction) {
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		pass, broken := k.allowed(d, n)
		k.p.passed[d].Add(int64(pass))
		select {
		case pieces <- piece{bytes.Clone(buffer[:pass]), k.due(d), broken}:
		case <-k.gone:
			return
		}
		if d == up && k.sent != nil {
			k.mu.Lock()
			k.sent.Write(buffer[:pass])
			k.mu.Unlock()
		}
		if broken != nil && broken.half {
			// The other direction goes on until its side has had enough.
			_, _ = io.Copy(io.Discard, from)
			return
		}
		if err != nil || broken != nil && !broken.double {
			return
		}
	}
}

// due is when a piece that came now arrives.
func (k *link) due(d direction) time.Time {
	k.p.mu.Lock()
	defer k.p.mu.Unlock()
	now, way := time.Now(), k.p.delays[d]
	if way.jitter > 0 {
		now = now.Add(rand.N(way.jitter))
	}
	return now.Add(way.least)
}

// write passes a piece on and does what breaks after it; false ends the
// connection.
func (k *link) write(to net.Conn, next piece) bool {
	if !k.wait(time.Until(next.due)) || !k.open() {
		return false
	}
	if _, err := to.Write(next.bytes); err != nil {
		return false
	}
	switch broken := next.fault; {
	case broken == nil:
		return true
	case broken.double:
		_, err := to.Write(next.bytes)
		return err == nil
	default:
		if tcp, ok := to.(*net.TCPConn); k.wait(broken.stall) && ok && broken.half {
			_ = tcp.CloseWrite()
			return true
		}
		return false
	}
}

// wait lets time pass; false when the connection ended meanwhile.
func (k *link) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-k.gone:
		return false
	case <-time.After(d):
		return true
	}
}

// open waits while nothing may pass; false when the connection did not outlive it.
func (k *link) open() bool {
	k.p.mu.Lock()
	parted := k.p.parted
	k.p.mu.Unlock()
	if parted == nil {
		return true
	}
	select {
	case <-k.gone:
	case <-parted:
	}
	return false
}
