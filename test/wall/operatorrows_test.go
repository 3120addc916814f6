package wall

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

const (
	// tenantAlone is for requests that name a tenant and nothing of it: operators
	// of the MSP may name any.
	tenantAlone = "it names a tenant and nothing in it"
	planAlone   = "an operator may name any tenant's plan by its id"
	ofTheMSP    = "policies are the MSP's"
)

// operatorRows are the rows of the operators' services. The caller speaks of its
// home tenant and names things of e there.
func operatorRows() []row {
	const in = "reeve.operator.v1."
	// tenant is a row whose request names the tenant alone.
	tenant := func(method string, volatile []string, ask func(tenant string) proto.Message) row {
		return row{method: in + method, serves: operators, volatile: volatile, probes: []probe{{
			name: "tenant", alone: tenantAlone, ask: just(func(c *caller, _ *estate) proto.Message { return ask(c.home.tenant) }),
		}}}
	}
	plan := func(method string, first bool, own []codes.Code, ask func(plan string) proto.Message) row {
		return row{method: in + method, serves: operators, first: first, probes: []probe{{
			name: "plan", own: own, alone: planAlone, ask: just(func(c *caller, _ *estate) proto.Message { return ask(c.home.plan) }),
		}}}
	}
	settled := []codes.Code{codes.OK, codes.FailedPrecondition}
	rows := []row{
		{method: in + "TenantService.AddTenant", serves: operators, everybody: true, probes: []probe{{
			name: "tenant", own: []codes.Code{codes.AlreadyExists}, alone: "it names what is to be",
			ask: just(func(c *caller, _ *estate) proto.Message {
				return &operatorv1.AddTenantRequest{Id: c.home.tenant, Owner: "it@client.example", Zone: "UTC"}
			}),
		}}},
		{method: in + "TenantService.ListTenants", serves: operators, everybody: true, probes: []probe{{
			name: "all", alone: "it names nothing", ask: just(func(*caller, *estate) proto.Message { return &operatorv1.ListTenantsRequest{} }),
		}}},
		tenant("TenantService.GetTenant", nil, func(t string) proto.Message { return &operatorv1.GetTenantRequest{Tenant: t} }),
		tenant("AgentService.ListAgents", nil, func(t string) proto.Message { return &operatorv1.ListAgentsRequest{Tenant: t} }),
		tenant("ConnectorService.ListConnectors", nil, func(t string) proto.Message { return &operatorv1.ListConnectorsRequest{Tenant: t} }),
		tenant("InventoryService.GetInventory", nil, func(t string) proto.Message { return &operatorv1.GetInventoryRequest{Tenant: t} }),
		tenant("IdentityService.ListIdentities", nil, func(t string) proto.Message { return &operatorv1.ListIdentitiesRequest{Tenant: t} }),
		tenant("IdentityService.ListCases", nil, func(t string) proto.Message { return &operatorv1.ListCasesRequest{Tenant: t} }),
		tenant("PlanService.ListPlans", nil, func(t string) proto.Message { return &operatorv1.ListPlansRequest{Tenant: t} }),
		tenant("GrantService.ListGrants", nil, func(t string) proto.Message { return &operatorv1.ListGrantsRequest{Tenant: t} }),
		tenant("ScheduleService.ListSchedules", nil, func(t string) proto.Message { return &operatorv1.ListSchedulesRequest{Tenant: t} }),
		tenant("AuditService.ListRecords", nil, func(t string) proto.Message { return &operatorv1.ListRecordsRequest{Tenant: t, PageSize: 1000} }),
		tenant("AuditService.GetCheckpoint", nil, func(t string) proto.Message { return &operatorv1.GetCheckpointRequest{Tenant: t} }),
		tenant("AuditService.ExportAudit", nil, func(t string) proto.Message { return &operatorv1.ExportAuditRequest{Tenant: t} }),
		{method: in + "InventoryService.ListObjects", serves: operators, probes: []probe{{
			name: "connector", ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.ListObjectsRequest{Tenant: c.home.tenant, Connector: e.extra}
			}),
		}, {
			name: "namesake", alone: "every tenant has connectors of these names", ask: just(func(c *caller, _ *estate) proto.Message {
				return &operatorv1.ListObjectsRequest{Tenant: c.home.tenant, Connector: "web"}
			}),
		}}},
		{method: in + "IdentityService.ExplainIdentity", serves: operators, probes: []probe{{
			name: "id", ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.ExplainIdentityRequest{Tenant: c.home.tenant, Identity: e.identity}
			}),
		}, {
			name: "login", ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.ExplainIdentityRequest{Tenant: c.home.tenant, Identity: e.login}
			}),
		}, {
			name: "as a technician", noOwn: "it is of a client", fits: ofClient, ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.ExplainIdentityRequest{Tenant: c.home.tenant, Identity: "msp/" + e.login}
			}),
		}}},
		plan("PlanService.GetPlan", false, nil, func(p string) proto.Message { return &operatorv1.GetPlanRequest{Plan: p} }),
		plan("PlanService.ListChanges", false, nil, func(p string) proto.Message { return &operatorv1.ListChangesRequest{Plan: p} }),
		plan("PlanService.WatchPlan", true, nil, func(p string) proto.Message { return &operatorv1.WatchPlanRequest{Plan: p} }),
		{method: in + "PlanService.ApprovePlan", serves: operators, probes: []probe{{
			// The plan's own refusals keep it from being approved.
			name: "digest", other: codes.FailedPrecondition, own: []codes.Code{codes.FailedPrecondition}, ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.ApprovePlanRequest{Plan: c.home.plan, Digest: e.digest}
			}),
		}}},
		{method: in + "AgentService.InviteAgent", serves: operators, plants: true, volatile: []string{"token", "expires"}, probes: []probe{{
			name: "agent", other: alike, noOwn: "it would end the agent's epoch", ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.InviteAgentRequest{Tenant: c.home.tenant, Agent: e.second}
			}),
		}}},
		{method: in + "AgentService.RevokeAgent", serves: operators, probes: []probe{{
			name: "revoked agent", ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.RevokeAgentRequest{Tenant: c.home.tenant, Agent: e.revoked}
			}),
		}, {
			name: "live agent", noOwn: "it is needed", ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.RevokeAgentRequest{Tenant: c.home.tenant, Agent: e.second}
			}),
		}}},
		{method: in + "ConnectorService.ConfirmSource", serves: operators, probes: []probe{{
			name: "connector", ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.ConfirmSourceRequest{Tenant: c.home.tenant, Connector: e.extra, FingerprintSha256: e.fingerprint}
			}),
		}, {
			name: "fingerprint", other: codes.FailedPrecondition, ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.ConfirmSourceRequest{Tenant: c.home.tenant, Connector: c.home.extra, FingerprintSha256: e.fingerprint}
			}),
		}}},
		{method: in + "ConnectorService.Observe", serves: operators, probes: []probe{{
			name: "connector", ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.ObserveRequest{Tenant: c.home.tenant, Connector: e.extra}
			}),
		}}},
		{method: in + "IdentityService.DecideCase", serves: operators, probes: []probe{{
			name: "case", noOwn: "the next decides it", ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.DecideCaseRequest{Tenant: c.home.tenant, Case: e.openCase, Candidate: "none"}
			}),
		}, {
			name: "candidate", other: codes.FailedPrecondition, own: settled, ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.DecideCaseRequest{Tenant: c.home.tenant, Case: c.home.openCase, Candidate: e.candidate}
			}),
		}}},
		{method: in + "PolicyService.ApplyPolicy", serves: operators, everybody: true, probes: []probe{{
			name: "bundle", own: []codes.Code{codes.OK, codes.AlreadyExists}, alone: ofTheMSP, ask: just(func(*caller, *estate) proto.Message {
				return &operatorv1.ApplyPolicyRequest{Files: []*operatorv1.PolicyFile{{Name: "wall.yaml", Content: []byte(bundle)}}}
			}),
		}}},
		{method: in + "PolicyService.ListPolicies", serves: operators, everybody: true, probes: []probe{{
			name: "all", alone: ofTheMSP, ask: just(func(*caller, *estate) proto.Message { return &operatorv1.ListPoliciesRequest{} }),
		}}},
		{method: in + "PolicyService.BindPolicy", serves: operators, everybody: true, probes: []probe{{
			name: "tenant", alone: ofTheMSP, ask: just(func(c *caller, _ *estate) proto.Message {
				return &operatorv1.BindPolicyRequest{Tenant: c.home.tenant, Policy: "wall", Parameters: []*operatorv1.Parameter{{Name: "site", Value: c.home.word("parameter")}}}
			}),
		}}},
		{method: in + "GrantService.AddGrant", serves: operators, volatile: []string{"id", "starts", "ends"}, probes: []probe{{
			name: "identity", ask: addGrant(func(e *estate) string { return e.identity }),
		}, {
			name: "login", ask: addGrant(func(e *estate) string { return e.login }),
		}, {
			name: "as a technician", noOwn: "it is of a client", fits: ofClient, ask: addGrant(func(e *estate) string { return "msp/" + e.identity }),
		}}},
		{method: in + "GrantService.EndGrant", serves: operators, probes: []probe{{
			name: "grant", ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.EndGrantRequest{Tenant: c.home.tenant, Grant: e.grant, Reason: "probe"}
			}),
		}}},
		{method: in + "ScheduleService.RemoveSchedule", serves: operators, probes: []probe{{
			name: "schedule", noOwn: "the next adds it", ask: just(func(c *caller, e *estate) proto.Message {
				return &operatorv1.RemoveScheduleRequest{Tenant: c.home.tenant, Name: e.schedule}
			}),
		}}},
		{method: in + "ScheduleService.AddSchedule", serves: operators, plants: true, volatile: []string{"next_run"}, probes: []probe{{
			other: alike, name: "schedule", ask: just(func(c *caller, e *estate) proto.Message {
				name := e.spareSchedule
				if e == c.home {
					name = e.schedule
				}
				return &operatorv1.AddScheduleRequest{Schedule: &operatorv1.Schedule{Tenant: c.home.tenant, Name: name, Cron: "0 0 1 1 *", Work: "observe"}}
			}),
		}}},
	}
	last := []row{
		tenant("PlanService.MakePlan", nil, func(t string) proto.Message {
			return &operatorv1.MakePlanRequest{Tenant: t, Purpose: planv1.Purpose_PURPOSE_CHANGE}
		}),
		plan("PlanService.RejectPlan", false, settled, func(p string) proto.Message { return &operatorv1.RejectPlanRequest{Plan: p} }),
		tenant("TenantService.OffboardTenant", nil, func(t string) proto.Message { return &operatorv1.OffboardTenantRequest{Tenant: t} }),
	}
	for _, r := range last {
		r.last = true
		rows = append(rows, r)
	}
	return rows
}

// ofClient: the MSP's people are everywhere what "msp/" names.
func ofClient(_ *caller, e *estate) bool { return e.tenant != mspTenant }

func addGrant(who func(*estate) string) func(*caller, *estate) ([]proto.Message, error) {
	return just(func(c *caller, e *estate) proto.Message {
		return &operatorv1.AddGrantRequest{
			Tenant: c.home.tenant, Identity: who(e), Entitlement: "web/admins", ValidFor: durationpb.New(time.Hour), Reason: "probe",
		}
	})
}
