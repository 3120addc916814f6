package flatfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reevehq/reeve/plugins/sdk"
)

// lockWait is how long a lock is waited for; lckpwdf(3) waits as long.
const lockWait = 15 * time.Second

// waitFor tries until try takes the lock, reports another error than "held",
// or the time is over.
func waitFor(ctx context.Context, path string, try func() (held bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		held, err := try()
		if err != nil || !held {
			return err
		}
		select {
		case <-ctx.Done():
			return sdk.NewProblem(sdk.CodeLocked, path, "take the lock",
				"see which program holds it (fuser shows it); it is tried again later").WithCause(ctx.Err())
		case <-pause.C:
		}
	}
}

// lockFile takes an flock on path, which is made if it is not there and stays.
func lockFile(ctx context.Context, path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = waitFor(ctx, path, func() (bool, error) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		return errors.Is(err, unix.EWOULDBLOCK), ignoring(err, unix.EWOULDBLOCK)
	})
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

func ignoring(err, but error) error {
	if errors.Is(err, but) {
		return nil
	}
	return err
}

// lockPasswd takes the locks of an /etc: the write lock of lckpwdf(3) on
// .pwd.lock, then shadow-utils' NAME.lock of each file. The first is taken on
// the open file description: it excludes processes that use POSIX locks, and
// the other instances of this one too.
func lockPasswd(ctx context.Context, root string, names []string) (func(), error) {
	path := filepath.Join(root, ".pwd.lock")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = waitFor(ctx, path, func() (bool, error) {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
		held := errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES)
		if held {
			err = nil
		}
		return held, err
	})
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	undo := []func(){func() { _ = f.Close() }}
	unlock := func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
	for _, name := range names {
		lock := filepath.Join(root, name+".lock")
		if err := waitFor(ctx, lock, func() (bool, error) { return linkLock(lock) }); err != nil {
			unlock()
			return nil, err
		}
		undo = append(undo, func() { _ = os.Remove(lock) })
	}
	return unlock, nil
}

// linkLock takes a lock as shadow-utils does: a file with our process number,
// linked to the lock's name. A lock whose process is gone is removed.
func linkLock(lock string) (held bool, err error) {
	pid := strconv.Itoa(os.Getpid())
	own := strings.TrimSuffix(lock, ".lock") + "." + pid
	if err := os.Remove(own); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	f, err := os.OpenFile(own, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	defer os.Remove(own)
	// With the NUL that shadow-utils writes and its readers expect.
	_, err = f.WriteString(pid + "\x00")
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	if err := os.Link(own, lock); !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	text, err := os.ReadFile(lock)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	holder, err := strconv.Atoi(strings.TrimRight(string(text), "\x00\n "))
	if err != nil || holder <= 0 {
		return false, fmt.Errorf("%s holds no process number", lock)
	}
	// A number of our own is a leftover too: .pwd.lock is ours alone.
	if holder != os.Getpid() && !errors.Is(syscall.Kill(holder, 0), syscall.ESRCH) {
		return true, nil
	}
	return true, ignoring(os.Remove(lock), fs.ErrNotExist)
}

// keepOwner gives the new file the owner and group of the old one.
func keepOwner(f *os.File, old fs.FileInfo) error {
	want, ok := old.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if have := info.Sys().(*syscall.Stat_t); have.Uid == want.Uid && have.Gid == want.Gid {
		return nil
	}
	return f.Chown(int(want.Uid), int(want.Gid))
}

// writable reports whether the folder lets us put a new file in path's place.
func writable(path string) bool {
	return unix.Access(filepath.Dir(path), unix.W_OK|unix.X_OK) == nil
}
