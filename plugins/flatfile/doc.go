// Package flatfile connects directories that are files: a CSV drop of people as
// a source, an Apache htpasswd file with its group file and a set of passwd,
// shadow, group and gshadow files as targets. One instance is one set of files,
// chosen by the setting "format".
//
// Sources: a bad line is quarantined with its number and makes the read
// incomplete, so that it is never taken for a leaver; a file that changes while
// it is read is not read. Targets: every change happens under the lock that the
// format's own tools take (lckpwdf and shadow-utils' .lock files, flock on a
// sidecar for htpasswd), as temporary file, fsync, rename, fsync of the folder;
// lines that a change does not concern keep their bytes and their order.
//
// Anchors. An htpasswd user is its login: the file knows nothing else, so a
// login that is deleted and made again is the same object. A passwd user or
// group is its name and number: a login that comes back under another uid is another
// object, and so is a uid under another login. Neither can be renamed.
//
// Disabling puts "!" before the hash, as usermod -L does. It stops passwords
// and nothing else: a login by SSH key, and sessions that are open, are not
// reached. Deleting a user takes it out of the groups of the same set; home
// directories are neither made nor removed. Extended attributes and ACLs of a
// rewritten file are not kept; owner, group and mode are.
//
// The agent hands over through plugins/sdk; nothing here calls on.
package flatfile
