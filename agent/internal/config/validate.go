package config

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
)

const (
	defaultHeartbeat    = 30 * time.Second
	defaultObserveEvery = 15 * time.Minute
)

var aliasForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

var trustDomainForm = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`)

type validator struct {
	file   *File
	lines  map[string]int
	faults []fault
}

func (v *validator) add(path, format string, args ...any) {
	line, at := 0, path
	for line == 0 {
		line = v.lines[at]
		if line != 0 || at == "" {
			break
		}
		at = parentPath(at)
	}
	if line == 0 {
		line = 1
	}
	v.faults = append(v.faults, fault{line: line, text: path + " " + fmt.Sprintf(format, args...)})
}

func parentPath(path string) string {
	if i := strings.LastIndexAny(path, ".["); i >= 0 {
		return path[:i]
	}
	return ""
}

func (v *validator) run() {
	f := v.file
	if msg := CheckAddress(f.ControlPlane); msg != "" {
		v.add("control_plane", "%s", msg)
	}
	if !trustDomainForm.MatchString(f.TrustDomain) {
		v.add("trust_domain", "must be the MSP's SPIFFE trust domain, such as msp.example")
	}
	if msg := CheckPin(f.RootSHA256); msg != "" {
		v.add("root_sha256", "%s", msg)
	}
	f.RootSHA256 = strings.ToLower(f.RootSHA256)
	if !filepath.IsAbs(f.State) {
		v.add("state", "must be the absolute path of a folder, such as /var/lib/reeve-agent")
	}
	v.svidSource()
	v.duration("heartbeat", &f.Heartbeat, defaultHeartbeat, 5*time.Second, 10*time.Minute)
	v.duration("observe_every", &f.ObserveEvery, defaultObserveEvery, 10*time.Second, 24*time.Hour)
	for _, alias := range slices.Sorted(maps.Keys(f.Recipients)) {
		v.recipient(alias)
	}
	for i := range f.Approvers {
		v.approver(i)
	}
	seen := map[string]bool{}
	for i := range f.Connectors {
		v.connector(i, seen)
	}
	if len(f.Connectors) == 0 {
		f.Warnings = append(f.Warnings, "no connectors are configured: the agent will join and report, and do nothing else")
	}
}

// CheckAddress says what is wrong with a host:port, or nothing.
func CheckAddress(address string) string {
	host, port, err := net.SplitHostPort(address)
	n, portErr := strconv.Atoi(port)
	if err != nil || host == "" || portErr != nil || n < 1 || n > 65535 {
		return "must be host:port of the control plane, such as reeve.msp.example:8443"
	}
	return ""
}

// CheckPin says what is wrong with a root document's fingerprint, or nothing.
func CheckPin(pin string) string {
	if raw, err := hex.DecodeString(pin); err != nil || len(raw) != 32 {
		return "must be the 64 hexadecimal digits of the root document's fingerprint, as `reeve agent invite` prints it"
	}
	return ""
}

func (v *validator) svidSource() {
	f := v.file
	switch f.SVIDSource {
	case "":
		f.SVIDSource = SVIDBuiltin
		fallthrough
	case SVIDBuiltin:
		if f.WorkloadAPI != "" {
			v.add("workload_api", "is only for svid_source: workload-api; remove one of the two")
		}
	case SVIDWorkloadAPI:
		if !strings.HasPrefix(f.WorkloadAPI, "unix://") && !strings.HasPrefix(f.WorkloadAPI, "tcp://") && !strings.HasPrefix(f.WorkloadAPI, "npipe:") {
			v.add("workload_api", "must be the Workload API's address, such as unix:///run/spire/agent.sock")
		}
	default:
		v.add("svid_source", "%s is not a source; use builtin or workload-api", quoted(f.SVIDSource))
	}
}

func (v *validator) duration(path string, d *Duration, def, least, most time.Duration) {
	if _, given := v.lines[path]; !given {
		*d = Duration(def)
		return
	}
	if t := time.Duration(*d); t < least || t > most {
		v.add(path, "must be between %v and %v", least, most)
	}
}

func (v *validator) recipient(alias string) {
	path := "recipients." + alias
	if !aliasForm.MatchString(alias) {
		v.add(path, "must have a name of 1 to 63 of a-z, 0-9 and inner hyphens")
	}
	text := v.file.Recipients[alias]
	parsed, err := age.ParseRecipients(strings.NewReader(text))
	if err != nil || len(parsed) != 1 || strings.ContainsAny(text, "\n\r") {
		v.add(path, "must be one age public key (age1…), as age-keygen prints it")
	}
}

func (v *validator) approver(i int) {
	path := fmt.Sprintf("approvers[%d]", i)
	a := v.file.Approvers[i]
	if strings.TrimSpace(a.Name) == "" {
		v.add(path+".name", "must name the person")
	}
	if _, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(a.Key)); err != nil || len(strings.TrimSpace(string(rest))) > 0 {
		v.add(path+".key", "must be one SSH public key, as in authorized_keys")
	}
	for j := range i {
		if v.file.Approvers[j].Name == a.Name {
			v.add(path+".name", "%s is given twice", quoted(a.Name))
		}
	}
}

func (v *validator) connector(i int, seen map[string]bool) {
	path := fmt.Sprintf("connectors[%d]", i)
	c := &v.file.Connectors[i]
	c.Line = v.lines[path]
	if !aliasForm.MatchString(c.Alias) {
		v.add(path+".alias", "must be 1 to 63 of a-z, 0-9 and inner hyphens")
	} else if seen[c.Alias] {
		v.add(path+".alias", "%s is given twice", quoted(c.Alias))
	}
	seen[c.Alias] = true
	if c.Role != RoleSource && c.Role != RoleTarget {
		v.add(path+".role", "must be source or target")
	}
	switch c.Mode {
	case "":
		c.Mode = ModeObserve
	case ModeObserve, ModeAdopt, ModeEnforce:
	default:
		v.add(path+".mode", "%s is not a mode; use observe, adopt or enforce", quoted(string(c.Mode)))
	}
	if c.Role == RoleSource && c.Mode == ModeEnforce {
		v.add(path+".mode", "enforce is for targets: a source is only read; use observe")
	}
	v.program(path, c)
	if c.Settings.JSON == nil {
		c.Settings.JSON = []byte("{}")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Secrets)) {
		kind, what, found := strings.Cut(c.Secrets[name], ":")
		if !found || what == "" || !slices.Contains([]string{"file", "env", "credential"}, kind) {
			v.add(path+".secrets."+name, "must be a reference: file:PATH, env:NAME or credential:NAME; never write a secret into this file")
		}
	}
	for j, name := range c.Release {
		if strings.TrimSpace(name) == "" {
			v.add(fmt.Sprintf("%s.release[%d]", path, j), "must be the name of an attribute")
		}
	}
}

func (v *validator) program(path string, c *Connector) {
	switch {
	case c.Name == "" && len(c.Command) == 0:
		v.add(path+".connector", "must name a built-in connector (see `reeve-agent connector list`), or give command and sha256")
	case c.Name != "" && len(c.Command) > 0:
		v.add(path+".command", "and connector cannot both be given; remove one")
	case len(c.Command) > 0:
		if !filepath.IsAbs(c.Command[0]) {
			v.add(path+".command", "must begin with the absolute path of the program")
		}
		if raw, err := hex.DecodeString(c.SHA256); err != nil || len(raw) != 32 {
			v.add(path+".sha256", "must be the SHA-256 of the program file, as sha256sum prints it")
		}
		c.SHA256 = strings.ToLower(c.SHA256)
		switch c.Isolation {
		case "":
			if c.User == "" && runtime.GOOS != "windows" {
				v.add(path+".user", "must name the operating system's user that runs this connector; with isolation: none it runs as the agent's own")
			}
		case "none":
			if c.User != "" {
				v.add(path+".isolation", "none and user cannot both be given; remove one")
			}
		default:
			v.add(path+".isolation", "can only be none")
		}
	default:
		if c.SHA256 != "" {
			v.add(path+".sha256", "is only for a command: a built-in connector is part of this program")
		}
		if c.Isolation != "" {
			v.add(path+".isolation", "is only for a command")
		}
	}
}
