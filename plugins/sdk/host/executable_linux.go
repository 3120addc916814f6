package host

import (
	"os"
	"strconv"
)

// handlePath names the opened file itself, whatever stands at its path by now.
// The child resolves it before its close-on-exec descriptors are closed.
func handlePath(file *os.File, _ string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(file.Fd()))
}
