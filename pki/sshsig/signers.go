package sshsig

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// ErrSigners means a list of allowed signers that cannot be used as it stands.
var ErrSigners = errors.New("unusable allowed signer")

// AllowedSigner is one line of an allowed_signers file.
type AllowedSigner struct {
	// Principals are the names the key signs as; plain names, no patterns.
	Principals []string
	Key        ssh.PublicKey
	// Namespaces limits what the key may sign; empty means no limit.
	Namespaces []string
	// ValidAfter and ValidBefore limit when; zero means no limit.
	ValidAfter, ValidBefore time.Time
	// VerifyRequired demands that a security key verified its user, by PIN or
	// biometrics, and not only felt a touch, which is always demanded.
	VerifyRequired bool
}

// keyTypes are the key types accepted, and whether they are security keys.
var keyTypes = map[string]bool{
	ssh.KeyAlgoED25519:    false,
	ssh.KeyAlgoECDSA256:   false,
	ssh.KeyAlgoECDSA384:   false,
	ssh.KeyAlgoECDSA521:   false,
	ssh.KeyAlgoSKED25519:  true,
	ssh.KeyAlgoSKECDSA256: true,
}

// ParseAllowedSigners reads lines "principals [options] keytype base64 [comment]"
// as ssh-keygen(1) describes them under ALLOWED SIGNERS, narrowed to what has one
// meaning: principals and namespaces are plain names without wildcards, times end
// in Z (UTC), cert-authority and no-touch-required are refused. The option
// verify-required, known from authorized_keys, is added. Errors wrap ErrSigners
// and name the line; a file with one bad line gives no signers.
func ParseAllowedSigners(text []byte) ([]AllowedSigner, error) {
	var out []AllowedSigner
	scanner := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; scanner.Scan(); n++ {
		line := strings.TrimSpace(scanner.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrSigners, n, err)
		}
		out = append(out, s)
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSigners, err)
	}
	return out, nil
}

func parseLine(line string) (AllowedSigner, error) {
	principals, rest := field(line)
	s := AllowedSigner{}
	var err error
	if s.Principals, err = plainNames(principals); err != nil {
		return AllowedSigner{}, fmt.Errorf("principals: %w", err)
	}
	next, after := field(rest)
	if _, isKey := keyTypes[next]; !isKey && strings.Count(after, " ")+strings.Count(after, "\t") > 0 {
		if err := s.options(next); err != nil {
			return AllowedSigner{}, err
		}
		rest = after
		next, _ = field(rest)
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil || len(options) != 0 {
		return AllowedSigner{}, fmt.Errorf("no public key where one is expected (%q)", clip(next))
	}
	sk, known := keyTypes[key.Type()]
	switch {
	case !known:
		return AllowedSigner{}, fmt.Errorf("key type %s; use ssh-ed25519, ecdsa or a security key", key.Type())
	case key.Type() != next:
		return AllowedSigner{}, fmt.Errorf("key says %s where the line says %q", key.Type(), clip(next))
	case s.VerifyRequired && !sk:
		return AllowedSigner{}, fmt.Errorf("verify-required needs a security key, and %s is none", key.Type())
	}
	s.Key = key
	return s, nil
}

// field splits off the first word; white space inside double quotes is not a split.
func field(s string) (word, rest string) {
	quoted := false
	for i, c := range s {
		switch {
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return s[:i], strings.TrimLeft(s[i:], " \t")
		}
	}
	return s, ""
}

func plainNames(list string) ([]string, error) {
	names := strings.Split(strings.Trim(list, `"`), ",")
	for _, n := range names {
		if n == "" || strings.ContainsAny(n, "*?!\" \t") {
			return nil, fmt.Errorf("%q is not a plain name", clip(n))
		}
	}
	return names, nil
}

func (s *AllowedSigner) options(list string) error {
	seen := map[string]bool{}
	for _, o := range splitOptions(list) {
		name, value, hasValue := strings.Cut(o, "=")
		name = strings.ToLower(name) // OpenSSH does not look at their case
		if seen[name] {
			return fmt.Errorf("option %s twice", name)
		}
		seen[name] = true
		if unquoted := strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`); hasValue && len(unquoted) != len(value)-2 {
			return fmt.Errorf("value of option %s is not in quotes", name)
		} else {
			value = unquoted
		}
		var err error
		switch {
		case name == "namespaces" && hasValue:
			s.Namespaces, err = plainNames(value)
		case name == "valid-after" && hasValue:
			s.ValidAfter, err = parseTime(value)
		case name == "valid-before" && hasValue:
			s.ValidBefore, err = parseTime(value)
		case name == "verify-required" && !hasValue:
			s.VerifyRequired = true
		default:
			err = errors.New("unknown, or not supported here")
		}
		if err != nil {
			return fmt.Errorf("option %q: %w", clip(name), err)
		}
	}
	return nil
}

func splitOptions(list string) []string {
	var out []string
	quoted, start := false, 0
	for i, c := range list {
		switch {
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			out = append(out, list[start:i])
			start = i + 1
		}
	}
	return append(out, list[start:])
}

func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{"20060102Z", "200601021504Z", "20060102150405Z"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("time %q; write YYYYMMDDZ or YYYYMMDDHHMM[SS]Z, in UTC", clip(s))
}

// may reports why the signer may not sign in a namespace at a time.
func (s AllowedSigner) may(namespace string, now time.Time) error {
	switch {
	case len(s.Namespaces) > 0 && !slices.Contains(s.Namespaces, namespace):
		return fmt.Errorf("%w: key %s may not sign for %s", ErrNotAllowed, ssh.FingerprintSHA256(s.Key), namespace)
	case !s.ValidAfter.IsZero() && now.Before(s.ValidAfter):
		return fmt.Errorf("%w: key %s is not valid yet", ErrNotAllowed, ssh.FingerprintSHA256(s.Key))
	case !s.ValidBefore.IsZero() && !now.Before(s.ValidBefore):
		return fmt.Errorf("%w: key %s is no longer valid", ErrNotAllowed, ssh.FingerprintSHA256(s.Key))
	}
	return nil
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "..."
	}
	return s
}
