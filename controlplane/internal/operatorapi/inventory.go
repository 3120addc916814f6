package operatorapi

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

type connectors struct {
	operatorv1.UnimplementedConnectorServiceServer
	*Server
}

func (s connectors) ListConnectors(ctx context.Context, r *operatorv1.ListConnectorsRequest) (*operatorv1.ListConnectorsResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	list, err := s.Inventory.Connectors(ctx, r.GetTenant())
	return &operatorv1.ListConnectorsResponse{Connectors: showConnectors(list)}, err
}

func (s connectors) ConfirmSource(ctx context.Context, r *operatorv1.ConfirmSourceRequest) (*operatorv1.ConfirmSourceResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	c, err := s.Inventory.Confirm(ctx, r.GetTenant(), r.GetConnector(), r.GetFingerprintSha256(), actor(ctx), s.Now())
	if err != nil {
		return nil, err
	}
	return &operatorv1.ConfirmSourceResponse{Connector: showConnector(c)}, s.Planning.Refresh(ctx, r.GetTenant())
}

func (s connectors) Observe(ctx context.Context, r *operatorv1.ObserveRequest) (*operatorv1.ObserveResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	list, err := s.Inventory.Connectors(ctx, r.GetTenant())
	if err != nil {
		return nil, err
	}
	resp := new(operatorv1.ObserveResponse)
	found := false
	for _, c := range list {
		if r.GetConnector() != "" && r.GetConnector() != c.Alias {
			continue
		}
		found = true
		if s.Sessions.Observe(r.GetTenant(), c.Agent, c.Alias) {
			resp.Asked = append(resp.Asked, c.Alias)
		}
	}
	if !found && r.GetConnector() != "" {
		return nil, fmt.Errorf("%w: %s", inventory.ErrNotFound, r.GetConnector())
	}
	return resp, nil
}

func showConnectors(list []inventory.Connector) []*operatorv1.Connector {
	shown := make([]*operatorv1.Connector, len(list))
	for i, c := range list {
		shown[i] = showConnector(c)
	}
	return shown
}

func showConnector(c inventory.Connector) *operatorv1.Connector {
	state := proto.CloneOf(c.State)
	// Types are for programs that plan; a list of connectors is for people.
	state.Types = nil
	state.Problems = append(state.Problems, c.Problems...)
	return &operatorv1.Connector{
		Agent: c.Agent, State: state, Confirmed: c.Trusted(), FingerprintSha256: c.Fingerprint, Snapshot: c.Header, Suspended: c.Suspended,
	}
}

type inventories struct {
	operatorv1.UnimplementedInventoryServiceServer
	*Server
}

// GetInventory shows what is there before anything is changed: who and what is
// known, what belongs to nobody, and what policy does not explain.
func (s inventories) GetInventory(ctx context.Context, r *operatorv1.GetInventoryRequest) (*operatorv1.GetInventoryResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	resp := new(operatorv1.GetInventoryResponse)
	_, preview, err := s.Planning.Preview(ctx, r.GetTenant(), planv1.Purpose_PURPOSE_CHANGE)
	switch {
	case err == nil:
		resp.Findings = showFindings(preview.Findings)
	case errors.Is(err, policystore.ErrUnbound), errors.Is(err, planning.ErrNothingObserved):
		// An inventory is worth seeing before there is a policy.
	default:
		return nil, err
	}
	return resp, s.view(ctx, func(t tx.Tx) error {
		list, err := s.Objects.Connectors(t, r.GetTenant())
		if err != nil {
			return err
		}
		resp.Connectors = showConnectors(list)
		accounts, err := s.accountsByAnchor(t, r.GetTenant())
		if err != nil {
			return err
		}
		for _, c := range list {
			counts, err := s.count(t, c, accounts)
			if err != nil {
				return err
			}
			resp.Counts = append(resp.Counts, counts...)
		}
		ids, err := s.IdentityStore.List(t, r.GetTenant(), "", 0)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if id.Kind == "human" {
				resp.People++
			} else {
				resp.Services++
			}
		}
		cases, err := s.IdentityStore.Cases(t, r.GetTenant(), false)
		resp.OpenCases = uint64(len(cases))
		return err
	})
}

type place struct{ connector, anchor string }

func (s *Server) accountsByAnchor(t tx.Tx, tenant string) (map[place]identity.Account, error) {
	accounts, err := s.IdentityStore.Accounts(t, tenant)
	byAnchor := make(map[place]identity.Account, len(accounts))
	for _, a := range accounts {
		byAnchor[place{a.Connector, a.Anchor}] = a
	}
	return byAnchor, err
}

func (s *Server) count(t tx.Tx, c inventory.Connector, accounts map[place]identity.Account) ([]*operatorv1.InventoryCount, error) {
	var counts []*operatorv1.InventoryCount
	byType := map[string]*operatorv1.InventoryCount{}
	kinds := map[string]connectorv1.Kind{}
	for _, typ := range c.State.GetTypes() {
		kinds[typ.GetName()] = typ.GetKind()
		byType[typ.GetName()] = &operatorv1.InventoryCount{Connector: c.Alias, Type: typ.GetName()}
		counts = append(counts, byType[typ.GetName()])
	}
	return counts, s.Objects.Objects(t, c.Tenant, c.Alias, c.Current, func(o inventory.Object) error {
		n := byType[o.Type]
		if n == nil {
			return nil
		}
		n.Objects++
		if _, linked := accounts[place{c.Alias, o.Anchor}]; linked {
			n.Linked++
		} else if !c.Source() && kinds[o.Type] == connectorv1.Kind_KIND_ACCOUNT {
			n.Orphans++
		}
		return nil
	})
}

// ListObjects shows what a connector observed, in order of anchor. A page costs
// what is on it and, under a filter, what was passed over for it.
func (s inventories) ListObjects(ctx context.Context, r *operatorv1.ListObjectsRequest) (*operatorv1.ListObjectsResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	after, limit, err := page(r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := new(operatorv1.ListObjectsResponse)
	return resp, s.view(ctx, func(t tx.Tx) error {
		c, err := s.Objects.Connector(t, r.GetTenant(), r.GetConnector())
		if err != nil {
			return err
		}
		for {
			list, err := s.Objects.ObjectsAfter(t, c.Tenant, c.Alias, c.Current, after, limit)
			if err != nil || len(list) == 0 {
				return err
			}
			for _, o := range list {
				after = o.Anchor
				shown, err := s.showObject(t, c, o, r)
				if err != nil {
					return err
				}
				if shown == nil {
					continue
				}
				if resp.Objects = append(resp.Objects, shown); len(resp.Objects) == limit {
					resp.NextPageToken = next(limit, limit, after)
					return nil
				}
			}
		}
	})
}

// showObject returns nil for an object that was not asked for.
func (s inventories) showObject(t tx.Tx, c inventory.Connector, o inventory.Object, r *operatorv1.ListObjectsRequest) (*operatorv1.InventoryObject, error) {
	if r.GetType() != "" && r.GetType() != o.Type {
		return nil, nil
	}
	account, linked, err := s.IdentityStore.Account(t, c.Tenant, c.Alias, o.Anchor)
	if err != nil || r.GetOrphans() && linked {
		return nil, err
	}
	object := new(connectorv1.Object)
	if err := proto.Unmarshal(o.Body, object); err != nil {
		return nil, fmt.Errorf("decode object %s of %s: %w", o.Anchor, c.Alias, err)
	}
	return &operatorv1.InventoryObject{Connector: c.Alias, Object: object, Identity: account.Identity, Purpose: account.Purpose}, nil
}
