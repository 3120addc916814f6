//go:build unix

package statedir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Lock claims the folder for this process until release is called or the
// process ends; ErrLocked if another holds it.
func (d Dir) Lock() (release func(), err error) {
	f, err := os.OpenFile(d.at("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", d.path, ErrLocked)
		}
		return nil, fmt.Errorf("lock state folder: %w", err)
	}
	return func() { f.Close() }, nil
}
