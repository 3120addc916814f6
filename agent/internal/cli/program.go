package cli

import (
	"context"
	"encoding/json"
	"io"
	"time"
)

// Program does what the commands say. Errors carry their exit code (see Fail);
// one without is a plain failure.
type Program interface {
	// Join redeems a join token and writes the agent's identity.
	Join(ctx context.Context, o JoinOptions) (*Joined, error)
	// Run is the agent itself; it returns when ctx ends or it cannot go on.
	Run(ctx context.Context, config string) error
	// Validate reads agent.yaml and everything it refers to, and changes
	// nothing.
	Validate(ctx context.Context, config string) (*Validated, error)
	// CheckConnectors asks every connector, or the one of that alias.
	CheckConnectors(ctx context.Context, config, alias string) (*Checked, error)
	// ServeConnector is the hidden other half of a built-in connector.
	ServeConnector(name string) error
	// Connectors lists the built-ins.
	Connectors() *ConnectorList
	// ExplainGuardrails puts the limits of one connector, or all, into words.
	ExplainGuardrails(config, alias string) (*Explained, error)
	// Status, Pause, Resume, Recover, Leave, Records and Review speak to the
	// running agent, or to the journal when none runs.
	Status(ctx context.Context, config string) (*Status, error)
	Pause(ctx context.Context, config, reason string) (*Acknowledged, error)
	Resume(ctx context.Context, config string) (*Acknowledged, error)
	Recover(ctx context.Context, config string) (*Acknowledged, error)
	AcceptClock(ctx context.Context, config string) (*Acknowledged, error)
	Leave(ctx context.Context, config string, dryRun bool) (*Left, error)
	Records(ctx context.Context, config string, q RecordQuery, each func(RecordLine) error) error
	Review(ctx context.Context, config, plan string) (*Reviewed, error)
	Orders(ctx context.Context, config, plan string) (*OrderList, error)
	// Version names this build.
	Version() *Version
}

// JoinOptions are where to join. Config fills what is empty.
type JoinOptions struct {
	Config       string
	ControlPlane string
	RootSHA256   string
	State        string
	Name         string
	// Token is read to its end; the token never stands in argv or environment.
	Token io.Reader
}

// Joined is who the agent is from now on.
type Joined struct {
	ID           string    `json:"id"`
	Tenant       string    `json:"tenant"`
	Agent        string    `json:"agent"`
	Epoch        uint64    `json:"epoch"`
	TrustDomain  string    `json:"trust_domain"`
	State        string    `json:"state"`
	LogOrigin    string    `json:"log_origin"`
	WitnessKey   string    `json:"witness_key"`
	RootVersion  uint64    `json:"root_version"`
	SVIDNotAfter time.Time `json:"svid_not_after"`
	// Again is true when this state had joined before and nothing was changed.
	Again bool `json:"again"`
}

// Validated is what is in agent.yaml.
type Validated struct {
	Path             string   `json:"path"`
	Connectors       []string `json:"connectors"`
	GuardrailsDigest string   `json:"guardrails_digest"`
	Warnings         []string `json:"warnings"`
}

// Checked is what the connectors answered.
type Checked struct {
	Connectors []CheckedConnector `json:"connectors"`
}

// CheckedConnector is what one connector answered.
type CheckedConnector struct {
	Alias       string        `json:"alias"`
	Connector   string        `json:"connector"`
	Version     string        `json:"version"`
	Role        string        `json:"role"`
	Mode        string        `json:"mode"`
	Reachable   bool          `json:"reachable"`
	Server      string        `json:"server"`
	BoundAs     string        `json:"bound_as"`
	Types       []CheckedType `json:"types"`
	Rights      []Right       `json:"rights"`
	Fingerprint []Pair        `json:"fingerprint"`
	Release     []string      `json:"release"`
	Problems    []Problem     `json:"problems"`
}

// CheckedType is an object type with what may be done to it: what the connector
// can do, and what of it the guardrails let a plan do.
type CheckedType struct {
	Type     string   `json:"type"`
	Kind     string   `json:"kind"`
	Can      []string `json:"can"`
	May      []string `json:"may"`
	Withheld []string `json:"withheld_attributes"`
}

// Right is something the bind account could do on the directory.
type Right struct {
	What    string `json:"what"`
	Where   string `json:"where"`
	Allowed bool   `json:"allowed"`
	Certain bool   `json:"certain"`
}

// Pair is a name with a value.
type Pair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Problem is connectorv1.Problem for scripts.
type Problem struct {
	Code     string `json:"code"`
	Object   string `json:"object"`
	Tried    string `json:"tried"`
	Said     string `json:"said"`
	Remedy   string `json:"remedy"`
	Severity string `json:"severity"`
}

