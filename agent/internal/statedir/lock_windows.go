package statedir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// Lock claims the folder for this process until release is called or the
// process ends; ErrLocked if another holds it.
func (d Dir) Lock() (release func(), err error) {
	f, err := os.OpenFile(d.at("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state folder: %w", err)
	}
	flags := uint32(windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY)
	if err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{}); err != nil {
		f.Close()
		if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
			return nil, fmt.Errorf("%s: %w", d.path, ErrLocked)
		}
		return nil, fmt.Errorf("lock state folder: %w", err)
	}
	return func() { f.Close() }, nil
}
