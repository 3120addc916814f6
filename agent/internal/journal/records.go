package journal

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/reevehq/reeve/pki/chain"
	"github.com/reevehq/reeve/pki/dsse"
	"github.com/reevehq/reeve/pki/keys"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// spoolBytes is how large a batch may become before no further commit is added: a
// message of the agent's has at most 16 MiB, and what is too large for one would
// wait for ever.
const spoolBytes = 4 << 20

// Spool returns the records from index after on, with the head that was signed
// over them, ready to ship verbatim. It holds about max records and 4 MiB: as many
// whole commits as fit, at least one. It returns nil when there are none, and an error
// that wraps ErrPurged when records before after were purged away.
func (j *Journal) Spool(ctx context.Context, after uint64, max int) (*auditv1.Batch, error) {
	id := j.o.Identity
	batch := &auditv1.Batch{Agent: id.Agent, Epoch: id.Epoch, First: after}
	err := j.View(ctx, func(tx *Tx) error {
		_, base, _, err := j.readSeal(ctx, tx.tx)
		if err != nil {
			return err
		}
		if after < base.Next {
			return fmt.Errorf("%w: record %d, held are those from %d", ErrPurged, after, base.Next)
		}
		ends, err := tx.commitsEnd(after, max)
		if err != nil || len(ends) == 0 {
			return err
		}
		fit, size := uint64(0), 0
		enough := errors.New("enough")
		err = tx.eachRecord(after, ends[len(ends)-1], func(index uint64, r *auditv1.Record, _ []byte) error {
			if size += len(r.GetHeader()) + len(r.GetBody()); fit > 0 && size > spoolBytes {
				return enough
			}
			batch.Records = append(batch.Records, r)
			if index+1 == ends[0] {
				fit, ends = ends[0], ends[1:]
			}
			return nil
		})
		if err != nil && !errors.Is(err, enough) || fit == 0 {
			return err
		}
		batch.Records = batch.Records[:fit-after]
		if err := tx.tx.QueryRowContext(ctx, "SELECT envelope FROM heads WHERE length = $1", int64(fit)).Scan(&batch.Head); err != nil {
			return fmt.Errorf("read head: %w", err)
		}
		return nil
	})
	if err != nil || batch.Head == nil {
		return nil, err
	}
	return batch, nil
}

// commitsEnd are the lengths that the chain had after each commit, from after on:
// those within about max records, at least one where there is one.
func (tx *Tx) commitsEnd(after uint64, max int) (ends []uint64, err error) {
	found, err := tx.tx.QueryContext(tx.ctx, "SELECT length FROM heads WHERE length > $1 ORDER BY length LIMIT $2", int64(after), max)
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	defer found.Close()
	for found.Next() {
		var length int64
		if err := found.Scan(&length); err != nil {
			return nil, fmt.Errorf("read heads: %w", err)
		}
		if len(ends) > 0 && uint64(length) > after+uint64(max) {
			break
		}
		ends = append(ends, uint64(length))
	}
	return ends, found.Err()
}

// eachRecord hands over records of index from to end, end not included.
func (tx *Tx) eachRecord(from, end uint64, fn func(index uint64, r *auditv1.Record, link []byte) error) error {
	found, err := tx.tx.QueryContext(tx.ctx, "SELECT idx, header, salt, body, link FROM records WHERE idx >= $1 AND idx < $2 ORDER BY idx", int64(from), int64(end))
	if err != nil {
		return tx.fail(err)
	}
	defer found.Close()
	for found.Next() {
		var index int64
		r := &auditv1.Record{}
		var link []byte
		if err := found.Scan(&index, &r.Header, &r.Salt, &r.Body, &link); err != nil {
			return tx.fail(err)
		}
		if err := fn(uint64(index), r, link); err != nil {
			return err
		}
	}
	if err := found.Err(); err != nil {
		return tx.fail(err)
	}
	return nil
}

// Purge deletes the records below index upTo. The caller has proven that each of
// them is included in a checkpoint consistent with the last one cosigned; they
// are never purged to make room. The last of them leaves its link behind, so what
// follows can still be verified.
func (j *Journal) Purge(ctx context.Context, upTo uint64) error {
	return j.Commit(ctx, func(tx *Tx) error {
		if upTo <= tx.base.Next {
			return nil
		}
		if upTo > tx.head.Next {
			return fmt.Errorf("purge up to record %d: there are only %d", upTo, tx.head.Next)
		}
		var link []byte
		if err := tx.tx.QueryRowContext(tx.ctx, "SELECT link FROM records WHERE idx = $1", int64(upTo)-1).Scan(&link); err != nil {
			return tx.fail(err)
		}
		tx.base = chain.Head{Next: upTo, Link: [chain.Size]byte(link)}
		tx.sealed = true
		if err := tx.exec("DELETE FROM records WHERE idx < $1", int64(upTo)); err != nil {
			return err
		}
		return tx.exec("DELETE FROM heads WHERE length < $1", int64(upTo))
	})
}

// tailLength is how many of the newest records Open verifies, beside all rows:
// a row that was taken out would be missed by nobody else.
const tailLength = 512

