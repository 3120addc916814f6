package enrollment

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/chain"
	"github.com/reevehq/reeve/pki/spiffe"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

var (
	// ErrNotFound means that no such agent exists, or none of the caller's tenant.
	ErrNotFound = errors.New("no such agent")
	// ErrConflict means that the agent's state does not allow the step.
	ErrConflict = errors.New("conflict with the agent's present state")
	// ErrInvalid means a request that cannot be used; the text says why.
	ErrInvalid = errors.New("invalid request")
	// ErrToken means a join token that was never given out, or replaced by a
	// newer invitation.
	ErrToken = errors.New("join token is not known here; ask for a new invitation with `reeve agent invite`")
	// ErrTokenUsed means that another request won this token.
	ErrTokenUsed = errors.New("join token was used already; if that was not you, revoke the agent, then ask for a new invitation")
	// ErrTokenExpired means that the token's time is over.
	ErrTokenExpired = errors.New("join token has expired; ask for a new invitation with `reeve agent invite`")
	// ErrProof means a proof of possession that does not verify on this
	// connection.
	ErrProof = errors.New("proof of the agent's key does not verify")
	// ErrClone means that the renewal counter showed two holders of one identity;
	// both are suspended.
	ErrClone = errors.New("two hosts hold this agent's identity; both are suspended until it is invited again")
	// ErrSuspended and ErrRevoked refuse an agent in that state.
	ErrSuspended = errors.New("agent is suspended; the MSP must invite it again")
	ErrRevoked   = errors.New("agent is revoked")
	// ErrEpoch means an epoch that does not follow the one known.
	ErrEpoch = errors.New("epoch does not follow the agent's present one")
)

// State is whether an agent is listened to.
type State string

const (
	Active    State = "active"
	Suspended State = "suspended"
	Revoked   State = "revoked"
)

// Agent is one registered agent.
type Agent struct {
	Tenant string
	ID     string
	// SPIFFE is the exact name in its SVID.
	SPIFFE string
	State  State
	Epoch  uint64
	// Counter is the renewal counter that is accepted next.
	Counter uint64
	// CSRDigest and Certificates are of the newest issue, so that a retry of it
	// is answered the same.
	CSRDigest    []byte
	Certificates []byte
	// Quarantine says why the agent may ship records but runs no order; empty
	// when it may.
	Quarantine string
	Version    string
	Created    time.Time
	// Seen is when the agent last said hello; zero for never.
	Seen time.Time
}

// Err is nil for an active agent, otherwise ErrSuspended or ErrRevoked.
func (a Agent) Err() error {
	switch a.State {
	case Active:
		return nil
	case Suspended:
		return ErrSuspended
	}
	return ErrRevoked
}

// Key is one of an agent's public keys.
type Key struct {
	Tenant, Agent string
	Epoch         uint64
	Purpose       auditv1.KeyEvent_Purpose
	// Public is the SPKI in DER.
	Public []byte
	Begun  time.Time
	// Ended is zero while the key counts.
	Ended time.Time
}

// Invite is a stored invitation. The token itself is nowhere but with the client.
type Invite struct {
	Tenant, Agent string
	TokenHash     [32]byte
	Expires       time.Time
	// Used is the digest of the request that won, nil before.
	Used   []byte
	Answer []byte
}

// Store keeps agents. Methods work inside one transaction and are durable with
// it.
type Store interface {
	// PutInvite replaces unused invitations of the same agent.
	PutInvite(t tx.Tx, i Invite) error
	// Invite returns ErrToken for an unknown hash.
	Invite(t tx.Tx, hash [32]byte) (Invite, error)
	// UseInvite reports whether this request is the one that won.
	UseInvite(t tx.Tx, hash [32]byte, used, answer []byte) (won bool, err error)

	// PutAgent inserts an agent or replaces all but its creation.
	PutAgent(t tx.Tx, a Agent) error
	// Agent returns ErrNotFound for an unknown one.
	Agent(t tx.Tx, tenant, id string) (Agent, error)
	// BySPIFFE finds an agent by its registered name.
	BySPIFFE(t tx.Tx, id string) (Agent, error)
	// Agents returns up to limit agents of a tenant with an id greater than after.
	Agents(t tx.Tx, tenant, after string, limit int) ([]Agent, error)
	// Advance moves the counter by one and reports false unless it was from.
	Advance(t tx.Tx, tenant, id string, from uint64, csrDigest, certificates []byte) (moved bool, err error)
	SetState(t tx.Tx, tenant, id string, to State) error
	SetQuarantine(t tx.Tx, tenant, id, reason string) error
	SetSeen(t tx.Tx, tenant, id, version string, at time.Time) error

	PutKeys(t tx.Tx, keys []Key) error
	// Keys of one epoch, by purpose.
	Keys(t tx.Tx, tenant, id string, epoch uint64) ([]Key, error)
	// EndKeys ends all keys of the epoch that still count and reports how many.
	EndKeys(t tx.Tx, tenant, id string, epoch uint64, at time.Time) (int, error)
	// KeyHolder returns which agent enrolled the public key first; ok is false
	// when nobody did.
	KeyHolder(t tx.Tx, public []byte) (tenant, id string, ok bool, err error)
}

