package vfs

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// Overlay returns a file system that begins as under is and changes as it likes:
// what is made, changed or removed is so in memory, and under stays as it is. A
// store can be opened on it that somebody else has open, or may not be touched.
//
// A file of under is copied into memory when it is written to; one that is only
// cut is read up to there.
func Overlay(under FS) FS {
	return &overlay{under: ReadOnly(under), upper: NewMem(0), gone: map[string]bool{}, cuts: map[string]int64{}}
}

type overlay struct {
	under FS
	upper *Mem // what was made or changed

	mu   sync.Mutex       // protects everything below, and copying
	gone map[string]bool  // names of under that were removed, folders with all below
	cuts map[string]int64 // files of under that were cut, and their size since
}

// goneLocked tells whether a name of under was removed.
func (o *overlay) goneLocked(name string) bool {
	for !o.gone[name] {
		above := filepath.Dir(name)
		if above == name {
			return false
		}
		name = above
	}
	return true
}

// isFileLocked tells whether there is a file of that name.
func (o *overlay) isFileLocked(name string) bool {
	f, err := o.upper.Open(name)
	if err != nil && !o.goneLocked(name) {
		f, err = o.under.Open(name)
	}
	return err == nil && f.Close() == nil
}

func (o *overlay) Open(name string) (File, error) {
	name = filepath.Clean(name)
	o.mu.Lock()
	defer o.mu.Unlock()
	f, err := o.upper.Open(name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !o.folderLocked(name) {
		return f, err
	}
	if o.goneLocked(name) {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	if f, err = o.under.Open(name); err != nil {
		return nil, err
	}
	return &overlayFile{File: f, o: o, name: name}, nil
}

// folderLocked tells whether a folder of that name was made, above one of under
// as a rule.
func (o *overlay) folderLocked(name string) bool {
	_, err := o.upper.List(name)
	return err == nil
}

func (o *overlay) Create(name string, size int64) (File, error) {
	name = filepath.Clean(name)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.isFileLocked(name) {
		return nil, pathError("create", name, fs.ErrExist)
	}
	if _, err := o.listLocked(filepath.Dir(name)); err != nil {
		return nil, err
	}
	if err := o.upper.MkdirAll(filepath.Dir(name)); err != nil {
		return nil, err
	}
	return o.upper.Create(name, size)
}

func (o *overlay) List(dir string) ([]Entry, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.listLocked(filepath.Clean(dir))
}

func (o *overlay) listLocked(dir string) ([]Entry, error) {
	list, err := o.upper.List(dir)
	if o.goneLocked(dir) {
		return list, err
	}
	below, underErr := o.under.List(dir)
	if errors.Is(underErr, fs.ErrNotExist) {
		return list, err
	}
	if underErr != nil {
		return nil, underErr
	}
	for _, e := range below {
		name := filepath.Join(dir, e.Name)
		made := slices.ContainsFunc(list, func(m Entry) bool { return m.Name == e.Name })
		if made || o.gone[name] {
			continue
		}
		if size, ok := o.cuts[name]; ok {
			e.Size = min(e.Size, size)
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

func (o *overlay) MkdirAll(dir string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.isFileLocked(filepath.Clean(dir)) {
		return pathError("mkdir", dir, fs.ErrExist)
	}
	return o.upper.MkdirAll(dir)
}

func (o *overlay) Rename(from, to string) error {
	from, to = filepath.Clean(from), filepath.Clean(to)
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.folderLocked(from) { // nothing here moves a folder of under
		f, err := o.copyLocked(from)
		if err != nil {
			return err
		}
		defer f.Close()
	}
	if _, err := o.listLocked(filepath.Dir(to)); err != nil {
		return err
	}
	if err := o.upper.MkdirAll(filepath.Dir(to)); err != nil {
		return err
	}
	if err := o.upper.Rename(from, to); err != nil {
		return err
	}
	o.gone[from], o.gone[to] = true, true
	return nil
}

func (o *overlay) Remove(name string) error {
	name = filepath.Clean(name)
	o.mu.Lock()
	defer o.mu.Unlock()
	if below, err := o.listLocked(name); err == nil && len(below) > 0 {
		return pathError("remove", name, syscall.ENOTEMPTY)
	} else if err != nil && !o.isFileLocked(name) {
		return pathError("remove", name, fs.ErrNotExist)
	}
	o.gone[name] = true
	return o.upper.RemoveAll(name)
}

func (o *overlay) RemoveAll(dir string) error {
	dir = filepath.Clean(dir)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone[dir] = true
	return o.upper.RemoveAll(dir)
}

func (o *overlay) SyncDir(dir string) error {
	_, err := o.List(dir)
	return err
}

func (o *overlay) Free(string) (int64, error) { return math.MaxInt64, nil }

// copyLocked opens the copy of a file, making it if there is none.
func (o *overlay) copyLocked(name string) (File, error) {
	if f, err := o.upper.Open(name); err == nil {
		return f, nil
	}
	if o.goneLocked(name) {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	low, err := o.under.Open(name)
	if err != nil {
		return nil, err
	}
	defer low.Close()
	size, err := o.sizeLocked(name, low)
	if err != nil {
		return nil, err
	}
	if err := o.upper.MkdirAll(filepath.Dir(name)); err != nil {
		return nil, err
	}
	f, err := o.upper.Create(name, size)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.NewOffsetWriter(f, 0), io.NewSectionReader(low, 0, size)); err != nil {
		return nil, errors.Join(err, f.Close(), o.upper.Remove(name))
	}
	return f, nil
}

// sizeLocked returns how many bytes of a file of under count.
func (o *overlay) sizeLocked(name string, low File) (int64, error) {
	size, err := low.Size()
	if cut, ok := o.cuts[name]; ok && err == nil {
		size = min(size, cut)
	}
	return size, err
}

// overlayFile is a file of under, as long as nobody writes to it.
type overlayFile struct {
	File // for reading
	o    *overlay
	name string
	copy File // under overlay.mu; nil: none yet
}

// now returns the copy, if there is one, and else how many bytes of the file
// count.
func (f *overlayFile) now() (File, int64, error) {
	f.o.mu.Lock()
	defer f.o.mu.Unlock()
	if f.copy == nil {
		f.copy, _ = f.o.upper.Open(f.name)
	}
	if f.copy != nil {
		return f.copy, 0, nil
	}
	size, err := f.o.sizeLocked(f.name, f.File)
	return nil, size, err
}

// own returns the copy, making it if need be.
func (f *overlayFile) own() (_ File, err error) {
	if _, _, err := f.now(); err != nil {
		return nil, err // closed
	}
	f.o.mu.Lock()
	defer f.o.mu.Unlock()
	if f.copy == nil {
		f.copy, err = f.o.copyLocked(f.name)
	}
	return f.copy, err
}

func (f *overlayFile) ReadAt(p []byte, off int64) (int, error) {
	own, size, err := f.now()
	switch {
	case err != nil:
		return 0, err
	case own != nil:
		return own.ReadAt(p, off)
	}
	return io.NewSectionReader(f.File, 0, size).ReadAt(p, off)
}

func (f *overlayFile) Size() (int64, error) {
	own, size, err := f.now()
	if own != nil {
		return own.Size()
	}
	return size, err
}

func (f *overlayFile) WriteAt(p []byte, off int64) (int, error) {
	own, err := f.own()
	if err != nil {
		return 0, err
	}
	return own.WriteAt(p, off)
}

func (f *overlayFile) Cut(size int64) error {
	own, now, err := f.now()
	switch {
	case err != nil:
		return err
	case own == nil && size >= 0 && size <= now:
		f.o.mu.Lock()
		defer f.o.mu.Unlock()
		f.o.cuts[f.name] = size
		return nil
	}
	if own, err = f.own(); err != nil {
		return err
	}
	return own.Cut(size)
}

func (f *overlayFile) Allocate(size int64) error {
	own, err := f.own()
	if err != nil {
		return err
	}
	return own.Allocate(size)
}

func (f *overlayFile) Map(size int64) (Mapping, error) {
	own, err := f.own()
	if err != nil {
		return nil, err
	}
	return own.Map(size)
}

func (f *overlayFile) Sync() error {
	_, _, err := f.now()
	return err
}

func (f *overlayFile) Close() error {
	f.o.mu.Lock()
	defer f.o.mu.Unlock()
	err := f.File.Close()
	if f.copy != nil {
		err = errors.Join(err, f.copy.Close())
		f.copy = nil
	}
	return err
}
