package faults_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/rig"
)

// still fails the test when a target changes though nobody may change it now:
// the agent is given the time in which it carries out several such plans.
func still(t *testing.T, r *rig.Rig) {
	t.Helper()
	before := r.Estate.Files(t)
	time.Sleep(500 * time.Millisecond)
	if now := r.Estate.Files(t); !maps.Equal(now, before) {
		t.Errorf("a target was changed after the agent had stopped: %v, before: %v", now, before)
	}
}

// says fails the test unless a log has all these words in one line.
func says(t *testing.T, log string, words ...string) {
	t.Helper()
	for line := range strings.Lines(log) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return
		}
	}
	t.Errorf("no line says %q:\n%s", words, log)
}

// wholeStory ends an estate with everything looked at from outside.
func wholeStory(t *testing.T, r *rig.Rig) {
	t.Helper()
	asItShould(t, r, nil, nil)
	shipped(t, r)
	r.Passwords(r.OneRecordAChange(), slices.DeleteFunc(r.Estate.People(), r.Estate.Suspended))
	r.Converged()
	r.Offboard(nil)
}

// The disk under the agent's state fails in the middle of an order: at each of
// the first calls by which the journal becomes durable. Where the agent cannot
// know what is on disk it stops with a sentence; started again it goes on.
func TestAgentsDiskFails(t *testing.T) {
	t.Parallel()
	e := rig.NewEstate(6)
	e.Status = true
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	r.Applied(r.CarryOut())
	stopped := 0
	round := 0
	for _, fault := range []string{"fsync,fdatasync:error=EIO", "pwrite64:error=EIO", "pwrite64:error=ENOSPC"} {
		for _, when := range []string{"1", "2", "4", "1+"} {
			e.Suspend(t, e.People()[round%6], true)
			e.Suspend(t, e.People()[(round+5)%6], false)
			round++
			r.Observe()
			p := r.Plan()
			r.Agent.ForgetLog()
			w := watchEffects(t, e, nil)
			tr := attach(t, filepath.Join(r.Dir, "strace.log"), fault+":when="+when, r.Agent.PID())
			r.Approve(p)
			ended := false
			rig.Until(t, "the agent stops, says that its disk is full, or ends the plan", func() (bool, string) {
				ended = r.Agent.Ended()
				log := r.Agent.Log()
				if strings.Contains(log, "journal stopped") {
					return ended, log
				}
				return ended || r.Show(p.GetId()).GetState().GetPhase() == operatorv1.PlanState_PHASE_ENDED || strings.Contains(log, "too little disk space"), log
			})
			if tr.detach() || ended {
				stopped++
				rig.Until(t, "the agent has ended", func() (bool, string) { return r.Agent.Ended(), r.Agent.Log() })
				says(t, r.Agent.Log(), "the journal has stopped; restart the agent and look at its disk")
				still(t, r)
				r.Agent.Forget()
				r.Agent.Start()
			}
			r.Applied(r.Ended(p.GetId()))
			w.once(e.People(), nil)
			asItShould(t, r, nil, nil)
			if t.Failed() {
				t.Fatalf("after %s when=%s", fault, when)
			}
		}
	}
	if t.Logf("the agent stopped %d times in %d rounds", stopped, round); stopped < round/3 {
		t.Errorf("the agent stopped only %d times in %d rounds", stopped, round)
	}
	wholeStory(t, r)
}

// The disk under a target fails while a connector writes: the file stays whole,
// and what was not done is told as such and done by the next plan.
func TestTargetsDiskFails(t *testing.T) {
	t.Parallel()
	e := rig.NewEstate(6)
	e.Status = true
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	r.Applied(r.CarryOut())
	for round, fault := range []string{"fsync:error=EIO:when=1", "renameat:error=EROFS:when=1"} {
		e.Suspend(t, e.People()[round], true)
		r.Observe()
		p := r.Plan()
		w := watchEffects(t, e, nil)
		var tracers []*tracer
		for i, pid := range r.Agent.Connectors("flatfile") {
			tracers = append(tracers, attach(t, filepath.Join(r.Dir, fmt.Sprintf("strace%d.log", i)), fault, pid))
		}
		r.Approve(p)
		first := r.Ended(p.GetId()).GetState()
		injected := 0
		for _, tr := range tracers {
			tr.detach()
			raw, err := os.ReadFile(tr.log)
			if err != nil {
				t.Fatal(err)
			}
			injected += strings.Count(string(raw), "(INJECTED)")
		}
		if injected == 0 {
			t.Errorf("%s never came", fault)
		}
		// Its parsing fails on a torn file; a value may have come once at most.
		w.once(e.People(), nil)
		disabled := strings.HasPrefix(e.Accounts(t)[e.People()[round]], "!")
		if applied := first.GetApplied() == first.GetTotal(); applied != disabled {
			t.Errorf("%s: the account is disabled: %v, and the plan ended as %v", fault, disabled, first)
		}
		if !disabled {
			r.Observe()
			r.Applied(r.CarryOut())
		}
		asItShould(t, r, nil, nil)
		t.Logf("%s: %d times, and the plan ended as %v", fault, injected, first)
	}
	wholeStory(t, r)
}

