package sdk

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Server serves a Connector as connector/v1 and keeps the contract's
// invariants for it. Serve wraps it in the go-plugin transport; a test may
// register it with any gRPC server.
type Server struct {
	connectorv1.UnimplementedConnectorServiceServer
	connector Connector
	logger    hclog.Logger
	describe  *connectorv1.DescribeResponse

	mu       sync.Mutex
	instance Instance
	alias    string
	declared *declaration
}

// NewServer returns a server for one instance of c. Close it when the
// transport has ended.
func NewServer(c Connector, logger hclog.Logger) *Server {
	return &Server{connector: c, logger: logger}
}

// Close closes the instance, if one was opened.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.instance == nil {
		return nil
	}
	instance := s.instance
	s.instance = nil
	return instance.Close()
}

// guard runs one call of the author's code: panics become problems, errors
// become problems with the instance's alias.
func (s *Server) guard(ctx context.Context, tried string, call func(ctx context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.logger.Error("connector panicked", "call", tried, "panic", Clean(fmt.Sprint(v)), "stack", string(debug.Stack()))
			err = connectorBug(s.name(), tried, fmt.Sprintf("panic: %v", v))
		}
	}()
	err = call(context.WithValue(ctx, loggerKey{}, s.logger))
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		// What fails after the caller gave up fails because of it.
		return AsProblem(ctx.Err(), s.name(), tried).WithSaid(err.Error())
	}
	return AsProblem(err, s.name(), tried)
}

// name is the alias, empty before Configure.
func (s *Server) name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alias
}

func connectorBug(object, tried, said string) *Problem {
	return NewProblem(CodeConnectorBug, object, tried, "this is a fault of the connector: report it to its author").WithSaid(said)
}

// Describe implements connector/v1.
func (s *Server) Describe(ctx context.Context, _ *connectorv1.DescribeRequest) (*connectorv1.DescribeResponse, error) {
	var out *connectorv1.DescribeResponse
	err := s.guard(ctx, "describe", func(context.Context) error {
		d, err := s.description()
		out = d
		return err
	})
	return out, err
}

func (s *Server) description() (*connectorv1.DescribeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.describe == nil {
		d := s.connector.Describe()
		if _, err := newDeclaration(d.GetName(), d.GetTypes()); err != nil {
			return nil, err
		}
		s.describe = d
	}
	return s.describe, nil
}

