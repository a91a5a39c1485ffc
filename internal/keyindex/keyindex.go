// Package keyindex finds messages by key: it maps the hash of a key to the
// positions of the records that may carry it. What it calls a hash is any number
// that is looked for: another index of its kind has the times of delayed
// messages, and visits them in their order (Ascend).
//
// Pairs of the log's active part are in memory. Flush sorts those below a
// position and writes them to one immutable file; nothing is merged later, and a
// file goes when the log it covers has gone.
//
//	<dir>/<from>-<to>, two positions of 20 digits, from <= every pair < to
//
// Files follow each other without a gap, so that one that is missing is noticed.
// None is held in memory or kept open: a lookup reads a dozen pages of each.
// Everything here can be made from the log again.
//
// A pair is a hint. Two keys may have one hash, and what a pair points at may be
// gone: whoever looks up compares the keys of the messages.
package keyindex

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

var (
	// ErrClosed is returned by what needs a file after Close.
	ErrClosed = vfs.ErrClosed

	// ErrCorrupt is what errors.Is finds in a *CorruptError.
	ErrCorrupt = errors.New("keyindex: file damaged")
)

// CorruptError names a file that is damaged or missing. Rebuild with its From
// and To makes it again.
type CorruptError struct {
	File     string // path
	From, To coord.Position
	Err      error // what is wrong
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("keyindex: file %s damaged: %v", e.File, e.Err)
}

// Unwrap makes both ErrCorrupt and the cause visible to errors.Is.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }

// span is a file as its name tells it: it holds the pairs from from up to to.
type span struct {
	from, to coord.Position
	size     int64 // bytes; 0 if the file is missing
}

// state is what the index consists of: an immutable snapshot that lookups load
// without a lock. The one thing in it that grows is the last chunk.
//
//	files of spans   | chunks
//	… covered-1      | covered …
type state struct {
	spans   []span // oldest first, each one's to is the next one's from
	covered coord.Position
	chunks  []*chunk // oldest first; pairs below covered are in a file, too
}

// chunkPairs is the number of pairs in a chunk of memory, 16 KiB.
const chunkPairs = 1024

// chunk holds pairs in memory, hashes apart so that a lookup, which compares
// them all, reads half as much.
type chunk struct {
	n         atomic.Int32 // pairs that may be read
	hashes    [chunkPairs]uint64
	positions [chunkPairs]coord.Position
}

// Index is the key index of a store.
//
// Add is called by one goroutine at a time, which holds the append lock. It may
// run beside everything else, and lookups beside everything, without a lock. A
// flush publishes the state in which pairs are covered by a file when the file
// is complete, so a lookup finds them in memory or in the file, not in both.
type Index struct {
	fs  vfs.FS
	dir string

	state atomic.Pointer[state] // never nil

	tail *chunk // the last chunk of state; the adder's own

	stateMu sync.Mutex                // protects replacing state, and done; no file is touched under it
	done    map[coord.Position]hashes // by the begin of a file: what Ascend need not look for in it
	fileMu  sync.Mutex                // one at a time makes or removes files
	closed  atomic.Bool
}

// Add adds a pair. Positions ascend. Pairs that files cover, which replaying the
// log brings up again, are ignored. The caller holds the append lock.
func (x *Index) Add(hash uint64, pos coord.Position) {
	if pos < x.Covered() {
		return
	}
	c := x.tail
	if c == nil || c.n.Load() == chunkPairs {
		c = x.grow()
	}
	n := c.n.Load() // only we store to it
	c.hashes[n], c.positions[n] = hash, pos
	c.n.Store(n + 1) // readers look no further than n
}

// Restart drops the pairs in memory, which the log is replayed for once more. The
// caller holds the append lock.
func (x *Index) Restart() {
	x.replace(func(next *state) { next.chunks = nil })
	x.tail = nil
}

// grow appends an empty chunk.
func (x *Index) grow() *chunk {
	c := new(chunk)
	x.stateMu.Lock()
	defer x.stateMu.Unlock()
	next := *x.state.Load()
	// Older states share the array, and end before the new slot. A flush copies
	// what it keeps to an array of its own.
	next.chunks = append(next.chunks, c)
	x.state.Store(&next)
	x.tail = c
	return c
}

// Covered returns the position below which pairs are in files.
func (x *Index) Covered() coord.Position { return x.state.Load().covered }

// Pending returns how many bytes the pairs in memory take. Whoever adds calls
// Flush before that is too much: a message can have thousands of keys.
func (x *Index) Pending() int64 {
	chunks := x.state.Load().chunks
	if len(chunks) == 0 {
		return 0
	}
	last := len(chunks) - 1 // all before are full
	return (int64(last)*chunkPairs + int64(chunks[last].n.Load())) * pairSize
}

// Close makes all further calls that need a file fail with ErrClosed. It writes
// nothing: what is to be kept is flushed before. It is idempotent.
func (x *Index) Close() error {
	x.fileMu.Lock()
	defer x.fileMu.Unlock()
	x.closed.Store(true)
	return nil
}
