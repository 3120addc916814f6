package identity

import (
	"errors"
	"time"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

var (
	ErrNotFound = errors.New("identity not found")
	// ErrAmbiguous is returned when a login or label fits several identities.
	ErrAmbiguous = errors.New("several identities fit")
	// ErrCaseNotFound is returned for a case the tenant does not have.
	ErrCaseNotFound = errors.New("case not found")
	// ErrNotCandidate is returned for a decision the case does not offer.
	ErrNotCandidate = errors.New("not a candidate of the case")
	// ErrDecided is returned for a case that is closed.
	ErrDecided = errors.New("the case is decided already")
	// ErrTaken is returned when a decision would take an account from another
	// identity, or give an identity a second one of a purpose.
	ErrTaken = errors.New("the account is taken")
)

// Identity is the governed record of one subject.
type Identity struct {
	// ID is random and permanent.
	ID   string
	Kind string
	// Label is a name for people; not unique.
	Label      string
	Attributes map[string][]string
	// References name other identities by an attribute of theirs.
	References []Reference
	Suspended  bool
	Starts     time.Time
	// Ends is the last moment of the last day in the tenant's zone.
	Ends time.Time
	// Missing counts complete snapshots in a row that lacked the subject, in
	// whichever of its sources lacked it least.
	Missing      int
	MissingSince time.Time
}

// Link ties a source object to an identity.
type Link struct {
	Connector, Anchor, Identity string
	// Snapshot is the last one that lacked the object, so that folding it twice
	// counts once; at first the one that the link comes from.
	Snapshot string
	// Said is the last row in scope.
	Said Row
	// Missing counts complete snapshots in a row that lacked the object.
	Missing      int
	MissingSince time.Time
}

// Account is a target object an identity owns.
type Account struct {
	Connector, Anchor, Identity string
	// Purpose is normal, admin or test.
	Purpose string
	Type    string
	// Created is true when Reeve created the object.
	Created bool
}

// Case is what correlation cannot decide.
type Case struct {
	ID        string
	Kind      CaseKind
	Connector string
	// Type and Purpose of the account that is in question.
	Type, Purpose string
	Subject       string
	Candidates    []string
	Sentence      string
	Opened        time.Time
	// Decision is empty while the case is open: a candidate, "none", or Passed.
	Decision string
}

// Passed is the decision of a case that is no longer one: what it was about
// changed.
const Passed = "passed"

// CaseKind classifies cases.
type CaseKind string

// CaseAmbiguous: several accounts fit one identity, or several identities one
// account.
const CaseAmbiguous CaseKind = "ambiguous"

// Row is what a source says of one subject, as the policy's mapping reads it.
type Row struct {
	// InScope is false when the mapping's filter leaves the row out; leaving the
	// scope is not leaving the company.
	InScope bool
	// Order is the source's place in precedence; 0 is first.
	Order      int
	Kind       string
	Label      string
	Attributes map[string][]string
	References []Reference
	Suspended  bool
	Starts     time.Time
	Ends       time.Time
}

// Reference is how a source names another identity: a manager by a staff number.
type Reference struct {
	Name string
	// Attribute of the other identity that holds one of Values.
	Attribute string
	Values    []string
}

// Match says that an account belongs to the identity whose attribute has the
// value of one of the object's.
type Match struct {
	Connector, Type, Purpose string
	// Pairs must all hold.
	Pairs []Pair
}

// Pair is one attribute of the identity and the object's it must equal. ObjectName
// as the object's means the value of its own name component.
type Pair struct{ Identity, Object string }

// ObjectName stands for an object's own name where an attribute is asked for.
const ObjectName = "@name"

// Mapper reads source rows and states how accounts are found. Policy is one.
type Mapper interface {
	// Row maps a source object; ok is false when no mapping is for its type.
	Row(connector string, o *connectorv1.Object) (row Row, ok bool, err error)
	// Matches in the order they are tried.
	Matches() []Match
}

// SourceSnapshot is a source's current snapshot.
type SourceSnapshot struct {
	Connector string
	Snapshot  string
	Complete  bool
	At        time.Time
	Objects   []*connectorv1.Object
	// Rebind accepts new anchors for people who are known under others.
	Rebind bool
	// Same names the other connectors that reach the same directory.
	Same []string
}

// TargetSnapshot is a target's current snapshot.
type TargetSnapshot struct {
	Connector string
	Types     []*connectorv1.ObjectType
	Objects   []*connectorv1.Object
}
