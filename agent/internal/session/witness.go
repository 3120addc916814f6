package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/tlogproof"
	"github.com/reevehq/reeve/plugins/sdk"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// ErrFork means that the log was signed in two ways that do not fit together, or
// went back: what it was is not what it is.
var ErrFork = errors.New("the tenant's log does not continue what this agent has cosigned")

// Witness holds the tenant's log to what it has shown before. Its state is the
// last checkpoint it cosigned. It is safe for concurrent use.
type Witness struct {
	// Origin is the log's name.
	Origin string
	// Private is the folder of the authoritative copy, Public the one that the
	// client reads; both hold the newest checkpoint as "latest".
	Private, Public string
	// Signer cosigns, LogKeys verify the log's own signatures.
	Signer  note.Signer
	LogKeys func() ([]note.Verifier, error)
	// Forked is told of each fork once, with both notes, before anything else
	// happens; it makes the record.
	Forked func(ctx context.Context, held, offered, reason string) error
	Logger *slog.Logger

	mu     sync.Mutex
	loaded bool
	held   tlogproof.Checkpoint
	note   string
	line   string
	fork   string
}

// Load reads the state; a first start has none.
func (w *Witness) Load() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, dir := range []string{w.Private, w.Public} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("witness: %w", err)
		}
	}
	if err := os.Chmod(w.Public, 0o755); err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	w.held = tlogproof.Checkpoint{Origin: w.Origin, Hash: sha256.Sum256(nil)}
	raw, err := os.ReadFile(filepath.Join(w.Private, "latest"))
	if errors.Is(err, fs.ErrNotExist) {
		w.loaded = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	text, line, err := splitOwn(string(raw), w.Signer.Name())
	if err != nil {
		return fmt.Errorf("witness: %s: %w", w.Private, err)
	}
	held, err := tlogproof.ParseCheckpoint(text)
	if err != nil {
		return fmt.Errorf("witness: %s: %w", w.Private, err)
	}
	w.held, w.note, w.line, w.loaded = held, string(raw), line, true
	if found, _ := filepath.Glob(filepath.Join(w.Private, "fork-*")); len(found) > 0 {
		w.fork = "see " + filepath.Join(w.Public, filepath.Base(found[0]))
	}
	return nil
}

// splitOwn returns a signed note's text and our own signature line in it.
func splitOwn(signed, name string) (text, line string, err error) {
	at := strings.LastIndex(signed, "\n\n")
	if at < 0 {
		return "", "", errors.New("not a signed note")
	}
	for l := range strings.Lines(signed[at+2:]) {
		if strings.HasPrefix(l, "— "+name+" ") {
			return signed[:at+1], l, nil
		}
	}
	return "", "", errors.New("the note does not bear this agent's cosignature")
}

// Held is the checkpoint cosigned last; size 0 before the first.
func (w *Witness) Held() tlogproof.Checkpoint {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held
}

// Fork says where to read about a fork that was seen; empty if none was.
func (w *Witness) Fork() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fork
}

// Open checks a checkpoint's signature by the log and that it continues held.
// An error wrapping ErrFork has been reported and recorded.
func (w *Witness) Open(ctx context.Context, signed string, held tlogproof.Checkpoint, consistency [][]byte) (tlogproof.Checkpoint, error) {
	logKeys, err := w.LogKeys()
	if err != nil {
		return tlogproof.Checkpoint{}, err
	}
	opened, err := tlogproof.OpenCheckpoint([]byte(signed), w.Origin, logKeys)
	if err != nil {
		// Nobody we trust said this, so it says nothing about the log.
		return tlogproof.Checkpoint{}, err
	}
	proof, err := hashes(consistency)
	if err == nil {
		err = tlogproof.CheckConsistency(tlog.TreeProof(proof), held, opened.Checkpoint)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrFork, err)
		if reportErr := w.report(ctx, signed, err); reportErr != nil {
			err = errors.Join(err, reportErr)
		}
		return tlogproof.Checkpoint{}, err
	}
	return opened.Checkpoint, nil
}

