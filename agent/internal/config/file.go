package config

import (
	"encoding/json"
	"time"

	"go.yaml.in/yaml/v3"

	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// File is agent.yaml. Keys that are not listed here are refused, and so are
// keys given twice, YAML anchors and aliases, and a second document.
type File struct {
	// ControlPlane is the control plane's address as host:port. The agent
	// dials it; nothing dials the agent.
	ControlPlane string `yaml:"control_plane"`
	// TrustDomain is the SPIFFE trust domain of the MSP, such as "msp.example".
	TrustDomain string `yaml:"trust_domain"`
	// RootSHA256 pins the first root document: 64 hexadecimal digits that
	// reached the client by another channel than the network.
	RootSHA256 string `yaml:"root_sha256"`
	// State is the folder of keys, journal and checkpoints. It is made with
	// mode 0700 and must not be shared between agents.
	State string `yaml:"state"`
	// SVIDSource says where the agent's certificate comes from: "builtin" (the
	// default, issued at join by the control plane) or "workload-api".
	SVIDSource string `yaml:"svid_source"`
	// WorkloadAPI is the address of a SPIFFE Workload API, such as
	// "unix:///run/spire/agent.sock"; only with svid_source: workload-api.
	WorkloadAPI string `yaml:"workload_api"`
	// Heartbeat is how often the agent reports; 5s to 10m, 30s by default.
	Heartbeat Duration `yaml:"heartbeat"`
	// ObserveEvery is how often every connector is read whole, one that tells its
	// changes too; at least 10s, 15m by default.
	ObserveEvery Duration `yaml:"observe_every"`
	// Recipients are the age public keys to which new secrets are sealed, by
	// the alias that plans use. A plan cannot bring a recipient of its own.
	Recipients map[string]string `yaml:"recipients"`
	// Approvers are the people of the client whose signature can approve plans.
	Approvers []Approver `yaml:"approvers"`
	// Connectors are the directories the agent works with.
	Connectors []Connector `yaml:"connectors"`

	// Path is where the file was read from, Warnings what is allowed but
	// unwise. Neither is part of the file.
	Path     string   `yaml:"-"`
	Warnings []string `yaml:"-"`
}

// Approver is a person of the client and their SSH public key.
type Approver struct {
	Name string `yaml:"name"`
	// Key is one line in the format of authorized_keys.
	Key string `yaml:"key"`
}

// Connector is one configured directory.
type Connector struct {
	// Alias names the instance in plans and records: 1 to 63 of a-z, 0-9 and
	// inner hyphens.
	Alias string `yaml:"alias"`
	// Name is a built-in connector, such as "ldap" or "flatfile".
	Name string `yaml:"connector"`
	// Command is the program of another connector, an absolute path with its
	// arguments, in place of Name. SHA256 is the hash of the program file: what
	// does not match is not started.
	Command []string `yaml:"command"`
	SHA256  string   `yaml:"sha256"`
	// Role is "source" (it says who people are) or "target" (accounts are made
	// there).
	Role Role `yaml:"role"`
	// Mode is how far the client has let Reeve go: "observe" (read), "adopt"
	// (change what policy and directory agree on) or "enforce" (create too).
	Mode Mode `yaml:"mode"`
	// Settings are the connector's own; `connector check` tells what it takes.
	Settings Settings `yaml:"settings"`
	// Secrets are references by the name the connector asks for: "file:PATH",
	// "env:NAME" or "credential:NAME" (systemd).
	Secrets map[string]string `yaml:"secrets"`
	// Release lists the attributes whose values may leave the network; none by
	// default. Secret attributes never leave, listed or not. Of every object in
	// the settings' scope its type, anchor, name, link keys, members and
	// whether it is enabled leave regardless: without them nothing can be
	// planned.
	Release []string `yaml:"release"`
	// Guardrails are the client's limits; without them nothing may be changed.
	Guardrails yaml.Node `yaml:"guardrails"`
	// User is the operating system's user that runs the connector; the agent's
	// own by default. Only for a command.
	User string `yaml:"user"`
	// Isolation "none" lets a command run as the agent's own user, which can
	// then read the agent's keys.
	Isolation string `yaml:"isolation"`

	// Line is where the connector stands in the file.
	Line int `yaml:"-"`
}

// Role is what a connector is to the agent.
type Role string

const (
	RoleSource Role = "source"
	RoleTarget Role = "target"
)

// Mode is how far the client has let Reeve go on a connector.
type Mode string

const (
	ModeObserve Mode = "observe"
	ModeAdopt   Mode = "adopt"
	ModeEnforce Mode = "enforce"
)

// Proto returns the role as it travels.
func (r Role) Proto() agentv1.ConnectorState_Role {
	switch r {
	case RoleSource:
		return agentv1.ConnectorState_ROLE_SOURCE
	case RoleTarget:
		return agentv1.ConnectorState_ROLE_TARGET
	}
	return agentv1.ConnectorState_ROLE_UNSPECIFIED
}

// Proto returns the mode as it travels.
func (m Mode) Proto() agentv1.ConnectorState_Mode {
	switch m {
	case ModeObserve:
		return agentv1.ConnectorState_MODE_OBSERVE
	case ModeAdopt:
		return agentv1.ConnectorState_MODE_ADOPT
	case ModeEnforce:
		return agentv1.ConnectorState_MODE_ENFORCE
	}
	return agentv1.ConnectorState_MODE_UNSPECIFIED
}

// What SVIDSource can be.
const (
	SVIDBuiltin     = "builtin"
	SVIDWorkloadAPI = "workload-api"
)

// Duration is a length of time written as Go writes it: "30s", "15m", "2h".
type Duration time.Duration

// UnmarshalYAML reads a duration with its unit; a bare number is refused.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return &fault{line: n.Line, text: quoted(n.Value) + " is not a length of time; write it with a unit, such as 30s or 15m"}
	}
	*d = Duration(v)
	return nil
}

// Settings are free-form YAML, carried to the connector as JSON.
type Settings struct {
	JSON json.RawMessage
}

// UnmarshalYAML keeps scalars as they are written: what YAML would make a date
// stays text.
func (s *Settings) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return &fault{line: n.Line, text: "settings must be a mapping of names to values"}
	}
	out, err := toJSON(n)
	if err != nil {
		return err
	}
	s.JSON = out
	return nil
}

// Connector returns the configured connector of that alias.
func (f *File) Connector(alias string) (Connector, bool) {
	for _, c := range f.Connectors {
		if c.Alias == alias {
			return c, true
		}
	}
	return Connector{}, false
}
