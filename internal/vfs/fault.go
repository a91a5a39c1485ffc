package vfs

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Op is a kind of call to a file system, for tests that count calls or break
// them.
type Op uint8

// The calls of FS, File and Mapping. View and Reserve cannot fail, and are not
// counted.
const (
	OpOpen Op = iota
	OpCreate
	OpList
	OpMkdirAll
	OpRename
	OpRemove
	OpRemoveAll
	OpSyncDir
	OpFree
	OpRead
	OpWrite
	OpSize
	OpSync
	OpCut
	OpAllocate
	OpForget
	OpMap
	OpPopulate
	OpCommit
	OpUnmap
	OpClose
	opCount
)

var opNames = [opCount]string{
	"open", "create", "list", "mkdir", "rename", "remove", "remove all", "sync folder", "free",
	"read", "write", "size", "sync", "cut", "allocate", "forget", "map", "populate", "commit", "unmap", "close",
}

// String returns the name of the call in lower case.
func (op Op) String() string {
	if op < opCount {
		return opNames[op]
	}
	return "unknown"
}

// Call is one call to a file system.
type Call struct {
	Op   Op
	Name string // cleaned path; of Rename: the old name
	Off  int64  // where it reads, writes, populates, commits; else 0
	Size int64  // bytes it reads, writes, …, or the size it gives a file; else 0
}

// faults counts the calls to a Mem, records them and fails those that a test
// picked. A memory broker pays two atomic operations a call for it.
type faults struct {
	counts [opCount]atomic.Int64
	armed  atomic.Bool // anything below is in use

	faultsMu sync.Mutex // protects everything below
	nth      []nthFault
	hook     func(Call) error
	record   bool
	log      []Call
}

// nthFault is an error that waits for its call.
type nthFault struct {
	op   Op
	left int // calls until it strikes, 1 is the next
	err  error
}

// FailNth makes the nth call of an operation from now on return err without
// doing anything; 1 is the next one. Each FailNth strikes once. Several may wait
// at the same time, each with its own count.
func (f *faults) FailNth(op Op, n int, err error) {
	f.faultsMu.Lock()
	defer f.faultsMu.Unlock()
	f.nth = append(f.nth, nthFault{op: op, left: n, err: err})
	f.armLocked()
}

// Fail makes every call fail for which hook returns an error, until it is
// replaced; nil ends it. The hook must not use the file system.
func (f *faults) Fail(hook func(Call) error) {
	f.faultsMu.Lock()
	defer f.faultsMu.Unlock()
	f.hook = hook
	f.armLocked()
}

// Record starts a log of all calls, or empties it. It is off at first: a memory
// broker must not remember all it ever did.
func (f *faults) Record() {
	f.faultsMu.Lock()
	defer f.faultsMu.Unlock()
	f.record, f.log = true, nil
	f.armLocked()
}

// Ops returns the calls since Record, also those that failed, in their order.
func (f *faults) Ops() []Call {
	f.faultsMu.Lock()
	defer f.faultsMu.Unlock()
	return slices.Clone(f.log)
}

// Calls returns how often an operation was called since the beginning.
func (f *faults) Calls(op Op) int64 { return f.counts[op].Load() }

func (f *faults) armLocked() {
	f.armed.Store(len(f.nth) > 0 || f.hook != nil || f.record)
}

// enter is the first line of every operation.
func (f *faults) enter(op Op, name string, off, size int64) error {
	f.counts[op].Add(1)
	if !f.armed.Load() {
		return nil
	}
	return f.strike(Call{Op: op, Name: name, Off: off, Size: size})
}

func (f *faults) strike(c Call) error {
	f.faultsMu.Lock()
	defer f.faultsMu.Unlock()
	if f.record {
		f.log = append(f.log, c)
	}
	var err error
	f.nth = slices.DeleteFunc(f.nth, func(n nthFault) bool { return n.left <= 0 })
	for i := range f.nth {
		if f.nth[i].op != c.Op {
			continue
		}
		if f.nth[i].left--; f.nth[i].left == 0 {
			err = f.nth[i].err
		}
	}
	if err == nil && f.hook != nil {
		err = f.hook(c)
	}
	return err
}
