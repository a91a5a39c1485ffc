package consumequeue

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/pocketmq/mq/internal/coord"
)

// State is what a checkpoint keeps of a queue.
//
//	in files         | in the checkpoint
//	Min … Flushed-1  | Flushed … End-1
type State struct {
	Min     coord.Offset
	Flushed coord.Offset // at least Min; what lies below is in files, synced by the next Sync
	End     coord.Offset
	Tail    []Entry // from Flushed to End
}

// Capture returns the state of the queue at one moment during the call, without
// holding up the writer. The next Sync makes it restorable; the next Sweep may
// remove what it does not need.
func (q *Queue) Capture() State {
	// End before the view, as in Read. Min after it: a flush that skipped trimmed
	// entries loaded min before it published the view, so the min we get here is
	// no lower, and nothing from Min to Flushed was skipped.
	end := q.End()
	v := q.view.Load()
	// What was appended since may have been flushed early, or trimmed.
	first := min(q.Min(), end)
	if q.dropped.Load() { // by now, so that the view may be without what is in no file
		first = end
	}
	q.captured.Store(int64(first))
	st := State{Min: first, Flushed: min(max(v.flushed, first), end), End: end}
	if st.Flushed < end {
		st.Tail = make([]Entry, end-st.Flushed)
		v.read(st.Flushed, st.Tail)
	}
	return st
}

// Restore brings back a captured queue when a store is opened, before anything
// else is done with it. Files are cut to Flushed, those not needed are removed.
// It is ErrShort if they hold less: then the queue is left empty, and appending
// to it starts afresh. The caller holds the append lock.
func (q *Queue) Restore(st State) error {
	if st.Min < 0 || st.Flushed < st.Min || st.End < st.Flushed || st.End-st.Flushed != coord.Offset(len(st.Tail)) {
		return fmt.Errorf("%w: min %d, flushed %d, end %d, %d entries",
			ErrState, st.Min, st.Flushed, st.End, len(st.Tail))
	}
	if q.end.Load() != 0 {
		return fmt.Errorf("%w: the queue has entries", ErrState)
	}
	if err := q.restoreFiles(st); err != nil {
		return err
	}
	v := &view{flushed: st.Flushed}
	if len(st.Tail) > 0 {
		// Of exact size: most queues get no further entry.
		data := make([]byte, len(st.Tail)*EntrySize)
		encodeEntries(data, st.Tail)
		v.chunks = []chunk{{start: st.Flushed, data: data}}
		q.topic.store.unflushed.Add(int64(len(data)))
	}
	q.min.Store(int64(st.Min))
	q.captured.Store(int64(st.Min))
	q.view.Store(v)
	q.end.Store(int64(st.End) << 1)
	return nil
}

func (q *Queue) restoreFiles(st State) error {
	q.fileMu.Lock()
	defer q.fileMu.Unlock()
	return q.adopt(st.Min, st.Flushed)
}

// adopt deals with the files of an earlier run: those with entries from first up
// to flushed are kept and cut to what they hold of them, others are removed. If
// entries are missing it is ErrShort, and the first flush deals with the files
// again, as those of a queue that has none. The caller holds fileMu.
func (q *Queue) adopt(first, flushed coord.Offset) error {
	q.adopted, q.filed = false, false
	found, err := q.files()
	if err != nil {
		return err
	}
	var kept coord.Offset
	for _, f := range found {
		from, to := max(first, f.base), min(flushed, f.base+FileEntries)
		if from >= to {
			if err := q.topic.store.fs.Remove(q.path(f.base)); err != nil {
				return fmt.Errorf("consumequeue: remove %s: %w", q.path(f.base), err)
			}
			continue
		}
		if err := q.cut(f, int64(to-f.base)*EntrySize); err != nil {
			return err
		}
		if kept == 0 {
			q.oldest = f.base
		}
		kept += to - from
	}
	if want := flushed - first; kept != want {
		return fmt.Errorf("%w: %s: %d of %d entries", ErrShort, q.folder(), kept, want)
	}
	q.adopted, q.filed = true, kept > 0
	return nil
}

// foundFile is a file as it is in the queue's folder.
type foundFile struct {
	base coord.Offset
	size int64
}

// files lists the queue's files, oldest first.
func (q *Queue) files() (found []foundFile, err error) {
	s, t := q.topic.store, q.topic
	if !q.filed && !s.known[Dir(t.name, t.id)] {
		return nil, nil // 40,000 queues without a folder: no system call
	}
	entries, err := s.fs.List(q.folder())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("consumequeue: list %s: %w", q.folder(), err)
	}
	for _, e := range entries {
		if base, ok := parseFileName(e.Name); ok && !e.Dir {
			found = append(found, foundFile{base, e.Size})
		}
	}
	return found, nil
}

// cut makes a file size bytes long, if it is at least that.
func (q *Queue) cut(f foundFile, size int64) error {
	if f.size < size {
		return fmt.Errorf("%w: %s: %d of %d bytes", ErrShort, q.path(f.base), f.size, size)
	}
	if f.size == size {
		return nil
	}
	h, err := q.topic.store.handles.acquire(q, f.base)
	if err != nil {
		return fmt.Errorf("consumequeue: open %s: %w", q.path(f.base), err)
	}
	defer q.topic.store.handles.release(h)
	if err := h.file.Cut(size); err != nil {
		return fmt.Errorf("consumequeue: cut %s: %w", q.path(f.base), err)
	}
	return nil
}
