package flatfile

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/reevehq/reeve/plugins/sdk"
)

// TestALockHasOneHolder: who does not get a lock waits for it and says so; it is
// free again with its holder's end. It needs no luck, as writers at once do.
func TestALockHasOneHolder(t *testing.T) {
	for name, lock := range map[string]func(ctx context.Context, dir string) (func(), error){
		"htpasswd": func(ctx context.Context, dir string) (func(), error) {
			return lockFile(ctx, filepath.Join(dir, "users.lock"))
		},
		"passwd": func(ctx context.Context, dir string) (func(), error) { return lockPasswd(ctx, dir, []string{"passwd"}) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			unlock, err := lock(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if second, err := lock(ctx, dir); !sdk.HasCode(err, sdk.CodeLocked) {
				t.Errorf("a second holder: %v", err)
				if err == nil {
					second()
				}
			}
			unlock()
			third, err := lock(t.Context(), dir)
			if err != nil {
				t.Fatalf("after the first had ended: %v", err)
			}
			third()
		})
	}
}
