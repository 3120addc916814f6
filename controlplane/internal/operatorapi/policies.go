package operatorapi

import (
	"context"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

type policies struct {
	operatorv1.UnimplementedPolicyServiceServer
	*Server
}

func (s policies) ApplyPolicy(ctx context.Context, r *operatorv1.ApplyPolicyRequest) (*operatorv1.ApplyPolicyResponse, error) {
	var files []policy.File
	for _, f := range r.GetFiles() {
		files = append(files, policy.File{Path: f.GetName(), Data: f.GetContent()})
	}
	v, tests, err := s.Policies.Apply(ctx, files, actor(ctx))
	if err != nil {
		return nil, err
	}
	return &operatorv1.ApplyPolicyResponse{Policy: showPolicy(v), Tests: uint32(tests)}, nil
}

func (s policies) BindPolicy(ctx context.Context, r *operatorv1.BindPolicyRequest) (*operatorv1.BindPolicyResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	b := policystore.Binding{Tenant: r.GetTenant(), Name: r.GetPolicy(), Version: r.GetVersion(), Parameters: policy.Values{}}
	for _, p := range r.GetParameters() {
		b.Parameters[p.GetName()] = p.GetValue()
	}
	v, err := s.Policies.Bind(ctx, b, actor(ctx))
	if err != nil {
		return nil, err
	}
	return &operatorv1.BindPolicyResponse{Policy: showPolicy(v)}, s.Planning.Refresh(ctx, r.GetTenant())
}

func (s policies) ListPolicies(ctx context.Context, r *operatorv1.ListPoliciesRequest) (*operatorv1.ListPoliciesResponse, error) {
	after, limit, err := page(r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	list, err := s.Policies.List(ctx)
	if err != nil {
		return nil, err
	}
	resp := new(operatorv1.ListPoliciesResponse)
	for _, v := range list {
		key := v.Name + "\x00" + v.Version
		if key <= after {
			continue
		}
		if len(resp.Policies) == limit {
			last := resp.Policies[limit-1]
			resp.NextPageToken = next(limit, limit, last.GetName()+"\x00"+last.GetVersion())
			break
		}
		resp.Policies = append(resp.Policies, showPolicy(v))
	}
	return resp, nil
}

func showPolicy(v policystore.Version) *operatorv1.Policy {
	return &operatorv1.Policy{Name: v.Name, Version: v.Version, Digest: v.Digest, Applied: stamp(v.Applied), Tenants: v.Tenants}
}
