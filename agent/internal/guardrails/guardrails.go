package guardrails

import (
	"time"
)

// Guardrails are the limits of one connector, as they stand under guardrails: in
// agent.yaml.
//
//	guardrails:
//	  scope:
//	    - rule: people
//	      types: [person]
//	      base: "ou=people,dc=fabrikam,dc=example"
//	      depth: 1
//	      match: {part: uid, glob: "*"}
//	      operations: [create, update, enable, disable, set_credential]
//	    - rule: file-shares
//	      types: [group]
//	      base: "ou=shares,ou=groups,dc=fabrikam,dc=example"
//	      operations: [add_member, remove_member]
//	      require_end: true
//	      max_grant: 8h
//	  attributes:
//	    - {name: mail, types: [person], suffix: "@fabrikam.example", max_length: 100}
//	    - {name: description}
//	  dangerous: [loginShell]
//	  protected:
//	    - name: "uid=ceo,ou=people,dc=fabrikam,dc=example"
//	    - anchor: 1b2e9f9c-1d6f-4e0e-9d9e-0d0f6f1f7a11
//	  budgets:
//	    plan: {create: 50, losing_access: 10}
//	    day: {losing_access: 20}
//	  client_signature:
//	    operations: [delete]
//	    rules: [file-shares]
//	    dangerous: true
//	    approvers: [it-lead]
//
// A nil *Guardrails allows nothing.
type Guardrails struct {
	// Alias is the connector's; it prefixes rule names in refusals.
	Alias string `yaml:"-" json:"alias"`
	// Case says how the values of names compare: "exact" or "ignore"; as the
	// connector declares by default. Protected names always ignore case.
	Case string `yaml:"case" json:"case,omitempty"`
	// Scope lists where something may be done, and what. An object that no
	// rule holds is out of reach.
	Scope []ScopeRule `yaml:"scope" json:"scope"`
	// Attributes lists what may be written, by the directory's own names, at
	// creation too. Without an entry an attribute is never written.
	Attributes []AttributeRule `yaml:"attributes" json:"attributes"`
	// Dangerous names attributes that can grant power by themselves and may be
	// written all the same; each needs an entry under attributes too. "uidNumber"
	// and "gidNumber" are needed here for the value 0; an account's "gidNumber"
	// also where its entries limit no values, since it is a membership.
	Dangerous []string `yaml:"dangerous" json:"dangerous,omitempty"`
	// Credentials says on which accounts credentials may be set or revoked:
	// "created" (the default: accounts that this agent created) or "any".
	Credentials string `yaml:"credentials" json:"credentials"`
	// Protected lists subjects to which nothing is done, whatever rules say, not
	// even through a group that they are a direct member of.
	Protected []Protected `yaml:"protected" json:"protected,omitempty"`
	// Budgets bound how much is done; without a number there is no bound.
	Budgets Budgets `yaml:"budgets" json:"budgets"`
	// ClientSignature says what needs an approver's SSH signature.
	ClientSignature ClientSignature `yaml:"client_signature" json:"client_signature"`
}

// ScopeRule allows operations on objects of some types at some place.
type ScopeRule struct {
	// Rule is its name, 1 to 63 of a-z, 0-9 and inner hyphens.
	Rule string `yaml:"rule" json:"rule"`
	// Types are object types of the connector; at least one.
	Types []string `yaml:"types" json:"types"`
	// Base is the name under which objects must lie, as text in the form of RFC
	// 4514 or as a list of parts, leaf first: ["ou=people", "dc=example"]. Text
	// escapes special characters, list items do not. "" is the top.
	Base Name `yaml:"base" json:"base"`
	// Depth is how many levels below base an object may lie: 0 is base itself,
	// 1 only right below it. Without it any number from 1.
	Depth *int `yaml:"depth" json:"depth,omitempty"`
	// Match narrows by the object's own component.
	Match *Match `yaml:"match" json:"match,omitempty"`
	// Operations of create, update, rename, move, enable, disable, delete,
	// add_member, remove_member, set_credential, revoke_credential. A rename or a
	// move needs them where the object is and where it goes. For a group,
	// add_member and remove_member say whether it may gain or lose members. A
	// rule without operations lets its objects be members and nothing else.
	Operations []string `yaml:"operations" json:"operations"`
	// RequireEnd refuses memberships without an end.
	RequireEnd bool `yaml:"require_end" json:"require_end,omitempty"`
	// MaxGrant is how far ahead a membership's end may lie, such as 8h; without
	// it there is no bound. A membership without an end is refused by it too.
	MaxGrant Duration `yaml:"max_grant" json:"max_grant,omitempty"`
}

