package host_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"

	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// wire is an implementation of connector/v1 that no SDK keeps honest.
type wire struct {
	connectorv1.UnimplementedConnectorServiceServer
	observe []*connectorv1.ObserveResponse
	apply   []*connectorv1.ApplyResult
	read    []*connectorv1.ReadResult
}

func (wire) Configure(context.Context, *connectorv1.ConfigureRequest) (*connectorv1.ConfigureResponse, error) {
	return &connectorv1.ConfigureResponse{Types: connectortest.Memory{}.Describe().GetTypes()}, nil
}

func (w wire) Observe(_ *connectorv1.ObserveRequest, s grpc.ServerStreamingServer[connectorv1.ObserveResponse]) error {
	for _, m := range w.observe {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (w wire) Apply(s grpc.BidiStreamingServer[connectorv1.ApplyRequest, connectorv1.ApplyResponse]) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	return s.Send(&connectorv1.ApplyResponse{Results: w.apply})
}

func (w wire) Read(context.Context, *connectorv1.ReadRequest) (*connectorv1.ReadResponse, error) {
	return &connectorv1.ReadResponse{Results: w.read}, nil
}

func batchOf(objects ...*connectorv1.Object) *connectorv1.ObserveResponse {
	return &connectorv1.ObserveResponse{Item: &connectorv1.ObserveResponse_Batch{Batch: &connectorv1.ObjectBatch{Objects: objects}}}
}

func endOf(e *connectorv1.ObserveEnd) *connectorv1.ObserveResponse {
	return &connectorv1.ObserveResponse{Item: &connectorv1.ObserveResponse_End{End: e}}
}

func TestLyingStreamsAreRefused(t *testing.T) {
	anna := &connectorv1.Object{Type: "account", Anchor: "1"}
	secret := &connectorv1.Object{Type: "account", Anchor: "1", Attributes: []*connectorv1.Attribute{{Name: "password", Values: [][]byte{[]byte("x")}}}}
	ok := &connectorv1.ObserveEnd{Complete: true, Count: 1, Method: "all"}
	for name, c := range map[string]struct {
		messages []*connectorv1.ObserveResponse
		sound    bool
	}{
		"sound":                 {[]*connectorv1.ObserveResponse{batchOf(anna), endOf(ok)}, true},
		"no end":                {[]*connectorv1.ObserveResponse{batchOf(anna)}, false},
		"nothing at all":        {nil, false},
		"wrong count":           {[]*connectorv1.ObserveResponse{batchOf(anna, anna), endOf(ok)}, false},
		"two ends":              {[]*connectorv1.ObserveResponse{batchOf(anna), endOf(ok), endOf(ok)}, false},
		"objects after the end": {[]*connectorv1.ObserveResponse{endOf(ok), batchOf(anna)}, false},
		"empty message":         {[]*connectorv1.ObserveResponse{batchOf(anna), {}, endOf(ok)}, false},
		"complete without how":  {[]*connectorv1.ObserveResponse{batchOf(anna), endOf(&connectorv1.ObserveEnd{Complete: true, Count: 1})}, false},
		"undeclared type":       {[]*connectorv1.ObserveResponse{batchOf(&connectorv1.Object{Type: "door", Anchor: "1"}), endOf(ok)}, false},
		"no anchor":             {[]*connectorv1.ObserveResponse{batchOf(&connectorv1.Object{Type: "account"}), endOf(ok)}, false},
		"a secret":              {[]*connectorv1.ObserveResponse{batchOf(secret), endOf(ok)}, false},
		"complete and left out": {[]*connectorv1.ObserveResponse{batchOf(anna), endOf(&connectorv1.ObserveEnd{Complete: true, Count: 1, Method: "all",
			Problems: []*connectorv1.Problem{{Code: "QUARANTINED", Severity: connectorv1.Severity_SEVERITY_INCOMPLETE}}})}, false},
	} {
		client := connectortest.ConnectServer(t, wire{observe: c.messages})
		if _, err := client.Configure(context.Background(), &connectorv1.ConfigureRequest{}); err != nil {
			t.Fatal(err)
		}
		_, err := client.Observe(context.Background(), func([]*connectorv1.Object) error { return nil })
		if c.sound != (err == nil) || (!c.sound && !sdk.HasCode(err, sdk.CodeConnectorBug)) {
			t.Errorf("%s: sound is %v, got %v", name, c.sound, err)
		}
	}
}

func TestWrongResultsAreRefused(t *testing.T) {
	done := connectorv1.Outcome_OUTCOME_DONE
	operations := []*connectorv1.Operation{{Id: "a"}, {Id: "b"}}
	for name, c := range map[string]struct {
		results []*connectorv1.ApplyResult
		kept    int
		sound   bool
	}{
		"sound":          {[]*connectorv1.ApplyResult{{OperationId: "a", Outcome: done}, {OperationId: "b", Outcome: done}}, 2, true},
		"swapped":        {[]*connectorv1.ApplyResult{{OperationId: "b", Outcome: done}, {OperationId: "a", Outcome: done}}, 0, false},
		"one missing":    {[]*connectorv1.ApplyResult{{OperationId: "a", Outcome: done}}, 1, false},
		"one too many":   {[]*connectorv1.ApplyResult{{OperationId: "a", Outcome: done}, {OperationId: "b", Outcome: done}, {OperationId: "c", Outcome: done}}, 2, false},
		"twice the same": {[]*connectorv1.ApplyResult{{OperationId: "a", Outcome: done}, {OperationId: "a", Outcome: done}}, 1, false},
		"no outcome":     {[]*connectorv1.ApplyResult{{OperationId: "a"}, {OperationId: "b", Outcome: done}}, 0, false},
	} {
		got, err := connectortest.ConnectServer(t, wire{apply: c.results}).Apply(context.Background(), operations)
		if c.sound != (err == nil) || len(got) != c.kept || (!c.sound && !sdk.HasCode(err, sdk.CodeConnectorBug)) {
			t.Errorf("%s: want sound %v with %d results, got %v %v", name, c.sound, c.kept, got, err)
		}
	}
	client := connectortest.ConnectServer(t, wire{read: []*connectorv1.ReadResult{{Outcome: &connectorv1.ReadResult_Object{Object: &connectorv1.Object{Type: "account", Anchor: "2"}}}}})
	if _, err := client.Read(context.Background(), []*connectorv1.ObjectRef{{Type: "account", Anchor: "1"}}); !sdk.HasCode(err, sdk.CodeConnectorBug) {
		t.Errorf("another object than the one asked for: %v", err)
	}
}

func TestTheReadersErrorComesBackAsItIs(t *testing.T) {
	client := connectortest.ConnectServer(t, wire{observe: []*connectorv1.ObserveResponse{batchOf(&connectorv1.Object{Type: "account", Anchor: "1"})}})
	if _, err := client.Configure(context.Background(), &connectorv1.ConfigureRequest{}); err != nil {
		t.Fatal(err)
	}
	full := errors.New("the disk is full")
	if _, err := client.Observe(context.Background(), func([]*connectorv1.Object) error { return full }); !errors.Is(err, full) {
		t.Errorf("want %v, got %v", full, err)
	}
}