// Consider judges a checkpoint from the session. A consistent one is made
// durable, put where the client can read it, and cosigned, in this order.
func (w *Witness) Consider(ctx context.Context, c *agentv1.Checkpoint) *agentv1.Cosignature {
	held := w.Held()
	consistency := c.GetConsistency()
	if held.Size == 0 {
		// A witness that has seen nothing holds the log to nothing.
		consistency = nil
	} else if c.GetFromSize() != uint64(held.Size) {
		// The control plane does not know how far we are: tell it, and it can
		// prove from there.
		w.mu.Lock()
		defer w.mu.Unlock()
		return &agentv1.Cosignature{Size: uint64(w.held.Size), Line: w.line}
	}
	next, err := w.Open(ctx, c.GetNote(), held, consistency)
	if err != nil {
		return &agentv1.Cosignature{Size: uint64(held.Size), Refused: sdk.Clean(err.Error())}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held.Size != held.Size {
		return &agentv1.Cosignature{Size: uint64(w.held.Size), Line: w.line}
	}
	signed, line, err := w.cosign(c.GetNote())
	if err == nil {
		err = keys.WriteFile(filepath.Join(w.Private, "latest"), []byte(signed), 0o600)
	}
	if err == nil {
		err = keys.WriteFile(filepath.Join(w.Public, "latest"), []byte(signed), 0o644)
	}
	if err != nil {
		w.Logger.Error("checkpoint could not be cosigned", "error", err)
		return &agentv1.Cosignature{Size: uint64(held.Size), Refused: "the agent could not store the checkpoint"}
	}
	w.held, w.note, w.line = next, signed, line
	return &agentv1.Cosignature{Size: uint64(next.Size), Line: line}
}

// cosign adds our signature to a note that was verified.
func (w *Witness) cosign(signed string) (with, line string, err error) {
	at := strings.LastIndex(signed, "\n\n")
	if at < 0 {
		return "", "", errors.New("not a signed note")
	}
	own, err := note.Sign(&note.Note{Text: signed[:at+1]}, w.Signer)
	if err != nil {
		return "", "", fmt.Errorf("cosign: %w", err)
	}
	line = string(own[at+2:])
	return signed + line, line, nil
}

// report keeps the evidence and has it recorded, once for each checkpoint.
func (w *Witness) report(ctx context.Context, offered string, reason error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := sha256.Sum256([]byte(offered))
	name := "fork-" + hex.EncodeToString(sum[:8])
	w.fork = "see " + filepath.Join(w.Public, name)
	w.Logger.Error("THE LOG IS FORKED: the control plane shows this agent another history than before",
		"held_size", w.held.Size, "evidence", filepath.Join(w.Public, name), "reason", sdk.Clean(reason.Error()))
	if _, err := os.Stat(filepath.Join(w.Private, name)); err == nil {
		return nil
	}
	if err := w.Forked(ctx, w.note, offered, reason.Error()); err != nil {
		return fmt.Errorf("record the fork: %w", err)
	}
	evidence := "Cosigned before:\n\n" + w.note + "\nOffered now:\n\n" + offered + "\nReason: " + sdk.Clean(reason.Error()) + "\n"
	if err := keys.WriteFile(filepath.Join(w.Public, name), []byte(evidence), 0o644); err != nil {
		return err
	}
	return keys.WriteFile(filepath.Join(w.Private, name), []byte(evidence), 0o600)
}

func hashes(raw [][]byte) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(raw))
	for i, b := range raw {
		if len(b) != tlog.HashSize {
			return nil, fmt.Errorf("%w: hash of %d bytes", tlogproof.ErrMalformed, len(b))
		}
		out[i] = tlog.Hash(b)
	}
	return out, nil
}
