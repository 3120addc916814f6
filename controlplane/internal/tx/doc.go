// Package tx is the transaction that spans contexts: an approval, the record of
// it and its place in the log commit together or not at all.
//
// Writers that come at once share one commit and its fsync, each behind a savepoint.
//
// Every context's store takes a Tx; services open one with DB.Do. It is a
// foundation: it imports nothing of ours and every stage may import it.
package tx
