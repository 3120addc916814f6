package journal

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Order is an admitted order. It is open until every change has a receipt.
type Order struct {
	ID             string `json:"id"`
	Sequence       uint64 `json:"sequence"`
	PlanDigest     []byte `json:"plan_digest"`
	EnvelopeDigest []byte `json:"envelope_digest"`
	PolicyVersion  string `json:"policy_version"`
	// Manifest is there as long as the order is open.
	Manifest   []byte    `json:"manifest,omitempty"`
	Superseded []string  `json:"superseded,omitempty"`
	Expires    time.Time `json:"expires"`
	Chunks     int       `json:"chunks"`
	Changes    int       `json:"changes"`
	// GuardrailsDigest in hexadecimal, as they stood at admission.
	GuardrailsDigest string `json:"guardrails_digest"`
	// Signed names the client's approvers whose signature the order brought.
	Signed []string `json:"signed,omitempty"`
	Ended  bool     `json:"ended"`
}

// Progress is how far one change of an order is.
type Progress struct {
	// Settled is false for an intent: sent, or about to be.
	Settled bool `json:"settled"`
	// Result is auditv1.Receipt_Result once settled.
	Result int32 `json:"result,omitempty"`
	// Receipt is an encoded auditv1.Receipt: for an intent the draft with the
	// pre-image, empty once settled.
	Receipt []byte `json:"receipt,omitempty"`
}

// PutOrder stores an order, new or with its new state.
func (tx *Tx) PutOrder(o Order) error {
	return tx.put("orders", rowKey(o.ID), int64(o.Sequence), o)
}

// Order returns an order by its id.
func (tx *Tx) Order(id string) (o Order, found bool, err error) {
	found, err = tx.get("orders", rowKey(id), &o)
	return o, found, err
}

// OpenOrders returns the orders that have not ended, by sequence.
func (tx *Tx) OpenOrders() ([]Order, error) {
	all, err := tx.orders()
	open := slices.DeleteFunc(all, func(o Order) bool { return o.Ended })
	sortBySequence(open)
	return open, err
}

func (tx *Tx) orders() ([]Order, error) {
	rows, err := tx.rows("orders", "", 0)
	if err != nil {
		return nil, err
	}
	out := make([]Order, len(rows))
	for i, r := range rows {
		if err := decodeRow(r.body, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// PutChunk stores a chunk of an order, verbatim. index counts from 0.
func (tx *Tx) PutChunk(order string, index int, chunk []byte) error {
	return tx.put("chunks", rowKey(order, fmt.Sprintf("%08d", index)), 0, chunk)
}

// Chunks returns an order's chunks in their order.
func (tx *Tx) Chunks(order string) ([][]byte, error) {
	rows, err := tx.rows("chunks", rowKey(order), 0)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, len(rows))
	for i, r := range rows {
		out[i] = r.body
	}
	return out, nil
}

// EndOrder keeps of an order only that it was, which is how a second delivery is
// known, and has the day begin after which it is in no budget any more.
func (tx *Tx) EndOrder(o Order, at time.Time) error {
	o.Ended, o.Manifest = true, nil
	if err := tx.PutOrder(o); err != nil {
		return err
	}
	for _, table := range []string{"chunks", "progress"} {
		rows, err := tx.rows(table, rowKey(o.ID), 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := tx.del(table, r.key); err != nil {
				return err
			}
		}
	}
	return tx.endCharges(o.ID, at)
}

// PutProgress stores how far a change is.
func (tx *Tx) PutProgress(order, change string, p Progress) error {
	return tx.put("progress", rowKey(order, change), 0, p)
}

// Progress returns how far each change of an order is; changes without progress
// are absent.
func (tx *Tx) Progress(order string) (map[string]Progress, error) {
	rows, err := tx.rows("progress", rowKey(order), 0)
	if err != nil {
		return nil, err
	}
	prefix := len(rowKey(order))
	out := make(map[string]Progress, len(rows))
	for _, r := range rows {
		change, err := strconv.Unquote(r.key[prefix : len(r.key)-1])
		if err != nil {
			return nil, fmt.Errorf("journal key %q: %w", r.key, err)
		}
		var p Progress
		if err := decodeRow(r.body, &p); err != nil {
			return nil, err
		}
		out[change] = p
	}
	return out, nil
}

// UsePlan marks a plan digest as used by an order. It is used once for ever.
func (tx *Tx) UsePlan(digest []byte, order string) error {
	return tx.put("plans", rowKey(hex.EncodeToString(digest)), 0, order)
}

// PlanUsed returns the order that used a plan digest, empty if none did.
func (tx *Tx) PlanUsed(digest []byte) (order string, err error) {
	_, err = tx.get("plans", rowKey(hex.EncodeToString(digest)), &order)
	return order, err
}

// PutRefusal remembers what was refused in an envelope, so that the same refusal
// of a second delivery makes no second record. Both are digests.
func (tx *Tx) PutRefusal(envelope, refusals []byte) error {
	return tx.put("refusals", rowKey(hex.EncodeToString(envelope)), tx.Now().UnixNano(), refusals)
}

// Refusal returns what was last refused in an envelope, nil if nothing was.
func (tx *Tx) Refusal(envelope []byte) (refusals []byte, err error) {
	_, err = tx.get("refusals", rowKey(hex.EncodeToString(envelope)), &refusals)
	return refusals, err
}
