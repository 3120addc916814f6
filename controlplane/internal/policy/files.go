package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// MaxBundleBytes is the size of all files of a bundle together.
const MaxBundleBytes = 1 << 20

// File is one YAML file of a bundle, as its author wrote it.
type File struct {
	Path string
	Data []byte
}

// ReadFiles reads a bundle: the file name in fsys or, when name is a directory,
// the .yaml and .yml files directly in it. Directories below it are bundles of
// their own and are left out. Files come sorted by path.
func ReadFiles(fsys fs.FS, name string) ([]File, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("policy bundle %s cannot be read: %w", printable(name), err)
	}
	names := []string{name}
	if info.IsDir() {
		entries, err := fs.ReadDir(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("policy bundle %s cannot be read: %w", printable(name), err)
		}
		names = names[:0]
		for _, e := range entries {
			if ext := path.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml") {
				names = append(names, path.Join(name, e.Name()))
			}
		}
	}
	if len(names) == 0 {
		return nil, Problems{{At: Position{File: name}, Text: "the directory has no .yaml file", Remedy: "name a policy file or a directory that holds one"}}
	}
	var files []File
	var total int64
	for _, n := range names {
		info, err := fs.Stat(fsys, n)
		if err != nil {
			return nil, fmt.Errorf("policy file %s cannot be read: %w", printable(n), err)
		}
		// The size is asked first, so that a huge file is refused unread.
		if total += info.Size(); total > MaxBundleBytes {
			return nil, Problems{tooLarge(n)}
		}
		data, err := fs.ReadFile(fsys, n)
		if err != nil {
			return nil, fmt.Errorf("policy file %s cannot be read: %w", printable(n), err)
		}
		files = append(files, File{Path: n, Data: data})
	}
	return files, nil
}

func tooLarge(file string) Problem {
	return Problem{
		At:     Position{File: file},
		Text:   "the bundle is larger than 1 MiB",
		Remedy: "split it into bundles, or move lists of people into a source",
	}
}

// digestFiles is SHA-256 over the files sorted by path, each as its path and
// its bytes with their lengths, so that no file can imitate another's boundary.
func digestFiles(files []File) []byte {
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	h := sha256.New()
	writeFramed(h, []byte("reeve policy bundle v1"))
	for _, f := range sorted {
		// The folder a bundle lies in is not part of it.
		writeFramed(h, []byte(path.Base(f.Path)))
		writeFramed(h, f.Data)
	}
	return h.Sum(nil)
}

func writeFramed(h hash.Hash, data []byte) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(data)))
	h.Write(length[:])
	h.Write(data)
}
