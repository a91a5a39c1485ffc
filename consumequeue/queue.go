package consumequeue

import (
	"sync"
	"sync/atomic"

	"github.com/pocketmq/mq/internal/coord"
)

// Queue is the index of one message queue.
//
// Three parties work on it without waiting for each other.
//
// The writer (who holds the append lock) stores an entry into the last chunk,
// where no reader looks yet, and then publishes it by advancing end. A chunk
// that is full, or sealed, is followed by another one, which is in the view
// before end passes its start.
//
// The flusher (who holds fileMu) writes entries to the file and only after that
// publishes a view that has them in files, and later one without them. To take the last chunk too, which the writer
// may be storing into, it first sets the sealed bit of end. The writer advances
// end by compare-and-swap: if the seal came first it fails, and the entry goes
// to another chunk; if the entry came first the seal covers it. Either way no
// entry is published in a chunk after it was sealed.
//
// A reader loads end, then the view. In this order, and because views are
// published before the end that needs them, the view it gets has every entry
// below that end, in a chunk or, below its start, in a file. If a flush comes
// between the loads, or right after them, the reader has either the view from
// before, whose chunks stay in memory as long as it looks at them, or the one
// after, which was published when the file had the entries already. There is no
// moment at which an entry is in neither.
//
// Invariants:
//  1. min <= end; both only advance (Restore sets them once, at open).
//  2. The chunks of the published view cover start to end without a gap, and
//     start is at most flushed.
//  3. Entries from min to flushed are in files, though not yet synced.
type Queue struct {
	end  atomic.Int64 // offset after the last entry, shifted left by one; bit 0: sealed
	min  atomic.Int64
	view atomic.Pointer[view] // never nil

	// The writer's own.
	tail []byte // what the last chunk of the view holds, of full length
	used int    // bytes of tail with published entries

	topic *topic
	id    coord.QueueID

	dropped  atomic.Bool
	captured atomic.Int64 // min in the last State that Capture returned

	fileMu  sync.Mutex   // one at a time moves flushed or changes files; protects the three below
	oldest  coord.Offset // base of the oldest file, if there is one
	filed   bool         // there may be files
	adopted bool         // files from an earlier run were dealt with

	listed   bool   // is in Store.full; protected by fullMu
	removals uint32 // counts removals of files; protected by handlesMu
}

// sealed is the bit of Queue.end that closes the last chunk to the writer.
const sealed = 1

func newQueue(t *topic, id coord.QueueID) *Queue {
	q := &Queue{topic: t, id: id}
	q.view.Store(&noEntries)
	return q
}

// Min returns the first offset that can be read. If it equals End the queue is
// empty.
func (q *Queue) Min() coord.Offset { return coord.Offset(q.min.Load()) }

// End returns the offset that the next entry will get.
func (q *Queue) End() coord.Offset { return coord.Offset(q.end.Load() >> 1) }

// Append adds an entry and returns its offset. The caller holds the append
// lock. Readers may see the entry at once: whether its message may be delivered
// is the caller's business.
func (q *Queue) Append(e Entry) coord.Offset {
	w := q.end.Load()
	if w&sealed == 0 && q.used+EntrySize <= len(q.tail) {
		e.Put(q.tail[q.used:])
		if q.end.CompareAndSwap(w, w+2) {
			q.used += EntrySize
			return coord.Offset(w >> 1)
		}
	}
	return q.appendChunk(coord.Offset(w>>1), e)
}

// appendChunk is Append into a new chunk.
func (q *Queue) appendChunk(off coord.Offset, e Entry) coord.Offset {
	inMemory := int(off - q.view.Load().flushed)
	// As many as there are in memory: memory taken is at most twice memory used,
	// and a queue that was flushed early starts small again.
	data := make([]byte, min(max(inMemory, minChunkEntries), chunkEntries)*EntrySize)
	e.Put(data)
	q.push(chunk{start: off, data: data})
	q.tail, q.used = data, EntrySize
	// A plain store, not a swap: should a flusher have set the seal since, it
	// takes chunks that start below off, and this one does not.
	q.end.Store(int64(off+1) << 1)
	q.topic.store.grown(q, inMemory, int64(len(data)))
	return off
}

