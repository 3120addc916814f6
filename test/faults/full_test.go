package faults_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/reevehq/reeve/test/rig"
)

// disk is a small file system of its own that can be filled.
type disk struct {
	t   *testing.T
	dir string
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	dir, err := os.MkdirTemp("", "disk")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=96m,mode=0700"); err != nil {
		_ = os.Remove(dir)
		t.Fatalf("a small file system could not be mounted: %v; this story needs root with the right to mount tmpfs (as on a plain Debian machine, or a container with CAP_SYS_ADMIN)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
		_ = os.Remove(dir)
	})
	return &disk{t, dir}
}

func (d *disk) free() int64 {
	d.t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &s); err != nil {
		d.t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// fill leaves that many bytes.
func (d *disk) fill(left int64) {
	d.t.Helper()
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for n := d.free() - left; n > 0; n = d.free() - left {
		if _, err := f.Write(make([]byte, min(n, 1<<20))); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

func (d *disk) clear() {
	d.t.Helper()
	if err := os.Remove(d.ballast()); err != nil {
		d.t.Fatal(err)
	}
}

// The disk under the agent's state fills up while an order runs: it goes no
// further and says so, timed access still ends, and when there is space again
// the order goes on by itself, to one effect and one record.
func TestDiskFillsUpMidOrder(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	e := rig.NewEstate(10)
	e.Cost = 9
	r := rig.New(t, rig.Options{Bin: bin, Estate: e, State: filepath.Join(d.dir, "state")})
	r.Applied(r.CarryOut())
	who := e.People()[3]
	w := r.Watch()
	lend(t, r, who, "40s")
	e.Hire(t, 60)
	r.Observe()
	p := r.Plan()
	r.Approve(p)
	rig.Until(t, "the order has begun", func() (bool, string) { return len(e.Accounts(t)) > 12, r.Agent.Log() })
	d.fill(12 << 20)
	rig.Until(t, "the agent says that the disk is full", func() (bool, string) {
		return strings.Contains(r.Agent.Log(), "too little disk space is left for new work"), r.Agent.Log()
	})
	ends(t, r, who)
	if s := r.Show(p.GetId()).GetState(); s.GetApplied() == s.GetTotal() {
		t.Errorf("nothing was left to do when the disk was full: %v", s)
	}
	d.clear()
	r.Applied(r.Ended(p.GetId()))
	w.Once()
	r.Provisioned(e.People())
	shipped(t, r)
	list := r.OneRecordAChange()
	if got := settled(list); len(got) != 1 || got["removed"] != 1 {
		t.Errorf("the log tells of ends %v", got)
	}
	r.Passwords(list, e.People())
	r.Converged()
	r.Offboard(nil)
}

// The disk is full before an order comes, to the last byte: nothing is begun,
// and once there is space the order is fetched again by itself.
func TestDiskIsFullWhenAnOrderComes(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	r := rig.New(t, rig.Options{Bin: bin, State: filepath.Join(d.dir, "state")})
	w := r.Watch()
	before := r.Estate.Files(t)
	p := r.Plan()
	d.fill(0)
	r.Approve(p)
	// It gives up trying, and must be told again.
	rig.Until(t, "the agent says that the disk is full", func() (bool, string) {
		log := r.Agent.Log()
		return r.Agent.Ended() || strings.Contains(log, "try=5") && strings.Contains(log, "disk"), log
	})
	for name, now := range r.Estate.Files(t) {
		if now != before[name] {
			t.Errorf("%s was changed with a full disk", name)
		}
	}
	d.clear()
	if r.Agent.Ended() {
		// A journal that failed stops the agent, for its supervisor to start
		// again.
		if !strings.Contains(r.Agent.Log(), "disk") {
			t.Errorf("it ended without a word about the disk:\n%s", r.Agent.Log())
		}
		r.Agent.Forget()
		r.Agent.Start()
	}
	r.Applied(r.Ended(p.GetId()))
	w.Once()
	r.Provisioned(r.Estate.People())
	r.Passwords(r.OneRecordAChange(), r.Estate.People())
	r.Converged()
	r.Offboard(nil)
}
