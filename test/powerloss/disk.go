package powerloss

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
)

// sector is what a disk writes whole or not at all, in bytes.
const sector = 512

// Disk is a folder's content, as programs see it and as it would survive. It is
// safe for concurrent use.
type Disk struct {
	mu sync.Mutex
	// names as programs see them, kept as they would survive, and what happened
	// to names since the folder was last synced.
	names map[string]*content
	kept  map[string]*content
	moves []func(map[string]*content)
	// operations that could be lost so far; the cut comes at number cut, 0 never.
	operations, cut int
	dead            bool
	rand            *rand.Rand
}

// content of a file, by whatever name.
type content struct {
	now  []byte
	kept []byte
	// unsynced are the changes since the last sync, oldest first.
	unsynced []change
	inode    uint64
}

// change is a write, or with a nil data a change of size to off.
type change struct {
	off  int64
	data []byte
}

// NewDisk is an empty disk whose power never goes.
func NewDisk() *Disk {
	return &Disk{names: map[string]*content{}, kept: map[string]*content{}, rand: rand.New(rand.NewPCG(1, 1))}
}

// CutAt lets the power go at the nth operation from now that writes, sizes,
// names or syncs anything. seed decides what survives.
func (d *Disk) CutAt(n int, seed uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.operations, d.cut, d.rand = 0, n, rand.New(rand.NewPCG(seed, 2))
}

// Cut lets the power go now.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
}

// Dead reports whether the power has gone.
func (d *Disk) Dead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// Operations since the disk was made, or since CutAt.
func (d *Disk) Operations() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.operations
}

// volatile reports a file that lives no longer than its processes: SQLite's
// shared memory, which the kernel writes back when it likes.
func volatile(name string) bool { return strings.HasSuffix(name, "-shm") }

// step counts an operation and reports whether the disk still has power.
func (d *Disk) step(name string) bool {
	if d.dead || volatile(name) {
		return !d.dead
	}
	d.operations++
	if d.operations == d.cut {
		d.dead = true
	}
	return !d.dead
}

func (c *content) apply(to []byte, ch change) []byte {
	if ch.data == nil {
		return resize(to, ch.off)
	}
	if end := ch.off + int64(len(ch.data)); end > int64(len(to)) {
		to = resize(to, end)
	}
	copy(to[ch.off:], ch.data)
	return to
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func (c *content) change(ch change) {
	c.now = c.apply(c.now, ch)
	c.unsynced = append(c.unsynced, ch)
}

func (c *content) sync() {
	for _, ch := range c.unsynced {
		c.kept = c.apply(c.kept, ch)
	}
	c.unsynced = nil
}

// Surviving is a disk, with power, that holds what this one's survived as.
func (d *Disk) Surviving() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	// Names change in order: a journaling file system keeps some first ones.
	names := clone(d.kept)
	for _, move := range d.moves[:d.rand.IntN(len(d.moves)+1)] {
		move(names)
	}
	out := NewDisk()
	files := map[*content]*content{}
	for _, name := range sortedNames(names) {
		c := names[name]
		if volatile(name) {
			continue
		}
		if files[c] == nil {
			left := c.survives(d.rand)
			files[c] = &content{now: left, kept: slices.Clone(left)}
		}
		out.names[name], out.kept[name] = files[c], files[c]
	}
	return out
}

// Copy is another disk, with power, that holds what programs see on this one.
func (d *Disk) Copy() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := NewDisk()
	for _, name := range sortedNames(d.names) {
		if !volatile(name) {
			now := d.names[name].now
			out.names[name] = &content{now: slices.Clone(now), kept: slices.Clone(now)}
			out.kept[name] = out.names[name]
		}
	}
	return out
}

// survives is what is left of a file: what was synced, and some of the rest.
func (c *content) survives(r *rand.Rand) []byte {
	left := slices.Clone(c.kept)
	// Now and then all of it, or nothing.
	luck := r.IntN(4)
	for _, ch := range c.unsynced {
		switch {
		case luck == 0 || luck == 1 && r.IntN(2) == 0:
			continue
		case luck == 2 || ch.data == nil || len(ch.data) <= sector || r.IntN(2) == 0:
			left = c.apply(left, ch)
		default:
			// Torn: some sectors of it.
			for at := 0; at < len(ch.data); at += sector {
				if r.IntN(2) == 0 {
					left = c.apply(left, change{ch.off + int64(at), ch.data[at:min(at+sector, len(ch.data))]})
				}
			}
		}
	}
	return left
}

func clone(m map[string]*content) map[string]*content {
	out := make(map[string]*content, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

func sortedNames(m map[string]*content) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// move changes names now and, once synced, for good.
func (d *Disk) move(f func(map[string]*content)) {
	f(d.names)
	d.moves = append(d.moves, f)
}
