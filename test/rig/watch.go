package rig

import (
	"os"
	"sync"
	"time"
)

// Watch looks at the targets all the time, as those who use them do.
type Watch struct {
	r    *Rig
	stop chan struct{}
	all  sync.WaitGroup
	// came and went count, by group or account, how often each was seen to.
	came, went map[string]int
	here       map[string]bool
	fault      error
}

// Watch begins to look at the targets, until Once.
func (r *Rig) Watch() *Watch {
	w := &Watch{r: r, stop: make(chan struct{}), came: map[string]int{}, went: map[string]int{}, here: map[string]bool{}}
	w.look()
	clear(w.came)
	w.all.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(3 * time.Millisecond):
				w.look()
			}
		}
	})
	r.T.Cleanup(w.end)
	return w
}

func (w *Watch) end() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.all.Wait()
}

// look reads both files whole. They are replaced by renaming, so that one look
// sees one state of each.
func (w *Watch) look() {
	users, err := os.ReadFile(w.r.Estate.Users())
	if err != nil {
		w.fault = err
		return
	}
	groups, err := os.ReadFile(w.r.Estate.Groups())
	if err != nil {
		w.fault = err
		return
	}
	accounts, err := parseAccounts(string(users))
	if err != nil {
		w.fault = err
		return
	}
	members, err := parseGroups(string(groups))
	if err != nil {
		w.fault = err
		return
	}
	now := map[string]bool{}
	for login := range accounts {
		now["account "+login] = true
	}
	for group, list := range members {
		for _, m := range list {
			now[m+" in "+group] = true
		}
	}
	for what := range now {
		if !w.here[what] {
			w.came[what]++
		}
	}
	for what := range w.here {
		if !now[what] {
			w.went[what]++
		}
	}
	w.here = now
}

// Once ends the watch and fails the test when a target was ever torn, or when
// anything came or went more than once: an effect that was repeated.
func (w *Watch) Once() {
	w.r.T.Helper()
	w.end()
	if w.fault != nil {
		w.r.T.Errorf("a target was seen in a state that is none: %v", w.fault)
	}
	for _, seen := range []map[string]int{w.came, w.went} {
		for what, n := range seen {
			if n > 1 {
				w.r.T.Errorf("%s came or went %d times", what, n)
			}
		}
	}
}

// Went is how often a member was seen to leave a group. Ask after Once.
func (w *Watch) Went(member, group string) int { return w.went[member+" in "+group] }
