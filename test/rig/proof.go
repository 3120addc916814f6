package rig

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/protobuf/proto"
	_ "modernc.org/sqlite" // the driver registers itself

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// Entry is one record of the tenant's exported log.
type Entry struct {
	// Agent is empty for the control plane's own.
	Agent  string
	Epoch  uint64
	Index  uint64
	Header *auditv1.Header
	Body   *auditv1.Body
}

// Log exports the tenant's log, verifies it offline as a client would, with the
// checkpoint that its agent kept, and returns its records in the log's order.
func (r *Rig) Log() []Entry {
	r.T.Helper()
	file := filepath.Join(r.Dir, "log.reevelog")
	_ = os.Remove(file)
	args := []string{"audit", "verify", "--export", file, "--root-sha256", r.Pin}
	// Kept before the export is made: the agent goes on cosigning.
	if latest, err := os.ReadFile(filepath.Join(r.State, "checkpoints", "latest")); err == nil {
		r.write("kept.checkpoint", string(latest))
		args = append(args, "--checkpoint", filepath.Join(r.Dir, "kept.checkpoint"))
	} else if !errors.Is(err, os.ErrNotExist) {
		r.T.Fatal(err)
	}
	r.Do("audit", "export", Tenant, "--out", file)
	r.Do(args...)
	export, err := os.Open(file)
	if err != nil {
		r.T.Fatal(err)
	}
	defer export.Close()
	list, err := readExport(export)
	if err != nil {
		r.T.Fatalf("read the export: %v", err)
	}
	return list
}

