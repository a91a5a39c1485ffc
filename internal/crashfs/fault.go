package crashfs

import (
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/pocketmq/mq/internal/vfs"
)

const (
	errNoSpace = syscall.ENOSPC
	errIO      = syscall.EIO
)

// How says what a call does that a fault strikes.
type How uint8

const (
	// Refuse: nothing is done, and the error comes back.
	Refuse How = iota

	// Partly: a part is done, and the error comes back. Of WriteAt that is the
	// beginning, of Sync some of the pages, of Allocate some of the growth. A
	// file that Create could not allocate was there for a moment, and a power cut
	// may find it, of any size up to the one it was to have. Other calls are done,
	// and only say that they are not.
	Partly

	// Lose is for Sync: the error comes back once, and all pages look clean from
	// then on although some never reached the disk. They read as they were stored
	// until they are stored to again, forgotten, or the power goes. That is what
	// Linux does when writing back fails.
	Lose

	// Lie: nothing is done, and there is no error. It is for testing tests.
	Lie

	whole // no fault
)

// Fault is something that goes wrong with one call.
type Fault struct {
	Op    vfs.Op
	Nth   int   // which call of that kind from now on; 0 and 1 are the next
	Times int   // how many in a row; 0 is one, negative all that follow
	Err   error // what the caller gets; nil is syscall.EIO
	How   How
}

// Inject arms a fault. Several may wait at the same time, each with its own
// count; a call is struck by the first that was armed.
func (f *FS) Inject(fault Fault) {
	fault.Nth = max(1, fault.Nth)
	if fault.Times == 0 {
		fault.Times = 1
	}
	if fault.Err == nil {
		fault.Err = errIO
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault)
}

// Heal disarms every fault, also those of FaultStore.
func (f *FS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults, f.stores = nil, nil
}

// strikeLocked runs the body of a call as the faults want it.
func (f *FS) strikeLocked(c vfs.Call, body func(how How) error) error {
	var hit *Fault
	for _, fault := range f.faults {
		if fault.Op != c.Op || fault.Times == 0 {
			continue
		}
		if fault.Nth > 1 {
			fault.Nth--
			continue
		}
		if hit == nil {
			hit = fault
			fault.Times--
		}
	}
	f.faults = slices.DeleteFunc(f.faults, func(fault *Fault) bool { return fault.Times == 0 })
	switch {
	case hit == nil:
		return body(whole)
	case hit.How == Lie:
		return nil
	case hit.How != Refuse:
		if err := body(hit.How); err != nil {
			return err // it would have failed anyway
		}
	}
	return callError(c, hit.Err)
}

// storeFault waits for a store into a mapping.
type storeFault struct{ left int }

// FaultStore makes the nth store into a mapping from now on hit a page that is
// not there: somewhere between its first and last byte a memory fault occurs,
// as for a file on a disk that fails. What was stored before that place is
// stored. The storing goroutine must run under debug.SetPanicOnFault.
func (f *FS) FaultStore(nth int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stores = append(f.stores, &storeFault{left: max(1, nth)})
}

// faultsNowLocked counts one store and tells whether it is to fault.
func (f *FS) faultsNowLocked() bool {
	hit := false
	f.stores = slices.DeleteFunc(f.stores, func(s *storeFault) bool {
		s.left--
		hit = hit || s.left == 0
		return s.left <= 0
	})
	return hit
}

// hooks are functions of a test that run with every call.
type hooks struct {
	first, last atomic.Pointer[hook]
}

type hook struct {
	before func(vfs.Call) error
	after  func(vfs.Call, error)
}

// Before makes fn run at the beginning of every call, on the caller's goroutine
// and outside all locks: it may use the file system itself. If it returns an
// error, that is what the call returns without doing anything. Nil ends it.
func (f *FS) Before(fn func(vfs.Call) error) { f.hooks.first.Store(&hook{before: fn}) }

// After makes fn run at the end of every call, as Before does, with the error
// that the call is about to return. Nil ends it.
func (f *FS) After(fn func(vfs.Call, error)) { f.hooks.last.Store(&hook{after: fn}) }

func (h *hooks) before(c vfs.Call) error {
	if fn := h.first.Load(); fn != nil && fn.before != nil {
		return fn.before(c)
	}
	return nil
}

func (h *hooks) after(c vfs.Call, err error) {
	if fn := h.last.Load(); fn != nil && fn.after != nil {
		fn.after(c, err)
	}
}
