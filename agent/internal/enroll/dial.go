package enroll

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

var (
	// ErrUnreachable means that no connection to the control plane came about.
	ErrUnreachable = errors.New("the control plane cannot be reached")
	// ErrServer means that who answered is not the control plane.
	ErrServer = errors.New("what answers is not the control plane")
)

const (
	dialTimeout = 15 * time.Second
	callTimeout = 30 * time.Second
	maxMessage  = 4 << 20
)

// bound is one TLS connection with gRPC on it. A proof is made for its exporter
// before the first call, so it is connected first and never replaced.
type bound struct {
	*grpc.ClientConn
	exporter []byte
}

func dial(ctx context.Context, address string, config *tls.Config) (*bound, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		if errors.Is(err, mtls.ErrPeer) || errors.Is(err, mtls.ErrNotAuthorized) || errors.Is(err, mtls.ErrNoPeerCertificate) {
			return nil, fmt.Errorf("%w at %s: %w; check the address, and that nothing between opens TLS", ErrServer, address, err)
		}
		return nil, fmt.Errorf("%w: TLS with %s: %w", ErrUnreachable, address, err)
	}
	exporter, err := mtls.ExporterBinding(conn.ConnectionState())
	if err != nil {
		raw.Close()
		return nil, err
	}
	var taken atomic.Bool
	cc, err := grpc.NewClient("passthrough:///"+address,
		// The connection below is TLS already.
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if taken.Swap(true) {
				return nil, errors.New("the connection that the proof was made for is gone")
			}
			return conn, nil
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithUserAgent("reeve-agent"),
	)
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("gRPC: %w", err)
	}
	return &bound{ClientConn: cc, exporter: exporter}, nil
}

// UpdateRoots fetches root documents that are newer than those held. The first
// ones come over a connection that proves nothing: they are believed for the
// client's pin alone, and nothing is sent but the wish for them.
func UpdateRoots(ctx context.Context, address string, roots *statedir.Roots, now func() time.Time) error {
	held, err := roots.Current()
	var config *tls.Config
	switch {
	case errors.Is(err, statedir.ErrNoRoot):
		config = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, SessionTicketsDisabled: true}
	case err != nil:
		return err
	default:
		pool, err := held.CARootPool()
		if err != nil {
			return err
		}
		config = mtls.PinnedClientConfig(pool, spiffe.ControlPlaneID{TrustDomain: held.TrustDomain}, now)
	}
	conn, err := dial(ctx, address, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := agentv1.NewEnrollmentServiceClient(conn).GetRoot(ctx, &agentv1.GetRootRequest{AfterVersion: held.Version})
	if err != nil {
		return refused(err, "fetch the root document")
	}
	if _, err := roots.Accept(answer.GetEnvelopes()); err != nil {
		return fmt.Errorf("root document from %s: %w", address, err)
	}
	return nil
}
