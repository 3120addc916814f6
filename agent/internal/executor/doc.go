// Package executor carries an admitted order out: level by level, in batches of
// independent changes, each batch read before, committed as intents, applied, read
// back; while one is applied and read back the next is read and committed. What
// counts is only what is read; what is uncertain is read and never guessed. Every
// change ends with exactly one receipt, whatever dies in between.
//
// admission hands over through the journal; pluginhost's instances stand behind
// Directory. obligation asks it to take memberships back (TakeBack), so that one
// place alone touches directories.
package executor
