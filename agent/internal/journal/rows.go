package journal

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/reevehq/reeve/pki/chain"
)

// sum is a multiset hash: the sum modulo 2^256 of the rows' keyed hashes. It is
// sound against whoever does not have the key, and a row's change costs two
// additions whatever the number of rows.
type sum [4]uint64

func (s *sum) add(mac []byte) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], binary.LittleEndian.Uint64(mac[8*i:]), carry)
	}
}

func (s *sum) sub(mac []byte) {
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], binary.LittleEndian.Uint64(mac[8*i:]), borrow)
	}
}

func (s *sum) bytes() []byte {
	out := make([]byte, 0, 32)
	for _, v := range s {
		out = binary.LittleEndian.AppendUint64(out, v)
	}
	return out
}

// sealKey derives the key of row hashes from the audit key: Ed25519 signatures
// are deterministic (RFC 8032), and this text is no DSSE encoding, so it is
// signed for nothing else.
func sealKey(key crypto.Signer) ([]byte, error) {
	sig, err := key.Sign(nil, []byte("reeve journal seal key v1"), crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("derive the seal's key: %w", err)
	}
	k := sha256.Sum256(sig)
	return k[:], nil
}

func (j *Journal) mac(parts ...[]byte) []byte {
	h := hmac.New(sha256.New, j.rowKey)
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	return h.Sum(nil)
}

func (j *Journal) rowMAC(table, key string, at int64, body []byte) []byte {
	return j.mac([]byte(table), []byte(key), binary.BigEndian.AppendUint64(nil, uint64(at)), body)
}

// rowKey joins parts so that no two lists of parts give the same key and keys
// with the same first parts stand together.
func rowKey(parts ...string) string {
	quoted := make([]string, len(parts))
	for i, p := range parts {
		quoted[i] = strconv.Quote(p)
	}
	return strings.Join(quoted, ",") + ","
}

// put writes a row, replacing one of the same key. A []byte body is kept as it
// is, anything else as JSON.
func (tx *Tx) put(table, key string, at int64, v any) error {
	body, err := encodeRow(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", table, err)
	}
	if err := tx.forget(table, key); err != nil {
		return err
	}
	mac := tx.j.rowMAC(table, key, at, body)
	if err := tx.exec("INSERT INTO "+table+" (key, at, body, mac) VALUES ($1, $2, $3, $4) ON CONFLICT (key) DO UPDATE SET at = excluded.at, body = excluded.body, mac = excluded.mac", key, at, blob(body), mac); err != nil {
		return err
	}
	tx.sum.add(mac)
	tx.sealed = true
	return nil
}

// del removes a row; none of that key is no error.
func (tx *Tx) del(table, key string) error {
	if err := tx.forget(table, key); err != nil {
		return err
	}
	tx.sealed = true
	return tx.exec("DELETE FROM "+table+" WHERE key = $1", key)
}

// forget takes the present row of that key out of the sum.
func (tx *Tx) forget(table, key string) error {
	var at int64
	var body, mac []byte
	err := tx.tx.QueryRowContext(tx.ctx, "SELECT at, body, mac FROM "+table+" WHERE key = $1", key).Scan(&at, &body, &mac)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return tx.fail(err)
	}
	if err := tx.checkRow(table, key, at, body, mac); err != nil {
		return err
	}
	tx.sum.sub(mac)
	return nil
}

func (tx *Tx) get(table, key string, v any) (bool, error) {
	var at int64
	var body, mac []byte
	err := tx.tx.QueryRowContext(tx.ctx, "SELECT at, body, mac FROM "+table+" WHERE key = $1", key).Scan(&at, &body, &mac)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, tx.fail(err)
	}
	if err := tx.checkRow(table, key, at, body, mac); err != nil {
		return false, err
	}
	return true, decodeRow(body, v)
}

type row struct {
	key  string
	at   int64
	body []byte
}

