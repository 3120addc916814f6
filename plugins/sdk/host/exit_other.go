//go:build !linux

package host

import "os"

// awaitExit returns when the process has ended. What it started is not ended
// with it here.
func awaitExit(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_, _ = p.Wait()
	}
}
