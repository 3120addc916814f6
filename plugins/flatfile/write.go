package flatfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// errAfterRename marks a failure after which the new content may be in place.
var errAfterRename = errors.New("the new file is in place, its folder could not be synced")

func errorAfterRename(err error) bool { return errors.Is(err, errAfterRename) }

// replaceFile puts data in the file's place with its owner, group and mode:
// temporary file in the same folder, fsync, rename, fsync of the folder. The
// caller holds the lock, so the temporary name can be fixed and what a crash
// left of it is overwritten.
func replaceFile(old *content, data []byte) (err error) {
	dir := filepath.Dir(old.path)
	temp := filepath.Join(dir, "."+filepath.Base(old.path)+".reeve")
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// Exclusive, so that nobody else's file or link is written through.
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && !errorAfterRename(err) {
			_ = f.Close()
			_ = os.Remove(temp)
		}
	}()
	if err := keepOwner(f, old.info); err != nil {
		return err
	}
	if err := f.Chmod(old.info.Mode().Perm()); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(temp, old.path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errAfterRename, err)
	}
	return nil
}