// rows returns the rows whose key begins with prefix and whose time is at least
// since, in order of key.
func (tx *Tx) rows(table, prefix string, since int64) ([]row, error) {
	query, args := "SELECT key, at, body, mac FROM "+table+" WHERE key >= $1 AND key < $2 AND at >= $3 ORDER BY key", []any{prefix, prefix + "\U0010ffff", since}
	if prefix == "" { // the index on at can serve it
		query, args = "SELECT key, at, body, mac FROM "+table+" WHERE at >= $1 ORDER BY key", []any{since}
	}
	found, err := tx.tx.QueryContext(tx.ctx, query, args...)
	if err != nil {
		return nil, tx.fail(err)
	}
	defer found.Close()
	var out []row
	for found.Next() {
		var r row
		var mac []byte
		if err := found.Scan(&r.key, &r.at, &r.body, &mac); err != nil {
			return nil, tx.fail(err)
		}
		if err := tx.checkRow(table, r.key, r.at, r.body, mac); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	if err := found.Err(); err != nil {
		return nil, tx.fail(err)
	}
	return out, nil
}

func (tx *Tx) checkRow(table, key string, at int64, body, mac []byte) error {
	if hmac.Equal(mac, tx.j.rowMAC(table, key, at, body)) {
		return nil
	}
	err := fmt.Errorf("%w: row %s of table %s", ErrForged, strconv.QuoteToGraphic(key), table)
	tx.err = err
	return err
}

func (tx *Tx) fail(err error) error {
	err = fmt.Errorf("read journal: %w", err)
	if !tx.readOnly && tx.err == nil {
		tx.err = err
	}
	return err
}

// seal binds the sum of all rows to the head of the chain.
func (tx *Tx) seal() error {
	mac := tx.j.sealMAC(tx.head, tx.base, tx.sum)
	return tx.exec(`INSERT INTO seal (id, length, link, base_length, base_link, sum, mac) VALUES (1, $1, $2, $3, $4, $5, $6)
		ON CONFLICT (id) DO UPDATE SET length = excluded.length, link = excluded.link, base_length = excluded.base_length, base_link = excluded.base_link, sum = excluded.sum, mac = excluded.mac`,
		int64(tx.head.Next), tx.head.Link[:], int64(tx.base.Next), tx.base.Link[:], tx.sum.bytes(), mac)
}

func (j *Journal) sealMAC(head, base chain.Head, total sum) []byte {
	return j.mac([]byte("seal"), binary.BigEndian.AppendUint64(nil, head.Next), head.Link[:],
		binary.BigEndian.AppendUint64(nil, base.Next), base.Link[:], total.bytes())
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (j *Journal) readSeal(ctx context.Context, q querier) (head, base chain.Head, total sum, err error) {
	var length, baseLength int64
	var link, baseLink, sumBytes, mac []byte
	err = q.QueryRowContext(ctx, "SELECT length, link, base_length, base_link, sum, mac FROM seal WHERE id = 1").Scan(&length, &link, &baseLength, &baseLink, &sumBytes, &mac)
	if errors.Is(err, sql.ErrNoRows) {
		return head, base, total, fmt.Errorf("%w: the seal is missing", ErrForged)
	}
	if err != nil {
		return head, base, total, fmt.Errorf("read the seal: %w", err)
	}
	if len(link) != chain.Size || len(baseLink) != chain.Size || len(sumBytes) != 32 {
		return head, base, total, fmt.Errorf("%w: the seal is malformed", ErrForged)
	}
	head = chain.Head{Next: uint64(length), Link: [chain.Size]byte(link)}
	base = chain.Head{Next: uint64(baseLength), Link: [chain.Size]byte(baseLink)}
	total.add(sumBytes)
	if !hmac.Equal(mac, j.sealMAC(head, base, total)) {
		return head, base, total, fmt.Errorf("%w: the seal does not fit; was the audit key changed?", ErrForged)
	}
	return head, base, total, nil
}

func encodeRow(v any) ([]byte, error) {
	if raw, ok := v.([]byte); ok {
		return raw, nil
	}
	return json.Marshal(v)
}

func decodeRow(body []byte, v any) error {
	if raw, ok := v.(*[]byte); ok {
		*raw = bytes.Clone(body)
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode journal row: %w", err)
	}
	return nil
}

// blob keeps database/sql from making NULL of an empty value.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// saltSize is in bytes, and fixed: another one would move octets from the body into
// the salt under the same hash.
const saltSize = 16

func bodyHash(salt, body []byte) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write(body)
	return h.Sum(nil)
}
