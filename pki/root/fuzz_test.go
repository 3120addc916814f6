package root

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/reevehq/reeve/pki/dsse"
)

// FuzzWalk: from a pinned first document nothing leads on but the document that
// its keys signed.
func FuzzWalk(f *testing.F) {
	first, err := os.ReadFile(filepath.Join("testdata", "root-1.dsse.json"))
	if err != nil {
		f.Fatal(err)
	}
	pinned, err := Pin(first)
	if err != nil {
		f.Fatal(err)
	}
	held, err := VerifyFirst(first, pinned)
	if err != nil {
		f.Fatal(err)
	}
	second, err := os.ReadFile(filepath.Join("testdata", "root-2.dsse.json"))
	if err != nil {
		f.Fatal(err)
	}
	next, err := Walk(held, [][]byte{second}, noon, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, env []byte) {
		got, err := Walk(held, [][]byte{env}, noon, nil)
		if err != nil {
			if !reflect.DeepEqual(got, Document{}) {
				t.Fatalf("refused and handed out all the same: %+v", got)
			}
		} else if !reflect.DeepEqual(got, held) && !reflect.DeepEqual(got, next) {
			t.Fatalf("nobody signed %+v", got)
		}
		if got, err := VerifyFirst(env, pinned); err == nil && !reflect.DeepEqual(got, held) {
			t.Fatalf("the pin is not of %+v", got)
		}
		doc, ids, err := Inspect(env)
		if err != nil {
			return
		}
		if doc.Validate() != nil || len(ids) == 0 {
			t.Fatalf("inspected %+v by %q", doc, ids)
		}
		payload, err := dsse.UnverifiedPayload(env, dsse.Root)
		if err != nil {
			t.Fatalf("inspected, and there is no payload: %v", err)
		}
		again, err := parse(payload)
		if err != nil || !reflect.DeepEqual(again, doc) {
			t.Fatalf("read twice, %+v and %+v, %v", doc, again, err)
		}
	})
}

// FuzzParseRequest: what is taken is a request and nothing beside it.
func FuzzParseRequest(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseRequest(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || !reflect.DeepEqual(r, Request{}) {
				t.Fatalf("ParseRequest(%q) = %+v, %v", text, r, err)
			}
			return
		}
		encoded, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseRequest(encoded)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%s reads back as %+v, %v", encoded, again, err)
		}
		// Every member was known: without their values nothing is left over.
		var members map[string]json.RawMessage
		if err := json.Unmarshal(text, &members); err != nil {
			t.Fatalf("%q is taken and is not JSON: %v", text, err)
		}
		for name := range members {
			if !strings.Contains("trust_domain ca_roots plan_keys checkpoint_keys", name) || name == "" {
				t.Fatalf("%q is taken with a member %q", text, name)
			}
		}
	})
}
