package consumequeue

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/pocketmq/mq/internal/coord"
)

// scratchEntries is how many entries one write carries at most: 64 KiB spread
// the system call (0.5 µs) over 3,000 entries.
const scratchEntries = 64 << 10 / EntrySize

// Flush appends full chunks to their files, without syncing them; they stay in
// memory, up to MaxKept, for readers near the end. If that leaves more than three quarters of MaxUnflushed,
// the queues with most in memory are written too, down to half. After an error
// everything that could not be written is still in memory and tried again by
// the next Flush.
func (s *Store) Flush() error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if s.closed.Load() {
		return ErrClosed
	}
	s.waiting.Store(0)
	full := s.takeFull()
	for i, q := range full {
		if err := q.flush(false); err != nil {
			for _, q := range full[i:] {
				s.list(q)
			}
			return err
		}
	}
	if s.unflushed.Load() < s.near() {
		return nil
	}
	return s.flushFullest()
}

// takeFull empties the list of queues that Flush has to look at. A queue that
// fills another chunk from now on is listed again.
func (s *Store) takeFull() []*Queue {
	s.fullMu.Lock()
	defer s.fullMu.Unlock()
	full := s.full
	s.full = nil
	for _, q := range full {
		q.listed = false
	}
	return full
}

// flushFullest writes queues early, those with most in memory first, so that
// the fewest files are made. The caller holds flushMu.
func (s *Store) flushFullest() error {
	type candidate struct {
		queue *Queue
		bytes int64
	}
	var cs []candidate
	for _, q := range s.queues() {
		if _, n := q.view.Load().bytes(); n > 0 {
			cs = append(cs, candidate{q, n})
		}
	}
	slices.SortFunc(cs, func(a, b candidate) int { return cmp.Compare(b.bytes, a.bytes) })
	for _, c := range cs {
		if s.unflushed.Load() <= s.calm() {
			break
		}
		if err := c.queue.flush(true); err != nil {
			return err
		}
	}
	return nil
}

// flush writes a queue's entries to its files: the chunks before the last one
// if they make a full one together, and if early all there is. The caller holds
// flushMu.
func (q *Queue) flush(early bool) error {
	q.fileMu.Lock()
	defer q.fileMu.Unlock()
	if q.dropped.Load() {
		return nil
	}
	to := coord.Offset(0)
	if early {
		to = q.seal()
	}
	v := q.view.Load() // after the seal, so that it has all of what is sealed
	if n := len(v.chunks); !early && n > 0 {
		to = v.chunks[n-1].start
	}
	first := q.Min() // after the view: see Capture
	if !early && to-v.flushed < chunkEntries {
		// Listed by Trim: nothing to write, but chunks below min can go.
		if first > v.start() {
			q.release(v.stays(first, to))
		}
		return nil
	}
	if from := max(v.flushed, first); from < to {
		if err := q.write(v, from, to); err != nil {
			return err
		}
	}
	if early {
		q.release(to) // memory is what it is about
		return nil
	}
	q.publish(func(v *view) *view { return v.filed(to) })
	q.topic.store.keep(q, to)
	return nil
}

// keptPart is what one flush of a queue left in memory: all below to.
type keptPart struct {
	queue *Queue
	to    coord.Offset
}

// keep notes what was flushed last, and drops from memory what was flushed
// first, down to MaxKept. Parts of queues that were trimmed or dropped meanwhile
// hold nothing any more; a full part is a chunk at least, so that there are
// never more of those than the bound on their number says. The caller holds
// flushMu.
func (s *Store) keep(q *Queue, to coord.Offset) {
	s.parts = append(s.parts, keptPart{q, to})
	for len(s.parts) > 0 && (s.kept.Load() > s.opts.MaxKept || int64(len(s.parts)) > s.opts.MaxKept/(chunkEntries*EntrySize)) {
		s.parts[0].queue.release(s.parts[0].to)
		s.parts = slices.Delete(s.parts, 0, 1)
	}
}