// The disk under the control plane's data fails while it signs, dispatches and
// takes records in: it stops with a sentence, and started again it goes on.
func TestControlPlanesDiskFails(t *testing.T) {
	t.Parallel()
	e := rig.NewEstate(6)
	e.Status = true
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	r.Applied(r.CarryOut())
	round := 0
	for _, fault := range []string{"fsync:error=EIO", "pwrite64:error=EIO", "pwrite64:error=ENOSPC"} {
		for _, when := range []string{"1", "2", "4", "1+"} {
			e.Suspend(t, e.People()[round%6], true)
			e.Suspend(t, e.People()[(round+5)%6], false)
			round++
			// A session that was cut often is dialled ever more slowly: begin anew.
			r.Agent.Stop()
			r.Agent.Start()
			r.Connected()
			r.Observe()
			p := r.Plan()
			r.ControlPlane.ForgetLog()
			w := watchEffects(t, e, nil)
			tr := attach(t, filepath.Join(r.Dir, "strace.log"), fault+":when="+when, r.ControlPlane.PID())
			answer := r.TryApprove(p)
			time.Sleep(300 * time.Millisecond)
			tr.detach()
			said := r.ControlPlane.Log() + answer.Stderr
			if answer.Code != 0 || r.ControlPlane.Ended() {
				if !strings.Contains(said, "disk") {
					t.Errorf("%s when=%s: neither answer nor log speaks of the disk:\n%s", fault, when, said)
				}
			}
			// As its supervisor does, whether or not it has ended.
			r.ControlPlane.Kill()
			r.StartControlPlane()
			if r.Show(p.GetId()).GetState().GetPhase() == operatorv1.PlanState_PHASE_WAITING {
				if answer.Code == 0 {
					t.Errorf("%s when=%s: the approval was acknowledged and is lost", fault, when)
				}
				r.Approve(p)
			}
			r.Applied(r.Ended(p.GetId()))
			w.once(e.People(), nil)
			asItShould(t, r, nil, nil)
			if t.Failed() {
				t.Fatalf("after %s when=%s", fault, when)
			}
		}
	}
	wholeStory(t, r)
}

// newExt4 is a small file system that can fail as a real one does: a kernel that
// finds an error makes it read-only under those who use it.
func newExt4(t *testing.T) (dir string, abort, repair func()) {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "image"), ""
	command := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s; this story needs root with the right to mount a loop device, and e2fsprogs", name, args, err, out)
		}
	}
	var err error
	if dir, err = os.MkdirTemp("", "disk"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 160<<20); err != nil {
		t.Fatal(err)
	}
	command("mkfs.ext4", "-q", "-F", image)
	command("mount", "-o", "loop", image, dir)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
		_ = os.Remove(dir)
	})
	abort = func() { t.Helper(); command("mount", "-o", "remount,abort", dir) }
	repair = func() {
		t.Helper()
		command("umount", dir)
		// 1 means that it has corrected what there was.
		out, err := exec.Command("e2fsck", "-f", "-y", image).CombinedOutput()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() > 1) {
			t.Fatalf("e2fsck: %v: %s", err, out)
		}
		command("mount", "-o", "loop", image, dir)
	}
	return dir, abort, repair
}

// freeze stops a process and returns when every thread of it stands still.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	rig.Until(t, "all threads stand still", func() (bool, string) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(threads) == 0 {
			return false, "no threads"
		}
		for _, thread := range threads {
			if raw, err := os.ReadFile(thread); err == nil && !strings.Contains(string(raw), ") T ") {
				return false, string(raw)
			}
		}
		return true, ""
	})
}

// The file system of the state folder becomes read-only in the middle of an
// order, and is still so when the agent is started again: nothing more is done,
// and when the disk is repaired it goes on.
func TestStateBecomesReadOnly(t *testing.T) {
	t.Parallel()
	dir, abort, repair := newExt4(t)
	e := rig.NewEstate(6)
	e.Status, e.Cost = true, 10
	r := rig.New(t, rig.Options{Bin: bin, Estate: e, State: filepath.Join(dir, "state")})
	r.Applied(r.CarryOut())
	hired := e.Hire(t, 20)
	r.Observe()
	p := r.Plan()
	r.Agent.ForgetLog()
	r.Approve(p)
	rig.Until(t, "the order has begun", func() (bool, string) { return len(e.Accounts(t)) > 10, r.Agent.Log() })
	// Not in the middle of an fsync: ext4 may then acknowledge one that was not
	// made, and that disk's lie is another story (the agent is quarantined).
	freeze(t, r.Agent.PID())
	abort()
	if err := syscall.Kill(r.Agent.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	rig.Until(t, "the agent has ended", func() (bool, string) { return r.Agent.Ended(), r.Agent.Log() })
	says(t, r.Agent.Log(), "the journal has stopped; restart the agent and look at its disk")
	still(t, r)
	if s := r.Show(p.GetId()).GetState(); s.GetApplied() == s.GetTotal() {
		t.Errorf("nothing was left to do: %v", s)
	}
	for range 2 {
		r.Agent.Forget()
		r.Agent.ForgetLog()
		r.Agent.Start()
		rig.Until(t, "the agent has ended again", func() (bool, string) { return r.Agent.Ended(), r.Agent.Log() })
		if log := r.Agent.Log(); !strings.Contains(log, "read-only") && !strings.Contains(log, "readonly") {
			t.Errorf("it does not say that the file system is read-only:\n%s", log)
		}
		still(t, r)
	}
	r.Agent.Forget()
	repair()
	r.Agent.Start()
	r.Applied(r.Ended(p.GetId()))
	t.Logf("%d people hired", len(hired))
	wholeStory(t, r)
}
