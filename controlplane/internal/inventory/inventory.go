package inventory

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

var (
	// ErrNotFound is returned for a connector the tenant does not have.
	ErrNotFound = errors.New("connector not found")
	// ErrOtherAgent is returned when an agent speaks for an alias that has its
	// home at another agent.
	ErrOtherAgent = errors.New("connector has its home at another agent")
	// ErrFingerprint is returned when the fingerprint to confirm is not the one
	// the source has now.
	ErrFingerprint = errors.New("fingerprint is not the source's present one")
	// ErrInvalid is returned for what no agent in its right mind sends; the text
	// says what.
	ErrInvalid = errors.New("observation refused")
	// ErrResync is returned when a delta does not fit what is held here: the
	// agent begins again with a full snapshot.
	ErrResync = errors.New("delta does not fit the snapshot held here")
)

// Connector is a configured connector as its agent last reported it.
type Connector struct {
	Tenant, Alias, Agent string
	State                *agentv1.ConnectorState
	// Fingerprint identifies the directory behind it, as hex SHA-256 of its
	// facts; Confirmed is the one somebody compared out of band.
	Fingerprint, Confirmed string
	// Suspended says why plans leave it out; empty when they do not.
	Suspended string
	// Rebind is true after somebody accepted that a source has new anchors: the next
	// folding finds people again under them.
	Rebind bool
	// Current is the number of the snapshot that readers see, 0 before the first.
	Current int64
	// Header of the current snapshot, nil before the first.
	Header *planv1.SnapshotHeader
	// Set is the digest over the current snapshot's objects, as
	// connectorv1.SetDigest writes it; nil when it is not known.
	Set []byte
	// Whole is the name of the snapshot that was last read whole and complete. The
	// current one is it, or follows from it by what changed since.
	Whole string
	// Problems of the current snapshot.
	Problems []*connectorv1.Problem
	// Method says how the current snapshot knows that it is complete.
	Method string
	// Receiving is the snapshot under way, 0 when there is none.
	Receiving   int64
	ReceivingID string
}

// Source reports whether the connector's role is source.
func (c Connector) Source() bool {
	return c.State.GetRole() == agentv1.ConnectorState_ROLE_SOURCE
}

// Trusted reports whether what the connector says may lead to access: a
// target's, or a source's whose present fingerprint was confirmed.
func (c Connector) Trusted() bool {
	return !c.Source() || (c.Confirmed != "" && c.Confirmed == c.Fingerprint)
}

// Object is an observed object as kept: its digest is the one its agent sent it
// under.
type Object struct {
	Anchor, Type string
	Digest       [32]byte
	Body         []byte
}

// FingerprintOf folds a source's facts into the one value that people compare.
// The order of the facts does not count.
func FingerprintOf(facts []*connectorv1.Fact) string {
	lines := make([]string, len(facts))
	for i, f := range facts {
		// Lengths keep a value from imitating the next fact.
		lines[i] = hex.EncodeToString([]byte(f.GetName())) + "=" + hex.EncodeToString([]byte(f.GetValue()))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:])
}
