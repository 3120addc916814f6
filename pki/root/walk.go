package root

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/reevehq/reeve/pki/dsse"
)

var (
	// ErrPin means that the first document is not the one that was pinned.
	ErrPin = errors.New("root document is not the pinned one")
	// ErrOlder means an older version than the one already held.
	ErrOlder = errors.New("root document is older than the one held")
	// ErrSkipped means that versions are missing in between.
	ErrSkipped = errors.New("root document versions are missing")
	// ErrFork means a second, different document of the version already held.
	ErrFork = errors.New("two different root documents have the same version")
	// ErrExpired means that the newest document at hand has expired.
	ErrExpired = errors.New("root document has expired")
	// ErrChanged means a change that no version may make: of the trust domain,
	// or of a key's purpose.
	ErrChanged = errors.New("root document changes what must not change")
	// ErrClient means that the client's own rule for root changes is not met.
	ErrClient = errors.New("root change is not approved by the client")
)

// ClientCheck decides whether the client agrees to a change from current to
// next, typically by an SSH signature over payload, the exact bytes of next that
// were signed. It is called after all other rules are met, once per version.
type ClientCheck func(current, next Document, payload []byte) error

// VerifyFirst opens the first document by its pin (see Pin), which must also
// carry its own threshold of its own keys. Its expiry is not looked at, because
// a pinned document may long have been followed by others: use Open, or Walk
// from it.
func VerifyFirst(envelope []byte, pinned string) (Document, error) {
	payload, err := dsse.UnverifiedPayload(envelope, dsse.Root)
	if err != nil {
		return Document{}, fmt.Errorf("first root document: %w", err)
	}
	if got := pin(payload); subtle.ConstantTimeCompare([]byte(got), []byte(pinned)) != 1 {
		return Document{}, fmt.Errorf("%w: its SHA-256 is %s, pinned is %q; compare both with what the MSP published", ErrPin, got, pinned)
	}
	d, err := parse(payload)
	if err != nil {
		return Document{}, err
	}
	if err := signedBy(envelope, d); err != nil {
		return Document{}, err
	}
	return d, nil
}

// Open verifies a whole history: the first envelope by its pin, the others as
// Walk does.
func Open(pinned string, envelopes [][]byte, now time.Time, client ClientCheck) (Document, error) {
	if len(envelopes) == 0 {
		return Document{}, fmt.Errorf("%w: no document at all", ErrPin)
	}
	first, err := VerifyFirst(envelopes[0], pinned)
	if err != nil {
		return Document{}, err
	}
	return Walk(first, envelopes[1:], now, client)
}

// Walk goes from the document held to the newest of envelopes, which come in
// order of version. Each must be the next version, in the same trust domain,
// signed by the threshold of the one before and by its own, and pass client if
// that is not nil. The version already held may be repeated. Those passed on the
// way may have expired; the one returned has not, at now.
//
// On error the caller keeps what it has: nothing of the walk counts. Errors wrap
// ErrOlder, ErrSkipped, ErrFork, ErrExpired, ErrChanged, ErrClient, ErrInvalid or
// one of dsse's. The caller stores the highest version before it acts on it.
func Walk(current Document, envelopes [][]byte, now time.Time, client ClientCheck) (Document, error) {
	if err := current.Validate(); err != nil {
		return Document{}, err
	}
	for _, env := range envelopes {
		next, err := step(current, env, client)
		if err != nil {
			return Document{}, err
		}
		current = next
	}
	if !now.Before(current.Expires) {
		return Document{}, fmt.Errorf("%w: version %d of %s at %s; the MSP must publish a newer one", ErrExpired,
			current.Version, current.TrustDomain, current.Expires.Format(time.RFC3339))
	}
	return current, nil
}

func step(current Document, env []byte, client ClientCheck) (Document, error) {
	payload, err := dsse.UnverifiedPayload(env, dsse.Root)
	if err != nil {
		return Document{}, fmt.Errorf("after version %d: %w", current.Version, err)
	}
	next, err := parse(payload)
	if err != nil {
		return Document{}, fmt.Errorf("after version %d: %w", current.Version, err)
	}
	switch {
	case next.Version < current.Version:
		return Document{}, fmt.Errorf("%w: version %d after %d", ErrOlder, next.Version, current.Version)
	case next.Version == current.Version:
		if !reflect.DeepEqual(next, current) {
			return Document{}, fmt.Errorf("%w: version %d", ErrFork, next.Version)
		}
		return current, nil
	case next.Version != current.Version+1:
		return Document{}, fmt.Errorf("%w: version %d after %d", ErrSkipped, next.Version, current.Version)
	}
	// The predecessor's keys first: until they agree, the document's word on its
	// own keys is nobody's.
	if err := signedBy(env, current); err != nil {
		return Document{}, fmt.Errorf("version %d by the keys of version %d: %w", next.Version, current.Version, err)
	}
	if err := signedBy(env, next); err != nil {
		return Document{}, fmt.Errorf("version %d by its own keys: %w", next.Version, err)
	}
	if next.TrustDomain != current.TrustDomain {
		return Document{}, fmt.Errorf("%w: trust domain %s becomes %s", ErrChanged, current.TrustDomain, next.TrustDomain)
	}
	before, err := current.purposes()
	if err != nil {
		return Document{}, err
	}
	after, err := next.purposes()
	if err != nil {
		return Document{}, err
	}
	for key, purpose := range after {
		if old, known := before[key]; known && old != purpose {
			return Document{}, fmt.Errorf("%w: version %d makes a %s of a %s", ErrChanged, next.Version, purpose, old)
		}
	}
	if client != nil {
		if err := client(current, next, payload); err != nil {
			return Document{}, fmt.Errorf("%w: version %d: %w", ErrClient, next.Version, err)
		}
	}
	return next, nil
}

func signedBy(env []byte, d Document) error {
	set, err := keySet(d.RootKeys)
	if err != nil {
		return err
	}
	_, _, err = dsse.Verify(env, dsse.Root, set, d.Threshold)
	return err
}
