package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/reevehq/reeve/pki/keys"
)

// space looks at the disk before a commit. When little is left it releases the
// reserve, so that receipts and obligations still find room; when there is
// enough again it takes the reserve back.
func (j *Journal) space() (low bool, err error) {
	free, err := j.o.Free(filepath.Dir(j.o.Path))
	if err != nil {
		return false, fmt.Errorf("look at free disk space: %w", err)
	}
	if free >= j.o.MinFree {
		if free >= 2*j.o.MinFree {
			if err := j.reserve(); err != nil {
				j.o.Log.Warn("cannot keep disk space in reserve", "path", j.o.ReservePath, "error", err)
			}
		}
		return false, nil
	}
	err = os.Remove(j.o.ReservePath)
	if err == nil {
		j.o.Log.Warn("disk nearly full, reserve released", "path", j.o.ReservePath, "free_bytes", free)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return true, fmt.Errorf("release reserved disk space: %w", err)
	}
	return true, nil
}

// reserve makes the reserve file if it is not there. Its blocks are written, not
// only announced: a sparse file reserves nothing.
func (j *Journal) reserve() error {
	if info, err := os.Stat(j.o.ReservePath); err == nil && info.Size() >= j.o.ReserveBytes {
		return nil
	}
	free, err := j.o.Free(filepath.Dir(j.o.Path))
	if err != nil {
		return fmt.Errorf("look at free disk space: %w", err)
	}
	if free < j.o.MinFree+uint64(j.o.ReserveBytes) {
		return nil
	}
	if err := keys.WriteFile(j.o.ReservePath, make([]byte, j.o.ReserveBytes), 0o600); err != nil {
		return errors.Join(fmt.Errorf("reserve disk space: %w", err), os.Remove(j.o.ReservePath))
	}
	return nil
}
