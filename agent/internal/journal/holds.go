package journal

import (
	"math"
	"slices"
	"time"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// HoldState is where a hold is in its life.
type HoldState string

const (
	// HoldPending: admitted or about to be sent; the add is not known to be there.
	HoldPending HoldState = "pending"
	// HoldOpen: the membership is there and this grant needs it.
	HoldOpen HoldState = "open"
)

// Hold is one grant's need of one membership. A hold with a Due time is an
// obligation: the agent owes its end. A membership is taken back when its last
// hold ends, and only if one of its holds made it.
type Hold struct {
	// ID is unique: the order's id and the change's, which may come again in a
	// later order.
	ID        string    `json:"id"`
	Order     string    `json:"order"`
	Change    string    `json:"change"`
	Grant     string    `json:"grant"`
	Identity  string    `json:"identity,omitempty"`
	Connector string    `json:"connector"`
	State     HoldState `json:"state"`
	// GroupType, Group, MemberType and Member are types and anchors; anchors
	// are empty while pending on an object that is yet to be created.
	GroupType  string `json:"group_type"`
	Group      string `json:"group"`
	MemberType string `json:"member_type"`
	Member     string `json:"member"`
	// Due is when it ends; zero for a grant without end.
	Due time.Time `json:"due,omitzero"`
	// Made is true when a hold of this membership made the add, so that the
	// last one to end takes it back.
	Made bool `json:"made"`
	// Verdict is what admission found about the removal, for people.
	Verdict string `json:"verdict,omitempty"`
	// Attempts counts failed removals; NotBefore is when the next one may run.
	Attempts  int       `json:"attempts,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`

	PlanDigest    []byte `json:"plan_digest,omitempty"`
	PolicyVersion string `json:"policy_version,omitempty"`
	Ticket        string `json:"ticket,omitempty"`
}

// Timed reports whether the hold has an end.
func (h Hold) Timed() bool { return !h.Due.IsZero() }

// key puts holds of one membership together.
func (h Hold) key() string { return rowKey(h.Connector, h.Group, h.Member, h.ID) }

// PutHold stores a hold, new or with its new state. A hold whose anchors have
// become known is first dropped as it was.
func (tx *Tx) PutHold(h Hold) error {
	at := int64(0)
	if h.Timed() {
		at = h.Due.UnixNano()
	}
	return tx.put("holds", h.key(), at, h)
}

// DropHold removes a hold that is settled; its record stays in the chain.
func (tx *Tx) DropHold(h Hold) error { return tx.del("holds", h.key()) }

// HoldNow returns the present state of a hold, by its membership and id.
func (tx *Tx) HoldNow(h Hold) (now Hold, found bool, err error) {
	found, err = tx.get("holds", h.key(), &now)
	return now, found, err
}

// HoldsOf returns every hold of one membership, h's own among them, by due time.
func (tx *Tx) HoldsOf(h Hold) ([]Hold, error) {
	rows, err := tx.rows("holds", rowKey(h.Connector, h.Group, h.Member), 0)
	if err != nil {
		return nil, err
	}
	return decodeHolds(rows)
}

// TimedHolds returns the holds that have an end, by due time, pending ones too.
func (tx *Tx) TimedHolds() ([]Hold, error) {
	rows, err := tx.rows("holds", "", 1)
	if err != nil {
		return nil, err
	}
	return decodeHolds(rows)
}

// Holds returns every hold, by due time, those without end last.
func (tx *Tx) Holds() ([]Hold, error) {
	rows, err := tx.rows("holds", "", 0)
	if err != nil {
		return nil, err
	}
	return decodeHolds(rows)
}

func decodeHolds(rows []row) ([]Hold, error) {
	out := make([]Hold, len(rows))
	for i, r := range rows {
		if err := decodeRow(r.body, &out[i]); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(out, func(a, b Hold) int {
		if a.Timed() != b.Timed() {
			if a.Timed() {
				return -1
			}
			return 1
		}
		return a.Due.Compare(b.Due)
	})
	return out, nil
}

// Created is an object that a change of this agent created.
type Created struct {
	Connector string `json:"connector"`
	Type      string `json:"type"`
	Anchor    string `json:"anchor"`
	Change    string `json:"change"`
}

// PutCreated remembers an object that a change created.
func (tx *Tx) PutCreated(c Created) error {
	if err := tx.put("anchors", rowKey(c.Change), 0, c); err != nil {
		return err
	}
	return tx.put("created", rowKey(c.Connector, c.Anchor), 0, c)
}

// DropCreated forgets that an object was created here, once it was deleted: where
// anchors are names, another object may come to bear it.
func (tx *Tx) DropCreated(connector, anchor string) error {
	return tx.del("created", rowKey(connector, anchor))
}

// CreatedBy returns what a change created. Change ids are derived from content,
// so it finds creations of earlier plans too.
func (tx *Tx) CreatedBy(change string) (c Created, found bool, err error) {
	found, err = tx.get("anchors", rowKey(change), &c)
	return c, found, err
}

// CreatedHere reports whether this agent created the object.
func (tx *Tx) CreatedHere(connector, anchor string) (bool, error) {
	var c Created
	return tx.get("created", rowKey(connector, anchor), &c)
}

// Charge is what one change costs of a budget.
type Charge struct {
	Connector string                    `json:"connector"`
	Kind      connectorv1.OperationKind `json:"kind"`
	// Subject is who loses something, for removals; the change's id otherwise.
	Subject string `json:"subject"`
}

// stillOpen is the time of an open order's charges: later than any.
const stillOpen = math.MaxInt64

// PutCharges books what an order costs. It counts from now until a day after the
// order's end (EndOrder), since nobody knows when in between each effect comes.
func (tx *Tx) PutCharges(order string, charges []Charge) error {
	return tx.put("charges", rowKey(order), stillOpen, charges)
}

// endCharges has a day begin after which an order's charges count no more.
func (tx *Tx) endCharges(order string, at time.Time) error {
	var charges []Charge
	found, err := tx.get("charges", rowKey(order), &charges)
	if err != nil || !found {
		return err
	}
	return tx.put("charges", rowKey(order), at.UnixNano(), charges)
}

// Charges returns what is booked of open orders and of those that ended since a
// time.
func (tx *Tx) Charges(since time.Time) ([]Charge, error) {
	rows, err := tx.rows("charges", "", since.UnixNano())
	if err != nil {
		return nil, err
	}
	var out []Charge
	for _, r := range rows {
		var charges []Charge
		if err := decodeRow(r.body, &charges); err != nil {
			return nil, err
		}
		out = append(out, charges...)
	}
	return out, nil
}

// DropCharges forgets what is booked of orders that ended before a time.
func (tx *Tx) DropCharges(before time.Time) error {
	rows, err := tx.rows("charges", "", -1<<63)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.at < before.UnixNano() {
			if err := tx.del("charges", r.key); err != nil {
				return err
			}
		}
	}
	return nil
}

// PutPin remembers the anchor of a protected name (guardrails.Protected.Pin).
func (tx *Tx) PutPin(connector, name, anchor string) error {
	return tx.put("pins", rowKey(connector, anchor), 0, name)
}

// Pins returns anchor -> name of a connector's protected names, as they were ever
// seen.
func (tx *Tx) Pins(connector string) (map[string]string, error) {
	return tx.stringMap("pins", connector)
}
