package policy

import "time"

// Subject is what policy sees of an identity. It is built from the identity's
// source links by the mapping of the bundle, or from the MSP's own tenant.
type Subject struct {
	// ID is the identity's permanent random id.
	ID string
	// Kind is human, service, workload or ai_agent.
	Kind string
	// MSP is true for an identity of the MSP's own tenant that holds a grant in
	// this one.
	MSP bool
	// Attributes by identity attribute name; values in the source's order.
	Attributes map[string][]string
	// State is the identity's stage of life at AsOf.
	State State
	// Start and End bound the employment; End is the last moment of the last
	// day in the tenant's time zone. Zero means open.
	Start, End time.Time
	// LeftAt is when the leaver rules began to count; zero while active.
	LeftAt time.Time
}

// State of an identity.
type State string

const (
	// StatePending has a start date to come.
	StatePending State = "pending"
	StateActive  State = "active"
	// StateSuspended keeps its accounts, disabled.
	StateSuspended State = "suspended"
	// StateLeaver is disabled and stripped now, deleted after retention.
	StateLeaver State = "leaver"
)

// Grant is a time-bound or standing entitlement given by an act, not by a role.
type Grant struct {
	ID          string
	Entitlement string
	// Cause is "msp" or "client".
	Cause  string
	Reason string
	Ticket string
	Start  time.Time
	// End zero means until revoked.
	End time.Time
}

// Desired is what one identity should have on every connector. The order of
// its parts is fixed, so equal input gives equal Desired.
type Desired struct {
	Subject      string
	Accounts     []Account
	Entitlements []Entitled
	// Problems are what was left out of Entitlements and why, sorted; sentences
	// for people.
	Problems []string
}

// Account is an account an identity should have.
type Account struct {
	Connector string
	// Purpose is normal, admin or test.
	Purpose string
	// Type is the object type on the connector.
	Type string
	// Name components leaf first, each a list of type, value pairs.
	Name []Component
	// Attributes sorted by name. An additive one stands there once for each cause
	// that asks for values of it, the account's own first.
	Attributes []DesiredAttribute
	// Enabled is false for leavers, suspended and those yet to start.
	Enabled bool
	// Delete is true once retention has passed.
	Delete bool
	Cause  string
	// Rule is "<bundle>/<role>".
	Rule string
	// Credential is set when a new account gets a secret made at the edge.
	Credential *Credential
}

// Component is one level of a name as (type, value) parts.
type Component [][2]string

// DesiredAttribute is one attribute's wanted values and who decides them.
type DesiredAttribute struct {
	Name   string
	Values []string
	// Refs names identities whose account on the same connector is meant, for
	// attributes such as manager; Values is empty then.
	Refs      []string
	Authority Authority
	// Cause and Rule are set where a role of another cause than the account's maps
	// the attribute; empty, they are the account's.
	Cause, Rule string
}

// Authority says who decides an attribute or an entitlement's members.
type Authority string

const (
	// Enforce: the values are exactly these.
	Enforce Authority = "enforce"
	// Initial: written at creation only.
	Initial Authority = "initial"
	// Additive: these values are among them; only what Reeve added is removed.
	Additive Authority = "additive"
	// Observe: never written.
	Observe Authority = "observe"
	// Authoritative: an entitlement's members are exactly those policy says.
	Authoritative Authority = "authoritative"
)

// Credential is a secret to make at the edge.
type Credential struct {
	Kind      string
	Recipient string
	Length    uint32
}

// Entitled is an entitlement an identity should hold.
type Entitled struct {
	Entitlement string
	Connector   string
	// Purpose of the account that holds it.
	Purpose string
	Cause   string
	Rule    string
	// Grant is empty when a role gives it.
	Grant  string
	Reason string
	Ticket string
	End    time.Time
	// Also lists the other rules and grants that give it, such as
	// "rule baseline/it" and "grant 7f3a", sorted.
	Also []string
}

// Entitlement is one thing that can be granted: a group on a connector.
type Entitlement struct {
	// ID is "<application>/<name>", unique in the bundle.
	ID        string
	Connector string
	// Purpose of the accounts that hold it.
	Purpose string
	// Type and Name find the group; Name components leaf first.
	Type string
	Name []Component
	// Authority is Additive or Authoritative.
	Authority Authority
	// Cause of who must go because the entitlement is authoritative: the MSP's if
	// the MSP's roles alone give it. What only grants give is the client's, so that
	// the end of the MSP's service gives nobody privileges back.
	Cause       string
	Privileged  bool
	Application string
	Environment string
	Sensitivity string
	Owner       string
	// RequireEnd demands an end on every grant of it.
	RequireEnd bool
	// MaxGrant is the longest grant; zero means no limit.
	MaxGrant time.Duration
}
