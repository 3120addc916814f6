//go:build !linux

package host

import "os"

// handlePath is the path: only Linux executes handles here.
func handlePath(_ *os.File, path string) string { return path }
