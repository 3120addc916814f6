// Package powerloss is a disk for tests that forgets at a power cut what was not
// synced, as real ones may: of the writes since a file's last fsync any part
// survives, in any order and torn at sectors, and a name that was made, removed or
// exchanged may or may not be there until its folder, or the new file itself, was
// synced.
//
// A Disk is one folder without subfolders, mounted through FUSE (/dev/fuse, root),
// so that whole programs and SQLite use it as it is. Linux only.
package powerloss
