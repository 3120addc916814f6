package auditlog

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/tlogproof"
)

// maxReason bounds what a witness may say about a refusal, in bytes.
const maxReason = 1 << 10

// Cosign stores a witness's signature line over the log's first size entries.
// witness names who it is here; key is its enrolled witness key. The line is
// checked against the tree as it was at that size, so a signature over any other
// history is ErrCosignature.
func (l *Log) Cosign(t tx.Tx, tenant, witness string, key ed25519.PublicKey, size uint64, line string) error {
	tree, err := l.tree(t, tenant, size)
	if err != nil {
		return fmt.Errorf("%w: at size %d", ErrCosignature, size)
	}
	root, err := tree.root(size)
	if err != nil {
		return err
	}
	text, err := tlogproof.FormatCheckpoint(tlogproof.Checkpoint{Origin: l.Origin(tenant), Size: int64(size), Hash: root})
	if err != nil {
		return err
	}
	// "— name base64" (C2SP signed-note): the witness names itself.
	fields := strings.Fields(line)
	if len(line) > maxReason || len(fields) != 3 {
		return fmt.Errorf("%w: not a signature line", ErrCosignature)
	}
	verifier, err := tlogproof.NewCosignatureVerifier(fields[1], key)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCosignature, err)
	}
	opened, err := note.Open([]byte(text+"\n"+strings.TrimSuffix(line, "\n")+"\n"), note.VerifierList(verifier))
	if err != nil || len(opened.Sigs) != 1 {
		return fmt.Errorf("%w: witness %s at size %d", ErrCosignature, witness, size)
	}
	return l.store.PutCosignature(t, tenant, Cosignature{Witness: witness, Size: size, Line: line, At: l.now()})
}

// CosignRefused remembers that a witness would not sign: it saw another history.
func (l *Log) CosignRefused(t tx.Tx, tenant, witness string, size uint64, reason string) error {
	reason = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, reason)
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	if err := l.store.PutCosignature(t, tenant, Cosignature{Witness: witness, Size: size, Refused: reason, At: l.now()}); err != nil {
		return err
	}
	t.OnCommit(func() { l.log.Error("a witness refused the log", "tenant", tenant, "witness", witness, "size", size) })
	return nil
}

// Cosignatures are the newest of each witness, sorted by witness.
func (l *Log) Cosignatures(t tx.Tx, tenant string) ([]Cosignature, error) {
	return l.store.Cosignatures(t, tenant)
}

// Cosigned is the size that a witness cosigned last; 0 for none.
func (l *Log) Cosigned(t tx.Tx, tenant, witness string) (uint64, error) {
	list, err := l.store.Cosignatures(t, tenant)
	if err != nil {
		return 0, err
	}
	for _, c := range list {
		if c.Witness == witness {
			return c.Size, nil
		}
	}
	return 0, nil
}

// BatchesOf are stored batches of one agent's epoch, beginning with the one that
// holds chain index from.
func (l *Log) BatchesOf(t tx.Tx, tenant, agent string, epoch, from uint64, limit int) ([]StoredBatch, error) {
	return l.store.BatchesOf(t, tenant, agent, epoch, from, limit)
}

// checkpointText reads a stored note of our own; its signature is not looked at.
func checkpointText(signed string) (tlogproof.Checkpoint, error) {
	at := strings.LastIndex(signed, "\n\n")
	if at < 0 {
		return tlogproof.Checkpoint{}, fmt.Errorf("%w: checkpoint is not a signed note", ErrCorrupt)
	}
	return tlogproof.ParseCheckpoint(signed[:at+1])
}
