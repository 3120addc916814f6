package wall

import (
	"crypto/rand"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

const enrollmentOf = "reeve.agent.v1.EnrollmentService."

// agentRows are the rows of the agents' services. A join token is not among the
// names: it is a secret of 256 bits, and whoever holds one is who was invited.
func agentRows() []row {
	return []row{
		{method: enrollmentOf + "GetRoot", serves: anybody, probes: []probe{{
			name: "all", alone: "root documents are everybody's",
			ask: just(func(*caller, *estate) proto.Message { return &agentv1.GetRootRequest{} }),
		}}},
		{method: enrollmentOf + "Enroll", serves: anybody, probes: []probe{
			{other: codes.InvalidArgument, name: "agent", noOwn: "a token is good once", ask: func(c *caller, e *estate) ([]proto.Message, error) {
				return enrol(c, func(r *agentv1.EnrollRequest) { r.Agent = e.second }, c.agent)
			}},
			{other: codes.PermissionDenied, name: "keys", noOwn: "a token is good once", ask: func(c *caller, e *estate) ([]proto.Message, error) {
				return enrol(c, func(r *agentv1.EnrollRequest) { r.Agent = "" }, e.main)
			}},
			{other: codes.InvalidArgument, name: "csr", noOwn: "a token is good once", ask: func(c *caller, e *estate) ([]proto.Message, error) {
				return enrol(c, func(r *agentv1.EnrollRequest) { r.Agent, r.Csr = "", []byte(agentURI(e.tenant, e.second)) }, c.agent)
			}},
		}},
		{method: enrollmentOf + "Challenge", serves: anybody, volatile: []string{"challenge"}, probes: []probe{{
			other: alike, name: "tenant and agent",
			ask: just(func(_ *caller, e *estate) proto.Message {
				return &agentv1.ChallengeRequest{Tenant: e.tenant, Agent: e.second}
			}),
		}, {
			other: alike, name: "revoked agent",
			ask: just(func(_ *caller, e *estate) proto.Message {
				return &agentv1.ChallengeRequest{Tenant: e.tenant, Agent: e.revoked}
			}),
		}}},
		{method: enrollmentOf + "Reattest", serves: anybody, probes: []probe{
			{other: codes.PermissionDenied, name: "main agent", ask: func(c *caller, e *estate) ([]proto.Message, error) { return reattest(c, e, mainAgent) },
				noOwn: "its own keys are the business of the next"},
			{other: codes.PermissionDenied, name: "another agent", ask: func(c *caller, e *estate) ([]proto.Message, error) { return reattest(c, e, e.second) },
				noOwn: "its own keys are the business of the next"},
			{other: codes.PermissionDenied, name: "revoked agent", ask: func(c *caller, e *estate) ([]proto.Message, error) { return reattest(c, e, e.revoked) },
				noOwn: "its own keys are the business of the next"},
			{
				name: "itself", alone: "the others are named above",
				ask: func(c *caller, _ *estate) ([]proto.Message, error) {
					return reattest(c, &estate{tenant: c.agent.tenant}, c.agent.name)
				},
				got: func(c *caller, a answer) error {
					r := a.messages[0].(*agentv1.ReattestResponse)
					c.agent.counter = r.GetCounter()
					return issuedTo(c, r.GetCertificates())
				},
			},
		}},
		{method: agentOf + "Renew", serves: liveAgents, volatile: []string{"certificates", "counter"}, probes: []probe{{
			other: alike, name: "name in the CSR", noOwn: "a request that names anybody is tried below",
			ask: func(c *caller, e *estate) ([]proto.Message, error) {
				return renew(c, agentURI(e.tenant, e.second))
			},
			got: renewed,
		}, {
			name: "no name", alone: "the request names nobody",
			ask: func(c *caller, _ *estate) ([]proto.Message, error) { return renew(c, "") },
			got: renewed,
		}}},
		{method: agentOf + "Session", serves: liveAgents, plants: true, volatile: []string{"at", "checkpoint", "chain_length"}, probes: []probe{{
			other: alike, name: "connector", ask: func(c *caller, e *estate) ([]proto.Message, error) {
				if e == c.home {
					return one(c.agent.hello())
				}
				state := c.home.state(c.home.extra, agentv1.ConnectorState_ROLE_TARGET)
				state.Alias = e.spare(c.agent)
				return one(c.agent.hello(state))
			},
		}, {
			other: alike, name: "note to cosign", ask: func(c *caller, e *estate) ([]proto.Message, error) {
				lines := strings.Split(e.note, "\n")
				return []proto.Message{c.agent.hello(), &agentv1.SessionRequest{Message: &agentv1.SessionRequest_Cosignature{
					Cosignature: &agentv1.Cosignature{Size: e.entries, Line: lines[len(lines)-2]},
				}}}, nil
			},
		}}},
		{method: agentOf + "PushObservations", serves: liveAgents, volatile: []string{"snapshot"}, probes: []probe{{
			name: "connector", own: []codes.Code{codes.OK, codes.NotFound, codes.FailedPrecondition},
			ask: just(func(_ *caller, e *estate) proto.Message {
				return &agentv1.PushObservationsRequest{Message: &agentv1.PushObservationsRequest_Begin{
					Begin: &agentv1.SnapshotBegin{Connector: e.extra, Snapshot: "probe"},
				}}
			}),
		}, {
			other: alike, name: "base", own: []codes.Code{codes.OK, codes.NotFound, codes.FailedPrecondition},
			ask: just(func(c *caller, e *estate) proto.Message {
				return &agentv1.PushObservationsRequest{Message: &agentv1.PushObservationsRequest_Begin{
					Begin: &agentv1.SnapshotBegin{Connector: c.agent.alias, Snapshot: "probe", Base: e.extraSnapshot},
				}}
			}),
		}, {
			other: codes.InvalidArgument, name: "connector in the header", own: []codes.Code{codes.OK, codes.NotFound, codes.FailedPrecondition},
			ask: func(c *caller, e *estate) ([]proto.Message, error) {
				header := e.extra
				if e == c.home {
					header = c.agent.alias
				}
				return snapshot(c.agent.alias, c.home.extraSnapshot, header, "probe", nil, c.home.user("extra orphan", "x@client.example")), nil
			},
		}}},
		{method: agentOf + "ShipRecords", serves: liveAgents, plants: true, volatile: []string{"length", "checkpoint", "proofs", "consistency"}, probes: []probe{
			{other: codes.InvalidArgument, name: "agent", noOwn: "the next ones ship", ask: func(c *caller, e *estate) ([]proto.Message, error) {
				return ship(c, false, c.agent.tenant, e.second, act("start", "", ""))
			}},
			{other: codes.InvalidArgument, name: "tenant", noOwn: "the next ones ship", ask: func(c *caller, e *estate) ([]proto.Message, error) {
				return ship(c, false, e.tenant, c.agent.name, act("start", "", ""))
			}},
			{other: codes.PermissionDenied, name: "tenant in the signed head", noOwn: "the next ones ship", ask: func(c *caller, e *estate) ([]proto.Message, error) {
				r, err := record(c.agent.tenant, auditv1.Type_TYPE_AGENT_STARTED, act("start", "", ""))
				if err != nil {
					return nil, err
				}
				liar := *c.agent
				liar.tenant = e.tenant
				b, err := liar.batch(false, r)
				return []proto.Message{&agentv1.ShipRecordsRequest{Batch: b}}, err
			}},
			{other: codes.InvalidArgument, name: "another's batch", noOwn: "it was shipped", ask: func(_ *caller, e *estate) ([]proto.Message, error) {
				return one(&agentv1.ShipRecordsRequest{Batch: e.main.first})
			}},
			{other: alike, name: "order in a receipt", ask: func(c *caller, e *estate) ([]proto.Message, error) {
				// As its own agent would say it, but that it failed.
				r := proto.CloneOf(e.receipt)
				r.Result, r.Anchor, r.After, r.Problem = auditv1.Receipt_RESULT_FAILED, "", nil, nil
				return ship(c, true, c.agent.tenant, c.agent.name, &auditv1.Body{Body: &auditv1.Body_Receipt{Receipt: r}})
			}},
			{other: alike, name: "end of an order", ask: func(c *caller, e *estate) ([]proto.Message, error) {
				return ship(c, true, c.agent.tenant, c.agent.name, &auditv1.Body{Body: &auditv1.Body_Order{Order: &auditv1.OrderEvent{Order: e.order}}})
			}},
		}},
		{method: agentOf + "ProveGrowth", serves: liveAgents, probes: []probe{{
			// A size within the caller's own log is its own.
			other: codes.FailedPrecondition, name: "size of the log", fits: func(c *caller, e *estate) bool { return e.entries > 2*c.home.entries },
			ask: just(func(_ *caller, e *estate) proto.Message {
				return &agentv1.ProveGrowthRequest{FromSize: 1, ToSize: e.entries}
			}),
		}}},
		{method: agentOf + "FetchOrder", serves: liveAgents, probes: []probe{{
			name: "order", own: []codes.Code{codes.OK, codes.NotFound},
			ask: just(func(_ *caller, e *estate) proto.Message {
				return &agentv1.FetchOrderRequest{What: &agentv1.FetchOrderRequest_Order{Order: e.order}}
			}),
			got: orderGoesTo,
		}, {
			name: "plan to try", own: []codes.Code{codes.OK, codes.NotFound},
			ask: just(func(_ *caller, e *estate) proto.Message {
				return &agentv1.FetchOrderRequest{What: &agentv1.FetchOrderRequest_DryRun{DryRun: e.digest}}
			}),
			got: orderGoesTo,
		}}},
		{method: agentOf + "ReportProgress", serves: liveAgents, probes: []probe{{
			name: "plan tried", own: []codes.Code{codes.OK, codes.NotFound},
			ask: just(func(c *caller, e *estate) proto.Message {
				return &agentv1.ReportProgressRequest{DryRun: e.digest, GuardrailsDigest: c.home.word("guardrails"), Refusals: []*auditv1.Refusal{{Code: "GUARDRAIL", Sentence: c.home.word("refusal")}}}
			}),
		}, {
			other: alike, name: "order",
			ask: just(func(_ *caller, e *estate) proto.Message {
				return &agentv1.ReportProgressRequest{Order: e.order, Total: 1, Done: 1, Ended: true}
			}),
		}}},
	}
}

// orderGoesTo checks that nobody but the tenant's main agent gets its order.
func orderGoesTo(c *caller, a answer) error {
	if (a.code == codes.OK) != (c.agent.name == mainAgent) {
		return fmt.Errorf("agent %s got %v", c.agent.name, a.code)
	}
	return nil
}

func enrol(c *caller, edit func(*agentv1.EnrollRequest), shown *fakeAgent) ([]proto.Message, error) {
	csr, err := request("")
	if err != nil {
		return nil, err
	}
	exporter, err := c.door.exporter()
	if err != nil {
		return nil, err
	}
	r, err := c.agent.enrolment(c.token, csr, exporter, shown)
	if err != nil {
		return nil, err
	}
	edit(r)
	if string(r.GetCsr()) != string(csr) {
		// The keys are proven for what is asked, so that it is looked at.
		changed, err := c.agent.enrolment(c.token, r.GetCsr(), exporter, shown)
		if err != nil {
			return nil, err
		}
		r.Proofs = changed.GetProofs()
	}
	return one(r)
}

func reattest(c *caller, e *estate, agent string) ([]proto.Message, error) {
	exporter, err := c.door.exporter()
	if err != nil {
		return nil, err
	}
	got := c.door.call(enrollmentOf+"Challenge", false, []proto.Message{&agentv1.ChallengeRequest{Tenant: e.tenant, Agent: agent}})
	challenge := make([]byte, 32)
	rand.Read(challenge) //nolint:errcheck // never fails (crypto/rand, since Go 1.24)
	if len(got.messages) == 1 {
		challenge = got.messages[0].(*agentv1.ChallengeResponse).GetChallenge()
	}
	csr, err := request("")
	if err != nil {
		return nil, err
	}
	return one(&agentv1.ReattestRequest{
		Tenant: e.tenant, Agent: agent, Challenge: challenge, Csr: csr, Counter: c.agent.counter, Proof: c.agent.renewal(csr, exporter, challenge),
	})
}

func renew(c *caller, id string) ([]proto.Message, error) {
	exporter, err := c.door.exporter()
	if err != nil {
		return nil, err
	}
	csr, err := request(id)
	if err != nil {
		return nil, err
	}
	return one(&agentv1.RenewRequest{Csr: csr, Counter: c.agent.counter, Proof: c.agent.renewal(csr, exporter, nil)})
}

// renewed takes the answer to a renewal: whatever its request named, the
// certificate is the caller's own.
func renewed(c *caller, a answer) error {
	if len(a.messages) == 0 {
		return nil
	}
	r := a.messages[0].(*agentv1.RenewResponse)
	c.agent.counter = r.GetCounter()
	return issuedTo(c, r.GetCertificates())
}

func ship(c *caller, commit bool, tenant, agent string, body *auditv1.Body) ([]proto.Message, error) {
	typ := auditv1.Type_TYPE_AGENT_STARTED
	switch {
	case body.GetReceipt() != nil:
		typ = auditv1.Type_TYPE_RECEIPT
	case body.GetOrder() != nil:
		typ = auditv1.Type_TYPE_ORDER_ENDED
	}
	r, err := record(tenant, typ, body)
	if err != nil {
		return nil, err
	}
	b, err := c.agent.batch(commit && c.live, r)
	if err != nil {
		return nil, err
	}
	b = proto.CloneOf(b)
	b.Agent = agent
	return one(&agentv1.ShipRecordsRequest{Batch: b})
}
