package powerloss

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mount shows the disk at a new folder until the test ends or unmount is called,
// and returns the folder.
func (d *Disk) Mount(t testing.TB) (dir string, unmount func()) {
	t.Helper()
	dir = t.TempDir()
	server, err := fs.Mount(dir, &root{disk: d}, &fs.Options{
		MountOptions:   fuse.MountOptions{DirectMountStrict: true, FsName: "powerloss", Name: "powerloss", MaxWrite: 1 << 16},
		RootStableAttr: &fs.StableAttr{Ino: 1},
	})
	if err != nil {
		t.Fatalf("mount a disk through /dev/fuse: %v; run the tests as root where the kernel has FUSE", err)
	}
	done := false
	unmount = func() {
		if done {
			return
		}
		done = true
		if err := server.Unmount(); err != nil {
			// Something still holds a file: it goes with its holder.
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Errorf("unmount: %v", err)
			}
		}
	}
	t.Cleanup(unmount)
	return dir, unmount
}

type root struct {
	fs.Inode
	disk *Disk
}

var _ interface {
	fs.NodeLookuper
	fs.NodeCreater
	fs.NodeUnlinker
	fs.NodeRenamer
	fs.NodeReaddirer
	fs.NodeFsyncer
	fs.NodeStatfser
} = (*root)(nil)

func (r *root) node(ctx context.Context, name string, c *content) *fs.Inode {
	return r.NewInode(ctx, &file{disk: r.disk, content: c, name: name}, fs.StableAttr{Mode: fuse.S_IFREG, Ino: c.id(r.disk)})
}

// id gives a content its inode number. The caller holds the disk.
func (c *content) id(d *Disk) uint64 {
	if c.inode == 0 {
		c.inode = 2 + uint64(d.rand.Uint32())
	}
	return c.inode
}

func (r *root) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	c := r.disk.names[name]
	if c == nil {
		return nil, syscall.ENOENT
	}
	attributes(c, &out.Attr)
	return r.node(ctx, name, c), 0
}

func (r *root) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	d := r.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.names[name]
	if c == nil {
		if !d.step(name) {
			return nil, nil, 0, syscall.EIO
		}
		c = &content{}
		d.move(func(m map[string]*content) { m[name] = c })
	} else if flags&syscall.O_EXCL != 0 {
		return nil, nil, 0, syscall.EEXIST
	}
	attributes(c, &out.Attr)
	return r.node(ctx, name, c), nil, 0, 0
}

func (r *root) Unlink(_ context.Context, name string) syscall.Errno {
	d := r.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] == nil {
		return syscall.ENOENT
	}
	if !d.step(name) {
		return syscall.EIO
	}
	d.move(func(m map[string]*content) { delete(m, name) })
	return 0
}

func (r *root) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	d := r.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if flags != 0 || to.EmbeddedInode().StableAttr().Ino != 1 {
		return syscall.EINVAL
	}
	if d.names[name] == nil {
		return syscall.ENOENT
	}
	if !d.step(name) {
		return syscall.EIO
	}
	c := d.names[name]
	d.move(func(m map[string]*content) { delete(m, name); m[newName] = c })
	return 0
}

func (r *root) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	var list []fuse.DirEntry
	for _, name := range sortedNames(r.disk.names) {
		list = append(list, fuse.DirEntry{Name: name, Mode: fuse.S_IFREG, Ino: r.disk.names[name].id(r.disk)})
	}
	return fs.NewListDirStream(list), 0
}

// Fsync of the folder keeps its names for good.
func (r *root) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d := r.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.step("") {
		return syscall.EIO
	}
	d.kept, d.moves = clone(d.names), nil
	return 0
}

func (r *root) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree = 1<<20, 1<<20, 1<<20, 1<<20, 1<<20
	return 0
}

type file struct {
	fs.Inode
	disk    *Disk
	content *content
	name    string
}

var _ interface {
	fs.NodeOpener
	fs.NodeReader
	fs.NodeWriter
	fs.NodeFsyncer
	fs.NodeFlusher
	fs.NodeGetattrer
	fs.NodeSetattrer
} = (*file)(nil)

func attributes(c *content, out *fuse.Attr) {
	out.Mode, out.Size, out.Nlink, out.Blksize = fuse.S_IFREG|0o600, uint64(len(c.now)), 1, 4096
	out.Blocks = (out.Size + 511) / 512
}

func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) { return nil, 0, 0 }

func (f *file) Flush(context.Context, fs.FileHandle) syscall.Errno { return 0 }

func (f *file) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.dead {
		return nil, syscall.EIO
	}
	if off >= int64(len(f.content.now)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, f.content.now[off:])]), 0
}

func (f *file) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	alive := f.disk.dead
	if f.disk.step(f.name) {
		f.content.change(change{off, append([]byte{}, data...)})
		return uint32(len(data)), 0
	}
	if !alive {
		// The write at which the power goes may reach the disk, or some of it.
		f.content.change(change{off, append([]byte{}, data...)})
	}
	return 0, syscall.EIO
}

// Fsync keeps the file's content for good, and its name if it is new.
func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.step(f.name) {
		return syscall.EIO
	}
	f.content.sync()
	for name, c := range d.names {
		if c == f.content && d.kept[name] == nil && f.newName() {
			d.kept[name] = c
		}
	}
	return 0
}

// newName reports that no name of the file is kept yet: its first one is kept
// together with its content, a later one only with the folder.
func (f *file) newName() bool {
	for _, c := range f.disk.kept {
		if c == f.content {
			return false
		}
	}
	return true
}

func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	attributes(f.content, &out.Attr)
	return 0
}

func (f *file) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if size, ok := in.GetSize(); ok && size != uint64(len(f.content.now)) {
		if !f.disk.step(f.name) {
			return syscall.EIO
		}
		f.content.change(change{off: int64(size)})
	}
	attributes(f.content, &out.Attr)
	return 0
}

// String names the file for messages.
func (f *file) String() string { return fmt.Sprintf("%s (%d bytes)", f.name, len(f.content.now)) }
