package enrollment

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/chain"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

const controlPlane = "control-plane"

// Suspend stops listening to an agent until it is invited again. kind is a
// constant such as "clone" or "fork", sentence says it to people. Its live
// connections are cut after the commit. Keys go on to count for records that
// were signed before. Without effect on an agent that is not active.
func (s *Service) Suspend(t tx.Tx, tenantID, id, kind, sentence string) error {
	a, err := s.Store.Agent(t, tenantID, id)
	if err != nil {
		return err
	}
	if a.State != Active {
		return nil
	}
	if err := s.Store.SetState(t, tenantID, id, Suspended); err != nil {
		return err
	}
	if err := s.act(t, tenantID, auditv1.Type_TYPE_SUSPENDED, controlPlane, "suspend agent", id, sentence, "kind", kind); err != nil {
		return err
	}
	t.OnCommit(func() {
		s.Log.Warn("agent suspended", "tenant", tenantID, "agent", id, "kind", kind)
		s.Sessions.Cut(tenantID, id, sentence)
	})
	return nil
}

// Revoke ends an agent for good, with its keys, and cuts its live connections.
// It is durable: a restarted control plane refuses the agent as this one does.
// Revoking twice is without effect. The agent's bind account in the directory is
// the client's to rotate.
func (s *Service) Revoke(ctx context.Context, actor, tenantID, id, reason string) error {
	return s.DB.Do(ctx, func(t tx.Tx) error {
		a, err := s.Store.Agent(t, tenantID, id)
		if err != nil {
			return err
		}
		if a.State == Revoked {
			return nil
		}
		if err := s.act(t, tenantID, auditv1.Type_TYPE_AGENT_REVOKED, actor, "revoke agent", id, reason); err != nil {
			return err
		}
		return s.end(t, a, actor, "revoked", "the agent is revoked")
	})
}

// EndKeys ends the agent's keys when its tenant is offboarded, after its last
// record has come in.
func (s *Service) EndKeys(t tx.Tx, actor, tenantID, id string) error {
	a, err := s.Store.Agent(t, tenantID, id)
	if err != nil {
		return err
	}
	return s.end(t, a, actor, "offboarded", "the tenant is offboarded")
}

func (s *Service) end(t tx.Tx, a Agent, actor, why, sentence string) error {
	if err := s.Store.SetState(t, a.Tenant, a.ID, Revoked); err != nil {
		return err
	}
	if err := s.endEpoch(t, a, actor, why); err != nil {
		return err
	}
	t.OnCommit(func() {
		s.Log.Info("agent ended", "tenant", a.Tenant, "agent", a.ID, "why", why)
		s.Sessions.Cut(a.Tenant, a.ID, sentence)
	})
	return nil
}

// Hello is what an agent says of itself when a session begins.
type Hello struct {
	Version string
	Epoch   uint64
	// ChainLength and ChainHash are its journal's.
	ChainLength uint64
	ChainHash   []byte
	// Another session of the agent is open: it is moving to a new connection, or
	// there are two of it.
	Another bool
}

// maxEpochs is how many epochs an agent may have opened since its last session.
const maxEpochs = 16

// Hello takes an active agent's hello. A later epoch than the present one begins:
// the agent opened it with local root after its journal was lost. A journal
// behind what is durable here quarantines the agent, which the answer's
// Quarantine says; the first time is a record. Beside another session nothing
// follows from it: records go on coming in there while this hello travels, and if
// there are two agents, what they ship tells (intake suspends both). The head is how far the epoch's
// chain is durable here. Errors: ErrEpoch for any other epoch, and those of
// Authorize.
func (s *Service) Hello(ctx context.Context, tenantID, id string, h Hello) (a Agent, head chain.Head, err error) {
	err = s.DB.Do(ctx, func(t tx.Tx) error {
		if a, err = s.Store.Agent(t, tenantID, id); err != nil {
			return err
		}
		if err := a.Err(); err != nil {
			return err
		}
		if h.Epoch < a.Epoch || h.Epoch-a.Epoch > maxEpochs {
			return fmt.Errorf("%w: agent %s is in epoch %d and says %d", ErrEpoch, id, a.Epoch, h.Epoch)
		}
		// Every epoch has its begin and end in the log, also one that was opened
		// and left again while there was no connection.
		for a.Epoch < h.Epoch {
			if err := s.nextEpoch(t, &a); err != nil {
				return err
			}
		}
		if head, _, err = s.Chains.Head(t, tenantID, id, a.Epoch); err != nil {
			return err
		}
		reason := ""
		switch {
		case h.Another:
		case h.ChainLength < head.Next:
			reason = fmt.Sprintf("the agent's journal holds %d records, %d were received from it: it was restored from an older copy; run `reeve-agent recover`", h.ChainLength, head.Next)
		case h.ChainLength == head.Next && head.Next > 0 && !bytes.Equal(h.ChainHash, head.Link[:]):
			reason = "the agent's journal holds other records than those received from it; run `reeve-agent recover`"
		}
		if reason != "" && a.Quarantine == "" {
			a.Quarantine = reason
			if err := s.Store.SetQuarantine(t, tenantID, id, reason); err != nil {
				return err
			}
			err := s.act(t, tenantID, auditv1.Type_TYPE_SUSPENDED, controlPlane, "quarantine agent", id, reason, "epoch", strconv.FormatUint(a.Epoch, 10))
			if err != nil {
				return err
			}
		}
		a.Version, a.Seen = clean(h.Version), s.Now()
		return s.Store.SetSeen(t, tenantID, id, a.Version, a.Seen)
	})
	return a, head, err
}

// clean makes an agent's word about itself fit for lists and logs.
func clean(version string) string {
	version = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, version)
	if len(version) > 64 {
		version = strings.ToValidUTF8(version[:64], "")
	}
	return version
}

// nextEpoch ends the present epoch and begins the next with the same keys.
func (s *Service) nextEpoch(t tx.Tx, a *Agent) error {
	held, err := s.Store.Keys(t, a.Tenant, a.ID, a.Epoch)
	if err != nil {
		return err
	}
	if err := s.endEpoch(t, *a, a.SPIFFE, "recovered"); err != nil {
		return err
	}
	a.Epoch, a.Quarantine = a.Epoch+1, ""
	if err := s.Store.PutAgent(t, *a); err != nil {
		return err
	}
	list := make([]*auditv1.KeyEvent_Key, len(held))
	for i, k := range held {
		list[i] = &auditv1.KeyEvent_Key{Purpose: k.Purpose, PublicKey: k.Public}
	}
	return s.beginKeys(t, *a, list)
}
