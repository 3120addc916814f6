package flatfile

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func TestCSVReads(t *testing.T) {
	for _, c := range []struct {
		name, text, settings string
		want                 []string // anchor=mail
		quarantined          []string // file:line
	}{
		{"plain", "id,mail\n1,a\n2,b\n", ``, []string{"1=a", "2=b"}, nil},
		{"no last newline, CRLF and BOM", "\xef\xbb\xbfid,mail\r\n1,a\r\n2,b", ``, []string{"1=a", "2=b"}, nil},
		{"nobody", "id,mail\n", ``, nil, nil},
		{"semicolons and a renamed column", "id;e-mail\n1;a,b\n", `,"delimiter":";","columns":{"e-mail":"mail"}`, []string{"1=a,b"}, nil},
		{"latin1", "id,mail\n1,caf\xe9\n", `,"encoding":"latin1"`, []string{"1=café"}, nil},
		{"a line too short", "id,mail\n1,a\n2\n3,c\n", ``, []string{"1=a", "3=c"}, []string{":3"}},
		{"an empty key", "id,mail\n,a\n3,c\n", ``, []string{"3=c"}, []string{":2"}},
		{"not UTF-8", "id,mail\n1,caf\xe9\n3,c\n", ``, []string{"3=c"}, []string{":2"}},
		{"a stray quote", "id,mail\n1,a\"b\n3,c\n", ``, []string{"3=c"}, []string{":2"}},
		{"an open quote swallows the rest", "id,mail\n1,a\n2,\"b\n3,c\n", ``, []string{"1=a"}, []string{":3-4"}},
		{"the same key twice, spaces aside", "id,mail\n1,a\n2,b\n 1 ,c\n", ``, []string{"2=b"}, []string{":2", ":4"}},
		{"a NUL", "id,mail\n1,a\x00b\n2,b\n", ``, []string{"2=b"}, []string{":2"}},
		{"a quoted line break and a formula", "id,mail\n1,\"=cmd()\n:root\"\n", ``, []string{"1==cmd()\n:root"}, nil},
		{"a trailer", "id,mail\n1,a\nEND\n", `,"require_trailer":"END"`, []string{"1=a"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := put(t, filepath.Join(t.TempDir(), "staff.csv"), c.text)
			objects, end := observe(t, start(t, fmt.Sprintf(`{"format":"csv","path":%q,"key":"id"%s}`, path, c.settings)))
			var got []string
			for _, o := range objects {
				got = append(got, fmt.Sprintf("%s=%s", o.GetAnchor(), o.Attribute("mail")[0]))
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("people: want %q, got %q", c.want, got)
			}
			var lines []string
			for _, p := range end.GetProblems() {
				lines = append(lines, strings.TrimPrefix(p.GetObject(), "files: "+path))
				if p.GetCode() != sdk.CodeQuarantined || p.GetSeverity() != connectorv1.Severity_SEVERITY_INCOMPLETE || p.GetRemedy() == "" {
					t.Errorf("finding: want an incomplete quarantine with a remedy, got %v", p)
				}
			}
			slices.Sort(lines)
			if !slices.Equal(lines, c.quarantined) {
				t.Errorf("quarantined: want %q, got %q", c.quarantined, lines)
			}
			if end.GetComplete() != (len(c.quarantined) == 0) {
				t.Errorf("complete is %v with quarantined lines %q", end.GetComplete(), c.quarantined)
			}
		})
	}
}

