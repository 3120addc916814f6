package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/root"
)

// ErrNoRoot means that no root document is stored yet.
var ErrNoRoot = errors.New("no root document is stored yet")

// Roots is the history of root documents, from the pinned one on. It is safe
// for concurrent use.
type Roots struct {
	dir    string
	pin    string
	now    func() time.Time
	client root.ClientCheck

	mu      sync.Mutex
	current *root.Document
	waiters []chan struct{}
}

// Roots opens the stored history under the client's pin. The whole of it is
// verified again, so that a changed pin or a changed file is noticed at start.
// client may be nil.
func (d Dir) Roots(pin string, now func() time.Time, client root.ClientCheck) (*Roots, error) {
	r := &Roots{dir: d.at("root"), pin: pin, now: now, client: client}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make root document folder: %w", err)
	}
	envelopes, err := r.stored()
	if err != nil || len(envelopes) == 0 {
		return r, err
	}
	// The zero time: an expired document still says whose word a newer one
	// needs. Usable is what keeps it from being acted on. What was accepted once
	// is not put to the client again.
	doc, err := root.Open(pin, envelopes, time.Time{}, nil)
	if err != nil {
		return nil, fmt.Errorf("stored root documents in %s: %w", r.dir, err)
	}
	r.current = &doc
	return r, nil
}

func (r *Roots) stored() ([][]byte, error) {
	var out [][]byte
	for version := uint64(1); ; version++ {
		raw, err := os.ReadFile(r.file(version))
		if errors.Is(err, fs.ErrNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read root document: %w", err)
		}
		out = append(out, raw)
	}
}

func (r *Roots) file(version uint64) string {
	return filepath.Join(r.dir, fmt.Sprintf("%08d.dsse.json", version))
}

// Current is the newest document held, which may have expired; ErrNoRoot before
// the first.
func (r *Roots) Current() (root.Document, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current == nil {
		return root.Document{}, ErrNoRoot
	}
	return *r.current, nil
}

// Usable is Current, refusing a document that has expired.
func (r *Roots) Usable() (root.Document, error) {
	doc, err := r.Current()
	if err == nil && !r.now().Before(doc.Expires) {
		err = fmt.Errorf("%w: version %d at %s; the MSP must publish a newer one", root.ErrExpired, doc.Version, doc.Expires.Format(time.RFC3339))
	}
	return doc, err
}

// Accept walks the envelopes, oldest first, stores each new version durably and
// returns the newest document. On error nothing of the walk is kept.
func (r *Roots) Accept(envelopes [][]byte) (root.Document, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var doc root.Document
	var err error
	switch {
	case r.current == nil:
		doc, err = root.Open(r.pin, envelopes, r.now(), r.client)
	case len(envelopes) == 0:
		return *r.current, nil
	default:
		doc, err = root.Walk(*r.current, envelopes, r.now(), r.client)
	}
	if err != nil {
		return root.Document{}, err
	}
	// The envelopes end at doc and come without holes, so each one's version
	// follows from its place; repeated versions were found equal.
	if err := r.store(envelopes); err != nil {
		return root.Document{}, err
	}
	changed := r.current == nil || r.current.Version != doc.Version
	r.current = &doc
	if changed {
		for _, w := range r.waiters {
			select {
			case w <- struct{}{}:
			default:
			}
		}
	}
	return doc, nil
}

func (r *Roots) store(envelopes [][]byte) error {
	doc := r.current
	for _, env := range envelopes {
		var next root.Document
		var err error
		if doc == nil {
			next, err = root.VerifyFirst(env, r.pin)
		} else {
			next, err = root.Walk(*doc, [][]byte{env}, time.Time{}, nil)
		}
		if err != nil {
			return err
		}
		if doc == nil || next.Version > doc.Version {
			if err := keys.WriteFile(r.file(next.Version), env, 0o600); err != nil {
				return err
			}
		}
		doc = &next
	}
	return nil
}

// Changed returns a channel that gets a value after a newer version was stored.
func (r *Roots) Changed() <-chan struct{} {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiters = append(r.waiters, c)
	return c
}
