package slapd_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/reevehq/reeve/test/slapd"
)

const person = `dn: uid=anna,dc=example,dc=com
objectClass: inetOrgPerson
uid: anna
cn: Anna
sn: Berg
`

func TestServerKeepsDataOverKillAndRestart(t *testing.T) {
	s := slapd.Start(t, slapd.Options{LDIF: person, Overlays: []string{"memberof", "refint", "ppolicy", "syncprov"}, TLS: true})
	before, err := s.Dump()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(before, []byte("dn: uid=anna,dc=example,dc=com")) || !bytes.Contains(before, []byte("entryUUID:")) {
		t.Fatalf("dump lacks the entry or its operational attributes:\n%s", before)
	}
	s.Kill()
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	after, err := s.Dump()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Errorf("data changed:\n%s\nwas\n%s", after, before)
	}
}

func TestBadDataIsToldWithTheServersWords(t *testing.T) {
	_, err := slapd.New(t.TempDir(), slapd.Options{LDIF: "dn: uid=x,dc=example,dc=com\nobjectClass: noSuchClass\n"})
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("noSuchClass")) {
		t.Errorf("error does not name the fault: %v", err)
	}
}

func TestMissingBinaryNamesThePackages(t *testing.T) {
	if err := slapd.Find("slapd-that-is-not-there"); !errors.Is(err, slapd.ErrNotInstalled) || !bytes.Contains([]byte(err.Error()), []byte("apt-get install")) {
		t.Errorf("error does not say what to install: %v", err)
	}
}