func TestCSVRefusesAtConfigure(t *testing.T) {
	path := put(t, filepath.Join(t.TempDir(), "staff.csv"), "id,mail\n1,a\n")
	twice := put(t, filepath.Join(t.TempDir(), "twice.csv"), "id,id\n1,a\n")
	for settings, want := range map[string]string{
		`{"format":"csv","path":"` + path + `","key":"nr"}`:                     `"nr"`,
		`{"format":"csv","path":"` + path + `"}`:                                `"key"`,
		`{"format":"csv","path":"staff.csv","key":"id"}`:                        "absolute",
		`{"format":"csv","path":"` + path + `.gone","key":"id"}`:                "create the file",
		`{"format":"csv","path":"` + twice + `","key":"id"}`:                    "twice",
		`{"format":"csv","path":"` + path + `","key":"id","quote":"x"}`:         `"quote"`,
		`{"format":"csv","path":"` + path + `","key":"id","columns":{"x":"y"}}`: `"x"`,
		`{"format":"csv","path":"` + path + `","key":"id","delimiter":"ab"}`:    `"delimiter"`,
		`{"format":"ldif"}`: "csv, htpasswd or passwd",
	} {
		if err := configureError(t, settings); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want a problem with %q, got %v", settings, want, err)
		}
	}
}

func TestCSVUnfinishedFilesAreNotRead(t *testing.T) {
	path := put(t, filepath.Join(t.TempDir(), "staff.csv"), "id,mail\n1,a\n2,b\nEND\n")
	client := start(t, fmt.Sprintf(`{"format":"csv","path":%q,"key":"id","require_trailer":"END"}`, path))
	read := func() error {
		_, err := client.Observe(context.Background(), func([]*connectorv1.Object) error { return nil })
		return err
	}
	if err := read(); err != nil {
		t.Fatalf("a finished file: %v", err)
	}
	put(t, path, "id,mail\n1,a\n")
	if err := read(); !sdk.HasCode(err, sdk.CodeChanging) {
		t.Errorf("without its trailer: want %s, got %v", sdk.CodeChanging, err)
	}
	put(t, path, "id,name\n1,a\nEND\n")
	if err := read(); !sdk.HasCode(err, sdk.CodeConfig) {
		t.Errorf("with another header: want %s, got %v", sdk.CodeConfig, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := read(); !sdk.HasCode(err, sdk.CodeUnreachable) {
		t.Errorf("gone: want %s, got %v", sdk.CodeUnreachable, err)
	}
}

// A file that grows all the time is never read half.
func TestCSVGrowingFileIsRefused(t *testing.T) {
	path := put(t, filepath.Join(t.TempDir(), "staff.csv"), "id,mail\n1,a\n")
	client := start(t, fmt.Sprintf(`{"format":"csv","path":%q,"key":"id"}`, path))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return
		}
		defer f.Close()
		for i := 2; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Microsecond):
				fmt.Fprintf(f, "%d,x\n", i)
			}
		}
	}()
	_, err := client.Observe(context.Background(), func([]*connectorv1.Object) error { return nil })
	close(stop)
	<-stopped
	if err != nil && !sdk.HasCode(err, sdk.CodeChanging) {
		t.Errorf("want a whole read or %s, got %v", sdk.CodeChanging, err)
	}
	// At rest, every line is there.
	objects, end := observe(t, client)
	if want := strings.Count(cat(t, path), "\n") - 2; len(objects) != want || !end.GetComplete() {
		t.Errorf("at rest: want %d people, got %d, %v", want, len(objects), end)
	}
}

func TestCSVAbsenceIsNotClaimedWhileLinesAreQuarantined(t *testing.T) {
	path := put(t, filepath.Join(t.TempDir(), "staff.csv"), "id,mail\n1,a\n2\n")
	client := connectortest.Connect(t, Connector{})
	if _, err := client.Configure(context.Background(), &connectorv1.ConfigureRequest{Alias: "hr", SettingsJson: fmt.Appendf(nil, `{"format":"csv","path":%q,"key":"id"}`, path)}); err != nil {
		t.Fatal(err)
	}
	results, err := client.Read(context.Background(), []*connectorv1.ObjectRef{{Type: "person", Anchor: "2"}, {Type: "person", Anchor: "1"}})
	if err != nil {
		t.Fatal(err)
	}
	if results[0].GetProblem().GetCode() != sdk.CodeQuarantined || results[1].GetObject() == nil {
		t.Errorf("want a quarantine and a person, got %v", results)
	}
}
