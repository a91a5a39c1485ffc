package consumequeue

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/pocketmq/mq/internal/coord"
)

// Read fills dst with the entries from offset from on and returns how many it
// got: fewer than asked for only at the queue's End or beside an error. It is
// ErrTrimmed if from is below Min, and no error if it is End or more. Entries in
// memory are read without a lock. Where a file is shorter than it was, holes are
// returned: Patch restores them.
func (q *Queue) Read(from coord.Offset, dst []Entry) (int, error) {
	end := q.End() // before the view, see Queue
	v := q.view.Load()
	if from < q.Min() {
		return 0, ErrTrimmed
	}
	if from >= end {
		return 0, nil
	}
	if n := end - from; n < coord.Offset(len(dst)) {
		dst = dst[:n]
	}
	n := 0
	for n < len(dst) && from+coord.Offset(n) < v.start() {
		off := from + coord.Offset(n)
		got, err := q.readFile(off, min(v.start()-off, coord.Offset(len(dst)-n)), dst[n:])
		n += got
		if err != nil {
			return n, err
		}
	}
	if n < len(dst) {
		v.read(from+coord.Offset(n), dst[n:])
	}
	return len(dst), nil
}

// buffers holds what file entries are decoded from, one chunk's worth each.
var buffers = sync.Pool{New: func() any { return new([chunkEntries * EntrySize]byte) }}

// readFile reads up to want entries into dst: what one buffer holds of one file.
func (q *Queue) readFile(off, want coord.Offset, dst []Entry) (int, error) {
	if q.dropped.Load() { // what was in memory is in no file
		return 0, ErrDropped
	}
	base := off - off%FileEntries
	n := int(min(want, chunkEntries, base+FileEntries-off))
	h, err := q.topic.store.handles.acquire(q, base)
	if err != nil {
		return 0, q.readError(off, base, err)
	}
	defer q.topic.store.handles.release(h)

	buf := buffers.Get().(*[chunkEntries * EntrySize]byte)
	defer buffers.Put(buf)
	raw := buf[:n*EntrySize]
	got, err := h.file.ReadAt(raw, int64(off-base)*EntrySize)
	if got < len(raw) {
		if !errors.Is(err, io.EOF) {
			return 0, q.readError(off, base, err)
		}
		clear(raw[got-got%EntrySize:])
	}
	decodeEntries(dst[:n], raw)
	return n, nil
}

// readError explains why a file could not be read. Retention may have removed
// it between the reader's look at min and now.
func (q *Queue) readError(off, base coord.Offset, err error) error {
	if q.dropped.Load() {
		return ErrDropped
	}
	if errors.Is(err, fs.ErrNotExist) && q.topic.store.opts.Shared {
		q.raiseMin(min(base+FileEntries, q.view.Load().flushed))
	}
	if off < q.Min() && errors.Is(err, fs.ErrNotExist) {
		return ErrTrimmed
	}
	return fmt.Errorf("consumequeue: read %s@%d: %w", q.path(base), off-base, err)
}

// Patch replaces the entry of an offset that turned out not to point at its
// message, in memory or in the file. A reader beside it sees the old entry, the
// new one or, from a file, a mixture, which resolves no better than the old one
// did. It is ErrTrimmed or ErrRange outside of Min and End.
func (q *Queue) Patch(off coord.Offset, e Entry) error {
	if off >= q.End() {
		return ErrRange
	}
	q.fileMu.Lock() // flushed does not move below
	defer q.fileMu.Unlock()
	for {
		v := q.view.Load()
		if off < q.Min() {
			return ErrTrimmed
		}
		if off >= v.start() && !q.view.CompareAndSwap(v, v.patch(off, e)) {
			continue
		}
		if off < v.flushed {
			return q.patchFile(off, e)
		}
		return nil
	}
}

// patchFile is Patch for an entry in a file. The caller holds fileMu.
func (q *Queue) patchFile(off coord.Offset, e Entry) error {
	s := q.topic.store
	base := off - off%FileEntries
	h, err := s.handles.acquire(q, base)
	if err != nil {
		return q.readError(off, base, err)
	}
	defer s.handles.release(h)
	var raw [EntrySize]byte
	e.Put(raw[:])
	if _, err := h.file.WriteAt(raw[:], int64(off-base)*EntrySize); err != nil {
		return fmt.Errorf("consumequeue: patch %s@%d: %w", q.path(base), off-base, err)
	}
	s.dirty.addFile(fileKey{q, base})
	return nil
}