// readExport reads the frames and joins entries of agents with the bodies that
// stand in their batches.
func readExport(export io.Reader) ([]Entry, error) {
	type place struct {
		agent        string
		epoch, index uint64
	}
	var list []Entry
	bodies := map[place]*auditv1.Body{}
	in := bufio.NewReader(export)
	for {
		size, err := binary.ReadUvarint(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		frame := make([]byte, size)
		if _, err := io.ReadFull(in, frame); err != nil {
			return nil, err
		}
		var f auditv1.ExportFrame
		if err := proto.Unmarshal(frame, &f); err != nil {
			return nil, err
		}
		if e := f.GetEntry(); e != nil {
			var entry auditv1.Entry
			header, body := &auditv1.Header{}, &auditv1.Body{}
			if err := errors.Join(proto.Unmarshal(e.GetEntry(), &entry), proto.Unmarshal(entry.GetHeader(), header), proto.Unmarshal(e.GetBody(), body)); err != nil {
				return nil, err
			}
			list = append(list, Entry{Agent: entry.GetAgent(), Epoch: entry.GetEpoch(), Index: entry.GetIndex(), Header: header, Body: body})
		}
		for i, record := range f.GetBatch().GetRecords() {
			body := &auditv1.Body{}
			if err := proto.Unmarshal(record.GetBody(), body); err != nil {
				return nil, err
			}
			bodies[place{f.GetBatch().GetAgent(), f.GetBatch().GetEpoch(), f.GetBatch().GetFirst() + uint64(i)}] = body
		}
	}
	for i, e := range list {
		if e.Agent == "" {
			continue
		}
		if list[i].Body = bodies[place{e.Agent, e.Epoch, e.Index}]; list[i].Body == nil {
			return nil, fmt.Errorf("entry %d of agent %s has no record in any batch", e.Index, e.Agent)
		}
	}
	return list, nil
}

// Story is what a receipt tells of: a change of one plan. The id alone is made of
// the change's content, and comes again when the same is to be done again.
func Story(h *auditv1.Header) string {
	return hex.EncodeToString(h.GetPlanDigest()) + " " + h.GetChange()
}

// StoryOf is the same for a change of a plan that is known.
func StoryOf(p *operatorv1.Plan, change string) string {
	return hex.EncodeToString(p.GetDigest()) + " " + change
}

// OneRecordAChange fails the test unless the log tells each story once: one
// receipt for every change of every ended plan and none besides, one admission
// and one end for each order, one sending for each, one end for each obligation.
func (r *Rig) OneRecordAChange() []Entry {
	r.T.Helper()
	list := r.Log()
	receipts, sent, admitted, ended := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	settled := map[string]int{}
	for _, e := range list {
		switch e.Header.GetType() {
		case auditv1.Type_TYPE_RECEIPT:
			receipts[Story(e.Header)]++
		case auditv1.Type_TYPE_ORDER_SENT:
			sent[e.Body.GetOrder().GetOrder()]++
		case auditv1.Type_TYPE_ORDER_ADMITTED:
			admitted[e.Body.GetOrder().GetOrder()]++
		case auditv1.Type_TYPE_ORDER_ENDED:
			ended[e.Body.GetOrder().GetOrder()]++
		case auditv1.Type_TYPE_OBLIGATION_SETTLED:
			settled[e.Body.GetObligation().GetObligation()]++
		}
	}
	for _, of := range []map[string]int{receipts, sent, admitted, ended, settled} {
		for what, n := range of {
			if n != 1 {
				r.T.Errorf("%s stands %d times in the log", what, n)
			}
		}
	}
	var plans operatorv1.ListPlansResponse
	r.Ask(&plans, "plan", "list", Tenant)
	for _, p := range plans.GetPlans() {
		if p.GetState().GetPhase() != operatorv1.PlanState_PHASE_ENDED {
			continue
		}
		for _, c := range r.Changes(p.GetId()) {
			if n := receipts[StoryOf(p, c.GetChange().GetId())]; n != 1 {
				r.T.Errorf("change %s of ended plan %s (%s) has %d receipts in the log", c.GetChange().GetId(), p.GetId(), c.GetSentence(), n)
			}
			if c.GetReceipt() == nil {
				r.T.Errorf("change %s of ended plan %s is shown without its receipt", c.GetChange().GetId(), p.GetId())
			}
		}
	}
	return list
}

// Passwords fails the test unless every account of these logins opens with the
// password that its one receipt sealed for the help desk: the record tells what
// the effect was, and no other effect came after it.
func (r *Rig) Passwords(list []Entry, logins []string) {
	r.T.Helper()
	accounts := r.Estate.Accounts(r.T)
	sealed := map[string][]byte{}
	for _, e := range list {
		receipt := e.Body.GetReceipt()
		if receipt.GetConnector() == "web" && receipt.GetOperation() == connectorv1.OperationKind_OPERATION_KIND_SET_CREDENTIAL && receipt.GetResult() == auditv1.Receipt_RESULT_APPLIED {
			// The anchor of flatfile is not documented but for its end.
			sealed[receipt.GetAnchor()[strings.LastIndexByte(receipt.GetAnchor(), ':')+1:]] = receipt.GetSealed()
		}
	}
	for _, login := range logins {
		password, err := r.Open(sealed[login])
		if err != nil {
			r.T.Errorf("password of %s: %v", login, err)
			continue
		}
		if err := bcrypt.CompareHashAndPassword([]byte(accounts[login]), password); err != nil {
			r.T.Errorf("the account of %s does not open with the password in its record: %v", login, err)
		}
	}
}

// Open opens what the agent sealed for the help desk.
func (r *Rig) Open(sealed []byte) ([]byte, error) {
	opened, err := age.Decrypt(bytes.NewReader(sealed), r.HelpDesk)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(opened)
}

// Provisioned fails the test unless the target is exactly what it was, and
// these people with accounts, in the group staff.
func (r *Rig) Provisioned(people []string) {
	r.T.Helper()
	accounts, members := r.Estate.Accounts(r.T), r.Estate.Members(r.T)
	beforeAccounts, err := parseAccounts(r.before["htpasswd"])
	if err != nil {
		r.T.Fatal(err)
	}
	want := len(beforeAccounts)
	for login, hash := range beforeAccounts {
		if accounts[login] != hash {
			r.T.Errorf("%s was changed: %q", login, accounts[login])
		}
	}
	inStaff := map[string]bool{}
	for _, m := range members["staff"] {
		inStaff[m] = true
	}
	for _, login := range people {
		if !strings.HasPrefix(accounts[login], "$2") {
			r.T.Errorf("%s has no enabled account: %q", login, accounts[login])
		}
		if !inStaff[login] {
			r.T.Errorf("%s is not in staff", login)
		}
		want++
	}
	if len(accounts) != want || len(members["staff"]) != len(people)+1 {
		r.T.Errorf("%d accounts and %d members of staff, want %d and %d", len(accounts), len(members["staff"]), want, len(people)+1)
	}
	r.tidy()
}

// tidy fails the test when a target's folder holds half-written files.
func (r *Rig) tidy() {
	r.T.Helper()
	found, err := os.ReadDir(filepath.Dir(r.Estate.Users()))
	if err != nil {
		r.T.Fatal(err)
	}
	for _, f := range found {
		switch f.Name() {
		case "htpasswd", "groups", "htpasswd.lock":
		default:
			r.T.Errorf("%s was left beside the targets", f.Name())
		}
	}
}

// Offboard takes the client back to where it began and fails the test unless
// the targets are what they were, to the byte (edit says what others changed
// meanwhile), the ledger holds nothing of the tenant, and the log tells each
// change once and verifies.
func (r *Rig) Offboard(edit func(name, before string) string) {
	r.T.Helper()
	r.Observe()
	var got operatorv1.OffboardTenantResponse
	r.Ask(&got, "tenant", "offboard", Tenant, "--reason", "the story is over")
	if p := r.Tried(got.GetPlan().GetId()); p.GetState().GetTotal() > 0 {
		r.Approve(p)
		r.Applied(r.Ended(p.GetId()))
	}
	r.Observe()
	r.Do("tenant", "offboard", Tenant, "--finish")
	for name, now := range r.Estate.Files(r.T) {
		want := r.before[name]
		if edit != nil {
			want = edit(name, want)
		}
		if now != want {
			r.T.Errorf("%s is not as it was:\n%s\nbefore:\n%s", name, now, want)
		}
	}
	r.tidy()
	r.OneRecordAChange()
	r.ControlPlane.Stop()
	if left := r.count("SELECT count(*) FROM ledger WHERE tenant = $1", Tenant); left != 0 {
		r.T.Errorf("the ledger still holds %d values", left)
	}
}

// Renewals is the renewal counter that the control plane expects of the agent.
func (r *Rig) Renewals() int {
	r.T.Helper()
	return r.count("SELECT counter FROM agent WHERE tenant = $1 AND agent = 'dc1'", Tenant)
}

// count asks the control plane's database.
func (r *Rig) count(query string, args ...any) (n int) {
	r.T.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(r.Dir, "noc", "reeve.db")+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		r.T.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow(query, args...).Scan(&n); err != nil {
		r.T.Fatal(err)
	}
	return n
}
