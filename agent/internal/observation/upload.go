package observation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

type pushStream = grpc.BidiStreamingClient[agentv1.PushObservationsRequest, agentv1.PushObservationsResponse]

// upload is one snapshot's stream, opened at the first thing to send. Batches
// beyond the window wait for the control plane to have stored earlier ones.
type upload struct {
	client agentv1.AgentServiceClient
	begin  *agentv1.SnapshotBegin
	// cancel ends the observation, with the reason.
	cancel context.CancelCauseFunc

	stream pushStream
	ended  sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{}
	sizes   []int
	sent    uint64
	acked   uint64
	waiting int
	done    bool
}

func (u *upload) open(ctx context.Context) error {
	if u.stream != nil {
		return nil
	}
	stream, err := u.client.PushObservations(ctx)
	if err != nil {
		return fmt.Errorf("push observations: %w", err)
	}
	u.stream, u.changed = stream, make(chan struct{}, 1)
	u.ended.Add(1)
	go u.receive()
	return u.sendMessage(&agentv1.PushObservationsRequest{Message: &agentv1.PushObservationsRequest_Begin{Begin: u.begin}})
}

func (u *upload) sendMessage(m *agentv1.PushObservationsRequest) error {
	err := u.stream.Send(m)
	if errors.Is(err, io.EOF) {
		// The receiving half knows why.
		u.ended.Wait()
	}
	if err != nil {
		return fmt.Errorf("push observations: %w", err)
	}
	return nil
}

func (u *upload) send(ctx context.Context, b *agentv1.ObservedBatch, size int) error {
	if err := u.open(ctx); err != nil {
		return err
	}
	if err := u.await(ctx, func() bool {
		return u.sent-u.acked < windowBatches && (u.waiting == 0 || u.waiting+size <= windowBytes)
	}); err != nil {
		return err
	}
	u.mu.Lock()
	u.sent++
	u.waiting += size
	u.sizes = append(u.sizes, size)
	u.mu.Unlock()
	return u.sendMessage(&agentv1.PushObservationsRequest{Message: &agentv1.PushObservationsRequest_Batch{Batch: b}})
}

func (u *upload) end(ctx context.Context, e *agentv1.SnapshotEnd) error {
	if err := u.open(ctx); err != nil {
		return err
	}
	if err := u.sendMessage(&agentv1.PushObservationsRequest{Message: &agentv1.PushObservationsRequest_End{End: e}}); err != nil {
		return err
	}
	if err := u.stream.CloseSend(); err != nil {
		return fmt.Errorf("push observations: %w", err)
	}
	return u.await(ctx, func() bool { return u.done })
}

// await blocks until the condition, asked under the lock, holds.
func (u *upload) await(ctx context.Context, holds func() bool) error {
	for {
		u.mu.Lock()
		ok := holds()
		u.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-u.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (u *upload) receive() {
	defer u.ended.Done()
	for {
		m, err := u.stream.Recv()
		if err != nil {
			u.mu.Lock()
			done := u.done
			u.mu.Unlock()
			if !done {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				err = fmt.Errorf("push observations: %w", err)
				if status.Code(err) == codes.Aborted {
					// What was pushed does not add up there: the base is not what
					// both sides believe it to be.
					err = fmt.Errorf("%w: %w", ErrResync, err)
				}
				u.cancel(err)
			}
			return
		}
		if m.GetSnapshot() != "" && m.GetSnapshot() != u.begin.GetSnapshot() {
			u.cancel(fmt.Errorf("push observations: an answer for another snapshot %q", m.GetSnapshot()))
			return
		}
		if m.GetResync() {
			u.cancel(ErrResync)
			return
		}
		u.account(m)
	}
}

func (u *upload) account(m *agentv1.PushObservationsResponse) {
	u.mu.Lock()
	for u.acked < min(m.GetBatches(), u.sent) {
		u.waiting -= u.sizes[0]
		u.sizes = u.sizes[1:]
		u.acked++
	}
	u.done = u.done || m.GetDone()
	u.mu.Unlock()
	select {
	case u.changed <- struct{}{}:
	default:
	}
}

// close ends the stream, whatever state it is in.
func (u *upload) close() {
	u.cancel(nil)
	if u.stream != nil {
		u.ended.Wait()
	}
}
