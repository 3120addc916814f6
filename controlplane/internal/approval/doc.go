// Package approval decides whether a plan may be carried out: by digest, by
// somebody who did not make it, after it was rehearsed and every agent's
// guardrails were asked.
//
// Planning hands it plans, signing and dispatch take approved ones over. The
// approval, the operator's record and its place in the log commit together.
package approval
