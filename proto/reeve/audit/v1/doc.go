// Package auditv1 is what is remembered: records, the agent's chain over them,
// the tenant's log entries, and the export a client verifies offline.
//
// The agent's audit and the control plane's auditlog write it; intake and
// `reeve audit verify` read it.
package auditv1
