package operatorapi

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// A REST answer means what it says, and nothing in it acts on a terminal.
func TestRESTAnswersCanBeShown(t *testing.T) {
	for _, label := range []string{"Anna", "p\x7f\x1b[31m", "p\u202egpj.exe", "\u009b31m\u2028\ufeff", "\U000e0041\U0010ffff", "å\U0001f468\u200d\U0001f469", `\u202e "quoted"`, "\u00a0"} {
		want := &operatorv1.ListIdentitiesResponse{Identities: []*operatorv1.Identity{{Id: "id-1", Label: label}}}
		var streamed bytes.Buffer
		if err := restJSON().NewEncoder(&streamed).Encode(want); err != nil {
			t.Fatal(err)
		}
		doc, err := restJSON().Marshal(want)
		if err != nil || streamed.String() != string(doc)+"\n" {
			t.Fatalf("%q, and encoded %q, %v", doc, streamed.String(), err)
		}
		if strings.ContainsFunc(string(doc), func(r rune) bool { return !unicode.IsPrint(r) }) || !json.Valid(doc) {
			t.Errorf("%q is written %q", label, doc)
		}
		got := new(operatorv1.ListIdentitiesResponse)
		if err := protojson.Unmarshal(doc, got); err != nil || !proto.Equal(got, want) {
			t.Errorf("%q became %v, %v", label, got, err)
		}
	}
}
