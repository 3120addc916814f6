package enrollment

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/jointoken"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// MaxInvite is how long an invitation can be good for.
const MaxInvite = time.Hour

// Invite gives out a join token for an agent of the tenant: a new one, or one
// that exists and then begins a new epoch with new keys. It replaces unused
// invitations of the same agent. ttl of zero means MaxInvite.
func (s *Service) Invite(ctx context.Context, actor, tenantID, agent string, ttl time.Duration) (jointoken.Token, time.Time, error) {
	if ttl == 0 {
		ttl = MaxInvite
	}
	if ttl < 0 || ttl > MaxInvite {
		return jointoken.Token{}, time.Time{}, fmt.Errorf("%w: an invitation lasts at most %s", ErrInvalid, MaxInvite)
	}
	if err := spiffe.ValidateName(agent); err != nil {
		return jointoken.Token{}, time.Time{}, fmt.Errorf("%w: agent: %w", ErrInvalid, err)
	}
	secret, err := s.random(32)
	if err != nil {
		return jointoken.Token{}, time.Time{}, err
	}
	token, err := jointoken.New(bytes.NewReader(secret))
	if err != nil {
		return jointoken.Token{}, time.Time{}, err
	}
	expires := s.Now().Add(ttl)
	err = s.DB.Do(ctx, func(t tx.Tx) error {
		if err := s.served(t, tenantID); err != nil {
			return err
		}
		if err := s.Store.PutInvite(t, Invite{Tenant: tenantID, Agent: agent, TokenHash: token.Hash(), Expires: expires}); err != nil {
			return err
		}
		return s.act(t, tenantID, auditv1.Type_TYPE_AGENT_INVITED, actor, "invite agent", agent, "", "expires", expires.UTC().Format(time.RFC3339))
	})
	if err != nil {
		return jointoken.Token{}, time.Time{}, err
	}
	return token, expires, nil
}

// served refuses tenants that take no new agents.
func (s *Service) served(t tx.Tx, tenantID string) error {
	n, err := s.Tenants.Lookup(t, tenantID)
	if err != nil {
		return err
	}
	if n.State != tenant.Active {
		return fmt.Errorf("%w: tenant %s is %s and takes no agents", ErrConflict, tenantID, n.State)
	}
	return nil
}

