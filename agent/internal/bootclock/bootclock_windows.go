package bootclock

import (
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// Since is the time since the machine started, sleep included.
func Since() time.Duration { return windows.DurationSinceBoot() }

// ID names this start of the machine: Windows counts them.
func ID() (string, error) {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters`, registry.QUERY_VALUE)
	if err != nil {
		return "", fmt.Errorf("which start of the machine this is: %w", err)
	}
	defer k.Close()
	n, _, err := k.GetIntegerValue("BootId")
	if err != nil {
		return "", fmt.Errorf("which start of the machine this is: %w", err)
	}
	return strconv.FormatUint(n, 10), nil
}