// stays returns the start of the first chunk that has to stay when entries below
// first go; at most to, itself the start of a chunk.
func (v *view) stays(first, to coord.Offset) coord.Offset {
	if first >= to {
		return to
	}
	return v.chunks[v.find(first)].start
}

// seal closes the last chunk to the writer and returns the offset it ends at.
func (q *Queue) seal() coord.Offset {
	for {
		w := q.end.Load()
		if w&sealed != 0 || q.end.CompareAndSwap(w, w|sealed) {
			return coord.Offset(w >> 1)
		}
	}
}

// write stores the entries from from up to to, which the view has in memory, in
// the queue's files and marks those dirty. The caller holds flushMu and fileMu.
func (q *Queue) write(v *view, from, to coord.Offset) error {
	if !q.adopted { // never restored: what is there is of no use
		if err := q.adopt(0, 0); err != nil {
			return err
		}
	}
	for from < to {
		base := from - from%FileEntries
		end := min(to, base+FileEntries)
		if err := q.writeFile(v, base, from, end); err != nil {
			return fmt.Errorf("consumequeue: write %s@%d: %w", q.path(base), from-base, err)
		}
		from = end
	}
	return nil
}

// writeFile is write for one file.
func (q *Queue) writeFile(v *view, base, from, to coord.Offset) error {
	s := q.topic.store
	h, err := q.create(base)
	if err != nil {
		return err
	}
	defer s.handles.release(h)
	size, err := h.file.Size()
	if err != nil {
		return err
	}
	if s.scratch == nil {
		s.scratch = make([]byte, scratchEntries*EntrySize)
	}
	for from < to {
		at := int64(from-base) * EntrySize
		n := coord.Offset(v.holes(from, to))
		if n > 0 && at >= size {
			// Extending a file makes zeros, which are holes, without writing them.
			size = at + int64(n)*EntrySize
			err = h.file.Cut(size)
		} else {
			n = min(to-from, scratchEntries)
			size, err = s.writeEntries(h, v, from, n, size)
		}
		if err != nil {
			return err
		}
		from += n
	}
	// After the write and before the entries leave memory: a Sync that follows a
	// Capture which found them flushed finds the mark too.
	s.dirty.addFile(fileKey{q, base})
	return nil
}

// writeEntries writes up to scratchEntries entries to a file of the given size
// and returns its new one. The caller holds flushMu.
func (s *Store) writeEntries(h *handle, v *view, from, n coord.Offset, size int64) (int64, error) {
	raw := s.scratch[:n*EntrySize]
	v.encode(from, raw)
	at := int64(from-h.key.base) * EntrySize
	if at > size { // the queue began, or began again, inside this file
		if err := h.file.Cut(at); err != nil {
			return size, err
		}
	}
	if _, err := h.file.WriteAt(raw, at); err != nil {
		return size, err
	}
	s.writes.Add(1)
	s.written.Add(int64(len(raw)))
	return max(size, at+int64(len(raw))), nil
}

// create opens a file of the queue, making it and its folders if need be. The
// caller holds fileMu.
func (q *Queue) create(base coord.Offset) (*handle, error) {
	s, folder := q.topic.store, q.folder()
	if !q.filed {
		if err := s.fs.MkdirAll(folder); err != nil {
			return nil, err
		}
	}
	h, made, err := s.handles.create(q, base)
	if err != nil {
		return nil, err
	}
	if !q.filed {
		q.filed, q.oldest = true, base
	}
	if made {
		// Any of the folders may be new; syncing one that is not costs little.
		s.dirty.addFolders(folder, filepath.Dir(folder), s.dir, filepath.Dir(s.dir))
	}
	return h, nil
}

// folder returns the path of the queue's folder.
func (q *Queue) folder() string {
	return filepath.Join(q.topic.folder(), strconv.Itoa(int(q.id)))
}

// folder returns the path of the topic's folder.
func (t *topic) folder() string { return filepath.Join(t.store.dir, Dir(t.name, t.id)) }

// path returns the path of one of the queue's files.
func (q *Queue) path(base coord.Offset) string {
	return filepath.Join(q.folder(), fileName(base))
}
