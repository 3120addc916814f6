package host

import (
	"syscall"
	"unsafe"
)

const (
	waitPID    = 1          // P_PID
	waitExited = 0x4        // WEXITED
	waitNoReap = 0x01000000 // WNOWAIT
)

// awaitExit returns when the process has ended and leaves it unreaped, so that
// its number cannot be another's yet.
func awaitExit(pid int) {
	// siginfo_t has 128 bytes on every Linux architecture.
	var info [128]byte
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, waitPID, uintptr(pid), uintptr(unsafe.Pointer(&info)), waitExited|waitNoReap, 0, 0)
		if errno != syscall.EINTR {
			return
		}
	}
}
