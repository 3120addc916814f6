package operatorapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

type identities struct {
	operatorv1.UnimplementedIdentityServiceServer
	*Server
}

func (s identities) ListIdentities(ctx context.Context, r *operatorv1.ListIdentitiesRequest) (*operatorv1.ListIdentitiesResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	after, limit, err := page(r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := new(operatorv1.ListIdentitiesResponse)
	return resp, s.view(ctx, func(t tx.Tx) error {
		list, err := s.IdentityStore.List(t, r.GetTenant(), after, limit)
		if err != nil {
			return err
		}
		rule, err := s.leaverRule(t, r.GetTenant())
		if err != nil {
			return err
		}
		held, err := s.holdings(t, r.GetTenant(), list)
		if err != nil {
			return err
		}
		for _, id := range list {
			shown := s.showIdentity(id, rule, held[id.ID])
			if r.GetState() == "" || r.GetState() == shown.GetState() {
				resp.Identities = append(resp.Identities, shown)
			}
			resp.NextPageToken = next(len(list), limit, id.ID)
		}
		return nil
	})
}

func (s *Server) leaverRule(t tx.Tx, tenant string) (policy.LeaverRule, error) {
	program, err := s.Policies.Program(t, tenant)
	if errors.Is(err, policystore.ErrUnbound) {
		return policy.LeaverRule{}, nil
	}
	if err != nil {
		return policy.LeaverRule{}, err
	}
	return program.Rules().Leaver, nil
}

// holding is where an identity comes from and what it has.
type holding struct {
	links    []identity.Link
	accounts []identity.Account
}

// holdings returns what identities in ascending order of id hold, by id.
func (s *Server) holdings(t tx.Tx, tenant string, ids []identity.Identity) (map[string]holding, error) {
	held := make(map[string]holding, len(ids))
	if len(ids) == 0 {
		return held, nil
	}
	first, last := ids[0].ID, ids[len(ids)-1].ID
	links, err := s.IdentityStore.LinksOf(t, tenant, first, last)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		h := held[l.Identity]
		h.links = append(h.links, l)
		held[l.Identity] = h
	}
	accounts, err := s.IdentityStore.AccountsOf(t, tenant, first, last)
	for _, a := range accounts {
		h := held[a.Identity]
		h.accounts = append(h.accounts, a)
		held[a.Identity] = h
	}
	return held, err
}

func (s *Server) showIdentity(id identity.Identity, rule policy.LeaverRule, held holding) *operatorv1.Identity {
	shown := &operatorv1.Identity{
		Id: id.ID, Kind: id.Kind, Label: id.Label, Starts: stamp(id.Starts), Ends: stamp(id.Ends),
		State: string(planning.Subject(id, s.Now(), rule).State),
	}
	for _, l := range held.links {
		shown.Sources = append(shown.Sources, l.Connector+" "+l.Anchor)
	}
	for _, a := range held.accounts {
		shown.Accounts = append(shown.Accounts, &operatorv1.Account{
			Connector: a.Connector, Purpose: a.Purpose, Type: a.Type, Anchor: a.Anchor, CreatedByReeve: a.Created,
		})
	}
	return shown
}

// ExplainIdentity says why an identity has what it has: what policy wants for it
// now, and for each value Reeve wrote the change and the record that did it.
func (s identities) ExplainIdentity(ctx context.Context, r *operatorv1.ExplainIdentityRequest) (*operatorv1.ExplainIdentityResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	in, _, err := s.Planning.Preview(ctx, r.GetTenant(), planv1.Purpose_PURPOSE_CHANGE)
	if err != nil {
		return nil, err
	}
	resp := new(operatorv1.ExplainIdentityResponse)
	return resp, s.view(ctx, func(t tx.Tx) error {
		id, err := s.findIdentity(t, r.GetTenant(), r.GetIdentity())
		if err != nil {
			return err
		}
		id.ID = planning.LocalID(id.ID)
		held, err := s.holdings(t, r.GetTenant(), []identity.Identity{id})
		if err != nil {
			return err
		}
		resp.Identity = s.showIdentity(id, in.Rules.Leaver, held[id.ID])
		written, err := s.Ledger.Identity(t, r.GetTenant(), id.ID)
		if err != nil {
			return err
		}
		x := explainer{Server: s.Server, t: t, tenant: r.GetTenant(), written: written}
		for _, d := range in.Desired {
			if d.Subject == id.ID {
				resp.Explanations, err = x.explain(d, resp.GetIdentity().GetAccounts())
				if err != nil {
					return err
				}
			}
		}
		resp.Proof, err = x.proof(resp.GetExplanations())
		return err
	})
}

// explainer joins what policy wants with what the ledger says was done for it.
type explainer struct {
	*Server
	t       tx.Tx
	tenant  string
	written []planner.Entry
}

