// Package ldap is the connector for RFC 4511 directories that keep people as
// inetOrgPerson (RFC 2798), with posixAccount (RFC 2307) beside it or not, and
// groups as groupOfNames, groupOfUniqueNames or posixGroup: OpenLDAP, 389
// Directory Server and their like. It reads them as a source and writes them as
// a target.
//
// plugins/sdk hands it settings and operations and takes objects and results;
// it talks to one LDAP server and to nothing else: with go-ldap, but for Observe,
// Changes and Watch, whose answers internal/message reads off connections of their
// own. An object's
// anchor is its entryUUID (RFC 4530) or nsUniqueId. It keeps nothing between
// calls but connections and what the server said of itself.
package ldap
