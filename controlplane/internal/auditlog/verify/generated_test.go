package verify_test

import (
	"bytes"
	"context"
	"flag"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

var every = flag.Bool("every", false, "try every mutator on every generated log, and not a part of them on each")

func sizeOf(checkpoint string) (int, bool) {
	lines := strings.SplitN(checkpoint, "\n", 3)
	if len(lines) < 3 {
		return 0, false
	}
	size, err := strconv.Atoi(lines[1])
	return size, err == nil
}

// A thousand generated logs verify, erased records and all; whatever is done to an
// export of one is found offline by whoever saved its newest checkpoint, be it done
// by somebody on the way or by the holder of the log's key.
func TestMutatorsOnGeneratedLogs(t *testing.T) {
	e := intaketest.New(t)
	other := parse(t, generate(t, e, 0, nil).export)
	list, raw := mutators(), byteMutators()
	if len(list) < 50 {
		t.Fatalf("%d mutators", len(list))
	}
	tried := map[string]int{}
	const logs = 1000
	for seed := uint64(1); seed <= logs; seed++ {
		s := generate(t, e, seed, other)
		s.sound()
		part := 16
		if *every {
			part = len(list)
		}
		for n := range part {
			m := list[(int(seed)*part+n)%len(list)]
			f := parse(t, s.export)
			if !m.do(s, f) || bytes.Equal(f.bytes(), s.export) {
				continue
			}
			if m.signed {
				f.reseal(s.LogKey)
			}
			tried[m.name]++
			if !s.found(f.bytes()) {
				t.Errorf("log %d: not found: %s", seed, m.name)
			}
		}
		for n := range 2 {
			m := raw[(int(seed)*2+n)%len(raw)]
			changed := m.do(s, slices.Clone(s.export))
			if bytes.Equal(changed, s.export) || onlyTheMoment(changed, s.export) {
				continue
			}
			tried[m.name]++
			if !s.found(changed) {
				t.Errorf("log %d: not found: %s", seed, m.name)
			}
		}
	}
	least := logs
	for _, m := range list {
		least = min(least, tried[m.name])
		if tried[m.name] < 20 {
			t.Errorf("%s fitted %d logs only", m.name, tried[m.name])
		}
	}
	total := 0
	for _, n := range tried {
		total += n
	}
	t.Logf("%d ways to tamper, %d attempts on %d logs, each way at least %d times", len(list)+len(raw), total, logs, least)
}

// exportFound reports that the log cannot be exported, or that its export is not
// sound to whoever saved the newest checkpoint before.
func (s *scene) exportFound() bool {
	var out bytes.Buffer
	return s.Log.Export(context.Background(), s.tenant, &out) != nil || s.found(out.Bytes())
}

// onlyTheMoment reports that the exports differ in when they say they were made,
// which is information and vouched for by nobody.
func onlyTheMoment(a, b []byte) bool {
	var x, y auditv1.ExportFrame
	ra, rb := bytes.NewReader(a), bytes.NewReader(b)
	if protodelim.UnmarshalFrom(ra, &x) != nil || protodelim.UnmarshalFrom(rb, &y) != nil || x.GetHead() == nil {
		return false
	}
	return x.GetHead().GetAt().String() != y.GetHead().GetAt().String() && bytes.Equal(a[len(a)-ra.Len():], b[len(b)-rb.Len():])
}

// What is done to the tables of a live log is found in its next export, or there
// is none.
func TestMutatorsOnLiveLogs(t *testing.T) {
	e := intaketest.New(t)
	other := generate(t, e, 0, nil)
	parsed := parse(t, other.export)
	for i, m := range []struct{ name, statement string }{
		{"a part's octets", `UPDATE log_part SET entries = zeroblob(length(entries)) WHERE tenant = $1 AND first = (SELECT max(first) FROM log_part WHERE tenant = $1)`},
		{"an early part's octets", `UPDATE log_part SET entries = CAST(substr(entries, 1, length(entries) - 1) || x'00' AS BLOB) WHERE tenant = $1 AND first = (SELECT min(first) FROM log_part WHERE tenant = $1)`},
		{"parts exchanged", `UPDATE log_part SET entries = (SELECT entries FROM log_part p WHERE p.tenant = $1 AND p.count = log_part.count AND p.first <> log_part.first LIMIT 1)
			WHERE tenant = $1 AND first IN (SELECT first FROM log_part WHERE tenant = $1 AND count = 1 ORDER BY first LIMIT 1)`},
		{"the first part gone", `DELETE FROM log_part WHERE tenant = $1 AND first = 0`},
		{"the last part gone", `DELETE FROM log_part WHERE tenant = $1 AND first = (SELECT max(first) FROM log_part WHERE tenant = $1)`},
		{"a body", `UPDATE log_body SET body = CAST(body || x'00' AS BLOB) WHERE tenant = $1 AND entry = (SELECT max(entry) FROM log_body WHERE tenant = $1)`},
		{"a salt", `UPDATE log_body SET salt = zeroblob(16) WHERE tenant = $1 AND entry = (SELECT max(entry) FROM log_body WHERE tenant = $1 AND salt IS NOT NULL)`},
		{"a body erased by hand", `UPDATE log_body SET salt = NULL, body = NULL WHERE tenant = $1 AND entry = (SELECT max(entry) FROM log_body WHERE tenant = $1)`},
		{"a body's row gone", `DELETE FROM log_body WHERE tenant = $1 AND entry = (SELECT max(entry) FROM log_body WHERE tenant = $1)`},
		{"another tenant's bodies", `UPDATE log_body SET salt = (SELECT o.salt FROM log_body o WHERE o.tenant = 'client0' AND o.entry = log_body.entry),
			body = (SELECT o.body FROM log_body o WHERE o.tenant = 'client0' AND o.entry = log_body.entry) WHERE tenant = $1`},
		{"a batch's octets", `UPDATE log_batch SET batch = zeroblob(length(batch)) WHERE tenant = $1 AND first = (SELECT max(first) FROM log_batch WHERE tenant = $1)`},
		{"a batch gone", `DELETE FROM log_batch WHERE tenant = $1 AND first = (SELECT max(first) FROM log_batch WHERE tenant = $1)`},
		{"another tenant's batch", `UPDATE log_batch SET batch = (SELECT batch FROM log_batch WHERE tenant = 'client0' ORDER BY first LIMIT 1)
			WHERE tenant = $1 AND first = (SELECT min(first) FROM log_batch WHERE tenant = $1)`},
		{"a tile", `UPDATE log_tile SET hashes = zeroblob(length(hashes)) WHERE tenant = $1`},
		{"a tile gone", `DELETE FROM log_tile WHERE tenant = $1`},
		{"another tenant's tile", `UPDATE log_tile SET hashes = CAST(substr((SELECT hashes FROM log_tile WHERE tenant = 'client0' AND level = 0 AND n = 0) || zeroblob(8192), 1, length(hashes)) AS BLOB) WHERE tenant = $1`},
		{"the size put back", `UPDATE log_head SET size = size - 2 WHERE tenant = $1`},
		{"the size put forward", `UPDATE log_head SET size = size + 1 WHERE tenant = $1`},
		{"the checkpoint", `UPDATE log_head SET checkpoint = (SELECT checkpoint FROM log_head WHERE tenant = 'client0'), sealed = size WHERE tenant = $1`},
		{"rolled back", `DELETE FROM log_part WHERE tenant = $1 AND first > 3`},
	} {
		t.Run(m.name, func(t *testing.T) {
			s := generate(t, e, uint64(1000+i), parsed)
			s.sound()
			s.Do(func(x tx.Tx) error {
				_, err := x.Exec(m.statement, s.tenant)
				return err
			})
			// What was done to tiles, of which no export is made, shows as the log
			// grows: it must not, or else be found.
			if s.exportFound() {
				return
			}
			if err := s.DB.Do(context.Background(), func(x tx.Tx) error {
				_, err := s.Log.AppendAct(x, s.tenant, &auditv1.Header{Type: auditv1.Type_TYPE_PLAN_MADE, Actor: "operator:kari"}, intaketest.Started(1))
				return err
			}); err == nil && !s.exportFound() {
				t.Error("not found")
			}
		})
	}
	// The neighbour has noticed nothing.
	other.export = e.Export(other.tenant)
	other.sound()
}