// Enroll turns a join token into an identity. exporter is the keying material of
// the TLS connection it came over. Of many requests with one token exactly one
// wins; the winner's own retry is answered the same. Errors: ErrToken,
// ErrTokenUsed, ErrTokenExpired, ErrProof, ErrInvalid, ErrConflict.
func (s *Service) Enroll(ctx context.Context, r *agentv1.EnrollRequest, exporter []byte) (*agentv1.EnrollResponse, error) {
	token, err := jointoken.Parse(r.GetToken())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := checkKeys(r, exporter); err != nil {
		return nil, err
	}
	digest := enrollDigest(r)
	var answer []byte
	err = s.DB.Do(ctx, func(t tx.Tx) error {
		invite, err := s.Store.Invite(t, token.Hash())
		if err != nil {
			return err
		}
		if invite.Used != nil {
			if !bytes.Equal(invite.Used, digest) {
				return ErrTokenUsed
			}
			answer = invite.Answer
			return nil
		}
		if !s.Now().Before(invite.Expires) {
			return ErrTokenExpired
		}
		if r.GetAgent() != "" && r.GetAgent() != invite.Agent {
			return fmt.Errorf("%w: the invitation is for agent %s of tenant %s; use that name", ErrInvalid, invite.Agent, invite.Tenant)
		}
		if err := s.served(t, invite.Tenant); err != nil {
			return err
		}
		answer, err = s.admit(t, invite, r)
		if err != nil {
			return err
		}
		won, err := s.Store.UseInvite(t, token.Hash(), digest, answer)
		if err == nil && !won {
			err = ErrTokenUsed
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var out agentv1.EnrollResponse
	if err := proto.Unmarshal(answer, &out); err != nil {
		return nil, fmt.Errorf("read stored answer: %w", err)
	}
	s.Log.InfoContext(ctx, "agent enrolled", "tenant", out.GetTenant(), "agent", out.GetAgent(), "epoch", out.GetEpoch())
	return &out, nil
}

// admit writes the agent with its first certificate and its keys.
func (s *Service) admit(t tx.Tx, invite Invite, r *agentv1.EnrollRequest) (answer []byte, err error) {
	id := spiffe.AgentID{TrustDomain: s.TrustDomain, Tenant: invite.Tenant, Agent: invite.Agent}
	now := s.Now()
	a := Agent{Tenant: invite.Tenant, ID: invite.Agent, SPIFFE: id.String(), State: Active, Epoch: 1, Counter: 1, Version: clean(r.GetVersion()), Created: now}
	switch before, err := s.Store.Agent(t, a.Tenant, a.ID); {
	case err == nil:
		a.Epoch, a.Created = before.Epoch+1, before.Created
		// The counter goes on, so that a certificate's holder from before can
		// never present one that fits.
		a.Counter = before.Counter + 2
		if err := s.endEpoch(t, before, "control-plane", "invited again"); err != nil {
			return nil, err
		}
		t.OnCommit(func() { s.Sessions.Cut(a.Tenant, a.ID, "the agent was enrolled anew") })
	case !errors.Is(err, ErrNotFound):
		return nil, err
	}
	certificates, err := s.Issuer.IssueAgent(r.GetCsr(), id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	response := &agentv1.EnrollResponse{
		TrustDomain: s.TrustDomain, Tenant: a.Tenant, Agent: a.ID, Epoch: a.Epoch,
		Certificates: certificates, Counter: a.Counter, LogOrigin: s.Records.Origin(a.Tenant),
	}
	a.CSRDigest = csrDigest(r.GetCsr())
	if a.Certificates, err = packCertificates(certificates); err != nil {
		return nil, err
	}
	if err := s.Store.PutAgent(t, a); err != nil {
		return nil, err
	}
	if err := s.beginKeys(t, a, r.GetKeys()); err != nil {
		return nil, err
	}
	return proto.Marshal(response)
}

// beginKeys stores keys for the agent's epoch and appends the leaf that says so.
func (s *Service) beginKeys(t tx.Tx, a Agent, list []*auditv1.KeyEvent_Key) error {
	rows := make([]Key, len(list))
	for i, k := range list {
		holderTenant, holder, known, err := s.Store.KeyHolder(t, k.GetPublicKey())
		if err != nil {
			return err
		}
		if known && (holderTenant != a.Tenant || holder != a.ID) {
			return fmt.Errorf("%w: one of the keys belongs to another agent already; remove the copied key files and join again", ErrInvalid)
		}
		rows[i] = Key{Tenant: a.Tenant, Agent: a.ID, Epoch: a.Epoch, Purpose: k.GetPurpose(), Public: k.GetPublicKey(), Begun: s.Now()}
	}
	if err := s.Store.PutKeys(t, rows); err != nil {
		return err
	}
	_, err := s.Records.AppendAct(t, a.Tenant, &auditv1.Header{Type: auditv1.Type_TYPE_AGENT_ENROLLED, Actor: a.SPIFFE},
		&auditv1.Body{Body: &auditv1.Body_Key{Key: &auditv1.KeyEvent{Agent: a.ID, Epoch: a.Epoch, Keys: list}}})
	return err
}

// endEpoch ends the keys of the agent's present epoch, if any count, and appends
// the leaf that says so and how many records count.
func (s *Service) endEpoch(t tx.Tx, a Agent, actor, why string) error {
	list, err := s.Store.Keys(t, a.Tenant, a.ID, a.Epoch)
	if err != nil {
		return err
	}
	ended, err := s.Store.EndKeys(t, a.Tenant, a.ID, a.Epoch, s.Now())
	if err != nil || ended == 0 {
		return err
	}
	head, _, err := s.Chains.Head(t, a.Tenant, a.ID, a.Epoch)
	if err != nil {
		return err
	}
	event := &auditv1.KeyEvent{Agent: a.ID, Epoch: a.Epoch, Ended: why}
	for _, k := range list {
		event.Keys = append(event.Keys, &auditv1.KeyEvent_Key{Purpose: k.Purpose, PublicKey: k.Public})
	}
	if head.Next > 0 {
		event.LastIndex = head.Next - 1
	}
	_, err = s.Records.AppendAct(t, a.Tenant, &auditv1.Header{Type: auditv1.Type_TYPE_AGENT_KEYS_ENDED, Actor: actor},
		&auditv1.Body{Body: &auditv1.Body_Key{Key: event}})
	return err
}

// checkKeys wants one key a purpose, all different, each proven on this
// connection for this CSR.
func checkKeys(r *agentv1.EnrollRequest, exporter []byte) error {
	if len(exporter) != sha256.Size {
		return fmt.Errorf("%w: connection has no keying material", ErrProof)
	}
	want := []auditv1.KeyEvent_Purpose{auditv1.KeyEvent_PURPOSE_IDENTITY, auditv1.KeyEvent_PURPOSE_AUDIT, auditv1.KeyEvent_PURPOSE_WITNESS}
	if len(r.GetKeys()) != len(want) || len(r.GetProofs()) != len(want) {
		return fmt.Errorf("%w: identity, audit and witness key with a proof each are needed", ErrInvalid)
	}
	binding := agentv1.EnrollmentBinding(exporter, r.GetCsr())
	purposes, different := map[auditv1.KeyEvent_Purpose]bool{}, map[string]bool{}
	for i, k := range r.GetKeys() {
		pub, err := parseKey(k.GetPublicKey())
		if err != nil {
			return err
		}
		if !ed25519.Verify(pub, binding, r.GetProofs()[i]) {
			return fmt.Errorf("%w: key %d", ErrProof, i)
		}
		purposes[k.GetPurpose()], different[string(k.GetPublicKey())] = true, true
	}
	for _, p := range want {
		if !purposes[p] || len(different) != len(want) {
			return fmt.Errorf("%w: identity, audit and witness key must be given once and differ", ErrInvalid)
		}
	}
	return nil
}

func parseKey(spki []byte) (ed25519.PublicKey, error) {
	pub, err := keys.ParseSPKI(spki)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return pub, nil
}

// enrollDigest stands for one request: another CSR or other keys are another.
func enrollDigest(r *agentv1.EnrollRequest) []byte {
	h := sha256.New()
	part := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	part(r.GetCsr())
	for _, k := range r.GetKeys() {
		part([]byte(strconv.Itoa(int(k.GetPurpose()))))
		part(k.GetPublicKey())
	}
	return h.Sum(nil)
}

func csrDigest(csr []byte) []byte {
	sum := sha256.Sum256(csr)
	return sum[:]
}

// packCertificates stores a chain as the message that carries it.
func packCertificates(der [][]byte) ([]byte, error) {
	return proto.Marshal(&agentv1.RenewResponse{Certificates: der})
}

func unpackCertificates(b []byte) ([][]byte, error) {
	var m agentv1.RenewResponse
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read stored certificates: %w", err)
	}
	return m.GetCertificates(), nil
}

// act appends a record of an act on an agent. details are names and values in
// turn.
func (s *Service) act(t tx.Tx, tenantID string, typ auditv1.Type, actor, verb, agent, reason string, details ...string) error {
	a := &auditv1.Act{Verb: verb, Object: agent, Reason: reason}
	for i := 0; i+1 < len(details); i += 2 {
		a.Details = append(a.Details, &auditv1.Act_Detail{Name: details[i], Value: details[i+1]})
	}
	_, err := s.Records.AppendAct(t, tenantID, &auditv1.Header{Type: typ, Actor: actor}, &auditv1.Body{Body: &auditv1.Body_Act{Act: a}})
	return err
}
