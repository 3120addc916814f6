package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"filippo.io/age"
)

// ErrRecipient means a recipient alias that agent.yaml does not define, or a
// recipient key that is not an age public key.
var ErrRecipient = errors.New("recipient is not usable")

// Recipients are the keys to which new secrets are sealed, by the alias plans
// use. It is immutable and safe for concurrent use.
type Recipients struct{ byAlias map[string]age.Recipient }

// ParseRecipients reads alias -> age public key, as agent.yaml has them. Errors
// wrap ErrRecipient.
func ParseRecipients(keys map[string]string) (*Recipients, error) {
	r := &Recipients{byAlias: make(map[string]age.Recipient, len(keys))}
	for _, alias := range slices.Sorted(maps.Keys(keys)) {
		parsed, err := age.ParseRecipients(strings.NewReader(keys[alias]))
		if err != nil || len(parsed) != 1 {
			return nil, fmt.Errorf("%w: recipients.%s must be one age public key, as age-keygen prints it", ErrRecipient, alias)
		}
		r.byAlias[alias] = parsed[0]
	}
	return r, nil
}

// Has reports whether the alias is defined.
func (r *Recipients) Has(alias string) bool {
	return r != nil && r.byAlias[alias] != nil
}

// Seal encrypts the secret to the alias's key, in age's binary format
// (age-encryption.org/v1). Errors wrap ErrRecipient for an unknown alias.
func (r *Recipients) Seal(alias string, s Secret) ([]byte, error) {
	if !r.Has(alias) {
		return nil, fmt.Errorf("%w: %q is not defined; add it under recipients in agent.yaml", ErrRecipient, alias)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r.byAlias[alias])
	if err != nil {
		return nil, fmt.Errorf("seal to %q: %w", alias, err)
	}
	if _, err := w.Write(s.value); err != nil {
		return nil, fmt.Errorf("seal to %q: %w", alias, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal to %q: %w", alias, err)
	}
	return out.Bytes(), nil
}

// Character classes without those that people confuse when they read a password
// aloud or copy it by hand (0 O, 1 l I), and without those that shells, LDIF or
// the passwd family give a meaning (quotes, backslash, colon, comma, space).
var classes = []string{
	"abcdefghijkmnopqrstuvwxyz",
	"ABCDEFGHJKLMNPQRSTUVWXYZ",
	"23456789",
	"!#%*+-./=?@_~",
}

const (
	// DefaultPasswordLength is what 0 means to GeneratePassword.
	DefaultPasswordLength = 24
	// MinPasswordLength and MaxPasswordLength bound a generated password in characters.
	MinPasswordLength = 12
	MaxPasswordLength = 128
)

// GeneratePassword makes a password of length characters with at least one of
// each class (lower, upper, digit, sign), every other character drawn evenly
// from all of them. 0 stands for DefaultPasswordLength. rand is crypto/rand.Reader
// but in tests.
func GeneratePassword(rand io.Reader, length int) (Secret, error) {
	if length == 0 {
		length = DefaultPasswordLength
	}
	if length < MinPasswordLength || length > MaxPasswordLength {
		return Secret{}, fmt.Errorf("password of %d characters: must be %d to %d", length, MinPasswordLength, MaxPasswordLength)
	}
	all := strings.Join(classes, "")
	out := make([]byte, 0, length)
	for i := range length {
		set := all
		if i < len(classes) {
			set = classes[i]
		}
		k, err := below(rand, len(set))
		if err != nil {
			return Secret{}, err
		}
		out = append(out, set[k])
	}
	// Fisher-Yates, so that the guaranteed classes do not stand in front.
	for i := len(out) - 1; i > 0; i-- {
		k, err := below(rand, i+1)
		if err != nil {
			return Secret{}, err
		}
		out[i], out[k] = out[k], out[i]
	}
	return Secret{value: out}, nil
}

// below draws evenly from 0 to n-1, n at most 256.
func below(rand io.Reader, n int) (int, error) {
	limit := 256 - 256%n
	var b [1]byte
	for {
		if _, err := io.ReadFull(rand, b[:]); err != nil {
			return 0, fmt.Errorf("read randomness for a password: %w", err)
		}
		if int(b[0]) < limit {
			return int(b[0]) % n, nil
		}
	}
}
