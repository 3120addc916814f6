package faults_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/test/rig"
)

// TLS lets nothing in twice. A segment that comes twice ends the connection;
// everything that a client ever sent, sent again on a connection of its own, is no
// handshake: neither leaves a trace in directory or log.
func TestDoubledUnderTLS(t *testing.T) {
	t.Parallel()
	p, through := newProxy(t)
	p.record()
	r := rig.New(t, rig.Options{Bin: bin, Estate: rig.NewEstate(6), Through: through})
	w := r.Watch()
	r.Applied(r.CarryOut())
	shipped(t, r)
	before := r.OneRecordAChange()
	streams := p.recorded()
	for _, sent := range streams {
		if said := replay(t, r.Address, sent); said {
			t.Error("something was answered that was encrypted for another connection")
		}
	}
	if after := r.OneRecordAChange(); len(streams) < 2 || len(after) != len(before) {
		t.Errorf("%d streams were sent again, and %d records became %d", len(streams), len(before), len(after))
	}
	p.slow(delay{5 * time.Millisecond, 20 * time.Millisecond}, delay{5 * time.Millisecond, 20 * time.Millisecond})
	const rounds = 4
	broke := 0
	for n := range int64(rounds) {
		r.Estate.Hire(t, 2)
		p.breakNext(fault{direction: direction(n % 2), after: 3000 * n, double: true}, fault{direction: direction((n + 1) % 2), after: 2500, double: true})
		r.Observe()
		plan := r.Plan()
		r.Approve(plan)
		r.Applied(r.Ended(plan.GetId()))
		broke += 2 - p.pending()
		p.forgive()
	}
	if broke < rounds {
		t.Errorf("only %d segments came twice", broke)
	}
	w.Once()
	r.Provisioned(r.Estate.People())
	r.Passwords(r.OneRecordAChange(), r.Estate.People())
	r.Converged()
	r.Offboard(nil)
}

// replay sends what a client sent before and reports whether the server says
// anything that TLS has encrypted after its part of the handshake failed.
func replay(t *testing.T, address string, sent []byte) (said bool) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The server ends the connection in the middle: that it does is the point.
	_, _ = c.Write(sent)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	answer, err := io.ReadAll(c)
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		t.Error("the server keeps a connection open that never was one")
	}
	// Its first flight holds no more than certificates; whatever an application
	// said would come after it, with an alert as the last record.
	return len(answer) > 8<<10
}

// writes are the requests of LDAP that change a directory (RFC 4511): modify, add,
// delete, rename, and the extended ones, of which setting a password is one.
var writes = []byte{0x66, 0x68, 0x4a, 0x6c, 0x77}

// doubling passes LDAP requests on, those that write twice, and counts these.
func doubling(from io.Reader, twice *atomic.Int64) io.Reader {
	out, in := io.Pipe()
	go func() {
		for {
			message, err := message(from)
			if err == nil {
				_, err = in.Write(message)
			}
			if err == nil && slices.Contains(writes, operation(message)) {
				twice.Add(1)
				_, err = in.Write(message)
			}
			if err != nil {
				in.CloseWithError(err)
				return
			}
		}
	}()
	return out
}

// message reads one LDAP message (X.690: a tag, a length, that many octets).
func message(from io.Reader) ([]byte, error) {
	head := make([]byte, 2, 6)
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	size := uint64(head[1])
	if more := int(head[1] & 0x7f); head[1]&0x80 != 0 {
		if more > 4 {
			return nil, errors.New("a length of more than four octets")
		}
		head = head[:2+more]
		if _, err := io.ReadFull(from, head[2:]); err != nil {
			return nil, err
		}
		size = binary.BigEndian.Uint64(append(make([]byte, 8-more), head[2:]...))
	}
	whole := append(head, make([]byte, size)...)
	_, err := io.ReadFull(from, whole[len(head):])
	return whole, err
}

// operation is the tag of the request in a message, after its number.
func operation(message []byte) byte {
	at := 2
	if message[1]&0x80 != 0 {
		at += int(message[1] & 0x7f)
	}
	if at += 2 + int(message[at+1]); at >= len(message) {
		return 0
	}
	return message[at]
}

// Between connector and directory there is no TLS, and every request that writes
// comes twice: accounts are made, renamed, suspended and let go all the same, and
// what is on record is what the directory holds.
func TestLDAPRequestsComeTwice(t *testing.T) {
	t.Parallel()
	server, directory := rig.NewDirectory(t)
	before := lasting(t, server)
	p, through := newProxy(t)
	var twice atomic.Int64
	p.rewrite = func(from io.Reader) io.Reader { return doubling(from, &twice) }
	directory.URL = "ldap://" + through(strings.TrimPrefix(server.URL, "ldap://"))
	e := rig.NewEstate(8)
	e.Directory, e.Status = directory, true
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	c, err := ldap.DialURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Bind(server.RootDN, server.RootPassword); err != nil {
		t.Fatal(err)
	}
	come := func() {
		t.Helper()
		for round := 0; ; round++ {
			plan := r.Plan()
			if plan.GetState().GetTotal() == 0 {
				return
			}
			r.Approve(plan)
			state := r.Ended(plan.GetId()).GetState()
			t.Logf("plan %d: %v", round, state)
			if round == 3 {
				t.Fatalf("planning does not come to rest: %v", state)
			}
			r.Observe()
		}
	}
	come()
	list := r.OneRecordAChange()
	directoryHolds(t, server, r, list, e.People())
	asItShould(t, r, server, c)
	e.Rename(t, "p003", "Somebody Else")
	e.Suspend(t, "p004", true)
	e.Hire(t, 3)
	r.Observe()
	come()
	asItShould(t, r, server, c)
	r.OneRecordAChange()
	r.Offboard(nil)
	if t.Logf("%d requests came twice", twice.Load()); twice.Load() < int64(len(e.People())) {
		t.Errorf("only %d requests came twice", twice.Load())
	}
	if after := lasting(t, server); after != before {
		t.Errorf("the directory is not as it was:\n%s\nbefore:\n%s", after, before)
	}
}
