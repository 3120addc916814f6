package cli

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	"github.com/reevehq/reeve/pki/dsse"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/root"
)

func (a *app) rootDocument() *cobra.Command {
	return noun("root", "Root documents: what clients believe in, signed away from the control plane", a.rootInit(), a.rootSign(), a.rootShow())
}

// rootFile is a root document as JSON. Signatures are those of its own root keys.
type rootFile struct {
	File        string    `json:"file"`
	Version     uint64    `json:"version"`
	TrustDomain string    `json:"trustDomain"`
	Expires     time.Time `json:"expires"`
	// RootSHA256 is what clients pin, empty but for version 1.
	RootSHA256     string    `json:"rootSha256"`
	Threshold      int       `json:"threshold"`
	Complete       bool      `json:"complete"`
	RootKeys       []rootKey `json:"rootKeys"`
	PlanKeys       []string  `json:"planKeys"`
	CheckpointKeys []string  `json:"checkpointKeys"`
}

type rootKey struct {
	ID     string `json:"id"`
	Signed bool   `json:"signed"`
}

func describeRoot(file string, envelope []byte) (rootFile, error) {
	d, signed, err := root.Inspect(envelope)
	if err != nil {
		return rootFile{}, badFile(file, err, "name a root document, made with `reeve root init`")
	}
	out := rootFile{File: file, Version: d.Version, TrustDomain: d.TrustDomain, Expires: d.Expires, Threshold: d.Threshold, Complete: len(signed) >= d.Threshold}
	if d.Version == 1 {
		if out.RootSHA256, err = root.Pin(envelope); err != nil {
			return rootFile{}, err
		}
	}
	for _, k := range d.RootKeys {
		out.RootKeys = append(out.RootKeys, rootKey{k.ID, slices.Contains(signed, k.ID)})
	}
	for _, k := range d.PlanKeys {
		out.PlanKeys = append(out.PlanKeys, k.ID)
	}
	for _, k := range d.CheckpointKeys {
		out.CheckpointKeys = append(out.CheckpointKeys, k.ID)
	}
	return out, nil
}

func (a *app) showRoot(file string, envelope []byte) error {
	r, err := describeRoot(file, envelope)
	if err != nil {
		return err
	}
	return a.showData(r, func(p *printer) {
		p.line("%s  root document %s of %s", p.strong(file), number(r.Version), r.TrustDomain)
		p.facts("  ", "expires", r.Expires.Format(time.RFC3339), "root_sha256", r.RootSHA256,
			"plan keys", strings.Join(r.PlanKeys, ", "), "checkpoint keys", strings.Join(r.CheckpointKeys, ", "))
		var rows [][]string
		have := 0
		for _, k := range r.RootKeys {
			if k.Signed {
				have++
			}
			rows = append(rows, []string{k.ID, yesNo(k.Signed)})
		}
		p.table("  ", []string{"ROOT KEY", "SIGNED"}, rows)
		p.line("")
		if !r.Complete {
			p.line("%s of %s signatures: have the others added with `reeve root add-signature %s --key FILE`", number(have), number(r.Threshold), shellWord(file))
			return
		}
		p.line("Next: put it into the control plane's data folder as root/%s.json", number(r.Version))
		if r.RootSHA256 != "" {
			p.line("Clients pin root_sha256; tell it to them by another way than the join token.")
		}
	})
}

func (a *app) rootShow() *cobra.Command {
	return &cobra.Command{
		Use: "show FILE", Short: "Show a root document, and who has signed it", Args: takes,
		RunE: func(_ *cobra.Command, args []string) error {
			envelope, err := os.ReadFile(args[0])
			if err != nil {
				return badFile(args[0], err, "name a root document, made with `reeve root init`")
			}
			return a.showRoot(args[0], envelope)
		},
	}
}

