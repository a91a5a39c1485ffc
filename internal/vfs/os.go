package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// osFS is the operating system's file system. What differs between systems is
// in functions of the same names in the files with build constraints:
//
//	                 linux              unix       windows      elsewhere
//	noFollow         O_NOFOLLOW         same       0            0
//	syncFile         fdatasync          fsync      File.Sync    File.Sync
//	allocate         fallocate          writeZeros same         same
//	forget           fadvise            –          –            –
//	mapFile          mmap               –          –            –
//	syncDir          fsync of folder    same       –            –
//	freeBytes        statfs             same       kernel32     –
//	unlinked         link count         same       –            –
type osFS struct{}

// OS returns the file system of the operating system.
func OS() FS { return osFS{} }

func (osFS) Open(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|noFollow, 0)
	if err != nil {
		return nil, err
	}
	return newOSFile(f)
}

func (osFS) Create(name string, size int64) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	file, err := newOSFile(f)
	if err != nil {
		return nil, errors.Join(err, os.Remove(name))
	}
	if err := file.Allocate(size); err != nil {
		// The half-made file goes: the space it took is wanted for a smaller one.
		err = fmt.Errorf("vfs: create %s of %d bytes: %w", name, size, err)
		return nil, errors.Join(err, file.Close(), os.Remove(name))
	}
	return file, nil
}

func (osFS) List(dir string) ([]Entry, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if err := refuseLink(info, dir); err != nil {
		return nil, err
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	list := make([]Entry, 0, len(names))
	for _, n := range names {
		info, err := n.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the folder was read
		}
		if err != nil {
			return nil, err
		}
		if err := refuseLink(info, filepath.Join(dir, n.Name())); err != nil {
			return nil, err
		}
		e := Entry{Name: n.Name(), Dir: n.IsDir()}
		if !e.Dir {
			e.Size = info.Size()
		}
		list = append(list, e)
	}
	return list, nil
}

// refuseLink keeps us inside the store: noFollow does it for files, and nothing
// does for folders, so every folder is looked at where it is listed.
func refuseLink(info fs.FileInfo, name string) error {
	if info.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("vfs: %s is a symbolic link", name)
	}
	return nil
}

func (osFS) MkdirAll(dir string) error      { return os.MkdirAll(dir, 0o700) }
func (osFS) Rename(from, to string) error   { return os.Rename(from, to) }
func (osFS) Remove(name string) error       { return os.Remove(name) }
func (osFS) RemoveAll(dir string) error     { return os.RemoveAll(dir) }
func (osFS) SyncDir(dir string) error       { return syncDir(dir) }
func (osFS) Free(dir string) (int64, error) { return freeBytes(dir) }

// osFile is an open file. os.File already repeats interrupted and short calls,
// and keeps a descriptor from being closed, and reused, below a running call.
type osFile struct{ *os.File }

// newOSFile wraps f, and closes it on an error. A folder is refused: opening
// one for writing fails by itself on some systems only.
func newOSFile(f *os.File) (*osFile, error) {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("vfs: open %s: not a regular file", f.Name())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &osFile{f}, nil
}

func (f *osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *osFile) Sync() error               { return syncFile(f) }
func (f *osFile) Cut(size int64) error      { return f.Truncate(size) }
func (f *osFile) Forget(off, n int64) error { return forget(f, off, n) }

func (f *osFile) Intact(size int64) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case info.Size() < size:
		return fmt.Errorf("vfs: %s was cut to %d bytes by somebody else", f.Name(), info.Size())
	case unlinked(info):
		return fmt.Errorf("vfs: %s was removed by somebody else", f.Name())
	}
	return nil
}

func (f *osFile) Allocate(size int64) error {
	old, err := f.Size()
	if err != nil {
		return err
	}
	if size <= old {
		return f.Truncate(size)
	}
	if err := allocate(f, old, size); err != nil {
		// A failed attempt may have taken space, and made the file larger.
		return errors.Join(err, f.Truncate(old))
	}
	return nil
}

func (f *osFile) Map(size int64) (Mapping, error) {
	have, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size <= 0 || size > have {
		// Bytes beyond the end of the file can be mapped, but fault when touched.
		return nil, fmt.Errorf("vfs: map %d bytes of %s: it has %d", size, f.Name(), have)
	}
	return mapFile(f, size)
}

// writeZeros fills [from, to) with zeros: the way to real blocks where the
// system has no call for it.
func writeZeros(f *osFile, from, to int64) error {
	zeros := make([]byte, min(256<<10, to-from))
	for from < to {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), to-from)], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}
