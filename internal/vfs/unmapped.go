package vfs

import "fmt"

// scratchKeep is the largest scratch buffer an unmapped writer holds on to
// between two stores. Frames are rarely larger than 64 KiB; one of 16 MiB must
// not pin 16 MiB for ever.
const scratchKeep = 1 << 20

// unmapped is the portable twin of a mapping: the same bracket around a store,
// ending in a write.
type unmapped struct {
	file    File
	scratch []byte // what Reserve hands out; belongs to the one writer
}

// Unmapped returns a Mapping of f for where Map is not to be had, or not wanted.
// Reserve hands out a reused buffer and Commit writes it; View returns nil;
// Populate, Release and Unmap do nothing; Sync syncs all of f, which must stay
// open.
func Unmapped(f File) Mapping { return &unmapped{file: f} }

func (u *unmapped) Populate(off, n int64) error { return nil }
func (u *unmapped) Release(off, n int64) error  { return nil }
func (u *unmapped) Sync(off, n int64) error     { return u.file.Sync() }

func (u *unmapped) Reserve(off, n int64) []byte {
	if int64(cap(u.scratch)) >= n {
		return u.scratch[:n:n]
	}
	// A power of two, so that slowly growing frames do not allocate each time.
	size := int64(4096)
	for size < n {
		size *= 2
	}
	u.scratch = make([]byte, size)
	return u.scratch[:n:n]
}

func (u *unmapped) Commit(off, n int64) error {
	if n > int64(cap(u.scratch)) {
		return fmt.Errorf("vfs: commit %d bytes at %d: more than were reserved", n, off)
	}
	_, err := u.file.WriteAt(u.scratch[:n], off)
	if cap(u.scratch) > scratchKeep {
		u.scratch = nil
	}
	return err
}

func (u *unmapped) View(off, n int64) []byte { return nil }

func (u *unmapped) Unmap() error {
	u.scratch = nil
	return nil
}
