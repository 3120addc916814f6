package agentapi

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// What runs aside ends as if it had run here: with its error, or its panic and
// where that was.
func TestAside(t *testing.T) {
	boom := errors.New("boom")
	if err := aside(func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("error is %v", err)
	}
	defer func() {
		if p := fmt.Sprint(recover()); !strings.HasPrefix(p, "here") || !strings.Contains(p, "aside_test.go") {
			t.Errorf("panic is %s", p)
		}
	}()
	_ = aside(func() error { panic("here") })
	t.Error("the panic is lost")
}
