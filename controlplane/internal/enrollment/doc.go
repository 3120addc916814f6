// Package enrollment owns who is an agent: invitations, identities, keys with
// their begin and end, the renewal counter that shows up a clone, and the end of
// it all by revocation or offboarding. Every begin and end of a key is a leaf of
// the tenant's log in the transaction that makes it so; records are verified
// against that history and not against certificates that live for an hour.
//
// operatorapi hands in invitations and revocations, agentapi joins, renewals and
// hellos, intake forks. It hands acts to auditlog, certificates are made by
// pki/ca behind Issuer, and sessions that must end go to Sessions.
package enrollment
