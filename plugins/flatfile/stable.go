package flatfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/reevehq/reeve/plugins/sdk"
)

// maxFile bounds what is read into memory.
const maxFile = 256 << 20

// content is one file as it was at one moment.
type content struct {
	path string
	info fs.FileInfo
	data []byte
}

// same reports whether the file at the path still is the one that was read:
// inode, size and modification time.
func (c *content) same() bool {
	now, err := os.Stat(c.path)
	return err == nil && os.SameFile(now, c.info) && now.Size() == c.info.Size() && now.ModTime().Equal(c.info.ModTime())
}

// readStable reads the files as they stood together: if one changes while they
// are read, all are read again, a few times.
func readStable(ctx context.Context, alias string, paths []string) ([]*content, error) {
	for try := range 5 {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Duration(try) * 100 * time.Millisecond):
			}
		}
		files := make([]*content, len(paths))
		for i, path := range paths {
			c, err := readFile(path)
			if err != nil {
				return nil, fileProblem(alias, path, "read the file", err)
			}
			files[i] = c
		}
		steady := true
		for _, c := range files {
			steady = steady && c.same() && int64(len(c.data)) == c.info.Size()
		}
		if steady {
			return files, nil
		}
	}
	return nil, sdk.NewProblem(sdk.CodeChanging, alias+": "+paths[0], "read the file",
		"let the program that writes it put a finished file in place by rename; it is read again later").
		WithSaid("the file changed while it was read")
}

func readFile(path string) (*content, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	return &content{path: path, info: info, data: data}, err
}

// fileProblem says what stood in the way of a file.
func fileProblem(alias, path, tried string, err error) *sdk.Problem {
	var p *sdk.Problem
	if errors.As(err, &p) {
		return p
	}
	code, remedy := sdk.CodeUnreachable, "see that the file is there and whole"
	switch {
	case errors.Is(err, fs.ErrPermission):
		code, remedy = sdk.CodeNotAllowed, "give the connector's user the right to it"
	case errors.Is(err, fs.ErrNotExist):
		remedy = "create the file, or correct the path in agent.yaml"
	case isDiskFull(err):
		code, remedy = sdk.CodeDiskFull, "make space on the file system, then run it again"
	}
	return sdk.NewProblem(code, alias+": "+path, tried, remedy).WithCause(err)
}

// resolve checks that path is absolute and names what a rename would replace,
// so that a symbolic link stays one.
func resolve(s sdk.Settings, setting, path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", s.Problem(setting, "is not an absolute path", "give the absolute path of the file")
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fileProblem(s.Alias, path, "find the file", err)
	}
	return real, nil
}
