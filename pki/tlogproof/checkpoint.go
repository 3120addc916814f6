package tlogproof

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// maxText bounds a checkpoint with its signatures, in bytes.
const maxText = 64 << 10

var (
	// ErrMalformed means text that is not a checkpoint in canonical form.
	ErrMalformed = errors.New("malformed checkpoint")
	// ErrOrigin means a checkpoint of another log.
	ErrOrigin = errors.New("checkpoint is of another log")
	// ErrUnsigned means a checkpoint without a valid signature of its log.
	ErrUnsigned = errors.New("checkpoint is not signed by its log")
)

// Checkpoint commits to the first Size records of the log named Origin.
type Checkpoint struct {
	Origin string
	Size   int64
	Hash   tlog.Hash
	// Extension holds further lines, which Reeve's logs do not use and other
	// logs' checkpoints may carry. None is empty.
	Extension []string
}

// FormatCheckpoint is the note text of a checkpoint: origin, size in decimal,
// root hash in base64 and extension lines, each ended by a newline.
func FormatCheckpoint(c Checkpoint) (string, error) {
	if err := c.validate(); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Hash[:]))
	for _, line := range c.Extension {
		b.WriteString(line + "\n")
	}
	return b.String(), nil
}

func (c Checkpoint) validate() error {
	if c.Origin == "" || c.Size < 0 {
		return fmt.Errorf("%w: origin %q, size %d", ErrMalformed, c.Origin, c.Size)
	}
	for _, line := range append([]string{c.Origin}, c.Extension...) {
		// What a note's text may not hold (C2SP signed-note): control characters.
		if line == "" || !utf8.ValidString(line) || strings.IndexFunc(line, func(r rune) bool { return r < 0x20 }) >= 0 {
			return fmt.Errorf("%w: line %q", ErrMalformed, line)
		}
	}
	return nil
}

// ParseCheckpoint reads the text of a checkpoint, without signatures. It takes
// exactly what FormatCheckpoint makes.
func ParseCheckpoint(text string) (Checkpoint, error) {
	if len(text) > maxText {
		return Checkpoint{}, fmt.Errorf("%w: %d bytes, limit %d", ErrMalformed, len(text), maxText)
	}
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[len(lines)-1] != "" {
		return Checkpoint{}, fmt.Errorf("%w: it needs origin, size and root hash, each on a line", ErrMalformed)
	}
	c := Checkpoint{Origin: lines[0]}
	var err error
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || strconv.FormatInt(c.Size, 10) != lines[1] {
		return Checkpoint{}, fmt.Errorf("%w: size %q", ErrMalformed, lines[1])
	}
	hash, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(hash) != tlog.HashSize || base64.StdEncoding.EncodeToString(hash) != lines[2] {
		return Checkpoint{}, fmt.Errorf("%w: root hash %q", ErrMalformed, lines[2])
	}
	c.Hash = tlog.Hash(hash)
	if rest := lines[3 : len(lines)-1]; len(rest) > 0 {
		c.Extension = rest
	}
	if err := c.validate(); err != nil {
		return Checkpoint{}, err
	}
	return c, nil
}

// SignCheckpoint makes the signed note of a checkpoint. The first signer is the
// log's own key, named as the origin.
func SignCheckpoint(c Checkpoint, signers ...note.Signer) ([]byte, error) {
	text, err := FormatCheckpoint(c)
	if err != nil {
		return nil, err
	}
	if len(signers) == 0 {
		return nil, fmt.Errorf("%w: no signer", ErrUnsigned)
	}
	signed, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return signed, nil
}

// Opened is a checkpoint whose signatures were checked.
type Opened struct {
	Checkpoint
	// Text is the note's text, the bytes that were signed.
	Text string
	// Cosignatures are those of the witnesses that were asked for, valid, in the
	// note's order and each witness once.
	Cosignatures []Cosignature
	// Note holds all signatures, also those that nobody here could check.
	Note *note.Note
}

// OpenCheckpoint checks a signed checkpoint of the log named origin: at least one
// signature must be by one of log's verifiers, and none by a verifier in log or
// witnesses may be wrong. How many cosignatures are enough is the caller's rule.
// Errors wrap ErrMalformed, ErrUnsigned, ErrOrigin or are *note.InvalidSignatureError.
func OpenCheckpoint(signed []byte, origin string, log []note.Verifier, witnesses ...note.Verifier) (Opened, error) {
	if len(signed) > maxText {
		return Opened{}, fmt.Errorf("%w: %d bytes, limit %d", ErrMalformed, len(signed), maxText)
	}
	n, err := note.Open(signed, note.VerifierList(append(append([]note.Verifier{}, log...), witnesses...)...))
	var unverified *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unverified):
		return Opened{}, fmt.Errorf("%w: %s", ErrUnsigned, "no known key signed it")
	case errors.As(err, &invalid):
		return Opened{}, fmt.Errorf("checkpoint: %w", err)
	case err != nil:
		return Opened{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Opened{}, err
	}
	if c.Origin != origin {
		return Opened{}, fmt.Errorf("%w: %q, want %q", ErrOrigin, c.Origin, origin)
	}
	out := Opened{Checkpoint: c, Text: n.Text, Note: n}
	byLog := false
	for _, s := range n.Sigs {
		byLog = byLog || has(log, s)
		if !has(witnesses, s) {
			continue
		}
		at, err := CosignatureTime(s)
		if err != nil {
			return Opened{}, err
		}
		out.Cosignatures = append(out.Cosignatures, Cosignature{Name: s.Name, KeyHash: s.Hash, Time: at})
	}
	if !byLog {
		return Opened{}, fmt.Errorf("%w: only others signed it", ErrUnsigned)
	}
	return out, nil
}

func has(list []note.Verifier, s note.Signature) bool {
	for _, v := range list {
		if v.Name() == s.Name && v.KeyHash() == s.Hash {
			return true
		}
	}
	return false
}