func (a *app) rootSign() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "add-signature FILE", Short: "Add the signature of one more root key to a root document", Args: takes,
		RunE: func(_ *cobra.Command, args []string) error {
			if file == "" {
				return usageError{said: "--key is missing", remedy: "name the file of a root key, such as root-2.pem in the folder that `reeve root init` was given"}
			}
			envelope, err := os.ReadFile(args[0])
			if err != nil {
				return badFile(args[0], err, "name a root document, made with `reeve root init`")
			}
			key, err := keys.LoadPrivate(file)
			if err != nil {
				return badFile(file, err, "name the file of a root key")
			}
			d, signed, err := root.Inspect(envelope)
			if err != nil {
				return badFile(args[0], err, "name a root document, made with `reeve root init`")
			}
			id := idOf(key)
			switch {
			case !slices.ContainsFunc(d.RootKeys, func(k root.Key) bool { return k.ID == id }):
				return local(ExitRefused, "SIGNER", file, "", "key "+id+" is none of the root keys that the document names", "see them with `reeve root show "+args[0]+"`")
			case slices.Contains(signed, id):
				return local(ExitConflict, "EXISTS", file, "", "key "+id+" has signed already", "have another holder of a root key sign")
			}
			if envelope, err = dsse.AddSignatures(envelope, dsse.Root, key); err != nil {
				return err
			}
			if err := keys.WriteFile(args[0], envelope, 0o644); err != nil {
				return badFile(args[0], err, "name a file that can be written")
			}
			return a.showRoot(args[0], envelope)
		},
	}
	c.Flags().StringVar(&file, "key", "", "file of the root key")
	return c
}

func idOf(key ed25519.PrivateKey) string {
	pub, _ := key.Public().(ed25519.PublicKey) // crypto/ed25519 returns no other type
	return keys.ID(pub)
}

// ceremony is what `root init` was asked for.
type ceremony struct {
	request, previous, dir, out, expires string
	threshold, keys                      int
}

func (a *app) rootInit() *cobra.Command {
	var o ceremony
	c := &cobra.Command{
		Use: "init", Short: "Make and sign a root document from a control plane's request", Args: takes,
		Long: "Makes the first root document from what `reeve-controlplane root-request` wrote, with\n" +
			"new root keys in --key-dir: root-1.pem and so on, each for another holder. With\n" +
			"--previous it makes the version after that one, with the same root keys; those found\n" +
			"in --key-dir sign, the other holders add theirs with `reeve root add-signature`.\n\n" +
			"Run it on a machine that is not the control plane's, and keep the keys off it: the\n" +
			"control plane refuses to run where it can read a root key.",
		Example: "  reeve root init --request request.json --key-dir root-keys --keys 3 --threshold 2 --out 1.json",
		RunE: func(_ *cobra.Command, _ []string) error {
			for _, f := range []struct{ flag, value string }{{"--request", o.request}, {"--key-dir", o.dir}, {"--out", o.out}} {
				if f.value == "" {
					return usageError{said: f.flag + " is missing"}
				}
			}
			envelope, err := o.document(a.env.Now())
			if err != nil {
				return err
			}
			return a.showRoot(o.out, envelope)
		},
	}
	f := c.Flags()
	f.StringVar(&o.request, "request", "", "what `reeve-controlplane root-request` wrote")
	f.StringVar(&o.previous, "previous", "", "the newest root document so far; none makes version 1")
	f.StringVar(&o.dir, "key-dir", "", "folder of the root keys")
	f.StringVar(&o.out, "out", "", "file for the document; it must not exist")
	f.IntVar(&o.threshold, "threshold", 1, "how many root keys must sign")
	f.IntVar(&o.keys, "keys", 1, "how many root keys to make")
	f.StringVar(&o.expires, "expires", "365d", "how long the document lasts")
	return c
}

