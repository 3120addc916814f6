package fakeworkloadapi_test

import (
	"context"
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid/fakeworkloadapi"
)

// TestSpeaksTheProtocol: go-spiffe's own source accepts the fake for real.
func TestSpeaksTheProtocol(t *testing.T) {
	authority, err := ca.New(ca.Config{TrustDomain: "reeve.example"})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := ca.New(ca.Config{TrustDomain: "elsewhere.example"})
	if err != nil {
		t.Fatal(err)
	}
	id := spiffe.AgentID{TrustDomain: "reeve.example", Tenant: "fabrikam", Agent: "dc1"}
	s, err := fakeworkloadapi.Start(fakeworkloadapi.Config{Socket: filepath.Join(t.TempDir(), "s"), CA: authority, ID: id,
		Federated: map[string][]*x509.Certificate{"elsewhere.example": foreign.Bundle()}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(s.Addr())))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	first, err := source.GetX509SVID()
	if err != nil || first.ID.String() != id.String() {
		t.Fatalf("%v, %v", first, err)
	}
	s.Rotate()
	if err := source.WaitUntilUpdated(ctx); err != nil {
		t.Fatal(err)
	}
	second, err := source.GetX509SVID()
	if err != nil || second.Certificates[0].Equal(first.Certificates[0]) || s.Rotations() != 1 {
		t.Errorf("rotation did not arrive: %v", err)
	}
	// Without the security header the API must refuse (SPIFFE Workload Endpoint, 6.3).
	conn, err := grpc.NewClient(s.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := workload.NewSpiffeWorkloadAPIClient(conn).FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err == nil {
		t.Error("answered without the security header")
	}
}
