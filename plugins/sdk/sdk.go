package sdk

import (
	"context"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Connector is what an author writes: what the connector is, and how an
// instance of it is opened.
type Connector interface {
	// Describe states name, version, case rule, every object type the connector
	// can have and the JSON Schema of its settings. It touches nothing.
	Describe() *connectorv1.DescribeResponse
	// Open makes an instance from settings. It checks the settings fully but
	// need not reach the directory: a directory that is down is the business of
	// the calls that follow. An error is best a *Problem.
	Open(ctx context.Context, settings Settings) (Instance, error)
}

// Settings are an instance's own: Decode refuses keys the struct does not have.
type Settings struct {
	// Alias is the instance's name in agent.yaml.
	Alias string
	// JSON as the client wrote it.
	JSON []byte
	// Secrets by name, resolved by the agent.
	Secrets map[string][]byte
}

// Instance is one configured directory. Its optional abilities are the small
// interfaces below; the SDK finds them by type assertion and declares nothing
// that is not there. Calls may come from several goroutines.
type Instance interface {
	// Types are the object types this instance has under its settings.
	Types() []*connectorv1.ObjectType
	// Capabilities beyond those the SDK derives from the interfaces.
	Capabilities() []connectorv1.Capability
	Checker
	Observer
	Reader
	Close() error
}

// Checker proves the settings against the directory and changes nothing.
type Checker interface {
	Check(ctx context.Context) (*connectorv1.CheckResponse, error)
}

// Observer reads everything in scope.
type Observer interface {
	// Observe hands every object to emit, which takes it over and may sort it,
	// and returns how it knows that nothing is missing. emit may be called from
	// several goroutines; it blocks while the agent does not read. An error from
	// emit is returned as it is. An error, or a Finding of severity INCOMPLETE,
	// makes the read incomplete.
	Observe(ctx context.Context, emit func(*connectorv1.Object) error) (Completeness, error)
}

// Completeness is an observation's own account of itself.
type Completeness struct {
	// Method says how completeness is known.
	Method string
	// Cursor is where Changes may go on; nil when it cannot.
	Cursor []byte
	// Findings are what was left out, and notes.
	Findings []*connectorv1.Problem
}

// Reader reads single objects, up to 100 at a time.
type Reader interface {
	// Read answers each ref in order. What cannot be read is a problem in its
	// result; an error means that none could.
	Read(ctx context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error)
}

// Applier carries out operations. A connector without it is a source only.
type Applier interface {
	// Apply answers each operation in order. Operations are independent of each
	// other; with CAPABILITY_TRANSACTIONS they succeed or fail together. An
	// operation whose effect is already there is done; one whose expect does not
	// hold is a conflict; what may have happened is unknown, never done.
	Apply(ctx context.Context, operations []*connectorv1.Operation) []*connectorv1.ApplyResult
}

// ChangeReader reads what changed since a cursor.
type ChangeReader interface {
	// Changes fails with a Problem of code CURSOR_LOST when the directory does
	// not know the cursor any more.
	Changes(ctx context.Context, cursor []byte, changed func(*connectorv1.Object) error, removed func(anchor string) error) (Completeness, error)
}

// Watcher tells that something changed.
type Watcher interface {
	// Watch calls changed after each change until ctx ends.
	Watch(ctx context.Context, cursor []byte, changed func()) error
}
