package cli

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/pki/root"
	"github.com/reevehq/reeve/pki/tlogproof"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// exportOf makes an export of a log with one record, its checkpoint and its pin.
func exportOf(t *testing.T, reason string) (export, checkpoint []byte, pin string) {
	t.Helper()
	const origin = "reeve.example/tenant/fabrikam"
	key := func(n byte) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
	}
	public := func(n byte) ed25519.PublicKey { return key(n).Public().(ed25519.PublicKey) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	rootKey, err := root.NewKey(public(1))
	must(err)
	planKey, err := root.NewKey(public(2))
	must(err)
	checkpointKey, err := root.NewCheckpointKey(origin, public(3))
	must(err)
	doc, err := root.Sign(root.Document{
		Format: root.Format, Version: 1, TrustDomain: "reeve.example", Expires: testNow.Add(24 * time.Hour), RootKeys: []root.Key{rootKey}, Threshold: 1,
		CARoots: newCA(t, "reeve.example").BundlePEM(), PlanKeys: []root.Key{planKey}, CheckpointKeys: []root.CheckpointKey{checkpointKey},
	}, key(1))
	must(err)
	pin, err = root.Pin(doc)
	must(err)

	salt := bytes.Repeat([]byte{7}, 16)
	body, err := planv1.Encode(&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "add tenant", Object: "fabrikam", Reason: reason}}})
	must(err)
	hash := sha256.Sum256(append(bytes.Clone(salt), body...))
	header, err := planv1.Encode(&auditv1.Header{
		Format: 1, Type: auditv1.Type_TYPE_TENANT_ADDED, At: timestamppb.New(testNow), Tenant: "fabrikam", Actor: "operator:kari", BodyHash: hash[:],
	})
	must(err)
	entry, err := planv1.Encode(&auditv1.Entry{Header: header})
	must(err)
	signer, err := tlogproof.NewSigner(origin, key(3))
	must(err)
	checkpoint, err = tlogproof.SignCheckpoint(tlogproof.Checkpoint{Origin: origin, Size: 1, Hash: tlog.RecordHash(entry)}, signer)
	must(err)

	var out bytes.Buffer
	for _, f := range []*auditv1.ExportFrame{
		{Frame: &auditv1.ExportFrame_Head{Head: &auditv1.ExportHead{
			Format: 1, TrustDomain: "reeve.example", Tenant: "fabrikam", Origin: origin, RootDocuments: [][]byte{doc}, At: timestamppb.New(testNow),
		}}},
		{Frame: &auditv1.ExportFrame_Entry{Entry: &auditv1.ExportEntry{Entry: entry, Salt: salt, Body: body}}},
		{Frame: &auditv1.ExportFrame_End{End: &auditv1.ExportEnd{Checkpoint: string(checkpoint), Entries: 1}}},
	} {
		raw, err := proto.Marshal(f)
		must(err)
		out.Write(binary.AppendUvarint(nil, uint64(len(raw))))
		out.Write(raw)
	}
	return out.Bytes(), checkpoint, pin
}

func TestAuditVerify(t *testing.T) {
	export, checkpoint, pin := exportOf(t, "")
	_, otherCheckpoint, _ := exportOf(t, "another history")
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sound := file("sound", export)
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"with pin and checkpoint", []string{"--export", sound, "--checkpoint", file("kept", checkpoint), "--root-sha256", pin}, ExitDone, "\nsound\n"},
		{"without a pin, which is said", []string{"--export", sound}, ExitDone, "vouches for it; compare with root_sha256 of agent.yaml:\n  " + pin},
		{"another root document", []string{"--export", sound, "--root-sha256", strings.Repeat("0", 64)}, ExitUnverified, "ROOT: "},
		{"another history", []string{"--export", sound, "--checkpoint", file("other", otherCheckpoint), "--root-sha256", pin}, ExitUnverified, "HISTORY: "},
		{"cut", []string{"--export", file("cut", export[:len(export)-20]), "--root-sha256", pin}, ExitUnverified, "EXPORT: "},
		{"one bit of a body", []string{"--export", file("bit", bytes.Replace(export, []byte("add tenant"), []byte("add tenanu"), 1)), "--root-sha256", pin}, ExitUnverified, "BODY: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, output := range []string{"text", "json"} {
				var out, errs stream
				// No server is there, and none is needed.
				args := append([]string{"--server", "unix:///nowhere", "-o", output, "audit", "verify"}, c.args...)
				code := Run(t.Context(), args, testEnv(strings.NewReader(""), &out, &errs, false))
				if code != c.code || errs.Len() > 0 {
					t.Errorf("-o %s: exit code %d, want %d\n%s\n%s", output, code, c.code, out.String(), errs.String())
				}
				if output == "text" && !strings.Contains(out.String(), c.want) {
					t.Errorf("%q is not in\n%s", c.want, out.String())
				}
				if output == "json" {
					var v verified
					if err := json.Unmarshal(out.Bytes(), &v); err != nil || v.Sound != (c.code == ExitDone) || v.Sound && (v.Entries != 1 || v.Checkpoint != string(checkpoint)) {
						t.Errorf("%v: %s", err, out.String())
					}
				}
			}
		})
	}
}
