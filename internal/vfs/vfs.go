// Package vfs is the one seam between PocketMQ and the file system. The engine
// is built on these three interfaces alone, so that a file system in memory, or
// one that loses what was not synced, can stand behind it.
//
// Two things are kept apart on purpose, because a crash does: the bytes of a
// file, made durable by File.Sync, and its name, made durable by FS.SyncDir on
// the folder that holds it. A new or renamed file needs both.
//
// Names are paths of the operating system. Every method of an FS and of a File
// may be called from several goroutines at once, with the exceptions that
// Mapping states for itself.
package vfs

import (
	"errors"
	"io"
)

// ErrClosed is what all that keep files of a store return after their Close. It is
// one error, so that who asks a store that is being closed need not know which of
// its parts was first.
var ErrClosed = errors.New("mq: closed")

// FS is a file system. Errors satisfy errors.Is with fs.ErrNotExist,
// fs.ErrExist and syscall.ENOSPC where those are the cause.
type FS interface {
	// Open opens an existing file for reading and writing. The last element of
	// name is not followed if it is a symbolic link, where the system can say so.
	Open(name string) (File, error)

	// Create makes a new file of size bytes, mode 0600, and opens it. It fails
	// with fs.ErrExist if the name is taken. The bytes are really allocated, so
	// that a later write cannot run out of space (on file systems that copy on
	// write nobody can promise that), and read as zeros. Neither the allocation
	// nor the name is durable yet. On an error no file is left behind.
	Create(name string, size int64) (File, error)

	// List returns what a folder holds, sorted by name. A missing folder is
	// fs.ErrNotExist. A symbolic link, as the folder or in it, is an error: it
	// would lead out of the store.
	List(dir string) ([]Entry, error)

	// MkdirAll makes a folder, mode 0700, and those above it that are missing.
	MkdirAll(dir string) error

	// Rename moves a file or a folder, replacing a file of that name.
	Rename(from, to string) error

	// Remove removes a file or an empty folder. Files that are open stay
	// readable through their File, on Windows as far as the system allows it.
	Remove(name string) error

	// RemoveAll removes a folder and everything below it; a missing one is no
	// error.
	RemoveAll(dir string) error

	// SyncDir makes the names in a folder durable.
	SyncDir(dir string) error

	// Free tells how many bytes an unprivileged user may still write to the file
	// system that holds dir. It fails with errors.ErrUnsupported where the
	// system does not say.
	Free(dir string) (int64, error)
}

// Entry is one name in a folder.
type Entry struct {
	Name string // last element only
	Size int64  // bytes; 0 for a folder
	Dir  bool
}

// File is an open file. ReadAt and WriteAt follow io.ReaderAt and io.WriterAt
// to the letter: fewer bytes than asked for always come with an error.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer // descriptors only: it syncs nothing, and leaves mappings alone

	// Size returns the size of the file in bytes.
	Size() (int64, error)

	// Sync makes the file's bytes and its size durable (fdatasync), also those
	// stored through a mapping. After an error nothing may be assumed about what
	// is durable: a second Sync that succeeds proves nothing.
	Sync() error

	// Intact fails if somebody else has taken the file from under us: removed it,
	// where the system can say so, or cut it to fewer than size bytes.
	Intact(size int64) error

	// Cut sets the size of the file. What a cut to a larger size adds reads as
	// zeros and is not allocated.
	Cut(size int64) error

	// Allocate makes the file size bytes large, all of them allocated; new bytes
	// read as zeros. A file that is larger is cut.
	Allocate(size int64) error

	// Forget asks the system to drop cached pages of n bytes at off; n = 0 reaches
	// to the end of the file. It is a hint, and changes no byte: what is not synced,
	// or mapped, stays. It is given for what nobody will read soon, and before a
	// file that was read is mapped, because large cached folios make a small sync
	// write far more than what changed.
	Forget(off, n int64) error

	// Map maps the first size bytes, shared, for loads and stores. The file must
	// be that large. It fails with errors.ErrUnsupported where mapping is not to
	// be had; the caller then uses Unmapped. The mapping outlives Close.
	Map(size int64) (Mapping, error)
}

// Mapping is where the tail of a file is written, either straight into mapped
// pages or, behind Unmapped, through a buffer and WriteAt. A store is bracketed
// by Reserve and Commit so that the second kind, and a file system that loses
// unsynced pages at will, can stand behind the same code.
//
// Reserve and Commit belong to one writer at a time. View, Populate, Sync and,
// for mapped bytes that are already committed, loads may run beside it. Nothing may
// run beside or after Unmap.
//
// A load or store of mapped bytes may fault (I/O error, file cut by somebody
// else, no room on a copy-on-write file system): callers run under
// debug.SetPanicOnFault and recover.
type Mapping interface {
	// Populate makes the pages of [off, off+n) present and writable at once,
	// instead of with one fault each. Call it only for bytes ahead of the
	// writer's tail: where the kernel lacks the system call the first word of each
	// page is written to.
	Populate(off, n int64) error

	// Release takes the whole pages within [off, off+n) out of the mapping. They
	// stay in the page cache, dirty as they were, and come back with a cheap fault
	// when they are loaded. The writer stores nothing there any more.
	Release(off, n int64) error

	// Reserve returns n bytes, capacity n, to store what belongs at off. Their
	// content is undefined: the caller fills all of them. Exactly one Commit with
	// the same off and at most as many bytes, or none if the store is given up,
	// follows before the next Reserve.
	Reserve(off, n int64) []byte

	// Commit ends the store at off: the first n reserved bytes are in the page
	// cache when it returns, and survive the end of this process.
	Commit(off, n int64) error

	// Sync makes [off, off+n) durable, and the file's size, as File.Sync does for
	// the whole file; what is dirty elsewhere in it may stay so. As there, nothing
	// may be assumed after an error, and a second Sync proves nothing.
	Sync(off, n int64) error

	// View returns the bytes [off, off+n) to load from, or nil when only ReadAt
	// serves. The slice is valid until Unmap and must not be stored to.
	View(off, n int64) []byte

	// Unmap gives the mapping back. It is idempotent, and syncs nothing.
	Unmap() error
}
