package identity

import (
	"github.com/reevehq/reeve/controlplane/internal/tx"
)

// Store keeps identities, links, accounts and cases in the caller's
// transaction; nothing of another tenant is ever returned.
type Store interface {
	Put(t tx.Tx, tenant string, i Identity) error
	// Get returns ErrNotFound for an id the tenant does not have.
	Get(t tx.Tx, tenant, id string) (Identity, error)
	// List returns identities in ascending order of id after the given one; limit
	// 0 is all.
	List(t tx.Tx, tenant, after string, limit int) ([]Identity, error)

	PutLink(t tx.Tx, tenant string, l Link) error
	// DeleteLink forgets a link; it is no error when there is none.
	DeleteLink(t tx.Tx, tenant, connector, anchor string) error
	// Links returns source links sorted by (connector, anchor).
	Links(t tx.Tx, tenant string) ([]Link, error)
	// LinksOf returns those of the identities from first to last, both included.
	LinksOf(t tx.Tx, tenant, first, last string) ([]Link, error)

	PutAccount(t tx.Tx, tenant string, a Account) error
	DeleteAccount(t tx.Tx, tenant, connector, anchor string) error
	// Accounts returns accounts sorted by (connector, anchor).
	Accounts(t tx.Tx, tenant string) ([]Account, error)
	// AccountsOf returns those of the identities from first to last, both included.
	AccountsOf(t tx.Tx, tenant, first, last string) ([]Account, error)
	// Account returns one account; ok is false when there is none.
	Account(t tx.Tx, tenant, connector, anchor string) (a Account, ok bool, err error)

	// PutCase inserts a case or updates its decision.
	PutCase(t tx.Tx, tenant string, c Case) error
	Case(t tx.Tx, tenant, id string) (Case, error)
	// Cases returns open cases, and decided ones if asked, in order of id.
	Cases(t tx.Tx, tenant string, decided bool) ([]Case, error)
}
