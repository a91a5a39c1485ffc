// Package crashfs is a file system in memory that forgets what a power cut on
// Linux may forget. A test works on it, cuts the power at a step of its choice,
// and opens what is left.
//
// # The model
//
// Processes see one state and the disk holds another; these rules say what of
// the difference is left after Crash.
//
// Bytes. A store, by WriteAt or between Reserve and Commit of a mapping, makes
// every page of 4 KiB that it touches dirty until the next Sync of it. A dirty
// page keeps the versions it went through since then: some of them if there are
// many, always the newest. After a power cut the page is
//
//	as it was at the last Sync,
//	or whole, at any of its versions,
//	or torn: each sector of 512 bytes at a version of its own,
//	or, beside either, caught in a store: a run of 8-byte words is one version newer.
//
// Pages do not depend on each other: the last one stored may be the only one
// that is left.
//
// Sizes. Create, Cut, Allocate and a write beyond the end change a file's size.
// The changes of one file reach the disk in their order, so it has the size of
// its last Sync or any it had since. A change that did reach the disk took away
// what it cut off: that reads as zeros, also when the file has grown again. What
// was stored into whole pages behind a cut that did not reach the disk is not
// there, for its blocks never became the file's. A size says nothing about the
// bytes below it; they may be zeros still.
//
// Sync makes bytes and size of one file durable, and never its name; Sync of a
// mapping does so for the pages that its range touches and no others.
//
// Names. Create, MkdirAll, Rename, Remove and RemoveAll change names in folders.
// Each change is there after a power cut or not, Rename as a whole, in any
// combination but for two rules: changes of one name keep their order, and the
// removal of a folder comes after every change inside it. SyncDir makes the
// changes in one folder durable, and those they come after. A folder whose own
// name is lost is gone with all it holds.
//
// The step during which the power goes has happened or not; its caller gets
// ErrPowerCut either way, and so does every later call on the old file system.
// Stores into its mappings go nowhere.
//
// Kill is the other kind of end: the process is gone, and the page cache, dirty
// as it was, is not.
//
// Not modelled: space that runs out when a hole is written to, permissions,
// links, loads from mapped pages behind the end of a file, and versions of a page
// between a Reserve and its Commit other than by the rule of words.
//
// Everything is decided by the seed in Options and the generator given to Crash:
// the same calls in the same order end in the same state.
package crashfs

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/pocketmq/mq/internal/vfs"
)

// ErrPowerCut is what every call returns once the power is gone: what a disk says
// that cannot be reached, so that nobody takes what is on it for damaged.
var ErrPowerCut = fmt.Errorf("crashfs: the power was cut: %w", syscall.EIO)

// defaultVersions of a page are enough for each to differ in kind: before,
// between and after the stores of a frame, its neighbours and an END.
const defaultVersions = 6

// Options configure an FS. The zero value is a mapped file system without limit.
type Options struct {
	// Seed decides what the file system decides by itself: how far a short write
	// comes, which pages a failing sync loses, whether the last step happened.
	Seed uint64

	// Portable: Map fails with errors.ErrUnsupported.
	Portable bool

	// Limit is how many bytes all files together may have, 0 for any number.
	// What goes beyond fails with syscall.ENOSPC.
	Limit int64

	// Versions is how many versions of a dirty page are kept, 0 for 6.
	Versions int
}

// FS is a file system that can lose what was not synced. It implements vfs.FS;
// see the package for what it keeps.
type FS struct {
	opts Options

	hooks hooks // of the test, called outside mu

	mu      sync.Mutex // protects everything below, and all nodes
	rng     *rand.Rand
	root    *node
	changes []change // of names, not durable yet, oldest first
	used    int64    // bytes of all files, removed ones that are open included

	steps  int64 // calls that change something, so far
	cutAt  int64 // the step during which the power goes, 0: none
	off    bool  // the power is gone
	faults []*Fault
	stores []*storeFault    // armed
	struck []*mapping       // their last store faulted and is not settled
	calls  map[vfs.Op]int64 // so far, failed ones included
}

