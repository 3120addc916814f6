package tenant

import (
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"time"
	_ "time/tzdata" // zones must not depend on what the host has installed
	"unicode"
	"unicode/utf8"

	"github.com/reevehq/reeve/pki/spiffe"
)

var (
	// ErrNotFound means that no such tenant exists, or none the caller may see.
	ErrNotFound = errors.New("no such tenant")
	// ErrConflict means that a tenant of this id exists already, or that its
	// state does not allow the step.
	ErrConflict = errors.New("conflict with the tenant's present state")
	// ErrExists means that the id is taken; it is an ErrConflict too.
	ErrExists = fmt.Errorf("%w: a tenant of this id exists already", ErrConflict)
	// ErrInvalid means that a field cannot be used; the text says which and what
	// to do.
	ErrInvalid = errors.New("invalid tenant")
)

// State is where a tenant stands.
type State string

const (
	// Active tenants are served.
	Active State = "active"
	// Offboarding tenants take no new access; what the MSP caused is being undone.
	Offboarding State = "offboarding"
	// Offboarded tenants keep their log and nothing else.
	Offboarded State = "offboarded"
)

// Tenant is one client organisation, or the MSP.
type Tenant struct {
	// ID is a name as pki/spiffe.ValidateName has it; it stands in SPIFFE IDs.
	ID string
	// Name for people.
	Name string
	// Owner is the mail address of who answers for the tenant.
	Owner string
	// Zone is an IANA time zone: end dates are inclusive in it.
	Zone  string
	State State
	// MSP is true for exactly one tenant.
	MSP     bool
	Created time.Time
}

// Location is the tenant's time zone.
func (n Tenant) Location() (*time.Location, error) { return location(n.Zone) }

// New is what an operator gives to add a tenant.
type New struct {
	ID, Name, Owner, Zone string
}

func (n New) validate() error {
	if err := spiffe.ValidateName(n.ID); err != nil {
		return fmt.Errorf("%w: id: %w", ErrInvalid, err)
	}
	if !utf8.ValidString(n.Name) || strings.TrimSpace(n.Name) == "" || len(n.Name) > 200 || strings.ContainsFunc(n.Name, notShown) {
		return fmt.Errorf("%w: name of %s: give 1 to 200 bytes of text without control characters", ErrInvalid, n.ID)
	}
	if a, err := mail.ParseAddress(n.Owner); err != nil || a.Address != n.Owner {
		return fmt.Errorf("%w: owner of %s: give one plain mail address", ErrInvalid, n.ID)
	}
	if _, err := location(n.Zone); err != nil {
		return fmt.Errorf("%w: time zone of %s: %w", ErrInvalid, n.ID, err)
	}
	return nil
}

// notShown reports what must not stand in a name that terminals print: control
// characters and those that reorder text (Unicode category Cf).
func notShown(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }

// location refuses what time.LoadLocation takes but does not name a place:
// "Local" would mean the server's zone.
func location(zone string) (*time.Location, error) {
	if zone == "" || zone == "Local" {
		return nil, fmt.Errorf("%q is not an IANA time zone; give one such as Europe/Oslo", zone)
	}
	l, err := time.LoadLocation(zone)
	if err != nil {
		return nil, fmt.Errorf("%q is not an IANA time zone known here; give one such as Europe/Oslo", zone)
	}
	return l, nil
}

// next says which steps a tenant's state may take. Offboarding may be called
// off until it has ended.
func (s State) next(to State) bool {
	switch s {
	case Active:
		return to == Offboarding
	case Offboarding:
		return to == Active || to == Offboarded
	}
	return false
}