// ConnectorList is what is built in.
type ConnectorList struct {
	Connectors []BuiltIn `json:"connectors"`
}

// BuiltIn is one connector of this program.
type BuiltIn struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Types   []string `json:"types"`
}

// Explained is the guardrails in words, a text per connector.
type Explained struct {
	Digest     string          `json:"digest"`
	Connectors []ExplainedText `json:"connectors"`
}

// ExplainedText is one connector's guardrails in words.
type ExplainedText struct {
	Alias string   `json:"alias"`
	Lines []string `json:"lines"`
}

// Status is how the agent is.
type Status struct {
	ID          string            `json:"id"`
	Epoch       uint64            `json:"epoch"`
	Running     bool              `json:"running"`
	Connected   bool              `json:"connected"`
	LastWelcome time.Time         `json:"last_welcome,omitzero"`
	Paused      bool              `json:"paused"`
	Quarantined string            `json:"quarantined"`
	Fork        string            `json:"fork"`
	Sequence    uint64            `json:"sequence"`
	Records     uint64            `json:"records"`
	Spooled     uint64            `json:"spooled"`
	Obligations int               `json:"obligations"`
	RootVersion uint64            `json:"root_version"`
	Checkpoint  uint64            `json:"checkpoint_size"`
	Connectors  []ConnectorHealth `json:"connectors"`
}

// ConnectorHealth is whether a connector does its work.
type ConnectorHealth struct {
	Alias        string    `json:"alias"`
	Connector    string    `json:"connector"`
	Role         string    `json:"role"`
	Mode         string    `json:"mode"`
	Reachable    bool      `json:"reachable"`
	Running      bool      `json:"running"`
	Restarts     int       `json:"restarts"`
	LastWork     time.Time `json:"last_work,omitzero"`
	LastObserved time.Time `json:"last_observed,omitzero"`
	Problems     []Problem `json:"problems"`
}

// Acknowledged is what a local act did.
type Acknowledged struct {
	Act    string `json:"act"`
	Detail string `json:"detail"`
}

// Left is what leaving undid and what stayed.
type Left struct {
	DryRun  bool     `json:"dry_run"`
	Undone  []string `json:"undone"`
	Kept    []string `json:"kept"`
	Residue []string `json:"residue"`
	Failed  []string `json:"failed"`
}

// RecordQuery narrows Records.
type RecordQuery struct {
	// Last is how many of the newest records to show; 0 shows all.
	Last int
	// Follow goes on with new records until the context ends.
	Follow bool
}

// RecordLine is one record of the agent's chain.
type RecordLine struct {
	Epoch   uint64          `json:"epoch"`
	Index   uint64          `json:"index"`
	At      time.Time       `json:"at"`
	Type    string          `json:"type"`
	Actor   string          `json:"actor"`
	Plan    string          `json:"plan"`
	Change  string          `json:"change"`
	Ticket  string          `json:"ticket"`
	Summary string          `json:"summary"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// Reviewed is a plan as the agent sees it: what would change, with the objects
// read live, and every refusal of the guardrails.
type Reviewed struct {
	Plan       string           `json:"plan"`
	Digest     string           `json:"digest"`
	Guardrails string           `json:"guardrails_digest"`
	Changes    []ReviewedChange `json:"changes"`
	Refusals   []ReviewRefusal  `json:"refusals"`
}

// ReviewedChange is one change with what the agent itself read under its anchor.
type ReviewedChange struct {
	ID        string `json:"id"`
	Connector string `json:"connector"`
	Level     uint32 `json:"level"`
	Operation string `json:"operation"`
	Object    string `json:"object"`
	Claimed   string `json:"claimed"`
	Detail    string `json:"detail"`
	Cause     string `json:"cause"`
	Reason    string `json:"reason"`
	EndsAt    string `json:"ends_at"`
	Problem   string `json:"problem"`
}

// ReviewRefusal is why a change may not run.
type ReviewRefusal struct {
	Change   string `json:"change"`
	Code     string `json:"code"`
	Rule     string `json:"rule"`
	Sentence string `json:"sentence"`
}

// OrderList is the orders in the journal.
type OrderList struct {
	Orders []OrderLine `json:"orders"`
}

// OrderLine is how far an order is.
type OrderLine struct {
	Order    string `json:"order"`
	Plan     string `json:"plan"`
	Sequence uint64 `json:"sequence"`
	State    string `json:"state"`
	Total    int    `json:"total"`
	Done     int    `json:"done"`
}

// Version names a build.
type Version struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}
