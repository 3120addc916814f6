package connectortest

import (
	"testing"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Run tries every contract point against the target, each in a subtest with a
// connector and a directory of its own.
func Run(t *testing.T, target Target) {
	t.Helper()
	if target.Setup == nil || (target.Command == nil) == (target.Connector == nil) {
		t.Fatal("connectortest: a Target needs Setup and exactly one of Command and Connector")
	}
	for _, p := range points() {
		t.Run(p.name, func(t *testing.T) { p.try(open(t, target)) })
	}
}

// point is one promise of the contract.
type point struct {
	name string
	try  func(*session)
}

func points() []point {
	return []point{
		{"describe is stable and sound", tryDescribe},
		{"configure once, known settings only", tryConfigure},
		{"check changes nothing", tryCheck},
		{"observe is complete and repeatable", tryObserve},
		{"observe survives cancellation", tryCancel},
		{"read agrees with observe", tryRead},
		{"undeclared operations are refused", tryUndeclared},
		{"create, read back, create again", tryCreate},
		{"update by value, both ways", tryUpdate},
		{"enable and disable", tryEnablement},
		{"members", tryMembers},
		{"rename", tryRename},
		{"move", tryMove},
		{"credentials", tryCredentials},
		{"delete, then absent", tryDelete},
		{"an expect that does not hold is a conflict", tryExpect},
		{"hostile names", tryHostileNames},
		{"hostile values", tryHostileValues},
		{"several operations in one request", tryBatch},
		{"changes agree with observe", tryChanges},
		{"a foreign cursor is lost and removes nobody", tryForeignCursor},
		{"watch tells of changes", tryWatch},
	}
}

const (
	opCreate  = connectorv1.OperationKind_OPERATION_KIND_CREATE
	opUpdate  = connectorv1.OperationKind_OPERATION_KIND_UPDATE
	opRename  = connectorv1.OperationKind_OPERATION_KIND_RENAME
	opMove    = connectorv1.OperationKind_OPERATION_KIND_MOVE
	opEnable  = connectorv1.OperationKind_OPERATION_KIND_ENABLE
	opDisable = connectorv1.OperationKind_OPERATION_KIND_DISABLE
	opDelete  = connectorv1.OperationKind_OPERATION_KIND_DELETE
	opAdd     = connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER
	opRemove  = connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER
	opSet     = connectorv1.OperationKind_OPERATION_KIND_SET_CREDENTIAL
	opRevoke  = connectorv1.OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL
)
