package planner

import (
	"time"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Input is everything a plan follows from. Plan reads nothing else: equal
// inputs give equal bytes.
type Input struct {
	Plan        string
	TrustDomain string
	Tenant      string
	Purpose     planv1.Purpose
	// ChangeKey is the tenant's secret under which changes are named.
	ChangeKey []byte
	// AsOf is the moment the plan speaks of; grants and ends are judged by it.
	AsOf time.Time

	// Desired state of every identity, sorted by subject; ignored for offboarding.
	Desired []policy.Desired
	// Entitlements of the bundle with parameters filled in, sorted by id.
	Entitlements     []policy.Entitlement
	Rules            policy.Rules
	PolicyVersion    string
	PolicyDigest     []byte
	ParametersDigest []byte

	// Connectors sorted by alias.
	Connectors []Connector
	// Links of identities to objects, sorted by (connector, anchor).
	Links []Link
	// Ledger sorted by (connector, anchor, attribute, value).
	Ledger []Entry
	// SoloOperator is said in the manifest.
	SoloOperator bool

	// Leavers and Suspended are the identities in those states, sorted. No new
	// account is made for them, and only their removals are urgent.
	Leavers, Suspended []string
	// Unjudged are identities whose desired state could not be derived: what they
	// have is left as it is, but accounts of those who left or are suspended are
	// disabled all the same. They have no Desired.
	Unjudged []Unjudged
	// Undecided are identities that an open case is about, by connector: an account
	// of theirs may be there already, so none is made before people decided.
	Undecided []Undecided
}

// Undecided is an identity of which a case is open on a connector.
type Undecided struct {
	Connector, Identity string
}

// Unjudged is an identity and why policy could not be evaluated for it.
type Unjudged struct {
	Identity, Why string
}

// Mode is how far the client lets a connector go.
type Mode int

const (
	ModeObserve Mode = iota + 1
	ModeAdopt
	ModeEnforce
)

// Connector is one configured instance with its latest snapshot.
type Connector struct {
	Alias    string
	Agent    string
	Source   bool
	Mode     Mode
	CaseRule connectorv1.CaseRule
	Types    []*connectorv1.ObjectType
	// Snapshot is nil before the first observation: nothing is planned then.
	Snapshot *planv1.SnapshotHeader
	// Objects sorted by anchor.
	Objects []*connectorv1.Object
	// Suspended says why the connector is left out; empty when it is not.
	Suspended string
}

// Link ties an object to an identity's account.
type Link struct {
	Connector string
	Anchor    string
	Identity  string
	Purpose   string
	// Created is true when Reeve created the object.
	Created bool
}

// Entry is the ledger's memory of one value that Reeve wrote, or of one object
// it created, disabled, renamed or put into a group.
type Entry struct {
	Connector string
	Type      string
	Anchor    string
	// What is touched.
	Item Item
	// Attribute for ItemAttribute.
	Attribute string
	// Value for an ItemAttribute of a multi-valued attribute: the canonical form
	// of the one value that is remembered. Before and Last then hold the value as
	// written, or nothing where it was not there. Values of attributes of rule
	// REFERENCE are remembered as "anchor:<anchor>", so that a renamed target is
	// followed, or as the raw link key where no object is known for it.
	Value string
	// Member's anchor for ItemMember.
	Member string
	// Keys are the link keys by which snapshots showed the member that Reeve put
	// into the group, sorted. One that stays after the member was renamed or
	// deleted is Reeve's all the same.
	Keys []string
	// Before is what was there before Reeve's first write: attribute values for
	// ItemAttribute, one value "true"/"false" for ItemMember, ItemExists and
	// ItemEnabled, the name's text for ItemName.
	Before [][]byte
	// Place of Before among the values of a multi-valued attribute, from 1: values
	// have no order (RFC 4512 2.2) and are given back in the one they had.
	Place int
	// BeforeName for ItemName.
	BeforeName *connectorv1.Name
	// Last is what Reeve wrote last, as Before.
	Last     [][]byte
	LastName *connectorv1.Name
	Cause    planv1.Cause
	Identity string
	// Change that wrote it last, and the rule behind it.
	Change string
	Rule   string
	Grant  string
	// EndsAt is the end of a timed membership, zero when it has none.
	EndsAt time.Time
	// Additive is true for a value of an attribute under that authority: it goes
	// when nothing asks for it.
	Additive bool
	// Diverged is true once a snapshot showed that others wrote over Last.
	Diverged bool
}

// Item is what kind of thing a ledger entry remembers.
type Item string

const (
	ItemExists     Item = "exists"
	ItemName       Item = "name"
	ItemAttribute  Item = "attribute"
	ItemEnabled    Item = "enabled"
	ItemMember     Item = "member"
	ItemCredential Item = "credential"
)

// Output is the plan's body and what people must know beside it.
type Output struct {
	// Changes by agent, sorted by agent; within an agent by (level, id).
	Agents []AgentChanges
	// Findings sorted by (kind, connector, object).
	Findings []Finding
	// Creations says whose account each create makes, so that intake can link it.
	// Sorted by change.
	Creations []Creation
}

// Creation ties a create to the account it makes.
type Creation struct {
	Change    string
	Connector string
	Identity  string
	Purpose   string
}

// AgentChanges is the part of a plan for one agent.
type AgentChanges struct {
	Agent      string
	Connectors []string
	Changes    []*planv1.Change
}

// Finding is what the planner saw and did not turn into a change.
type Finding struct {
	Kind      FindingKind
	Connector string
	// Object's display name or identity id.
	Object   string
	Identity string
	// Sentence for people: what and why, and what to do.
	Sentence string
}

// FindingKind classifies findings.
type FindingKind string

const (
	// FindingUnexplained: a membership policy does not explain.
	FindingUnexplained FindingKind = "unexplained"
	// FindingDiverged: a value is not what Reeve last wrote; left alone.
	FindingDiverged FindingKind = "diverged"
	// FindingHeld: changes held back by a safety budget or by a mode.
	FindingHeld FindingKind = "held"
	// FindingCollision: a name or value is taken by another object.
	FindingCollision FindingKind = "collision"
	// FindingResidue: offboarding leaves this behind.
	FindingResidue FindingKind = "residue"
	// FindingHandedOver: stays with the client by its cause.
	FindingHandedOver FindingKind = "handed_over"
	// FindingConflictOfDuty: separation of duties refuses it.
	FindingConflictOfDuty FindingKind = "separation_of_duties"
)
