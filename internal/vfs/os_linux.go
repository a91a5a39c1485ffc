package vfs

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"unsafe"
)

const (
	// allocateStep bounds one fallocate call. tmpfs gives up and undoes the whole
	// call when a signal arrives, and the Go runtime preempts goroutines with
	// signals: a step is small enough to get through, or to be tried again.
	allocateStep = 32 << 20

	// madvPopulateWrite is MADV_POPULATE_WRITE (Linux 5.14), which the syscall
	// package does not name.
	madvPopulateWrite = 23
)

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR {
			return err
		}
	}
}

// onDescriptor runs call on f's descriptor, which cannot be closed, and its
// number used again, meanwhile. That costs allocations, but all calls made this
// way go to the disk.
func (f *osFile) onDescriptor(call func(fd int) error) error {
	var err error
	conn, cerr := f.SyscallConn()
	if cerr != nil {
		return cerr
	}
	if conn.Control(func(fd uintptr) { err = call(int(fd)) }) != nil {
		return os.ErrClosed // the only reason it has, under a name nobody can import
	}
	return err
}

func syncFile(f *osFile) error {
	err := f.onDescriptor(func(fd int) error {
		return retry(func() error { return syscall.Fdatasync(fd) })
	})
	if err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

func allocate(f *osFile, from, to int64) error {
	if to-from > allocateStep {
		// Step by step, a request that cannot be met would fill the disk to its last
		// block before it failed, and everybody else on it would notice.
		if free, err := freeBytes(f.Name()); err == nil && free < to-from {
			return &os.PathError{Op: "allocate", Path: f.Name(), Err: syscall.ENOSPC}
		}
	}
	for from < to {
		step := min(allocateStep, to-from)
		err := f.onDescriptor(func(fd int) error {
			return retry(func() error { return syscall.Fallocate(fd, 0, from, step) })
		})
		if errors.Is(err, errors.ErrUnsupported) {
			return writeZeros(f, from, to)
		}
		if err != nil {
			return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		}
		from += step
	}
	return nil
}

func forget(f *osFile, off, n int64) error {
	err := f.onDescriptor(func(fd int) error {
		return retry(func() error { return fadviseDontNeed(fd, off, n) })
	})
	if err != nil {
		return &os.PathError{Op: "fadvise", Path: f.Name(), Err: err}
	}
	return nil
}

func mapFile(f *osFile, size int64) (Mapping, error) {
	if size > math.MaxInt {
		return nil, fmt.Errorf("vfs: map %d bytes of %s: %w", size, f.Name(), errors.ErrUnsupported)
	}
	var data []byte
	err := f.onDescriptor(func(fd int) (err error) {
		data, err = syscall.Mmap(fd, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		return err
	})
	switch err {
	case nil:
		return &mapped{data: data}, nil
	case syscall.ENODEV, syscall.EINVAL:
		// The size was checked, so both say that this file system does not share
		// writable mappings (some network and FUSE ones).
		return nil, fmt.Errorf("vfs: map %s: %w (%w)", f.Name(), errors.ErrUnsupported, err)
	default:
		return nil, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
}

// mapped is a shared mapping of a file: a store is in the page cache at once.
type mapped struct {
	data []byte // nil after Unmap
}

func (m *mapped) Populate(off, n int64) error {
	page := int64(os.Getpagesize())
	from := off &^ (page - 1)
	to := min((off+n+page-1)&^(page-1), int64(len(m.data)))
	if from < 0 || from >= to {
		return nil
	}
	pages := m.data[from:to]
	err := retry(func() error { return syscall.Madvise(pages, madvPopulateWrite) })
	if err == syscall.EINVAL {
		return touch(pages, int(page)) // a kernel before 5.14
	}
	if err != nil {
		// EFAULT stands for what would have been SIGBUS.
		return fmt.Errorf("vfs: populate %d bytes at %d: %w", n, off, err)
	}
	return nil
}

// touch makes pages present by adding 0 to the first word of each. It has to be
// an atomic: the compiler leaves out a store of what was just loaded.
func touch(pages []byte, page int) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("vfs: touch a mapped page: %v: %w", fault, syscall.EFAULT)
		}
	}()
	for i := 0; i < len(pages); i += page {
		atomic.AddUint32((*uint32)(unsafe.Pointer(&pages[i])), 0)
	}
	return nil
}

// Release uses MADV_DONTNEED, which hands the dirty bits of a shared mapping to
// the page cache and flushes the processors' tables once for the whole range. A
// page that is written back while it is mapped takes a flush of its own, an
// interrupt to every processor: with two of them a fifth of the machine at
// 200 MB/s.
func (m *mapped) Release(off, n int64) error {
	page := int64(os.Getpagesize())
	from := (off + page - 1) &^ (page - 1)
	to := min((off+n)&^(page-1), int64(len(m.data)))
	if off < 0 || from >= to {
		return nil
	}
	if err := retry(func() error { return syscall.Madvise(m.data[from:to], syscall.MADV_DONTNEED) }); err != nil {
		return fmt.Errorf("vfs: release %d bytes at %d: %w", n, off, err)
	}
	return nil
}

// Sync uses msync, the one system call that syncs part of a file: fdatasync
// would also write the pages that were populated ahead of the tail and have no
// bytes yet, and leave them to fault once more.
func (m *mapped) Sync(off, n int64) error {
	page := int64(os.Getpagesize())
	from, to := off&^(page-1), min(off+n, int64(len(m.data)))
	if off < 0 || from >= to {
		return nil
	}
	err := retry(func() error { return msync(m.data[from:to]) })
	if err != nil {
		return fmt.Errorf("vfs: sync %d bytes at %d: %w", n, off, err)
	}
	return nil
}

func msync(b []byte) error {
	_, _, errno := syscall.Syscall(syscall.SYS_MSYNC, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), syscall.MS_SYNC)
	if errno != 0 {
		return errno
	}
	return nil
}

func (m *mapped) Reserve(off, n int64) []byte { return m.data[off : off+n : off+n] }
func (m *mapped) Commit(off, n int64) error   { return nil }
func (m *mapped) View(off, n int64) []byte    { return m.data[off : off+n : off+n] }

func (m *mapped) Unmap() error {
	if m.data == nil {
		return nil
	}
	data := m.data
	m.data = nil
	if err := syscall.Munmap(data); err != nil {
		return fmt.Errorf("vfs: unmap %d bytes: %w", len(data), err)
	}
	return nil
}
