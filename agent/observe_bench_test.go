package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/observation"
	"github.com/reevehq/reeve/agent/internal/pluginhost"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	"github.com/reevehq/reeve/test/slapd"
)

// The benchmark's directory; the goal is stated for 100000, 10000 and 1000000.
var (
	observePeople      = flag.Int("observe.people", 1000, "people in the directory of BenchmarkObservation")
	observeGroups      = flag.Int("observe.groups", 100, "groups in the directory of BenchmarkObservation")
	observeMemberships = flag.Int("observe.memberships", 10000, "memberships in the directory of BenchmarkObservation")
)

// sink is a fake control plane without a wire: it encodes what it is sent, as a
// wire would, acknowledges it and forgets it.
type sink struct {
	agentv1.AgentServiceClient
}

func (sink) PushObservations(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[agentv1.PushObservationsRequest, agentv1.PushObservationsResponse], error) {
	return &sinkStream{acknowledged: make(chan *agentv1.PushObservationsResponse, 64)}, nil
}

type sinkStream struct {
	grpc.ClientStream
	acknowledged chan *agentv1.PushObservationsResponse
	encoded      []byte
	batches      uint64
}

func (s *sinkStream) Send(m *agentv1.PushObservationsRequest) (err error) {
	if s.encoded, err = (proto.MarshalOptions{}).MarshalAppend(s.encoded[:0], m); err != nil {
		return err
	}
	switch m.GetMessage().(type) {
	case *agentv1.PushObservationsRequest_Batch:
		s.batches++
		s.acknowledged <- &agentv1.PushObservationsResponse{Batches: s.batches}
	case *agentv1.PushObservationsRequest_End:
		s.acknowledged <- &agentv1.PushObservationsResponse{Batches: s.batches, Done: true}
		close(s.acknowledged)
	}
	return nil
}

func (s *sinkStream) Recv() (*agentv1.PushObservationsResponse, error) {
	if m, ok := <-s.acknowledged; ok {
		return m, nil
	}
	return nil, io.EOF
}

func (s *sinkStream) CloseSend() error { return nil }

// BenchmarkObservation is a large directory's way through the connector and the
// agent into its journal, beside ldapsearch that prints the same entries to
// nowhere. "whole" is a first observation, "unchanged" one of which nothing is
// sent.
func BenchmarkObservation(b *testing.B) {
	dir, err := os.MkdirTemp("", "rb")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := largeDirectory(b)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	j, err := journal.Open(b.Context(), journal.Options{Path: filepath.Join(dir, "journal"), Key: key, Now: time.Now,
		Identity: journal.Identity{TrustDomain: "example.com", Tenant: "t", Agent: "a", Epoch: 1}})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	settings, err := json.Marshal(map[string]any{"url": s.URL, "bind_dn": s.RootDN, "types": map[string]any{
		"inetOrgPerson": map[string]any{"bases": []string{"ou=people," + s.Suffix}}, "groupOfNames": map[string]any{"bases": []string{"ou=groups," + s.Suffix}}}})
	if err != nil {
		b.Fatal(err)
	}
	command, err := builtInCommand("ldap")
	if err != nil {
		b.Fatal(err)
	}
	password := func() ([]*connectorv1.Secret, error) {
		return []*connectorv1.Secret{{Name: "bind_password", Value: []byte(s.RootPassword)}}, nil
	}
	h, err := pluginhost.New([]pluginhost.Spec{{Alias: "corp", Connector: "ldap", Command: command, Settings: settings, Secrets: password,
		Release: []string{"cn", "sn", "givenName", "mail", "title", "departmentNumber", "employeeNumber", "uid", "description"}}}, pluginhost.Options{Dir: filepath.Join(dir, "run")})
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	source, err := h.Instance("corp")
	if err != nil {
		b.Fatal(err)
	}
	if err := source.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	objects := *observePeople + *observeGroups
	b.Run("ldapsearch", func(b *testing.B) {
		for b.Loop() {
			for _, base := range []string{"ou=people,", "ou=groups,"} {
				cmd := exec.CommandContext(b.Context(), "ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", s.URL, "-D", s.RootDN, "-w", s.RootPassword,
					"-E", "pr=500/noprompt", "-b", base+s.Suffix, "(|(objectClass=inetOrgPerson)(objectClass=groupOfNames))", "*", "entryUUID")
				var said bytes.Buffer
				cmd.Stderr = &said
				if err := cmd.Run(); err != nil {
					b.Fatalf("%v: %s", err, said.String())
				}
			}
		}
	})
	for _, kind := range []string{"whole", "unchanged"} {
		b.Run(kind, func(b *testing.B) {
			debug.FreeOSMemory()
			// The peak begins anew (proc_pid_clear_refs(5)): the data was made
			// in this process.
			_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200)
			for b.Loop() {
				if kind == "whole" {
					// The control plane holds nothing.
					err := j.Commit(b.Context(), func(tx *journal.Tx) error { return tx.SetObservation("corp", journal.Observation{}) })
					if err != nil {
						b.Fatal(err)
					}
				}
				r, err := observation.Push(b.Context(), sink{}, source, base{j}, time.Now)
				if err != nil || !r.Complete || r.Objects != uint64(objects) || kind == "whole" && r.Sent != objects || kind == "unchanged" && r.Sent != 0 {
					b.Fatalf("%+v, %v", r, err)
				}
			}
			b.ReportMetric(peak(b, os.Getpid()), "agent-peak-MB")
			b.ReportMetric(peak(b, childOf(b)), "connector-peak-MB")
		})
	}
}

func largeDirectory(b *testing.B) *slapd.Server {
	suffix := "dc=example,dc=com"
	unit := func(name string) string {
		return "dn: ou=" + name + "," + suffix + "\nobjectClass: organizationalUnit\nou: " + name + "\n\n"
	}
	return slapd.Start(b, slapd.Options{LDIF: unit("people") + unit("groups") +
		slapd.Estate("ou=people,"+suffix, "ou=groups,"+suffix, *observePeople, *observeGroups, *observeMemberships)})
}

// peak is a process's largest resident set in MB (VmHWM of proc_pid_status(5)).
func peak(b *testing.B, pid int) float64 {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0 // no Linux
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kb, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kb / 1024
}

// childOf is this process's child that runs this program: the connector.
func childOf(b *testing.B) int {
	self, _ := os.Readlink("/proc/self/exe")
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, task := range tasks {
		children, _ := os.ReadFile(task)
		for _, child := range strings.Fields(string(children)) {
			if exe, _ := os.Readlink("/proc/" + child + "/exe"); exe == self {
				pid, err := strconv.Atoi(child)
				if err != nil {
					b.Fatal(err)
				}
				return pid
			}
		}
	}
	return 0
}
