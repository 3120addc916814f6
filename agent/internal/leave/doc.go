// Package leave takes back what plans changed for the MSP's own sake, from the
// receipts that the agent kept and with no control plane at all. A value is put
// back only where it still is what Reeve last wrote; what others changed
// meanwhile, what the client caused and what cannot be undone is listed.
//
// agent hands it the kept receipts and the connectors; it acts through them
// directly, since guardrails bind the MSP and leaving is the client's own act.
// Every step reads before and after, so that leaving can be run again.
package leave
