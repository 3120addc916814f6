package bootclock

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Since is the time since the machine started; macOS counts sleep in
// CLOCK_MONOTONIC.
func Since() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// ID names this start of the machine.
func ID() (string, error) {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return "", fmt.Errorf("which start of the machine this is: %w", err)
	}
	return id, nil
}
