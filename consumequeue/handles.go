package consumequeue

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

// fileKey names a file without its path, which is only made to open it.
type fileKey struct {
	queue *Queue
	base  coord.Offset
}

// handle is an open file that somebody uses or that stays open for the next.
type handle struct {
	key  fileKey
	file vfs.File

	// Protected by handles.handlesMu.
	refs       int
	unlisted   bool // the last user closes it
	prev, next *handle
}

// handles keeps files open, the least recently used ones up to a number.
type handles struct {
	fs  vfs.FS
	max int

	handlesMu sync.Mutex // protects the two below, the marks of handles and Queue.removals
	open      map[fileKey]*handle
	recent    handle // ring: next is the most, prev the least recently used
}

func (hs *handles) init(fsys vfs.FS, max int) {
	hs.fs, hs.max = fsys, max
	hs.open = make(map[fileKey]*handle)
	hs.recent.prev, hs.recent.next = &hs.recent, &hs.recent
}

// acquire returns an existing file, open until release.
func (hs *handles) acquire(q *Queue, base coord.Offset) (*handle, error) {
	for {
		h, removals, err := hs.lookup(fileKey{q, base})
		if h != nil || err != nil {
			return h, err
		}
		// Opened outside the lock, so that readers of open files do not wait.
		f, err := hs.fs.Open(q.path(base))
		if err != nil {
			return nil, err
		}
		if h, err = hs.insert(fileKey{q, base}, f, removals); h != nil || err != nil {
			return h, err
		}
	}
}

// create is acquire for a file that may not exist yet. It tells whether it made
// one. The folder is there, and the caller holds the queue's fileMu.
func (hs *handles) create(q *Queue, base coord.Offset) (h *handle, made bool, err error) {
	h, err = hs.acquire(q, base)
	if !errors.Is(err, fs.ErrNotExist) {
		return h, false, err
	}
	f, err := hs.fs.Create(q.path(base), 0)
	if err != nil {
		return nil, false, err
	}
	if err := f.Close(); err != nil {
		return nil, true, err
	}
	h, err = hs.acquire(q, base)
	return h, true, err
}

// lookup returns a file that is open, or nil and the mark that insert wants.
func (hs *handles) lookup(key fileKey) (h *handle, removals uint32, err error) {
	hs.handlesMu.Lock()
	defer hs.handlesMu.Unlock()
	if hs.open == nil {
		return nil, 0, ErrClosed
	}
	h = hs.open[key]
	if h != nil {
		h.refs++
		h.unlink()
		h.link(&hs.recent)
	}
	return h, key.queue.removals, nil
}

// insert adds a file just opened, and closes what is too many. It owns f. It
// returns nil if files of the queue were removed since lookup: f may be one of
// them, with another of the same name in its place.
func (hs *handles) insert(key fileKey, f vfs.File, removals uint32) (*handle, error) {
	hs.handlesMu.Lock()
	var h *handle
	var err error
	var surplus []vfs.File
	switch {
	case hs.open == nil:
		err, surplus = ErrClosed, append(surplus, f)
	case key.queue.removals != removals:
		surplus = append(surplus, f)
	case hs.open[key] != nil: // somebody else was faster
		h, surplus = hs.open[key], append(surplus, f)
		h.refs++
	default:
		h = &handle{key: key, file: f, refs: 1}
		hs.open[key] = h
		h.link(&hs.recent)
		surplus = hs.evictLocked()
	}
	hs.handlesMu.Unlock()
	closeAll(surplus)
	return h, err
}

// evictLocked takes the least recently used idle files off the list until it is
// short enough, and returns them for the caller to close.
func (hs *handles) evictLocked() (surplus []vfs.File) {
	for h := hs.recent.prev; h != &hs.recent && len(hs.open) > hs.max; {
		older := h
		h = h.prev
		if older.refs == 0 {
			hs.unlistLocked(older)
			surplus = append(surplus, older.file)
		}
	}
	return surplus
}

// unlistLocked makes a handle unknown to further users.
func (hs *handles) unlistLocked(h *handle) {
	h.unlisted = true
	h.unlink()
	delete(hs.open, h.key)
}

// release ends the use of a handle.
func (hs *handles) release(h *handle) {
	hs.handlesMu.Lock()
	h.refs--
	last := h.refs == 0 && h.unlisted
	hs.handlesMu.Unlock()
	if last {
		closeAll([]vfs.File{h.file})
	}
}

// forget closes the queue's files based below a mark, in use or not: one in use
// goes with its last user. Whoever removes files calls it before, for systems
// that cannot remove open files, and after, for those opened in between.
func (hs *handles) forget(q *Queue, below coord.Offset) {
	var idle []vfs.File
	hs.handlesMu.Lock()
	q.removals++
	for key, h := range hs.open {
		if key.queue == q && key.base < below {
			hs.unlistLocked(h)
			if h.refs == 0 {
				idle = append(idle, h.file)
			}
		}
	}
	hs.handlesMu.Unlock()
	closeAll(idle)
}

// closeAll closes files. Their errors are no news of the bytes: Sync syncs those
// through another descriptor, and entries prove themselves when they are used.
func closeAll(files []vfs.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// count returns how many files are open, apart from those in their last use.
func (hs *handles) count() int {
	hs.handlesMu.Lock()
	defer hs.handlesMu.Unlock()
	return len(hs.open)
}

// close closes all files that are not in use; the others go with their last
// use. Nothing can be opened afterwards.
func (hs *handles) close() error {
	hs.handlesMu.Lock()
	defer hs.handlesMu.Unlock()
	var errs []error
	for _, h := range hs.open {
		hs.unlistLocked(h)
		if h.refs == 0 {
			if err := h.file.Close(); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", h.key.queue.path(h.key.base), err))
			}
		}
	}
	hs.open = nil
	return errors.Join(errs...)
}

// link puts a handle behind another one in the ring.
func (h *handle) link(after *handle) {
	h.prev, h.next = after, after.next
	h.prev.next, h.next.prev = h, h
}

// unlink takes a handle out of the ring.
func (h *handle) unlink() {
	h.prev.next, h.next.prev = h.next, h.prev
	h.prev, h.next = nil, nil
}
