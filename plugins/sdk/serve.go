package sdk

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// The go-plugin handshake. The cookie keeps people from starting a connector
// by hand; it is no secret and protects nothing.
const (
	ProtocolVersion = 1
	CookieKey       = "REEVE_CONNECTOR"
	CookieValue     = "6f0d1f2a-connector-v1"
	// PluginName is the only plugin in the set; it does not appear on the wire.
	PluginName = "connector"
	// LifelineKey is set to "stdin" when standard input is a pipe that the host
	// holds open: at its end the host is gone and the connector stops.
	LifelineKey = "REEVE_CONNECTOR_LIFELINE"
)

// MaxMessage is the largest message in bytes that either side accepts by
// default.
const MaxMessage = 16 << 20

// ErrNotLaunched is returned by Serve in a process that no host started.
var ErrNotLaunched = errors.New("this is a Reeve connector; the agent starts it, it does nothing by itself")

// Handshake returns the go-plugin handshake of protocol version 1.
func Handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{ProtocolVersion: ProtocolVersion, MagicCookieKey: CookieKey, MagicCookieValue: CookieValue}
}

// Serve runs the connector in this process until the host ends it, and returns
// nil then. It takes over standard output and standard error. main is
//
//	if err := sdk.Serve(connector); err != nil {
//		fmt.Fprintln(os.Stderr, err)
//		os.Exit(1)
//	}
//
// A program that is host and connector at once calls it when told to serve,
// before anything else writes to standard output.
func Serve(c Connector) error {
	if os.Getenv(CookieKey) != CookieValue {
		return ErrNotLaunched
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: os.Stderr, JSONFormat: true})
	server := NewServer(c, logger)
	defer server.Close()

	var grpcServer *grpc.Server
	started := make(chan struct{})
	if os.Getenv(LifelineKey) == "stdin" {
		go func() {
			<-started
			_, _ = io.Copy(io.Discard, os.Stdin)
			logger.Info("the host is gone, stopping")
			// A call that ignores its context must not keep the process.
			time.AfterFunc(5*time.Second, func() { os.Exit(1) })
			grpcServer.Stop()
		}()
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: Handshake(),
		Plugins:         plugin.PluginSet{PluginName: &servePlugin{server: server}},
		Logger:          logger,
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			grpcServer = grpc.NewServer(append(opts, ServerOptions()...)...)
			close(started)
			return grpcServer
		},
	})
	return nil
}

// gcPercent makes the collector of a connector run after that much new memory,
// in percent of what is in use. A connector shares a small machine with the
// agent, and what it keeps during a read is mostly sets of hashes, which cost
// the collector nothing to look at.
const gcPercent = 50

// writeBuffer is how many octets go to the socket at once.
const writeBuffer = 128 << 10

// ServerOptions are the limits under which a connector's gRPC server runs.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxSendMsgSize(MaxMessage),
		grpc.WriteBufferSize(writeBuffer),
	}
}

type servePlugin struct {
	plugin.NetRPCUnsupportedPlugin
	server *Server
}

func (p *servePlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	connectorv1.RegisterConnectorServiceServer(s, p.server)
	return nil
}

func (p *servePlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("sdk: the serving side has no client; see plugins/sdk/host")
}

type loggerKey struct{}

// Logger returns the logger of the call or of the instance's Open; its lines
// reach the agent's log. Outside of such a context it discards.
func Logger(ctx context.Context) hclog.Logger {
	if l, ok := ctx.Value(loggerKey{}).(hclog.Logger); ok {
		return l
	}
	return hclog.NewNullLogger()
}
