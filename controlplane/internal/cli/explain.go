package cli

import (
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/reevehq/reeve/pki/tlogproof"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// explanation prints an identity and, as a tree, why it has what it has:
// connector, what, then rule, plan, change and record.
func (p *printer) explanation(r *operatorv1.ExplainIdentityResponse) {
	id := r.GetIdentity()
	name := id.GetLabel()
	if name == "" {
		name = id.GetId()
	}
	p.line("%s  %s, %s", p.strong(name), id.GetKind(), id.GetState())
	facts := []string{"id", id.GetId(), "source", strings.Join(id.GetSources(), ", "), "starts", p.time(id.GetStarts()), "ends", p.time(id.GetEnds())}
	for _, account := range id.GetAccounts() {
		by := "found, linked"
		if account.GetCreatedByReeve() {
			by = "created by Reeve"
		}
		who := account.GetDisplay()
		if who == "" {
			who = account.GetAnchor()
		}
		facts = append(facts, "account", account.GetConnector()+" "+account.GetType()+" ("+account.GetPurpose()+") "+who+", "+by)
	}
	p.facts("  ", facts...)
	if len(r.GetExplanations()) == 0 {
		p.line("It has nothing, and policy gives it nothing.")
		return
	}
	var order []string
	byConnector := map[string][]*operatorv1.Explanation{}
	for _, e := range r.GetExplanations() {
		if byConnector[e.GetConnector()] == nil {
			order = append(order, e.GetConnector())
		}
		byConnector[e.GetConnector()] = append(byConnector[e.GetConnector()], e)
	}
	for i, connector := range order {
		fork, stem := branches(i == len(order)-1)
		p.line("%s%s", styled(fork), p.strong(connector))
		list := byConnector[connector]
		for j, e := range list {
			under, below := branches(j == len(list)-1)
			p.line("%s%s", styled(stem+under), e.GetWhat())
			p.because(stem+below, e)
		}
	}
}

// branches draws a tree: the fork before an item and the stem before what is
// below it.
func branches(last bool) (fork, stem string) {
	if last {
		return "└─ ", "   "
	}
	return "├─ ", "│  "
}

// because prints one explanation's chain.
func (p *printer) because(stem string, e *operatorv1.Explanation) {
	rule := e.GetRule()
	if e.GetCause() != "" {
		rule += " (" + causeWords(e.GetCause()) + ")"
	}
	steps := []string{}
	if e.GetPlan() != "" {
		steps = append(steps, "plan "+e.GetPlan())
	}
	if e.GetChange() != "" {
		steps = append(steps, "change "+e.GetChange())
	}
	if e.GetHasRecord() {
		steps = append(steps, "record "+number(e.GetRecord()))
	} else if e.GetChange() != "" {
		steps = append(steps, "its record has not come yet")
	}
	adopted := ""
	switch {
	case e.GetAdopted():
		adopted = "Reeve found it and did not write it"
	case len(steps) == 0:
		steps = append(steps, "nothing yet: policy gives it, no plan has brought it")
	}
	p.facts(stem+"  ", "rule", rule, "done by", strings.Join(steps, " → "), "adopted", adopted,
		"grant", e.GetGrant(), "reason", e.GetReason(), "until", p.time(e.GetEnds()))
}

func causeWords(cause string) string {
	switch cause {
	case "msp":
		return "the MSP's: undone at offboarding"
	case "client":
		return "the client's: stays at offboarding"
	}
	return cause
}

// checkProof checks that the proof's record is in the tree that its checkpoint
// names. The checkpoint's signature takes the root document, see audit verify.
func checkProof(proof *planv1.InclusionProof) (proven bool, size uint64, err error) {
	if proof == nil {
		return false, 0, nil
	}
	broken := func(said string) error {
		return local(ExitUnverified, "PROOF", "record "+number(proof.GetIndex()), "", said, "export the log with `reeve audit export` and check it with `reeve audit verify`; tell the client if it is not sound")
	}
	text, _, _ := strings.Cut(proof.GetCheckpoint(), "\n\n")
	checkpoint, err := tlogproof.ParseCheckpoint(text + "\n")
	if err != nil {
		return false, 0, broken("the checkpoint cannot be read: " + err.Error())
	}
	path := make(tlog.RecordProof, len(proof.GetHashes()))
	for i, h := range proof.GetHashes() {
		if len(h) != tlog.HashSize {
			return false, 0, broken("a hash has a wrong length")
		}
		path[i] = tlog.Hash(h)
	}
	if err := tlogproof.CheckInclusion(path, checkpoint, int64(proof.GetIndex()), tlogproof.LeafHash(proof.GetEntry())); err != nil {
		return false, 0, broken(err.Error())
	}
	return true, uint64(checkpoint.Size), nil
}
