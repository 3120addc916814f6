// Package root owns the root document: the versioned, threshold-signed statement
// of what a trust domain believes in. CA roots, plan keys and checkpoint keys are
// believed because a root document names them, and a root document because the
// one before it, back to the first that the client pinned by its digest, says by
// whose signatures.
//
// `reeve root` makes and signs documents away from the control plane, which only
// hands them on verbatim; agents and the offline verifier walk them with Open and
// Walk. mtls, dsse and tlogproof are then given the keys found here.
package root