// push publishes a view with one more chunk.
func (q *Queue) push(c chunk) {
	for {
		old := q.view.Load()
		if q.view.CompareAndSwap(old, old.with(c)) {
			return
		}
	}
}

// grown accounts for a new chunk of a queue that had inMemory entries before,
// and calls Full if it is time.
func (s *Store) grown(q *Queue, inMemory int, bytes int64) {
	total := s.unflushed.Add(bytes)
	if inMemory >= chunkEntries {
		s.list(q)
		// One write per queue is cheap beside waking somebody: 1 MiB of full
		// chunks, 50,000 entries, is worth it.
		if s.waiting.Add(bytes) >= s.opts.MaxUnflushed/16 {
			s.opts.Full()
			return
		}
	}
	if total >= s.near() {
		s.opts.Full()
	}
}

// near is the amount of memory at which queues are flushed early, and calm the
// one at which that ends.
func (s *Store) near() int64 { return s.opts.MaxUnflushed / 4 * 3 }
func (s *Store) calm() int64 { return s.opts.MaxUnflushed / 2 }

// list has the next Flush look at the queue.
func (s *Store) list(q *Queue) {
	s.fullMu.Lock()
	defer s.fullMu.Unlock()
	if !q.listed {
		q.listed = true
		s.full = append(s.full, q)
	}
}

// AppendAt adds the entry of offset off when the log is folded, which may say
// things again: an offset below End is ignored. If off lies beyond End the
// offsets between become holes, or the queue starts at off if it is empty. The
// caller holds the append lock.
func (q *Queue) AppendAt(off coord.Offset, e Entry) {
	if off < q.End() {
		return
	}
	q.Advance(off)
	q.Append(e)
}

// maxGap bounds a run of holes. The log would have to lose 12 GiB in one piece
// to need a longer one (48 bytes is the smallest record); files for holes cost
// no disk, but names.
const maxGap = 1 << 28

// Advance makes end the queue's End if it is lower: an empty queue starts there,
// another one gets holes. A gap that no log can explain (more than 2^28
// offsets) is not filled: then, too, the queue starts at end. The caller holds
// the append lock.
func (q *Queue) Advance(end coord.Offset) {
	have := q.End()
	if end <= have {
		return
	}
	q.tail, q.used = nil, 0
	if q.Min() == have || end-have > maxGap {
		// min first: a reader that still sees the old end is told ErrTrimmed or
		// finds nothing, rather than to look for these offsets in a file.
		q.raiseMin(end)
		q.release(end)
	} else {
		q.push(chunk{start: have})
	}
	q.end.Store(int64(end) << 1)
}

// raiseMin advances min.
func (q *Queue) raiseMin(to coord.Offset) {
	for {
		old := q.min.Load()
		if int64(to) <= old || q.min.CompareAndSwap(old, int64(to)) {
			return
		}
	}
}

// release publishes a view without what is below to, which is in files or not
// wanted. It drops whole chunks: the last of those below to must end there.
func (q *Queue) release(to coord.Offset) {
	q.publish(func(v *view) *view { return v.without(to) })
}

// publish replaces the view by what change makes of it, and accounts for the
// memory.
func (q *Queue) publish(change func(*view) *view) {
	for {
		old := q.view.Load()
		next := change(old)
		if next == old {
			return
		}
		if q.view.CompareAndSwap(old, next) {
			s := q.topic.store
			keptBefore, unflushedBefore := old.bytes()
			kept, unflushed := next.bytes()
			s.kept.Add(kept - keptBefore)
			s.unflushed.Add(unflushed - unflushedBefore)
			return
		}
	}
}

// Trim makes to the first offset, at most End. Entries below are gone for
// readers that come later; memory is freed by the next Flush, files by the
// Sweep after the next Capture.
func (q *Queue) Trim(to coord.Offset) {
	if end := q.End(); to > end {
		to = end
	}
	q.raiseMin(to)
	if to > q.view.Load().start() {
		q.topic.store.list(q)
	}
}
