package bootclock

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Since is the time since the machine started (CLOCK_BOOTTIME).
func Since() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Every kernel since 2.6.39 has it; without it no time has passed, which
		// leaves the wall clock as the only witness.
		return 0
	}
	return time.Duration(ts.Nano())
}

// ID names this start of the machine.
func ID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("which start of the machine this is: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}