func (x explainer) explain(d policy.Desired, accounts []*operatorv1.Account) ([]*operatorv1.Explanation, error) {
	var list []*operatorv1.Explanation
	for _, a := range d.Accounts {
		e := &operatorv1.Explanation{What: fmt.Sprintf("%s account %s", a.Purpose, policy.NameText(a.Name)), Connector: a.Connector, Rule: a.Rule, Cause: a.Cause}
		if err := x.because(e, func(w planner.Entry) bool { return w.Item == planner.ItemExists && w.Connector == a.Connector }); err != nil {
			return nil, err
		}
		e.Adopted = e.GetChange() == "" && has(accounts, a.Connector)
		list = append(list, e)
		for _, w := range x.written {
			if w.Connector != a.Connector || w.Item != planner.ItemAttribute {
				continue
			}
			v := &operatorv1.Explanation{What: "attribute " + w.Attribute, Connector: w.Connector, Rule: w.Rule, Cause: cause(w.Cause)}
			if err := x.because(v, func(o planner.Entry) bool { return o.Change == w.Change && o.Attribute == w.Attribute }); err != nil {
				return nil, err
			}
			list = append(list, v)
		}
	}
	for _, en := range d.Entitlements {
		e := &operatorv1.Explanation{
			What: "entitlement " + en.Entitlement, Connector: en.Connector, Rule: en.Rule, Cause: en.Cause, Grant: en.Grant,
			Ends: stamp(en.End), Reason: en.Reason,
		}
		if err := x.because(e, func(w planner.Entry) bool {
			return w.Item == planner.ItemMember && w.Connector == en.Connector && w.Rule == en.Rule && w.Grant == en.Grant
		}); err != nil {
			return nil, err
		}
		// Wanted, there, and not by Reeve's hand.
		e.Adopted = e.GetChange() == "" && x.holds(en, accounts)
		if e.GetChange() == "" && !e.GetAdopted() {
			e.What += ", not there yet"
		}
		list = append(list, e)
	}
	return list, nil
}

// holds reports whether the account's object is in the entitlement's group as last
// observed.
func (x explainer) holds(en policy.Entitled, accounts []*operatorv1.Account) bool {
	program, err := x.Policies.Program(x.t, x.tenant)
	if err != nil {
		return false
	}
	e, ok := program.Entitlement(en.Entitlement)
	if !ok {
		return false
	}
	c, err := x.Objects.Connector(x.t, x.tenant, en.Connector)
	if err != nil {
		return false
	}
	objects, err := inventory.Objects(x.t, x.Objects, c)
	if err != nil {
		return false
	}
	rule, want := c.State.GetCaseRule(), policy.ConnectorName(e.Name)
	keys := map[string]bool{}
	for _, o := range objects {
		for _, a := range accounts {
			if a.GetConnector() == en.Connector && a.GetAnchor() == o.GetAnchor() {
				for _, k := range o.GetKeys() {
					keys[k] = true
				}
			}
		}
	}
	for _, o := range objects {
		if o.GetType() == e.Type && o.GetName().Key(rule) == want.Key(rule) {
			return slices.ContainsFunc(o.GetMembers(), func(m string) bool { return keys[m] })
		}
	}
	return false
}

// because fills in the change and record of the first entry that fits.
func (x explainer) because(e *operatorv1.Explanation, fits func(planner.Entry) bool) error {
	for _, w := range x.written {
		if w.Change == "" || !fits(w) {
			continue
		}
		e.Change = w.Change
		receipts, err := x.Orders.Find(x.t, x.tenant, w.Change)
		if err != nil || len(receipts) == 0 {
			return err
		}
		last := receipts[len(receipts)-1]
		e.Record, e.HasRecord = last.Entry, true
		order, err := x.Orders.Order(x.t, last.Receipt.GetOrder())
		if err != nil {
			return err
		}
		e.Plan = order.Plan
		return nil
	}
	return nil
}

// proof proves the newest record of an explanation.
func (x explainer) proof(list []*operatorv1.Explanation) (*planv1.InclusionProof, error) {
	var newest uint64
	found := false
	for _, e := range list {
		if e.GetHasRecord() && e.GetRecord() >= newest {
			newest, found = e.GetRecord(), true
		}
	}
	if !found {
		return nil, nil
	}
	sealed, err := x.Log.Sealed(x.t, x.tenant)
	if err != nil || sealed.Size <= newest {
		return nil, err
	}
	proofs, err := x.Log.Inclusions(x.t, x.tenant, sealed, newest, 1)
	if err != nil || len(proofs) == 0 {
		return nil, err
	}
	return proofs[0], nil
}

func has(accounts []*operatorv1.Account, connector string) bool {
	for _, a := range accounts {
		if a.GetConnector() == connector {
			return true
		}
	}
	return false
}

func cause(c planv1.Cause) string {
	return strings.ToLower(strings.TrimPrefix(c.String(), "CAUSE_"))
}

func (s identities) ListCases(ctx context.Context, r *operatorv1.ListCasesRequest) (*operatorv1.ListCasesResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	after, limit, err := page(r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := new(operatorv1.ListCasesResponse)
	return resp, s.view(ctx, func(t tx.Tx) error {
		list, err := s.IdentityStore.Cases(t, r.GetTenant(), false)
		for _, c := range list {
			if c.ID <= after {
				continue
			}
			if len(resp.Cases) == limit {
				resp.NextPageToken = next(limit, limit, resp.Cases[limit-1].GetId())
				break
			}
			resp.Cases = append(resp.Cases, showCase(r.GetTenant(), c))
		}
		return err
	})
}

func (s identities) DecideCase(ctx context.Context, r *operatorv1.DecideCaseRequest) (*operatorv1.DecideCaseResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	c, err := s.Identities.DecideCase(ctx, r.GetTenant(), r.GetCase(), r.GetCandidate(), r.GetReason(), actor(ctx))
	return &operatorv1.DecideCaseResponse{Case: showCase(r.GetTenant(), c)}, err
}

func showCase(tenant string, c identity.Case) *operatorv1.Case {
	return &operatorv1.Case{
		Id: c.ID, Tenant: tenant, Kind: string(c.Kind), Connector: c.Connector, Subject: c.Subject, Candidates: c.Candidates,
		Sentence: c.Sentence, Opened: stamp(c.Opened), Decision: c.Decision,
	}
}
