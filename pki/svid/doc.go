// Package svid owns where a party's own X.509-SVID and the roots it believes in
// come from, and keeps both fresh: Renewing asks an issuer of ours for a new
// certificate before the old one ends; WorkloadAPI listens to a SPIFFE Workload
// API. mtls builds TLS configurations on a Source and asks it anew for each
// connection, so a rotation needs no restart and disturbs no connection.
//
// The agent's session and the control plane's servers hold a Source each.
package svid
