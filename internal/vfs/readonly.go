package vfs

import (
	"fmt"
	"io/fs"
)

// ReadOnly returns a view of a file system through which nothing can be changed:
// what would is refused with fs.ErrPermission. Of the operating system's, files
// are opened for reading only, so that they may be on a read-only mount, and
// without touching their times where the system lets us (Linux, for files of our
// own).
func ReadOnly(fsys FS) FS {
	if _, ok := fsys.(osFS); ok {
		return readOnly{fsys, openReading}
	}
	return readOnly{fsys, fsys.Open}
}

type readOnly struct {
	under FS
	open  func(name string) (File, error)
}

func (r readOnly) Open(name string) (File, error) {
	f, err := r.open(name)
	if err != nil {
		return nil, err
	}
	return readOnlyFile{f, name}, nil
}

func (r readOnly) List(dir string) ([]Entry, error) { return r.under.List(dir) }
func (r readOnly) Free(dir string) (int64, error)   { return r.under.Free(dir) }

func (r readOnly) Create(name string, _ int64) (File, error) { return nil, refused("create", name) }
func (r readOnly) MkdirAll(dir string) error                 { return refused("mkdir", dir) }
func (r readOnly) Rename(from, _ string) error               { return refused("rename", from) }
func (r readOnly) Remove(name string) error                  { return refused("remove", name) }
func (r readOnly) RemoveAll(dir string) error                { return refused("remove", dir) }
func (r readOnly) SyncDir(dir string) error                  { return refused("sync", dir) }

type readOnlyFile struct {
	File
	name string
}

func (f readOnlyFile) WriteAt([]byte, int64) (int, error) { return 0, refused("write", f.name) }
func (f readOnlyFile) Sync() error                        { return refused("sync", f.name) }
func (f readOnlyFile) Cut(int64) error                    { return refused("cut", f.name) }
func (f readOnlyFile) Allocate(int64) error               { return refused("allocate", f.name) }
func (f readOnlyFile) Map(int64) (Mapping, error)         { return nil, refused("map", f.name) }

func refused(op, name string) error {
	return fmt.Errorf("vfs: read only: %w", &fs.PathError{Op: op, Path: name, Err: fs.ErrPermission})
}
