package commitlog

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/pocketmq/mq/internal/vfs"
)

// maxIdleHandles bounds the open descriptors of segments that nobody uses at the
// moment: 64 × 128 MiB is more than readers jump about in. Segments with
// unsynced bytes are always open, through the descriptor they were made with:
// only that one is told of an error in writing them back.
const maxIdleHandles = 64

// handles opens files of segments when they are read, and closes those that
// were not for the longest time.
type handles struct {
	fs     vfs.FS
	shared bool // the files are another log's, which may drop them; set before use

	mu     sync.Mutex // protects everything below, and file, users, gone of every segment
	open   []*segment // least recently used first
	closed bool
}

// adopt makes f the file of s and the caller its first user.
func (h *handles) adopt(s *segment, f vfs.File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.file, s.users = f, 1
	h.open = append(h.open, s)
}

// acquire returns the file of s, which stays open until release.
func (h *handles) acquire(s *segment) (vfs.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	if s.gone { // dropped after the caller found it
		return nil, fmt.Errorf("%w: segment %s was dropped", ErrNotFound, s.name)
	}
	if i := slices.Index(h.open, s); i >= 0 {
		copy(h.open[i:], h.open[i+1:])
		h.open[len(h.open)-1] = s
	} else {
		f, err := h.fs.Open(s.name)
		if h.shared && errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: segment %s was dropped", ErrNotFound, s.name)
		}
		if err != nil {
			return nil, fmt.Errorf("commitlog: open segment: %w", err)
		}
		s.file = f
		h.open = append(h.open, s)
	}
	s.users++
	_ = h.evictLocked() // nothing was written through what is closed here
	return s.file, nil
}

// release ends one use of s. Its error is that of closing a removed file.
func (h *handles) release(s *segment) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.users--
	if s.users == 0 && (s.gone || h.closed) {
		return h.closeLocked(s)
	}
	return nil
}

// forget closes the file of a segment that was removed, once nobody uses it.
func (h *handles) forget(s *segment) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.gone = true
	if s.users == 0 {
		return h.closeLocked(s)
	}
	return nil
}

// close closes every file, those in use when they are released.
func (h *handles) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	var errs []error
	for _, s := range slices.Clone(h.open) {
		if s.users == 0 {
			errs = append(errs, h.closeLocked(s))
		}
	}
	return errors.Join(errs...)
}

// evictLocked closes the files that were not used for the longest time.
func (h *handles) evictLocked() error {
	for i := 0; i < len(h.open) && len(h.open) > maxIdleHandles; i++ {
		if s := h.open[i]; s.users == 0 {
			return h.closeLocked(s) // one came, one goes
		}
	}
	return nil
}

func (h *handles) closeLocked(s *segment) error {
	i := slices.Index(h.open, s)
	if i < 0 {
		return nil
	}
	h.open = slices.Delete(h.open, i, i+1)
	f := s.file
	s.file = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("commitlog: close segment %s: %w", s.name, err)
	}
	return nil
}
