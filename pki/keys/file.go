package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// WriteFile puts data at path so that after a crash, or loss of power, path is
// as before or complete: a temporary file beside it is written and synced, then
// renamed over path, then the directory is synced. When it returns nil the file
// is durable. Concurrent writers leave one of their contents.
func WriteFile(path string, data []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	// CreateTemp opens with 0600, so the content is never wider than mode allows.
	if _, err = f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err = f.Chmod(mode); err != nil {
		return fmt.Errorf("set permissions of %s: %w", path, err)
	}
	if err = f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	if err = f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", path, err)
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("put %s in place: %w", path, err)
	}
	return SyncDir(dir)
}

// SyncDir makes renames and creations inside dir durable. Windows has no such
// operation on directories and needs none.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// WritePrivate writes an Ed25519 or ECDSA P-256 key with mode 0600, durably. It
// returns an error wrapping ErrExists when path is there already.
func WritePrivate(path string, key crypto.Signer) error {
	text, err := MarshalPrivate(key)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%w: %s; move it away first if it is no longer needed", ErrExists, path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return WriteFile(path, text, 0o600)
}

// WritePublic writes the public key with mode 0644, durably, over what is there.
func WritePublic(path string, pub ed25519.PublicKey) error {
	text, err := MarshalPublic(pub)
	if err != nil {
		return err
	}
	return WriteFile(path, text, 0o644)
}

// LoadPrivate reads an Ed25519 key. Errors wrap ErrPermissions, ErrPEM,
// ErrKeyType or come from the file system, and name the file.
func LoadPrivate(path string) (ed25519.PrivateKey, error) {
	text, err := ReadPrivateFile(path)
	if err != nil {
		return nil, err
	}
	key, err := ParsePrivate(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// LoadTLSPrivate is LoadPrivate for ECDSA P-256 keys.
func LoadTLSPrivate(path string) (*ecdsa.PrivateKey, error) {
	text, err := ReadPrivateFile(path)
	if err != nil {
		return nil, err
	}
	key, err := ParseTLSPrivate(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// LoadPublic reads an Ed25519 public key.
func LoadPublic(path string) (ed25519.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pub, err := ParsePublic(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return pub, nil
}

// ReadPrivateFile reads a file that holds secrets, at most 64 KiB of a regular
// file, and refuses it with ErrPermissions when group or others may touch it. On
// Windows permissions are lists of another kind and are the installer's to set.
func ReadPrivateFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The opened file is asked, not the path, so that it cannot be swapped
	// between the check and the read.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if perm := info.Mode().Perm(); runtime.GOOS != "windows" && perm&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o; run chmod 600 on it", ErrPermissions, path, perm)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return text, nil
}
