package policy

import "time"

// Format is the value of a bundle's `reeve` key.
const Format = "policy/v1"

// Bundle is a policy as written: parsed, every key known, every reference in it
// resolved, but no rule type-checked yet. Parse makes one; it is not changed
// afterwards.
type Bundle struct {
	Name    string
	Version string
	// Files are the bytes it was parsed from, for storing and for the digest.
	Files []File

	Parameters   []Parameter
	Sources      []Source
	Correlations []Correlation
	Entitlements []EntitlementRule
	Roles        []Role
	MSP          MSP
	Rules        Rules
	Tests        []Test
}

// Digest is SHA-256 over the bundle's files.
func (b *Bundle) Digest() []byte { return digestFiles(b.Files) }

// Expr is a CEL expression and where it stands.
type Expr struct {
	Source string
	At     Position
	// block is true for YAML block scalars, whose text starts a line below At.
	block bool
}

// Set reports whether the bundle gives the expression.
func (e Expr) Set() bool { return e.Source != "" }

// Source maps one type of object of a source connector to identities. Sources
// stand in order of precedence: an attribute comes from the first that gives it
// a value.
type Source struct {
	At        Position
	Connector string
	Type      string
	// Kind of the identities: human, service, workload or ai_agent.
	Kind string
	// Attributes sorted by identity attribute.
	Attributes []Mapping
	// References are attributes whose value names another identity, sorted.
	References []ReferenceMapping
	// Filter says which objects are subjects. Leaving it is not leaving.
	Filter Expr
	// Start and End give dates as text.
	Start, End Expr
	// Active false suspends.
	Active Expr
}

// Mapping gives one attribute its value.
type Mapping struct {
	Name  string
	Value Expr
}

// ReferenceMapping gives one attribute that names another identity.
type ReferenceMapping struct {
	Name  string
	Value Expr
	// Attribute of the other identity that holds the value.
	Attribute string
}

// Correlation says which existing object of a target is an identity's account.
// All of Match must hold; several correlations of one connector, type and
// purpose are alternatives.
type Correlation struct {
	At        Position
	Connector string
	Type      string
	Purpose   string
	Match     []Match
}

// Match compares an identity's attribute with an object's. Object may be
// ObjectName for the value of the object's own name component.
type Match struct {
	Identity string
	Object   string
}

// ObjectName stands for the value of an object's own name component where an
// attribute name is asked for: a source's row and a correlation.
const ObjectName = "@name"

// EntitlementRule is an entitlement as written; its name may follow from
// parameters.
type EntitlementRule struct {
	Entitlement
	At          Position
	NameExpr    Expr
	Description string
}

// Role gives accounts and entitlements to the identities that fit When.
type Role struct {
	At           Position
	ID           string
	When         Expr
	Cause        string
	Accounts     []AccountRule
	Entitlements []EntitlementUse
	Description  string
}

// EntitlementUse names an entitlement in a role.
type EntitlementUse struct {
	ID string
	At Position
}

// AccountRule is an account as a role maps it.
type AccountRule struct {
	At         Position
	Connector  string
	Purpose    string
	Type       string
	When       Expr
	Name       Expr
	Attributes []AttributeRule
	Credential *Credential
}

// AttributeRule is one attribute of an account. Exactly one of Value and Ref is
// set; without When it always applies.
type AttributeRule struct {
	At        Position
	Name      string
	When      Expr
	Value     Expr
	Ref       Expr
	Authority Authority
}

// MSP maps the accounts of the MSP's own people. Such an account exists only
// where its holder has, or had, a grant of an entitlement on the same connector
// and purpose.
type MSP struct {
	Accounts []AccountRule
	// Retention of the disabled account after the last grant ended; zero keeps
	// it until offboarding.
	Retention time.Duration
}

// Test is an example in the bundle: given this, policy says that.
type Test struct {
	At     Position
	Name   string
	Params Values
	// Subject given as it is, or through a source when Row is set.
	Subject Subject
	Row     *TestRow
	Grants  []Grant
	AsOf    time.Time
	Expect  Expectation
}

// TestRow is a source object in a test.
type TestRow struct {
	Connector  string
	Type       string
	Attributes map[string][]string
}

// Expectation of a test. Accounts and Entitlements are complete: one more or
// one less fails. Of an account's attributes only those listed are compared.
type Expectation struct {
	Accounts     []ExpectedAccount
	Entitlements []string
	// Error is a part of the error's text; the other fields are empty then.
	Error string
}

// ExpectedAccount in a test. Name is the name's text (RFC 4514, leaf first).
type ExpectedAccount struct {
	Connector  string
	Purpose    string
	Name       string
	Enabled    bool
	Delete     bool
	Attributes map[string][]string
}
