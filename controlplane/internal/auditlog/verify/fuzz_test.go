package verify_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/auditlog/verify"
	"github.com/reevehq/reeve/pki/dsse"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

func goldenFile(f *testing.F, name string) []byte {
	f.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "test", "golden", "audit", name))
	if err != nil {
		f.Fatal(err)
	}
	return raw
}

// content is everything in an export that somebody said: not when it was made, not
// the order of batches of different chains, not how an envelope was spelt.
func content(export []byte) (string, bool) {
	var head string
	var entries, batches []string
	for r := bytes.NewReader(export); r.Len() > 0; {
		var frame auditv1.ExportFrame
		if protodelim.UnmarshalFrom(r, &frame) != nil {
			return "", false
		}
		switch {
		case frame.GetHead() != nil:
			h := frame.GetHead()
			head = h.GetTenant() + " " + h.GetTrustDomain() + " " + h.GetOrigin()
			var roots []string
			for _, env := range h.GetRootDocuments() {
				payload, err := dsse.UnverifiedPayload(env, dsse.Root)
				if err != nil {
					return "", false
				}
				roots = append(roots, string(payload))
			}
			head += strings.Join(slices.Compact(roots), " ")
		case frame.GetEntry() != nil:
			encoded, err := planv1.Encode(frame.GetEntry())
			if err != nil {
				return "", false
			}
			entries = append(entries, string(encoded))
		case frame.GetBatch() != nil:
			b := proto.CloneOf(frame.GetBatch())
			payload, err := dsse.UnverifiedPayload(b.GetHead(), dsse.ChainHead)
			if err != nil {
				return "", false
			}
			b.Head = payload
			encoded, err := planv1.Encode(b)
			if err != nil {
				return "", false
			}
			batches = append(batches, string(encoded))
		case frame.GetEnd() != nil:
			text, _, _ := strings.Cut(frame.GetEnd().GetCheckpoint(), "\n\n")
			head += text
		}
	}
	slices.Sort(batches)
	return head + strings.Join(entries, "|") + strings.Join(batches, "|"), true
}

// judge verifies an export that is not the golden one and holds the report to it.
func judge(t *testing.T, export []byte, saved, pin, want string) {
	report, err := verify.Verify(bytes.NewReader(export), saved, pin)
	if err != nil {
		t.Fatalf("an error for reading, and everything could be read: %v", err)
	}
	var text strings.Builder
	if err := report.Print(&text); err != nil {
		t.Fatal(err)
	}
	shown := text.String()
	if !utf8.ValidString(shown) || strings.ContainsFunc(shown, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		t.Fatalf("the report is not fit for a terminal: %q", shown)
	}
	if !report.Sound() {
		return
	}
	if got, ok := content(export); !ok || got != want {
		t.Fatalf("another content is sound:\n%s", shown)
	}
}

// FuzzVerify runs a script of damages, by frame and by octet, over the golden
// export: it is never sound unless it says the same.
func FuzzVerify(f *testing.F) {
	golden, saved := goldenFile(f, "export.bin"), string(goldenFile(f, "saved-checkpoint.txt"))
	pin := strings.TrimSpace(string(goldenFile(f, "root-sha256.txt")))
	want, ok := content(golden)
	if report, err := verify.Verify(bytes.NewReader(golden), saved, pin); !ok || err != nil || !report.Sound() {
		f.Fatalf("the golden export is not sound: %v, %+v", err, report.Findings)
	}
	var frames [][]byte
	for rest := golden; len(rest) > 0; {
		size, n := binary.Uvarint(rest)
		frames = append(frames, rest[n:n+int(size)])
		rest = rest[n+int(size):]
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		judge(t, join(damage(frames, script)), saved, pin, want)
	})
}

// FuzzVerifyFile takes any octets for an export.
func FuzzVerifyFile(f *testing.F) {
	pin := strings.TrimSpace(string(goldenFile(f, "root-sha256.txt")))
	golden := goldenFile(f, "export.bin")
	want, _ := content(golden)
	f.Fuzz(func(t *testing.T, export []byte) { judge(t, export, "", pin, want) })
}

func join(frames [][]byte) []byte {
	var out []byte
	for _, frame := range frames {
		out = append(binary.AppendUvarint(out, uint64(len(frame))), frame...)
	}
	return out
}

// damage reads five octets a step: what, which frame, where (two) and a value.
func damage(frames [][]byte, script []byte) [][]byte {
	out := make([][]byte, len(frames))
	for i := range frames {
		out[i] = bytes.Clone(frames[i])
	}
	for ; len(script) >= 5 && len(out) > 0; script = script[5:] {
		i := int(script[1]) % len(out)
		at, value := int(binary.BigEndian.Uint16(script[2:])), script[4]
		other := at % len(out)
		if len(out[i]) > 0 {
			at %= len(out[i])
		} else {
			at = 0
		}
		switch script[0] % 9 {
		case 0:
			out = slices.Delete(out, i, i+1)
		case 1:
			out = slices.Insert(out, other, bytes.Clone(out[i]))
		case 2:
			out[i], out[other] = out[other], out[i]
		case 3:
			if len(out[i]) > 0 {
				out[i][at] ^= cmp.Or(value, 1)
			}
		case 4:
			out[i] = slices.Insert(out[i], at, value)
		case 5:
			out[i] = out[i][:at]
		case 6:
			out = out[:i]
		case 7: // a field of any number, at the end of a message
			out[i] = append(out[i], value, 0)
		case 8: // the end of one frame on the beginning of another
			out[i] = append(out[i][:at:at], out[other][min(at, len(out[other])):]...)
		}
	}
	return out
}
