// Package verify reads a tenant's export with nothing else at hand than what the
// client kept: the pin of the first root document and a saved checkpoint. It
// needs no server and no database and imports only proto and pki, so the CLI
// runs it on the client's own machine.
//
// What it holds the export to: the root documents walk from the pin; the
// checkpoint is signed, covers exactly what is there, and continues the saved
// one; every leaf and every body is what was hashed, what was erased says so;
// and every record of every agent is in an unbroken chain signed by the key that
// the log itself enrolled for that epoch, until the key's end. `reeve audit
// verify` prints its Report.
package verify