// Records is where acts are remembered; auditlog is it.
type Records interface {
	AppendAct(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) (uint64, error)
	Origin(tenant string) string
}

// Tenants says whether a tenant is there; tenant.Service is it.
type Tenants interface {
	Lookup(t tx.Tx, id string) (tenant.Tenant, error)
}

// Issuer makes certificates; trust is it.
type Issuer interface {
	// IssueAgent returns DER certificates, leaf first, for the key in the request.
	IssueAgent(csr []byte, id spiffe.AgentID) ([][]byte, error)
}

// Chains knows how far an agent's records are durable here; intake's store is it.
type Chains interface {
	// Head returns ok false for a chain without records.
	Head(t tx.Tx, tenant, agent string, epoch uint64) (h chain.Head, ok bool, err error)
}

// Sessions ends an agent's live connections; agentapi's registry is it. Cut must
// not wait for them.
type Sessions interface {
	Cut(tenant, agent, reason string)
}

// Config is what New needs.
type Config struct {
	DB          *tx.DB
	Store       Store
	Records     Records
	Tenants     Tenants
	Issuer      Issuer
	Chains      Chains
	Sessions    Sessions
	TrustDomain string
	Now         func() time.Time
	Rand        io.Reader
	Log         *slog.Logger
}

// Service is the enrolment of agents. It is safe for concurrent use.
type Service struct {
	Config
	randMu     sync.Mutex
	challenges challenges
}

// New returns the service.
func New(c Config) *Service { return &Service{Config: c} }

// random reads n bytes; test sources are plain readers, hence the lock.
func (s *Service) random(n int) ([]byte, error) {
	s.randMu.Lock()
	defer s.randMu.Unlock()
	b := make([]byte, n)
	if _, err := io.ReadFull(s.Rand, b); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	return b, nil
}

// Authorize returns the active agent that is registered under exactly this name.
// Errors: ErrNotFound, ErrSuspended, ErrRevoked.
func (s *Service) Authorize(ctx context.Context, id spiffe.AgentID) (Agent, error) {
	var a Agent
	err := s.DB.View(ctx, func(t tx.Tx) (err error) { a, err = s.Store.BySPIFFE(t, id.String()); return err })
	if err != nil {
		return Agent{}, err
	}
	return a, a.Err()
}

// Get returns one agent of the tenant, or ErrNotFound.
func (s *Service) Get(ctx context.Context, tenantID, id string) (a Agent, err error) {
	err = s.DB.View(ctx, func(t tx.Tx) error { a, err = s.Store.Agent(t, tenantID, id); return err })
	return a, err
}

// Lookup is Get inside a transaction that the caller has open.
func (s *Service) Lookup(t tx.Tx, tenantID, id string) (Agent, error) {
	return s.Store.Agent(t, tenantID, id)
}

// List returns up to limit agents of the tenant with an id greater than after;
// limit is clamped to 1..1000.
func (s *Service) List(ctx context.Context, tenantID, after string, limit int) (list []Agent, err error) {
	limit = min(max(limit, 1), 1000)
	err = s.DB.View(ctx, func(t tx.Tx) error { list, err = s.Store.Agents(t, tenantID, after, limit); return err })
	return list, err
}

// PublicKey returns the agent's key of an epoch, ended or not, with whether it
// still counts. ErrNotFound when there is none.
func (s *Service) PublicKey(t tx.Tx, tenantID, id string, epoch uint64, purpose auditv1.KeyEvent_Purpose) (pub ed25519.PublicKey, live bool, err error) {
	list, err := s.Store.Keys(t, tenantID, id, epoch)
	if err != nil {
		return nil, false, err
	}
	for _, k := range list {
		if k.Purpose == purpose {
			pub, err = parseKey(k.Public)
			return pub, k.Ended.IsZero(), err
		}
	}
	return nil, false, ErrNotFound
}
