package load

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/reevehq/reeve/test/rig"
	"github.com/reevehq/reeve/test/slapd"
)

var people = flag.Int("people", 60, "people of a fresh client")

const suffix = "dc=fabrikam,dc=example"

// TestFreshClient onboards a client of whom nothing is known yet: from the tenant's
// name to everybody able to sign in at two targets, an htpasswd file and an LDAP
// directory.
func TestFreshClient(t *testing.T) {
	server := slapd.Start(t, slapd.Options{Suffix: suffix, Overlays: []string{"ppolicy"}, LDIF: fmt.Sprintf(`dn: %[1]s
objectClass: organization
objectClass: dcObject
dc: fabrikam
o: Fabrikam

dn: ou=people,%[1]s
objectClass: organizationalUnit
ou: people

dn: uid=clerk,ou=people,%[1]s
objectClass: inetOrgPerson
uid: clerk
cn: Old Clerk
sn: Clerk

dn: ou=groups,%[1]s
objectClass: organizationalUnit
ou: groups

dn: cn=staff,ou=groups,%[1]s
objectClass: groupOfNames
cn: staff
member: uid=clerk,ou=people,%[1]s
`, suffix)})
	secret := filepath.Join(t.TempDir(), "secret")
	check(t, os.WriteFile(secret, []byte(server.RootPassword), 0o600))
	e := rig.NewEstate(*people)
	e.Directory = &rig.Directory{URL: server.URL, BindDN: server.RootDN, SecretFile: secret, Suffix: suffix}
	began := time.Now()
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	joined := time.Since(began)
	p := r.Plan()
	planned := time.Since(began)
	r.Approve(p)
	r.Applied(r.Ended(p.GetId()))
	ended := time.Since(began)
	r.Provisioned(e.People())
	t.Logf("%d people, %d changes: joined, observed and bound after %.1f s, planned after %.1f s, carried out after %.1f s: %.0f changes/s",
		*people, p.GetState().GetTotal(), joined.Seconds(), planned.Seconds(), ended.Seconds(), float64(p.GetState().GetTotal())/(ended-planned).Seconds())
}