// New returns an empty file system.
func New(o Options) *FS {
	if o.Limit <= 0 {
		o.Limit = math.MaxInt64
	}
	if o.Versions <= 0 {
		o.Versions = defaultVersions
	}
	return &FS{opts: o, rng: newRand(o.Seed), root: newFolder(), calls: make(map[vfs.Op]int64)}
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)) }

// CutAt lets the power go during the nth step from now on, 1 being the next one;
// 0 takes that back. A step is a call that changes something: Create, MkdirAll,
// Rename, Remove, RemoveAll, SyncDir, WriteAt, Sync, Cut, Allocate, and Commit.
func (f *FS) CutAt(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutAt = 0
	if n > 0 {
		f.cutAt = f.steps + n
	}
}

// SetLimit changes Options.Limit: a disk on which somebody makes room.
func (f *FS) SetLimit(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opts.Limit = n; n <= 0 {
		f.opts.Limit = math.MaxInt64
	}
}

// Steps returns how many steps there were.
func (f *FS) Steps() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.steps
}

// Off tells whether the power is gone.
func (f *FS) Off() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.off
}

// Calls returns how often an operation was called, failed calls included.
func (f *FS) Calls(op vfs.Op) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// Crash cuts the power, if it is not gone already, and returns a file system
// with what is left. It changes nothing on the old disk: called again with
// another generator it returns another of the possible ends. No store may be
// under way.
func (f *FS) Crash(rng *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endLocked()
	fresh := f.heirLocked(rng.Uint64())
	fresh.root = f.survivors(newTemper(rng), rng)
	fresh.used = fresh.root.bytes()
	return fresh
}

// Kill ends the process: it returns a file system with everything as it was
// seen, dirty pages and names included, on which no handle is open. No store may
// be under way.
func (f *FS) Kill() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endLocked()
	fresh := f.heirLocked(f.rng.Uint64())
	fresh.root, fresh.changes = f.cloneLocked()
	fresh.used = fresh.root.bytes()
	return fresh
}

// endLocked makes every later call fail.
func (f *FS) endLocked() {
	f.off = true
	for _, m := range f.struck {
		m.settleLocked()
	}
	f.struck = nil
}

// heirLocked returns an empty file system with the same options.
func (f *FS) heirLocked(seed uint64) *FS {
	o := f.opts
	o.Seed = seed
	return New(o)
}

// isStep tells whether a call changes what a power cut leaves.
func isStep(op vfs.Op) bool {
	switch op {
	case vfs.OpCreate, vfs.OpMkdirAll, vfs.OpRename, vfs.OpRemove, vfs.OpRemoveAll, vfs.OpSyncDir,
		vfs.OpWrite, vfs.OpSync, vfs.OpCut, vfs.OpAllocate, vfs.OpCommit:
		return true
	default:
		return false
	}
}

// do runs one call: body under the lock, unless a fault or the power is in the
// way.
func (f *FS) do(c vfs.Call, body func(how How) error) error {
	if err := f.hooks.before(c); err != nil {
		return callError(c, err)
	}
	err := f.doLocked(c, body)
	f.hooks.after(c, err)
	return err
}

func (f *FS) doLocked(c vfs.Call, body func(how How) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[c.Op]++
	if f.off {
		return callError(c, ErrPowerCut)
	}
	if isStep(c.Op) {
		if f.steps++; f.steps == f.cutAt {
			f.off = true
			if f.rng.IntN(2) == 0 {
				return callError(c, ErrPowerCut)
			}
		}
	}
	err := f.strikeLocked(c, body)
	if f.off {
		return callError(c, ErrPowerCut)
	}
	return err
}

// take counts n more bytes, or fewer, against the limit.
func (f *FS) take(n int64) error {
	if n > 0 && n > f.opts.Limit-f.used {
		return errNoSpace
	}
	f.used += n
	return nil
}

func callError(c vfs.Call, err error) error {
	return fmt.Errorf("crashfs: %s %s: %w", c.Op, filepath.Clean(c.Name), err)
}
