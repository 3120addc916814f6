package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// maxSecret bounds a resolved secret in bytes.
const maxSecret = 64 << 10

var (
	// ErrReference means a reference that is not file:, env: or credential:.
	ErrReference = errors.New("not a secret reference")
	// ErrUnresolved means a reference whose secret is not there or not fit for use.
	ErrUnresolved = errors.New("secret cannot be resolved")
)

// Secret holds bytes that are shown to nobody. The zero value is empty.
type Secret struct{ value []byte }

// New takes a copy of value.
func New(value []byte) Secret { return Secret{value: bytes.Clone(value)} }

// Reveal returns the bytes themselves, shared with the Secret.
func (s Secret) Reveal() []byte { return s.value }

// Wipe overwrites the bytes. Copies that others made are theirs to wipe.
func (s Secret) Wipe() { clear(s.value) }

const redacted = "[secret]"

func (Secret) String() string                 { return redacted }
func (Secret) GoString() string               { return redacted }
func (Secret) Format(f fmt.State, _ rune)     { _, _ = io.WriteString(f, redacted) }
func (Secret) LogValue() slog.Value           { return slog.StringValue(redacted) }
func (Secret) MarshalText() ([]byte, error)   { return []byte(redacted), nil }
func (Secret) MarshalJSON() ([]byte, error)   { return []byte(`"` + redacted + `"`), nil }
func (Secret) MarshalBinary() ([]byte, error) { return nil, errors.New("a secret is not encoded") }

// Resolver reads what references name.
type Resolver struct {
	// Getenv is os.Getenv but in tests.
	Getenv func(string) string
}

// Resolve reads the secret that a reference of agent.yaml names:
//
//   - file:PATH, an absolute path; the file must not be readable by everyone;
//   - env:NAME, a variable of the agent's environment;
//   - credential:NAME, a systemd credential (a file of that name under
//     $CREDENTIALS_DIRECTORY, see systemd.exec(5) LoadCredential=).
//
// One line break at the end is not part of the secret. An empty secret is
// refused. Errors wrap ErrReference or ErrUnresolved, name the reference and the
// remedy, and never hold the secret.
func (r Resolver) Resolve(reference string) (Secret, error) {
	getenv := r.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	kind, what, found := strings.Cut(reference, ":")
	if !found || what == "" {
		return Secret{}, fmt.Errorf("%w: write file:PATH, env:NAME or credential:NAME", ErrReference)
	}
	switch kind {
	case "file":
		if !filepath.IsAbs(what) {
			return Secret{}, fmt.Errorf("%w: file:%s: give an absolute path", ErrReference, what)
		}
		return fromFile(reference, what)
	case "env":
		v := getenv(what)
		if v == "" {
			return Secret{}, fmt.Errorf("%w: %s: the variable is not set; set it in the agent's service definition", ErrUnresolved, reference)
		}
		return trimmed(reference, []byte(v))
	case "credential":
		dir := getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return Secret{}, fmt.Errorf("%w: %s: the agent was not started with credentials; add LoadCredential=%s:PATH to its systemd unit", ErrUnresolved, reference, what)
		}
		if what != filepath.Base(what) || what == "." || what == ".." {
			return Secret{}, fmt.Errorf("%w: %s: a credential's name holds no path", ErrReference, reference)
		}
		return fromFile(reference, filepath.Join(dir, what))
	}
	// The text is not repeated: it may be the secret itself, written by mistake.
	return Secret{}, fmt.Errorf("%w: write file:PATH, env:NAME or credential:NAME", ErrReference)
}

func fromFile(reference, path string) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return Secret{}, fmt.Errorf("%w: %s: %w; make the file readable by the agent's user", ErrUnresolved, reference, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Secret{}, fmt.Errorf("%w: %s: %w", ErrUnresolved, reference, err)
	}
	if !info.Mode().IsRegular() {
		return Secret{}, fmt.Errorf("%w: %s: not a plain file", ErrUnresolved, reference)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 {
		return Secret{}, fmt.Errorf("%w: %s: everyone on this host can read it (mode %04o); run chmod o= on it", ErrUnresolved, reference, info.Mode().Perm())
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return Secret{}, fmt.Errorf("%w: %s: %w", ErrUnresolved, reference, err)
	}
	return trimmed(reference, raw)
}

func trimmed(reference string, raw []byte) (Secret, error) {
	if len(raw) > maxSecret {
		return Secret{}, fmt.Errorf("%w: %s: longer than %d bytes", ErrUnresolved, reference, maxSecret)
	}
	if t, ok := bytes.CutSuffix(raw, []byte("\n")); ok {
		raw, _ = bytes.CutSuffix(t, []byte("\r"))
	}
	if len(raw) == 0 {
		return Secret{}, fmt.Errorf("%w: %s: it is empty; write the secret into it", ErrUnresolved, reference)
	}
	return New(raw), nil
}
