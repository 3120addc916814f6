//go:build !unix

package flatfile

import "io/fs"

// owner is not told by this system's file information.
func owner(fs.FileInfo) string { return "unknown" }

func isDiskFull(error) bool { return false }
