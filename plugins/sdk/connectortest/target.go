package connectortest

import (
	"testing"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Target is a connector under test.
type Target struct {
	// Command launches the connector as a process: absolute path and arguments.
	// Env is added to the handshake's own environment.
	Command []string
	Env     []string
	// Connector is served inside the test instead, when Command is nil.
	Connector sdk.Connector
	// Setup prepares one contract point: a directory with a few objects of each
	// type in it, alike at every call and independent of the earlier ones.
	Setup func(t testing.TB) Directory
	// Samples say, by object type, how to make objects. A type without one is
	// only observed and read.
	Samples map[string]Sample
}

// Directory is one prepared directory and the author's own look at it.
type Directory struct {
	// Settings is the instance's JSON.
	Settings []byte
	Secrets  map[string][]byte
	// State reads all that the connector could change, from outside of the
	// connector (slapcat, the file's bytes), without what the directory itself
	// stamps, such as times. Equal strings are equal states. Sources may leave
	// it nil.
	State func(t testing.TB) string
	// Verify reports whether the object can log in with the secret, asked from
	// outside; nil if it cannot be asked.
	Verify func(t testing.TB, object *connectorv1.Object, secret []byte) bool
}

// Sample makes objects of one type.
type Sample struct {
	// Create returns a create whose own component has the value leaf, with
	// values for everything that is required and for as many attributes as make
	// sense. Objects of different leaves must be able to stand side by side.
	Create func(leaf string) *connectorv1.Create
	// Values are two or more values to write one after the other, by attribute.
	Values map[string][]string
	// Member is the type of object that a group of this type takes; empty if it
	// takes none.
	Member string
	// MoveTo is another place that exists; nil if moves are not tried.
	MoveTo []*connectorv1.Component
	// Secret is a password that the directory's policy accepts; empty is a
	// long random-looking one.
	Secret string
}
