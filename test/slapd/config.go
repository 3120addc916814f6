package slapd

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// config returns cn=config as LDIF (slapd-config(5)).
func (s *Server) config(o Options) string {
	var b strings.Builder
	b.WriteString("dn: cn=config\nobjectClass: olcGlobal\ncn: config\n")
	if o.TLS {
		fmt.Fprintf(&b, "olcTLSCACertificateFile: %s\nolcTLSCertificateFile: %s\nolcTLSCertificateKeyFile: %s\n",
			s.CAFile, filepath.Join(s.dir, "server.pem"), filepath.Join(s.dir, "server.key"))
	}
	b.WriteString("\ndn: cn=module,cn=config\nobjectClass: olcModuleList\ncn: module\nolcModulePath: /usr/lib/ldap\nolcModuleLoad: back_mdb\n")
	for _, overlay := range o.Overlays {
		fmt.Fprintf(&b, "olcModuleLoad: %s\n", overlay)
	}
	b.WriteString("\ndn: cn=schema,cn=config\nobjectClass: olcSchemaConfig\ncn: schema\n\n")
	for _, name := range []string{"core", "cosine", "nis", "inetorgperson"} {
		fmt.Fprintf(&b, "include: file:///etc/ldap/schema/%s.ldif\n\n", name)
	}
	for _, file := range o.Schema {
		fmt.Fprintf(&b, "include: file://%s\n\n", file)
	}
	b.WriteString("dn: olcDatabase={-1}frontend,cn=config\nobjectClass: olcDatabaseConfig\nobjectClass: olcFrontendConfig\nolcDatabase: {-1}frontend\n\n")
	b.WriteString("dn: olcDatabase={0}config,cn=config\nobjectClass: olcDatabaseConfig\nolcDatabase: {0}config\nolcAccess: to * by * none\n\n")
	fmt.Fprintf(&b, "dn: olcDatabase={1}mdb,cn=config\nobjectClass: olcDatabaseConfig\nobjectClass: olcMdbConfig\nolcDatabase: {1}mdb\n"+
		"olcDbDirectory: %s\nolcSuffix: %s\nolcRootDN: %s\nolcRootPW: %s\nolcDbMaxSize: 1073741824\nolcDbNoSync: %s\n"+
		"olcDbIndex: objectClass eq\nolcDbIndex: entryUUID eq\nolcDbIndex: entryCSN eq\nolcDbIndex: uid eq\nolcDbIndex: member eq\n",
		filepath.Join(s.dir, "data"), s.Suffix, s.RootDN, s.RootPassword, strings.ToUpper(strconv.FormatBool(!o.Durable)))
	for _, line := range o.Database {
		b.WriteString(line + "\n")
	}
	for i, rule := range o.ACL {
		fmt.Fprintf(&b, "olcAccess: {%d}%s\n", i, rule)
	}
	b.WriteString("\n")
	for i, overlay := range o.Overlays {
		fmt.Fprintf(&b, "dn: olcOverlay={%d}%s,olcDatabase={1}mdb,cn=config\nobjectClass: olcOverlayConfig\nolcOverlay: {%d}%s\n%s\n",
			i, overlay, i, overlay, s.overlaySettings(overlay, o))
	}
	return b.String()
}

func (s *Server) overlaySettings(overlay string, o Options) string {
	switch overlay {
	case "memberof":
		return "objectClass: olcMemberOf\nolcMemberOfRefInt: FALSE\n"
	case "refint":
		return "objectClass: olcRefintConfig\nolcRefintAttribute: member uniqueMember manager owner seeAlso secretary\n"
	case "ppolicy":
		return "objectClass: olcPPolicyConfig\nolcPPolicyDefault: cn=default,ou=policies," + s.Suffix + "\n"
	case "auditlog":
		return "objectClass: olcAuditLogConfig\nolcAuditlogFile: " + s.AuditLog() + "\n"
	case "syncprov":
		if o.SessionLog > 0 {
			return fmt.Sprintf("objectClass: olcSyncProvConfig\nolcSpSessionlog: %d\n", o.SessionLog)
		}
		return "objectClass: olcSyncProvConfig\n"
	default:
		return ""
	}
}

// data returns the LDIF to load: the suffix entry first if it is missing and,
// for ppolicy, a default policy that makes locks count.
func (s *Server) data(o Options) string {
	has := func(dn string) bool {
		return strings.Contains("\n"+strings.ToLower(o.LDIF), "\ndn: "+strings.ToLower(dn)+"\n")
	}
	var b strings.Builder
	if !has(s.Suffix) {
		first, _, _ := strings.Cut(s.Suffix, ",")
		typ, value, _ := strings.Cut(first, "=")
		switch strings.ToLower(typ) {
		case "dc":
			fmt.Fprintf(&b, "dn: %s\nobjectClass: dcObject\nobjectClass: organization\ndc: %s\no: %s\n\n", s.Suffix, value, value)
		case "ou":
			fmt.Fprintf(&b, "dn: %s\nobjectClass: organizationalUnit\nou: %s\n\n", s.Suffix, value)
		default:
			fmt.Fprintf(&b, "dn: %s\nobjectClass: organization\no: %s\n\n", s.Suffix, value)
		}
	}
	b.WriteString(strings.TrimSpace(o.LDIF) + "\n\n")
	for _, overlay := range o.Overlays {
		if policies := "ou=policies," + s.Suffix; overlay == "ppolicy" && !has("cn=default,"+policies) {
			if !has(policies) {
				fmt.Fprintf(&b, "dn: %s\nobjectClass: organizationalUnit\nou: policies\n\n", policies)
			}
			fmt.Fprintf(&b, "dn: cn=default,%s\nobjectClass: device\nobjectClass: pwdPolicy\ncn: default\npwdAttribute: userPassword\npwdLockout: TRUE\npwdMinLength: 4\npwdCheckQuality: 1\n\n", policies)
		}
	}
	return b.String()
}
