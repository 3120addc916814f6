//go:build !linux

package flatfile

import (
	"context"
	"io/fs"
	"os"

	"github.com/reevehq/reeve/plugins/sdk"
)

func noLocks(path string) error {
	return sdk.NewProblem(sdk.CodeUnsupported, path, "take the lock", "run the agent on Linux for htpasswd and passwd targets; csv sources work here")
}

func lockFile(_ context.Context, path string) (func(), error) { return nil, noLocks(path) }

func lockPasswd(_ context.Context, root string, _ []string) (func(), error) {
	return nil, noLocks(root)
}

func keepOwner(*os.File, fs.FileInfo) error { return nil }

func writable(string) bool { return false }