func (j *Journal) checkTail(ctx context.Context) error {
	return j.View(ctx, func(tx *Tx) error {
		if err := tx.checkRows(j.sum); err != nil {
			return err
		}
		from := j.base
		if j.head.Next > j.base.Next+tailLength {
			from.Next = j.head.Next - tailLength
			var link []byte
			if err := tx.tx.QueryRowContext(ctx, "SELECT link FROM records WHERE idx = $1", int64(from.Next)-1).Scan(&link); err != nil || len(link) != chain.Size {
				return fmt.Errorf("%w: record %d is missing", ErrForged, from.Next-1)
			}
			from.Link = [chain.Size]byte(link)
		}
		return tx.checkChain(from, j.head)
	})
}

// Verify walks the whole journal: every record's link and body hash, every
// signed head, and every sealed row. It reads one consistent state and can run
// beside commits. An error wraps ErrForged and says where.
func (j *Journal) Verify(ctx context.Context) error {
	return j.View(ctx, func(tx *Tx) error {
		head, base, total, err := j.readSeal(ctx, tx.tx)
		if err != nil {
			return err
		}
		if err := tx.checkChain(base, head); err != nil {
			return err
		}
		return tx.checkRows(total)
	})
}

// checkRows holds every sealed row against its own hash and all of them against
// the sum in the seal, one row in memory at a time.
func (tx *Tx) checkRows(total sum) error {
	var have sum
	for _, table := range tables {
		if err := tx.addRows(table, &have); err != nil {
			return err
		}
	}
	if have != total {
		return fmt.Errorf("%w: rows are missing or were put back", ErrForged)
	}
	return nil
}

func (tx *Tx) addRows(table string, have *sum) error {
	found, err := tx.tx.QueryContext(tx.ctx, "SELECT key, at, body, mac FROM "+table)
	if err != nil {
		return tx.fail(err)
	}
	defer found.Close()
	for found.Next() {
		var r row
		var mac []byte
		if err := found.Scan(&r.key, &r.at, &r.body, &mac); err != nil {
			return tx.fail(err)
		}
		if err := tx.checkRow(table, r.key, r.at, r.body, mac); err != nil {
			return err
		}
		have.add(mac)
	}
	if err := found.Err(); err != nil {
		return tx.fail(err)
	}
	return nil
}

func (tx *Tx) checkChain(from, head chain.Head) error {
	heads := map[uint64][]byte{}
	found, err := tx.tx.QueryContext(tx.ctx, "SELECT length, envelope FROM heads WHERE length > $1 ORDER BY length", int64(from.Next))
	if err != nil {
		return tx.fail(err)
	}
	defer found.Close()
	for found.Next() {
		var length int64
		var envelope []byte
		if err := found.Scan(&length, &envelope); err != nil {
			return tx.fail(err)
		}
		heads[uint64(length)] = envelope
	}
	if err := found.Err(); err != nil {
		return tx.fail(err)
	}
	v := chain.NewVerifier(from)
	signed := from.Next
	err = tx.eachRecord(from.Next, head.Next+1, func(index uint64, r *auditv1.Record, link []byte) error {
		if len(link) != chain.Size {
			return fmt.Errorf("%w: record %d has no link", ErrForged, index)
		}
		if err := v.Add(index, r.Header, [chain.Size]byte(link)); err != nil {
			return fmt.Errorf("%w: %w", ErrForged, err)
		}
		if err := checkBody(r); err != nil {
			return fmt.Errorf("%w: record %d: %w", ErrForged, index, err)
		}
		if envelope, ok := heads[index+1]; ok {
			signed = index + 1
			return tx.j.checkHead(envelope, v.Head())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := v.Check(head); err != nil {
		return fmt.Errorf("%w: %w", ErrForged, err)
	}
	if signed != head.Next {
		return fmt.Errorf("%w: the newest %d records have no signed head", ErrForged, head.Next-signed)
	}
	return nil
}

func checkBody(r *auditv1.Record) error {
	var h auditv1.Header
	if err := planv1.Decode(r.GetHeader(), &h); err != nil {
		return err
	}
	if len(r.GetSalt()) == 0 && len(r.GetBody()) == 0 {
		return nil // erased
	}
	if len(r.GetSalt()) != saltSize || !bytes.Equal(h.GetBodyHash(), bodyHash(r.GetSalt(), r.GetBody())) {
		return fmt.Errorf("the body is not what was hashed")
	}
	return nil
}

func (j *Journal) checkHead(envelope []byte, at chain.Head) error {
	set := map[string]ed25519.PublicKey{keys.ID(j.public): j.public}
	payload, _, err := dsse.Verify(envelope, dsse.ChainHead, set, 1)
	if err != nil {
		return fmt.Errorf("%w: head %d: %w", ErrForged, at.Next, err)
	}
	var h auditv1.ChainHead
	if err := planv1.Decode(payload, &h); err != nil {
		return fmt.Errorf("%w: head %d: %w", ErrForged, at.Next, err)
	}
	if h.GetLength() != at.Next || !bytes.Equal(h.GetHash(), at.Link[:]) {
		return fmt.Errorf("%w: head %d was signed over another record", ErrForged, at.Next)
	}
	return nil
}
