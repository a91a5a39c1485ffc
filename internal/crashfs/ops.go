package crashfs

import (
	"cmp"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/pocketmq/mq/internal/vfs"
)

var _ vfs.FS = (*FS)(nil)

// named completes an error with the call it belongs to.
func named(c vfs.Call, err error) error {
	if err == nil {
		return nil
	}
	return callError(c, err)
}

// Open implements vfs.FS.
func (f *FS) Open(name string) (vfs.File, error) {
	c := vfs.Call{Op: vfs.OpOpen, Name: name}
	var opened *file
	err := f.do(c, func(How) error {
		n, err := f.lookup(name)
		if err == nil && n.names != nil {
			err = syscall.EISDIR
		}
		if err != nil {
			return named(c, err)
		}
		opened = f.handle(name, n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// handle returns an open file.
func (f *FS) handle(name string, n *node) *file {
	n.refs++
	return &file{fs: f, name: filepath.Clean(name), node: n}
}

// Create implements vfs.FS. The name and the allocation are two changes: a power
// cut may leave a file that is empty.
func (f *FS) Create(name string, size int64) (vfs.File, error) {
	c := vfs.Call{Op: vfs.OpCreate, Name: name, Size: size}
	var opened *file
	err := f.do(c, func(how How) (err error) {
		opened, err = f.createLocked(name, size, how)
		return named(c, err)
	})
	if err != nil {
		return nil, err
	}
	return opened, nil
}

func (f *FS) createLocked(name string, size int64, how How) (*file, error) {
	folder, base, err := f.parent(name)
	switch {
	case err != nil:
		return nil, err
	case size < 0:
		return nil, fs.ErrInvalid
	case folder.names[base] != nil:
		return nil, fs.ErrExist
	}
	n := &node{refs: 1}
	f.changeLocked(edit{place: place{folder, base}, to: n})
	if how == Partly {
		size = f.rng.Int64N(size + 1)
	}
	err = f.resizeLocked(n, size)
	if err != nil || how == Partly {
		f.removeLocked(folder, base)
		return nil, err
	}
	return f.handle(name, n), nil
}

// List implements vfs.FS.
func (f *FS) List(dir string) ([]vfs.Entry, error) {
	c := vfs.Call{Op: vfs.OpList, Name: dir}
	var list []vfs.Entry
	err := f.do(c, func(How) error {
		folder, err := f.lookupFolder(dir)
		if err != nil {
			return named(c, err)
		}
		for name, n := range folder.names {
			list = append(list, vfs.Entry{Name: name, Size: n.size(), Dir: n.names != nil})
		}
		slices.SortFunc(list, func(a, b vfs.Entry) int { return cmp.Compare(a.Name, b.Name) })
		return nil
	})
	return list, err
}

// MkdirAll implements vfs.FS.
func (f *FS) MkdirAll(dir string) error {
	c := vfs.Call{Op: vfs.OpMkdirAll, Name: dir}
	return f.do(c, func(How) error {
		n := f.root
		for _, part := range split(filepath.Clean(dir)) {
			below := n.names[part]
			if below == nil {
				below = newFolder()
				f.changeLocked(edit{place: place{n, part}, to: below})
			}
			if below.names == nil {
				return named(c, syscall.ENOTDIR)
			}
			n = below
		}
		return nil
	})
}

// Rename implements vfs.FS.
func (f *FS) Rename(from, to string) error {
	c := vfs.Call{Op: vfs.OpRename, Name: from}
	return f.do(c, func(How) error { return named(c, f.renameLocked(from, to)) })
}

func (f *FS) renameLocked(from, to string) error {
	oldFolder, oldBase, err := f.parent(from)
	if err != nil {
		return err
	}
	newFolder, newBase, err := f.parent(to)
	if err != nil {
		return err
	}
	n, there := oldFolder.names[oldBase], newFolder.names[newBase]
	switch {
	case n == nil:
		return fs.ErrNotExist
	case n == there:
		return nil
	case strings.HasPrefix(filepath.Clean(to), filepath.Clean(from)+string(filepath.Separator)):
		return fs.ErrInvalid // into itself
	case there != nil && (there.names != nil || n.names != nil):
		return fs.ErrExist
	case there != nil:
		f.unrefLocked(there)
	}
	f.changeLocked(edit{place: place{oldFolder, oldBase}, was: n}, edit{place: place{newFolder, newBase}, to: n, was: there})
	return nil
}

// Remove implements vfs.FS.
func (f *FS) Remove(name string) error {
	c := vfs.Call{Op: vfs.OpRemove, Name: name}
	return f.do(c, func(How) error {
		folder, base, err := f.parent(name)
		switch {
		case err != nil:
			return named(c, err)
		case folder.names[base] == nil:
			return named(c, fs.ErrNotExist)
		case len(folder.names[base].names) > 0:
			return named(c, syscall.ENOTEMPTY)
		}
		f.removeLocked(folder, base)
		return nil
	})
}

func (f *FS) removeLocked(folder *node, base string) {
	n := folder.names[base]
	f.changeLocked(edit{place: place{folder, base}, was: n})
	if n.names == nil {
		f.unrefLocked(n)
	}
}

// RemoveAll implements vfs.FS.
func (f *FS) RemoveAll(dir string) error {
	return f.do(vfs.Call{Op: vfs.OpRemoveAll, Name: dir}, func(How) error {
		folder, base, err := f.parent(dir)
		if err == nil && folder.names[base] != nil {
			f.removeAllLocked(folder, base)
		}
		return nil // nothing of that name is as wished
	})
}

func (f *FS) removeAllLocked(folder *node, base string) {
	n := folder.names[base]
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		f.removeAllLocked(n, name)
	}
	f.removeLocked(folder, base)
}

// SyncDir implements vfs.FS.
func (f *FS) SyncDir(dir string) error {
	c := vfs.Call{Op: vfs.OpSyncDir, Name: dir}
	return f.do(c, func(how How) error {
		n, err := f.lookupFolder(dir)
		if err != nil {
			return named(c, err)
		}
		f.syncNamesLocked(n, func() bool { return how == whole || f.rng.IntN(2) == 0 })
		return nil
	})
}

// Free implements vfs.FS.
func (f *FS) Free(dir string) (int64, error) {
	var free int64
	err := f.do(vfs.Call{Op: vfs.OpFree, Name: dir}, func(How) error {
		free = math.MaxInt64
		if f.opts.Limit != math.MaxInt64 {
			free = f.opts.Limit - f.used
		}
		return nil
	})
	return free, err
}

// unrefLocked drops one reference to a file; the last one gives its space back.
func (f *FS) unrefLocked(n *node) {
	if n.refs--; n.refs == 0 {
		f.used -= n.size()
	}
}
