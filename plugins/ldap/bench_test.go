package ldap

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/plugins/sdk/host"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	"github.com/reevehq/reeve/test/slapd"
)

// The directory of the benchmarks; the goal is stated for 100000, 10000 and
// 1000000.
var (
	benchPeople      = flag.Int("ldap.people", 1000, "people in the benchmarks' directory")
	benchGroups      = flag.Int("ldap.groups", 100, "groups in the benchmarks' directory")
	benchMemberships = flag.Int("ldap.memberships", 10000, "memberships in the benchmarks' directory")
)

func largeEstate(people, groups, memberships int) string {
	return skeleton() + slapd.Estate(peopleBase, groupsBase, people, groups, memberships)
}

var large struct {
	sync.Mutex
	server *slapd.Server
	dir    string
}

// largeServer is shared by the benchmarks of one run: loading takes longer than
// reading.
func largeServer(b *testing.B) *slapd.Server {
	b.Helper()
	large.Lock()
	defer large.Unlock()
	if large.server == nil {
		dir, err := os.MkdirTemp("", "slapd")
		if err != nil {
			b.Fatal(err)
		}
		large.dir = dir
		large.server, err = slapd.New(dir, slapd.Options{
			LDIF:     largeEstate(*benchPeople, *benchGroups, *benchMemberships),
			ACL:      leastPrivilege,
			Database: []string{`olcLimits: dn.exact="` + reeveDN + `" size.soft=unlimited size.hard=unlimited size.prtotal=unlimited`},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return large.server
}

func stopLargeServer() {
	if large.server != nil {
		large.server.Kill()
		_ = os.RemoveAll(large.dir)
	}
}

func benchTypes() map[string]any {
	return map[string]any{
		"inetOrgPerson": map[string]any{"bases": []string{peopleBase}},
		"groupOfNames":  map[string]any{"bases": []string{groupsBase}},
	}
}

// BenchmarkLdapsearch is the peer: OpenLDAP's own client reads the same entries
// and attributes, in pages of the same size, and prints them to nowhere.
func BenchmarkLdapsearch(b *testing.B) {
	s := largeServer(b)
	i := openInstance(b, s, map[string]any{"types": benchTypes()})
	b.ResetTimer()
	for b.Loop() {
		for _, t := range i.types {
			args := []string{"-x", "-LLL", "-o", "ldif-wrap=no", "-H", s.URL, "-D", reeveDN, "-w", reevePass, "-E", "pr=500/noprompt",
				"-b", t.settings.Bases[0], t.filter()}
			cmd := exec.CommandContext(b.Context(), "ldapsearch", append(args, t.everything(i)...)...)
			var said bytes.Buffer
			cmd.Stderr = &said
			if err := cmd.Run(); err != nil {
				b.Fatalf("%v: %s", err, said.String())
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(*benchPeople+*benchGroups), "ns/entry")
}

// BenchmarkObserve reads the same directory into this process through the
// connector in a process of its own.
func BenchmarkObserve(b *testing.B) {
	s := largeServer(b)
	executable, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	c, err := host.Launch(b.Context(), host.Options{Alias: "corp", Command: []string{executable}, Dir: filepath.Join(large.dir, "run")})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Kill()
	_, err = c.Configure(b.Context(), &connectorv1.ConfigureRequest{Alias: "corp", SettingsJson: settings(s, map[string]any{"types": benchTypes()}),
		Secrets: []*connectorv1.Secret{{Name: "bind_password", Value: []byte(reevePass)}}})
	if err != nil {
		b.Fatal(err)
	}
	forgetPeak(b)
	pids := [2]int{connectorProcess(), os.Getpid()}
	before := [2]float64{processorTime(b, pids[0]), processorTime(b, pids[1])}
	b.ResetTimer()
	for b.Loop() {
		objects, members := 0, 0
		end, err := c.Observe(b.Context(), func(batch []*connectorv1.Object) error {
			objects += len(batch)
			for _, o := range batch {
				members += len(o.GetMembers())
			}
			return nil
		})
		if err != nil || !end.GetComplete() || objects != *benchPeople+*benchGroups || members < *benchGroups {
			b.Fatalf("%d objects, %d members, %v, %v", objects, members, end, err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(*benchPeople+*benchGroups), "ns/entry")
	for n, process := range []string{"plugin", "host"} {
		b.ReportMetric(peakMemory(b, pids[n]), process+"-peak-MB")
		b.ReportMetric((processorTime(b, pids[n])-before[n])/float64(b.N), process+"-cpu-ms/op")
	}
}

// BenchmarkObserveInProcess leaves out the wire and the second process.
func BenchmarkObserveInProcess(b *testing.B) {
	i := openInstance(b, largeServer(b), map[string]any{"types": benchTypes()})
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		objects := 0
		done, err := i.Observe(b.Context(), func(*connectorv1.Object) error { objects++; return nil })
		if err != nil || !isComplete(done) || objects != *benchPeople+*benchGroups {
			b.Fatalf("%d objects, %v, %v", objects, done, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(*benchPeople+*benchGroups), "ns/entry")
}

// peakMemory is the process's peak resident set in MB as the kernel counts it
// (VmHWM of proc_pid_status(5)); 0 where there is no /proc.
func peakMemory(b *testing.B, pid int) float64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 3 && fields[0] == "VmHWM:" {
			kb, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb / 1024
		}
	}
	return 0
}

// forgetPeak begins this process's peak anew: the data was made in it too
// (clear_refs of proc_pid_clear_refs(5)).
func forgetPeak(b *testing.B) {
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200); err != nil {
		b.Logf("the host's peak includes making the data: %v", err)
	}
}

// connectorProcess is this process's child that runs this very program; 0 if
// there is no /proc to find it in.
func connectorProcess() int {
	self, _ := os.Readlink("/proc/self/exe")
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, task := range tasks {
		children, _ := os.ReadFile(task)
		for _, child := range strings.Fields(string(children)) {
			if exe, _ := os.Readlink("/proc/" + child + "/exe"); exe == self {
				pid, _ := strconv.Atoi(child)
				return pid
			}
		}
	}
	return 0
}

// processorTime is what the process has used, in milliseconds (utime and stime
// of proc_pid_stat(5), in hundredths of a second); 0 where there is no /proc.
func processorTime(b *testing.B, pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	total := 0.0
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += ticks * 10
	}
	return total
}

var observedStream = flag.String("ldap.observed", "", "file to write the observed stream's digest and objects to, for comparing versions")

// TestObservedStream observes the directory of the benchmarks twice and finds
// the same objects to the byte; with -ldap.observed the stream is kept.
func TestObservedStream(t *testing.T) {
	people, groups, memberships := 400, 40, 4000
	if *observedStream != "" {
		people, groups, memberships = *benchPeople, *benchGroups, *benchMemberships
	}
	s := slapd.Start(t, slapd.Options{LDIF: largeEstate(people, groups, memberships), ACL: leastPrivilege,
		Database: []string{`olcLimits: dn.exact="` + reeveDN + `" size.soft=unlimited size.hard=unlimited size.prtotal=unlimited`}})
	i := openInstance(t, s, map[string]any{"types": benchTypes(), "page_size": 300})
	stream := func() []byte {
		var out []byte
		_, err := i.Observe(t.Context(), func(o *connectorv1.Object) error {
			digest := o.Digest()
			raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(o)
			out = append(append(append(out, hex.EncodeToString(digest[:])...), ' '), append(raw, '\n')...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first, second := stream(), stream()
	if !bytes.Equal(first, second) || bytes.Count(first, []byte("\n")) < people+groups {
		t.Errorf("two reads of one directory are %d and %d bytes", len(first), len(second))
	}
	if *observedStream != "" {
		sum := sha256.Sum256(first)
		if err := os.WriteFile(*observedStream, append([]byte(hex.EncodeToString(sum[:])+"\n"), first...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
