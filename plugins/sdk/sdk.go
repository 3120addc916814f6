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
	// Cursor is where Changes may go on; nil when it cannot. It stands for a state
	// no later than what was read: what changed meanwhile is told by Changes, once
	// more if need be, and never lost.
	Cursor []byte
	// Enumerated, of Changes, says that every object in scope was told, as changed
	// or as present: what was told as neither is gone.
	Enumerated bool
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
	// Changes tells objects as Observe would tell them now, and which are gone,
	// and returns the cursor to go on from. It fails with a Problem of code
	// CURSOR_LOST when the directory does not know the cursor any more, or when
	// what changed shows in a whole read only. Telling an object again that did
	// not change, or the removal of one that nobody knew, does no harm.
	Changes(ctx context.Context, cursor []byte, tell Telling) (Completeness, error)
}

// Telling takes what Changes found, in the order in which it holds: the last word
// on an anchor counts. Its functions may be called from several goroutines and
// block while the agent does not read; their errors are returned as they are.
type Telling struct {
	Changed func(*connectorv1.Object) error
	Removed func(anchor string) error
	// Present names an object that is there as it was. It is for directories that
	// do not remember what was deleted, and wants Completeness.Enumerated.
	Present func(anchor string) error
}

// Watcher tells that something changed.
type Watcher interface {
	// Watch calls changed after each change until ctx ends, and once when it is
	// ready: what changed before would otherwise wait for the next change.
	Watch(ctx context.Context, cursor []byte, changed func()) error
}
