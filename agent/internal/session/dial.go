package session

import (
	"crypto/tls"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// maxMessage bounds one message from the control plane in bytes: a chunk is at
// most 1 MiB, a batch of proofs a few.
const maxMessage = 16 << 20

// NewConn makes a connection to address that authenticates by config. It
// connects at the first call.
//
// An idle agent must cost the control plane little, and itself too: without a
// read buffer a connection holds little
// between heartbeats. Keepalive is rarer than gRPC servers allow by default; it
// also sets TCP_USER_TIMEOUT, by which a heartbeat into a dead network ends the
// connection after 20 s.
func NewConn(address string, config *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithReadBufferSize(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 310 * time.Second, Timeout: 20 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: 10 * time.Second}),
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("reeve-agent"),
	)
}
