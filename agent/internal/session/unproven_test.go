package session_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/reevehq/reeve/agent/internal/session"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

type (
	shipRequest  = agentv1.ShipRecordsRequest
	shipResponse = agentv1.ShipRecordsResponse
)

// lying is a link on which answers about shipped records are changed.
type lying struct {
	session.Acquirer
	change   func(*shipResponse)
	answered atomic.Int64
}

func (l *lying) Acquire(ctx context.Context) (agentv1.AgentServiceClient, func(), error) {
	client, release, err := l.Acquirer.Acquire(ctx)
	return lyingClient{client, l}, release, err
}

type lyingClient struct {
	agentv1.AgentServiceClient
	of *lying
}

func (c lyingClient) ShipRecords(ctx context.Context, o ...grpc.CallOption) (grpc.BidiStreamingClient[shipRequest, shipResponse], error) {
	stream, err := c.AgentServiceClient.ShipRecords(ctx, o...)
	return lyingStream{stream, c.of}, err
}

type lyingStream struct {
	grpc.BidiStreamingClient[shipRequest, shipResponse]
	of *lying
}

func (s lyingStream) Recv() (*shipResponse, error) {
	answer, err := s.BidiStreamingClient.Recv()
	if err == nil {
		s.of.change(answer)
		s.of.answered.Add(1)
	}
	return answer, err
}

// TestWhatIsNotProvenStays: records leave the agent only when each is shown to be
// in the log; whatever else the control plane says of them, they stay.
func TestWhatIsNotProvenStays(t *testing.T) {
	for name, change := range map[string]func(*shipResponse){
		"no proofs":            func(r *shipResponse) { r.Proofs = nil },
		"one proof less":       func(r *shipResponse) { r.Proofs = r.Proofs[1:] },
		"of one another":       func(r *shipResponse) { r.Proofs[0], r.Proofs[1] = r.Proofs[1], r.Proofs[0] },
		"one record for all":   func(r *shipResponse) { r.Proofs[1] = r.Proofs[0] },
		"a hash changed":       func(r *shipResponse) { r.Proofs[0].Hashes[0][0] ^= 1 },
		"at another place":     func(r *shipResponse) { r.Proofs[0].Index++ },
		"an entry changed":     func(r *shipResponse) { r.Proofs[0].Entry[len(r.Proofs[0].Entry)-1] ^= 1 },
		"a stranger's note":    func(r *shipResponse) { r.Checkpoint = strings.Replace(r.Checkpoint, "/tenant/", "/tenant/x", 1) },
		"of another epoch":     func(r *shipResponse) { r.Epoch++ },
		"fewer than were sent": func(r *shipResponse) { r.Length-- },
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgent(t)
			const n = 10
			s := newSpool(t, n)
			link := &lying{Acquirer: a.link, change: change}
			ships := shipper(a, s)
			ships.Link, ships.Pause = link, 20*time.Millisecond
			a.start(ships.Run)
			await(t, "answers that prove nothing", func() bool { return link.answered.Load() > 2 || s.Proven() > 0 })
			if got := s.Proven(); got != 0 {
				t.Errorf("%d of %d records were let go", got, n)
			}
		})
	}
}
