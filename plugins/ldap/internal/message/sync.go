package message

import "encoding/hex"

// The types of RFC 4533: what a server says while it synchronizes content.
const (
	SyncRequest = "1.3.6.1.4.1.4203.1.9.1.1"
	SyncState   = "1.3.6.1.4.1.4203.1.9.1.2"
	SyncDone    = "1.3.6.1.4.1.4203.1.9.1.3"
	SyncInfo    = "1.3.6.1.4.1.4203.1.9.1.4"
)

// UUID is an entryUUID (RFC 4530) as RFC 4533 sends it.
type UUID [16]byte

// EntryState is what became of an entry.
type EntryState int32

// The states of RFC 4533 section 2.2.
const (
	StatePresent EntryState = 0
	StateAdd     EntryState = 1
	StateModify  EntryState = 2
	StateDelete  EntryState = 3
)

// ReadSyncState reads the value of a SyncState control, which comes with an
// entry.
func ReadSyncState(value []byte) (state EntryState, id UUID, err error) {
	d := decoder{}
	outer := element{content: value}
	body := d.take(&outer, tagSequence, "sync state")
	state = EntryState(d.integer(d.take(&body, tagEnumerated, "entry's state"), "entry's state"))
	id = d.uuid(d.take(&body, tagOctetString, "entryUUID"))
	if d.err == nil && (state < StatePresent || state > StateDelete) {
		d.fail("an entry has the state %d", state)
	}
	return state, id, d.err
}

// ReadSyncDone reads the value of a SyncDone control. deletes tells that what is
// gone was named; without it, what was not named as present is gone. cookie is
// nil if there is none, and valid as long as the message.
func ReadSyncDone(value []byte) (cookie []byte, deletes bool, err error) {
	d := decoder{}
	outer := element{content: value}
	body := d.take(&outer, tagSequence, "sync done")
	for len(body.content) > 0 && d.err == nil {
		switch e := d.next(&body, "sync done"); e.tag {
		case tagOctetString:
			cookie = e.content
		case tagBoolean:
			deletes = d.boolean(e)
		}
	}
	return cookie, deletes, d.err
}

// Info is a SyncInfo message as far as it counts here.
type Info struct {
	// Refreshed tells that the refresh stage is over and what follows happens now.
	Refreshed bool
	// IDs are named as gone with Deleted, else as present; they are valid until the
	// next ReadSyncInfo with the same room.
	IDs     []UUID
	Deleted bool
}

// The choices of RFC 4533 section 2.5.
const (
	tagNewCookie      = 0x80
	tagRefreshDelete  = 0xa1
	tagRefreshPresent = 0xa2
	tagIDSet          = 0xa3
)

// ReadSyncInfo reads the value of an intermediate response of type SyncInfo,
// with room for the identifiers, of which a message has at most 1 << 20.
func ReadSyncInfo(value []byte, room []UUID) (info Info, err error) {
	d := decoder{}
	outer := element{content: value}
	body := d.next(&outer, "sync info")
	switch body.tag {
	case tagNewCookie:
	case tagRefreshDelete, tagRefreshPresent:
		info.Refreshed = true // refreshDone, TRUE by default
		for len(body.content) > 0 && d.err == nil {
			if e := d.next(&body, "refresh"); e.tag == tagBoolean {
				info.Refreshed = d.boolean(e)
			}
		}
	case tagIDSet:
		info.IDs = room[:0]
		for len(body.content) > 0 && d.err == nil {
			switch e := d.next(&body, "set of identifiers"); e.tag {
			case tagBoolean:
				info.Deleted = d.boolean(e)
			case tagSet:
				for len(e.content) > 0 && d.err == nil {
					if info.IDs = append(info.IDs, d.uuid(d.take(&e, tagOctetString, "entryUUID"))); len(info.IDs) > 1<<20 {
						d.err = tooLong(len(info.IDs), 1<<20)
					}
				}
			}
		}
	default:
		d.fail("sync info has the tag %#x", body.tag)
	}
	return info, d.err
}

func (d *decoder) uuid(e element) (id UUID) {
	if copy(id[:], e.content); d.err == nil && len(e.content) != len(id) {
		d.fail("an entryUUID of %d octets", len(e.content))
	}
	return id
}

func (d *decoder) boolean(e element) bool {
	if d.err == nil && len(e.content) != 1 {
		d.fail("a truth value of %d octets", len(e.content))
	}
	return d.err == nil && e.content[0] != 0
}

// String is the identifier as the attribute entryUUID writes it.
func (id UUID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