// document makes, signs and writes the document. Nothing is written before all
// that can be refused was looked at.
func (o ceremony) document(now time.Time) ([]byte, error) {
	lasts, err := policy.ParseDuration(o.expires)
	if err != nil || lasts <= 0 {
		return nil, usageError{said: "--expires " + o.expires + " is no length of time", remedy: "give one such as 365d"}
	}
	if _, err := os.Stat(o.out); !errors.Is(err, fs.ErrNotExist) {
		return nil, local(ExitConflict, "EXISTS", o.out, "", "the file exists", "name another with --out: a root document is never overwritten")
	}
	text, err := os.ReadFile(o.request)
	if err != nil {
		return nil, badFile(o.request, err, "write one with `reeve-controlplane root-request --data DIR > FILE`")
	}
	r, err := root.ParseRequest(text)
	if err != nil {
		return nil, badFile(o.request, err, "write one with `reeve-controlplane root-request --data DIR > FILE`")
	}
	d := root.Document{
		Format: root.Format, Version: 1, TrustDomain: r.TrustDomain, Expires: now.Add(lasts).UTC().Truncate(time.Second),
		Threshold: o.threshold, CARoots: r.CARoots, PlanKeys: r.PlanKeys, CheckpointKeys: r.CheckpointKeys,
	}
	var signers []ed25519.PrivateKey
	if o.previous == "" {
		signers, err = o.newKeys(&d)
	} else {
		signers, err = o.keysOf(&d)
	}
	if err != nil {
		return nil, err
	}
	list := make([]crypto.Signer, len(signers))
	for i, key := range signers {
		list[i] = key
	}
	envelope, err := root.Sign(d, list...)
	if err != nil {
		return nil, local(ExitUsage, "INVALID", o.request, "", err.Error(), "correct the request or the flags; nothing was written")
	}
	if o.previous == "" {
		if err := o.keep(signers); err != nil {
			return nil, err
		}
	}
	if err := keys.WriteFile(o.out, envelope, 0o644); err != nil {
		return nil, badFile(o.out, err, "name a file that can be written with --out")
	}
	return envelope, nil
}

func (o ceremony) path(i int) string { return filepath.Join(o.dir, "root-"+strconv.Itoa(i+1)+".pem") }

// newKeys makes the root keys in memory and names them.
func (o ceremony) newKeys(d *root.Document) ([]ed25519.PrivateKey, error) {
	if o.keys < 1 || o.threshold < 1 || o.threshold > o.keys {
		return nil, usageError{said: fmt.Sprintf("--threshold %d of --keys %d cannot be met", o.threshold, o.keys), remedy: "give a threshold of at least 1 and at most as many as there are keys"}
	}
	if found, err := filepath.Glob(filepath.Join(o.dir, "*.pem")); err != nil || len(found) > 0 {
		return nil, local(ExitConflict, "EXISTS", o.dir, "", "the folder holds keys already", "name an empty one with --key-dir, or the document they signed with --previous")
	}
	var signers []ed25519.PrivateKey
	for range o.keys {
		key, err := keys.Generate(rand.Reader)
		if err != nil {
			return nil, err
		}
		named, err := root.NewKey(key.Public().(ed25519.PublicKey))
		if err != nil {
			return nil, err
		}
		signers, d.RootKeys = append(signers, key), append(d.RootKeys, named)
	}
	return signers, nil
}

// keep writes the new keys, each for its owner alone.
func (o ceremony) keep(signers []ed25519.PrivateKey) error {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return badFile(o.dir, err, "name a folder that can be written with --key-dir")
	}
	for i, key := range signers {
		if err := keys.WritePrivate(o.path(i), key); err != nil {
			return badFile(o.path(i), err, "name a folder that can be written with --key-dir")
		}
	}
	return nil
}

// keysOf follows the previous document and finds those of its keys that are here.
func (o ceremony) keysOf(d *root.Document) ([]ed25519.PrivateKey, error) {
	text, err := os.ReadFile(o.previous)
	if err != nil {
		return nil, badFile(o.previous, err, "name the newest root document with --previous")
	}
	before, _, err := root.Inspect(text)
	if err != nil {
		return nil, badFile(o.previous, err, "name the newest root document with --previous")
	}
	if before.TrustDomain != d.TrustDomain {
		return nil, local(ExitRefused, "TRUST_DOMAIN", o.previous, "", "it is for "+before.TrustDomain+" and the request for "+d.TrustDomain, "a trust domain never changes: name the right request or document")
	}
	d.Version, d.RootKeys, d.Threshold = before.Version+1, before.RootKeys, before.Threshold
	found, err := filepath.Glob(filepath.Join(o.dir, "*.pem"))
	if err != nil {
		return nil, err
	}
	var signers []ed25519.PrivateKey
	for _, path := range found {
		key, err := keys.LoadPrivate(path)
		if err != nil {
			return nil, badFile(path, err, "leave only root keys in --key-dir")
		}
		if slices.ContainsFunc(d.RootKeys, func(k root.Key) bool { return k.ID == idOf(key) }) {
			signers = append(signers, key)
		}
	}
	if len(signers) == 0 {
		return nil, local(ExitRefused, "SIGNER", o.dir, "", "it holds none of the root keys that "+o.previous+" names", "see them with `reeve root show "+o.previous+"`")
	}
	return signers, nil
}