// Configure implements connector/v1. It succeeds once; one that failed may be
// tried again.
func (s *Server) Configure(ctx context.Context, r *connectorv1.ConfigureRequest) (*connectorv1.ConfigureResponse, error) {
	out := &connectorv1.ConfigureResponse{}
	err := s.guard(ctx, "configure", func(ctx context.Context) error {
		described, err := s.description()
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.instance != nil {
			return NewProblem(CodeNotConfigured, s.alias, "configure", "an instance is configured once; start another process for other settings").WithSaid("already configured")
		}
		s.alias = Clean(r.GetAlias())
		secrets := make(map[string][]byte, len(r.GetSecrets()))
		for _, secret := range r.GetSecrets() {
			secrets[secret.GetName()] = secret.GetValue()
		}
		instance, err := s.connector.Open(ctx, Settings{Alias: r.GetAlias(), JSON: r.GetSettingsJson(), Secrets: secrets})
		if err != nil {
			return err
		}
		declared, err := declareInstance(s.alias, instance, described)
		if err != nil {
			_ = instance.Close()
			return err
		}
		s.instance, s.declared = instance, declared
		out.Types, out.Capabilities = declared.list, declared.capabilities
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Server) configured() (Instance, *declaration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.instance == nil {
		return nil, nil, NewProblem(CodeNotConfigured, s.alias, "use the connector", "call Configure first")
	}
	return s.instance, s.declared, nil
}

// Check implements connector/v1.
func (s *Server) Check(ctx context.Context, _ *connectorv1.CheckRequest) (*connectorv1.CheckResponse, error) {
	instance, _, err := s.configured()
	if err != nil {
		return nil, err
	}
	var out *connectorv1.CheckResponse
	err = s.guard(ctx, "check", func(ctx context.Context) error {
		checked, err := instance.Check(ctx)
		if err == nil && checked == nil {
			return connectorBug(s.alias, "check", "neither answer nor error")
		}
		out = checked
		return err
	})
	if err != nil {
		return nil, err
	}
	out.Server, out.BoundAs = Clean(out.GetServer()), Clean(out.GetBoundAs())
	for _, right := range out.GetRights() {
		right.What, right.Where = Clean(right.GetWhat()), Clean(right.GetWhere())
	}
	for _, fact := range out.GetFingerprint() {
		fact.Name, fact.Value = Clean(fact.GetName()), Clean(fact.GetValue())
	}
	for i, p := range out.GetProblems() {
		out.Problems[i] = FromProto(p).Proto()
	}
	return out, nil
}

// Observe implements connector/v1.
func (s *Server) Observe(r *connectorv1.ObserveRequest, stream grpc.ServerStreamingServer[connectorv1.ObserveResponse]) error {
	instance, declared, err := s.configured()
	if err != nil {
		return err
	}
	out := newOutbox(s.alias, declared, r.GetBatchSize(), true, func(b *connectorv1.ObjectBatch) error {
		return stream.Send(&connectorv1.ObserveResponse{Item: &connectorv1.ObserveResponse_Batch{Batch: b}})
	}, nil)
	return s.guard(stream.Context(), "observe", func(ctx context.Context) error {
		done, err := instance.Observe(ctx, func(o *connectorv1.Object) error { return out.add(ctx, o) })
		if err != nil {
			return err
		}
		end, err := out.end(ctx, done)
		if err != nil {
			return err
		}
		return stream.Send(&connectorv1.ObserveResponse{Item: &connectorv1.ObserveResponse_End{End: end}})
	})
}

// Changes implements connector/v1.
func (s *Server) Changes(r *connectorv1.ChangesRequest, stream grpc.ServerStreamingServer[connectorv1.ChangesResponse]) error {
	instance, declared, err := s.configured()
	if err != nil {
		return err
	}
	reader, ok := instance.(ChangeReader)
	if !ok {
		return NewProblem(CodeUnsupported, s.alias, "changes", "read everything with Observe: this instance has no incremental reading")
	}
	out := newOutbox(s.alias, declared, 0, false, func(b *connectorv1.ObjectBatch) error {
		return stream.Send(&connectorv1.ChangesResponse{Item: &connectorv1.ChangesResponse_Changed{Changed: b}})
	}, func(anchors []string, present bool) error {
		if present {
			return stream.Send(&connectorv1.ChangesResponse{Item: &connectorv1.ChangesResponse_Present{Present: &connectorv1.Present{Anchors: anchors}}})
		}
		return stream.Send(&connectorv1.ChangesResponse{Item: &connectorv1.ChangesResponse_Removed{Removed: &connectorv1.Removed{Anchors: anchors}}})
	})
	return s.guard(stream.Context(), "changes", func(ctx context.Context) error {
		done, err := reader.Changes(ctx, r.GetCursor(), Telling{
			Changed: func(o *connectorv1.Object) error { return out.add(ctx, o) },
			Removed: func(anchor string) error { return out.name(ctx, anchor, false) },
			Present: func(anchor string) error { return out.name(ctx, anchor, true) },
		})
		if err != nil {
			return err
		}
		end, err := out.endChanges(ctx, done, r.GetCursor())
		if err != nil {
			return err
		}
		return stream.Send(&connectorv1.ChangesResponse{Item: &connectorv1.ChangesResponse_End{End: end}})
	})
}

// Watch implements connector/v1. Signals that come faster than they can be
// sent are one signal.
func (s *Server) Watch(r *connectorv1.WatchRequest, stream grpc.ServerStreamingServer[connectorv1.WatchResponse]) error {
	instance, _, err := s.configured()
	if err != nil {
		return err
	}
	watcher, ok := instance.(Watcher)
	if !ok {
		return NewProblem(CodeUnsupported, s.alias, "watch", "read again from time to time: this instance cannot watch")
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	changed, sent := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		for {
			select {
			case <-ctx.Done():
				sent <- nil
				return
			case <-changed:
				if err := stream.Send(&connectorv1.WatchResponse{}); err != nil {
					cancel()
					sent <- err
					return
				}
			}
		}
	}()
	err = s.guard(ctx, "watch", func(ctx context.Context) error {
		return watcher.Watch(ctx, r.GetCursor(), func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	})
	cancel()
	if sendErr := <-sent; sendErr != nil {
		return sendErr
	}
	return err
}

// maxRefs is how many objects one Read or operations one Apply may name.
const maxRefs = 100

// Read implements connector/v1.
func (s *Server) Read(ctx context.Context, r *connectorv1.ReadRequest) (*connectorv1.ReadResponse, error) {
	instance, declared, err := s.configured()
	if err != nil {
		return nil, err
	}
	refs := r.GetObjects()
	if len(refs) > maxRefs {
		return nil, NewProblem(CodeSizeLimit, s.alias, fmt.Sprintf("read %d objects", len(refs)), fmt.Sprintf("ask for at most %d at a time", maxRefs))
	}
	results := make([]*connectorv1.ReadResult, len(refs))
	var asked []*connectorv1.ObjectRef
	var place []int
	for i, ref := range refs {
		if p := declared.checkRef(ref, true); p != nil {
			results[i] = readProblem(p)
			continue
		}
		asked, place = append(asked, ref), append(place, i)
	}
	if len(asked) == 0 {
		return &connectorv1.ReadResponse{Results: results}, nil
	}
	err = s.guard(ctx, "read", func(ctx context.Context) error {
		got, err := instance.Read(ctx, asked)
		if err != nil {
			return err
		}
		if len(got) != len(asked) {
			return connectorBug(s.alias, "read", fmt.Sprintf("%d results for %d objects", len(got), len(asked)))
		}
		for i, result := range got {
			results[place[i]] = declared.checkRead(asked[i], result)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &connectorv1.ReadResponse{Results: results}, nil
}

func readProblem(p *Problem) *connectorv1.ReadResult {
	return &connectorv1.ReadResult{Outcome: &connectorv1.ReadResult_Problem{Problem: p.Proto()}}
}
