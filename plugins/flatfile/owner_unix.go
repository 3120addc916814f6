//go:build unix

package flatfile

import (
	"errors"
	"io/fs"
	"strconv"
	"syscall"
)

// owner returns the file's owner as uid, for the fingerprint.
func owner(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return strconv.FormatUint(uint64(st.Uid), 10)
	}
	return "unknown"
}

func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
