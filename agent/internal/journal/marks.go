package journal

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/reevehq/reeve/pki/keys"
)

// marks are the high-water marks: what must never go back, whatever backup is
// restored.
type marks struct {
	Epoch       uint64   `json:"epoch"`
	Sequence    uint64   `json:"sequence"`
	RootVersion uint64   `json:"root_version"`
	Time        TimeMark `json:"time"`
	// Length and Link are the chain's head when the marks were last written.
	Length uint64 `json:"length"`
	Link   string `json:"link"`
}

type marksFile struct {
	Marks json.RawMessage `json:"marks"`
	MAC   string          `json:"mac"`
}

// SetSequence raises the order sequence; it never falls.
func (tx *Tx) SetSequence(sequence uint64) error {
	tx.marks.Sequence = max(tx.marks.Sequence, sequence)
	return tx.putMarks()
}

// SetRootVersion raises the version of the root document; it never falls.
func (tx *Tx) SetRootVersion(version uint64) error {
	tx.marks.RootVersion = max(tx.marks.RootVersion, version)
	return tx.putMarks()
}

func (tx *Tx) putMarks() error {
	tx.marked = true
	tx.marks.Epoch = tx.j.o.Identity.Epoch
	return tx.put("vars", rowKey("marks"), 0, tx.marks)
}

// saveMarks writes the second copy, after the commit: a copy that is ahead of
// its journal would quarantine it for nothing. A failure is retried at the next
// commit; meanwhile the copy is older, which is weaker and not wrong.
func (j *Journal) saveMarks() {
	m := j.marks
	m.Epoch = j.o.Identity.Epoch
	m.Length, m.Link = j.head.Next, hex.EncodeToString(j.head.Link[:])
	err := j.writeMarks(m)
	if err != nil {
		j.o.Log.Error("write high-water marks", "path", j.o.MarksPath, "error", err)
	}
	j.marksDirty = err != nil
}

func (j *Journal) writeMarks(m marks) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	file, err := json.Marshal(marksFile{Marks: raw, MAC: hex.EncodeToString(j.mac([]byte("marks"), raw))})
	if err != nil {
		return err
	}
	return keys.WriteFile(j.o.MarksPath, append(file, '\n'), 0o600)
}

// compareMarks quarantines a journal that is behind its marks. Where there is no
// marks file it writes one: whoever can delete it owns the host.
func (j *Journal) compareMarks(ctx context.Context) error {
	raw, err := os.ReadFile(j.o.MarksPath)
	if errors.Is(err, fs.ErrNotExist) {
		j.saveMarks()
		return nil
	}
	if err != nil {
		return fmt.Errorf("read high-water marks: %w", err)
	}
	reason := j.behind(raw)
	if reason == "" {
		return nil
	}
	return j.Quarantine(ctx, reason)
}

func (j *Journal) behind(raw []byte) string {
	var f marksFile
	var m marks
	if err := json.Unmarshal(raw, &f); err != nil || json.Unmarshal(f.Marks, &m) != nil {
		return "the high-water marks beside the journal cannot be read"
	}
	mac, err := hex.DecodeString(f.MAC)
	if err != nil || !hmac.Equal(mac, j.mac([]byte("marks"), f.Marks)) {
		return "the high-water marks beside the journal are not this agent's"
	}
	switch {
	case m.Epoch > j.o.Identity.Epoch:
		return fmt.Sprintf("the high-water marks are of epoch %d, the journal of epoch %d", m.Epoch, j.o.Identity.Epoch)
	case m.Epoch < j.o.Identity.Epoch:
		return ""
	case m.Length > j.head.Next:
		return fmt.Sprintf("the journal holds %d records and had %d before: an older copy was put back", j.head.Next, m.Length)
	case m.Sequence > j.marks.Sequence:
		return fmt.Sprintf("the journal's last order has sequence %d, a later one had %d: an older copy was put back", j.marks.Sequence, m.Sequence)
	case m.RootVersion > j.marks.RootVersion:
		return fmt.Sprintf("the journal knows root document %d, it had %d before: an older copy was put back", j.marks.RootVersion, m.RootVersion)
	case m.Length == j.head.Next && m.Link != hex.EncodeToString(j.head.Link[:]):
		return "the journal's newest record is another one than before: two copies of this agent have run"
	}
	return ""
}

// Quarantine keeps the journal from taking orders, over restarts too, until
// Recover. The control plane asks for it when it has seen more records than the
// journal holds.
func (j *Journal) Quarantine(ctx context.Context, reason string) error {
	return j.Commit(ctx, func(tx *Tx) error {
		tx.quarantine = reason
		return tx.put("vars", rowKey("quarantine"), 0, reason)
	})
}
