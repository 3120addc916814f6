// Package planv1 is what is reviewed, signed and carried out: manifest, chunks,
// order. Its bytes are made once by Encode and read strictly by Decode.
//
// The planner writes it, rehearsal, approval and signing handle its digest, the
// agent's admission reads it.
package planv1