// Match is a glob over the value of one part of an object's own component. "*"
// stands for any characters, "?" for one; neither can reach beyond the value.
type Match struct {
	// Part is the part's type, such as uid or cn.
	Part string `yaml:"part" json:"part"`
	Glob string `yaml:"glob" json:"glob"`
}

// AttributeRule allows values of one attribute. Of several rules for an
// attribute one must allow the value; within a rule every limit counts. What stands
// in a name is written too: beside the naming attribute its parts need a rule like
// any attribute, and rules for the naming attribute hold for names.
type AttributeRule struct {
	Name string `yaml:"name" json:"name"`
	// Types it holds for; all by default.
	Types []string `yaml:"types" json:"types,omitempty"`
	// Prefix and Suffix must stand at the value's ends, letter by letter.
	Prefix string `yaml:"prefix" json:"prefix,omitempty"`
	Suffix string `yaml:"suffix" json:"suffix,omitempty"`
	// OneOf lists the only values, compared by the attribute's matching rule.
	OneOf []string `yaml:"one_of" json:"one_of,omitempty"`
	// MaxLength in characters; 0 is no limit. Values that are not UTF-8 are
	// counted in octets.
	MaxLength int `yaml:"max_length" json:"max_length,omitempty"`
	// Pattern is a regular expression (RE2) that the whole value must match.
	Pattern Pattern `yaml:"pattern" json:"pattern,omitempty"`
}

// Protected names one subject: exactly one of its fields is set.
type Protected struct {
	// Name in the forms of ScopeRule.Base. The agent looks up its anchor and
	// keeps it, so the protection stays when the object is renamed.
	Name Name `yaml:"name" json:"name,omitempty"`
	// Anchor as the agent observes it; `reeve inventory objects` shows it.
	Anchor string `yaml:"anchor" json:"anchor,omitempty"`
}

// Budgets bound one plan, and any 24 hours. Keys are operations, and
// "losing_access". delete, disable, remove_member, revoke_credential and
// losing_access (all four together) count the people who lose something, each
// once; the others count changes, and add_member the first members of a new group.
type Budgets struct {
	Plan map[string]int `yaml:"plan" json:"plan,omitempty"`
	// Day is any 24 hours: an order counts from its admission until a day after its
	// end, since it may be held up in between.
	Day map[string]int `yaml:"day" json:"day,omitempty"`
}

// ClientSignature says which changes need the SSH signature of an approver over
// the plan (namespace plan-approval.v1@reeve). The same signature lifts budgets
// for that plan; nothing lifts scope.
type ClientSignature struct {
	// Operations that need it wherever they happen.
	Operations []string `yaml:"operations" json:"operations,omitempty"`
	// Rules: scope rules whose every change needs it.
	Rules []string `yaml:"rules" json:"rules,omitempty"`
	// Dangerous: writing a dangerous attribute needs it.
	Dangerous bool `yaml:"dangerous" json:"dangerous,omitempty"`
	// Approvers are names from approvers in agent.yaml; any one of them is
	// enough. None listed means all.
	Approvers []string `yaml:"approvers" json:"approvers,omitempty"`
}

// Approver is a person of the client and their SSH public key, one line as in
// authorized_keys.
type Approver struct {
	Name string `json:"name"`
	Key  string `json:"key"`
}

// Refusal says why a change is not allowed.
type Refusal struct {
	// Change is the change's id; empty for a budget.
	Change string
	// Rule that refused, as "connector/rule".
	Rule string
	// Sentence for people; it names the object and the remedy.
	Sentence string
	// Budget is true when a client's signature would lift it.
	Budget bool
}

// Duration is a length of time written as Go writes it: "30m", "8h".
type Duration time.Duration
