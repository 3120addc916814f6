package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"github.com/reevehq/reeve/plugins/sdk"
)

// Options say what to start and within which bounds.
type Options struct {
	// Alias is the instance's name in agent.yaml; problems name it.
	Alias string
	// Command is the executable's absolute path and its arguments.
	Command []string
	// Env is the connector's whole environment beside the handshake's own
	// variables; nothing is inherited.
	Env []string
	// WorkDir is the process's working directory; empty is "/".
	WorkDir string
	// Dir is where the socket's own directory is made. Launch creates it with
	// mode 0700, or 0711 when User is set. Its path is at most 60 bytes long.
	Dir string
	// SHA256 of the executable. When set, another content is refused with
	// BINARY_CHANGED; what is executed is the handle that was hashed (Linux).
	SHA256 []byte
	// User runs the connector as another OS user; it needs root. Nil is the
	// host's own user.
	User *User
	// Logger receives the connector's log lines; nil discards them.
	Logger *slog.Logger
	// MaxMessage bounds one message in bytes, both ways; 0 is sdk.MaxMessage.
	MaxMessage int
	// StartTimeout bounds the handshake; 0 is 30 seconds.
	StartTimeout time.Duration
}

// User is an operating system user by number.
type User struct {
	UID, GID uint32
	Groups   []uint32
}

// maxDir keeps the socket's path under the 108 bytes of sockaddr_un.
const maxDir = 60

// Sizes in octets of what the connector may send ahead of the host's reading,
// and of one read from the socket.
const (
	window = 256 << 10
	buffer = 128 << 10
)

// killGrace is how long a connector may take to end by itself.
const killGrace = 3 * time.Second

// Launch starts a connector process and shakes hands with it. The client must
// be killed. ctx bounds the start only.
func Launch(ctx context.Context, o Options) (*Client, error) {
	if err := o.prepare(); err != nil {
		return nil, err
	}
	exe, err := openExecutable(o.Command[0], o.SHA256)
	if err != nil {
		return nil, o.problem(err)
	}
	defer exe.Close()

	p := &process{options: o, executable: exe, exited: make(chan struct{})}
	logger := newLogger(o.Logger, o.Alias)
	pc := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  sdk.Handshake(),
		Plugins:          plugin.PluginSet{sdk.PluginName: clientPlugin{}},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		Logger:           logger,
		StartTimeout:     o.StartTimeout,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: o.Dir},
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(o.MaxMessage), grpc.MaxCallSendMsgSize(o.MaxMessage)),
			// Room for two batches: with gRPC's 64 KiB the connector waits for the
			// host within each.
			grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
			grpc.WithReadBufferSize(buffer),
		},
		RunnerFunc: func(_ hclog.Logger, spec *execCmd, socketDir string) (runner.Runner, error) {
			return p, p.configure(spec.Env, socketDir)
		},
	})
	conn, err := connect(ctx, pc, p)
	if err != nil {
		p.kill()
		pc.Kill()
		p.removeSocketDir()
		return nil, o.problem(err)
	}
	c := New(o.Alias, conn)
	c.digest, c.exited = exe.digest, p.exited
	c.kill = func() {
		done := make(chan struct{})
		go func() { defer close(done); pc.Kill() }()
		select {
		case <-done:
		case <-time.After(killGrace):
			// Asking nicely has no deadline of its own: a stopped process
			// would hold it for ever.
			p.kill()
			<-done
		}
		p.kill()
		p.removeSocketDir()
	}
	return c, nil
}

// connect runs the handshake, whose own waiting does not know contexts.
func connect(ctx context.Context, pc *plugin.Client, p *process) (*grpc.ClientConn, error) {
	stop := context.AfterFunc(ctx, p.kill)
	defer stop()
	protocol, err := pc.Client()
	if err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	client, ok := protocol.(*plugin.GRPCClient)
	if !ok {
		return nil, errors.New("the connector does not speak gRPC")
	}
	if err := client.Ping(); err != nil {
		return nil, errors.Join(ctx.Err(), fmt.Errorf("health check: %w", err))
	}
	return client.Conn, nil
}

func (o *Options) prepare() error {
	config := func(what, remedy string) error {
		return sdk.NewProblem(sdk.CodeConfig, o.Alias, "start the connector", remedy).WithSaid(what)
	}
	if len(o.Command) == 0 || !filepath.IsAbs(o.Command[0]) {
		return config("the command is not an absolute path", "give the connector's absolute path")
	}
	if !filepath.IsAbs(o.Dir) || len(o.Dir) > maxDir {
		return config(fmt.Sprintf("the socket directory %q is not an absolute path of at most %d bytes", o.Dir, maxDir), "choose a shorter run directory")
	}
	mode := os.FileMode(0o700)
	if o.User != nil {
		mode = 0o711
	}
	if err := os.MkdirAll(o.Dir, mode); err != nil {
		return o.problem(err)
	}
	if info, err := os.Stat(o.Dir); err != nil {
		return o.problem(err)
	} else if info.Mode().Perm() != mode {
		if err := os.Chmod(o.Dir, mode); err != nil {
			return o.problem(err)
		}
	}
	if o.MaxMessage <= 0 {
		o.MaxMessage = sdk.MaxMessage
	}
	if o.StartTimeout <= 0 {
		o.StartTimeout = 30 * time.Second
	}
	if o.WorkDir == "" {
		o.WorkDir = string(filepath.Separator)
	}
	return nil
}

func (o *Options) problem(err error) error {
	if err == nil {
		return nil
	}
	var p *sdk.Problem
	if errors.As(err, &p) {
		return p
	}
	return sdk.NewProblem(sdk.CodeLaunchFailed, o.Alias+": "+o.Command[0], "start the connector",
		"run the agent's connector check; if it is your own connector, see that it prints the handshake line first").WithCause(err)
}

type clientPlugin struct{ plugin.NetRPCUnsupportedPlugin }

func (clientPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("host: the calling side does not serve")
}

func (clientPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}
