package consumequeue

import (
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

// own makes an entry that tells its offset.
func own(off coord.Offset) Entry {
	return Entry{Position: coord.Position(off), Size: 1, Tag: ^uint64(off)}
}

func requireOwn(t *testing.T, off coord.Offset, got []Entry) {
	for i, e := range got {
		if want := own(off + coord.Offset(i)); e != want {
			assert.Equal(t, want, e, "offset %d", off+coord.Offset(i))
			return
		}
	}
}

// beside calls f without a pause until the returned function is called.
func beside(t *testing.T, f func()) (stop func()) {
	var stopped atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stopped.Load() && !t.Failed() {
			f()
		}
	})
	return func() {
		stopped.Store(true)
		wg.Wait()
	}
}

// The seal against the writer, as densely as can be: a queue that is flushed
// early without a pause.
func TestSealMeetsAppend(t *testing.T) {
	t.Parallel()
	s, err := Open(vfs.NewMem(64<<20), "store", Options{})
	require.NoError(t, err)
	defer s.Close()
	q := s.Queue("t", 8, 0)
	flush := func() {
		s.flushMu.Lock()
		defer s.flushMu.Unlock()
		assert.NoError(t, q.flush(true))
	}
	stop := beside(t, flush)
	const n = 500_000
	for off := range coord.Offset(n) {
		if got := q.Append(own(off)); got != off {
			assert.Equal(t, off, got)
			break
		}
		if off%4 == 0 {
			q.seal() // more chunks for the flusher to miss
		}
	}
	stop()
	all := make([]Entry, n)
	_, err = q.Read(0, all)
	require.NoError(t, err)
	requireOwn(t, 0, all)
	flush()
	require.Zero(t, s.Stats().Unflushed, "every chunk was accounted for")
}

// Readers against a view that changes with every entry: a chunk is sealed as
// soon as it has one, and old ones go, here without being written.
func TestReadersMeetGrowth(t *testing.T) {
	t.Parallel()
	for _, reader := range []struct {
		name string
		read func(t *testing.T, q *Queue)
	}{
		{"Read", func(t *testing.T, q *Queue) {
			from := max(0, q.End()-1)
			var dst [4]Entry
			n, err := q.Read(from, dst[:])
			if !errors.Is(err, fs.ErrNotExist) { // not as fast as the writer
				assert.NoError(t, err)
				requireOwn(t, from, dst[:n])
			}
		}},
		{"Capture", func(t *testing.T, q *Queue) {
			st := q.Capture()
			requireOwn(t, st.Flushed, st.Tail)
		}},
	} {
		t.Run(reader.name, func(t *testing.T) {
			s, err := Open(vfs.NewMem(1<<20), "store", Options{})
			require.NoError(t, err)
			defer s.Close()
			q := s.Queue("t", 8, 0)
			stop := beside(t, func() { reader.read(t, q) })
			for off := range coord.Offset(200_000) {
				q.Append(own(off))
				q.seal()
				if off%64 == 63 {
					q.release(off - 31)
				}
			}
			stop()
		})
	}
}

// A reader opens a file, then the file is removed and another one takes its
// name, then the reader offers what it opened to the others.
func TestRemovedFileIsNotKeptOpen(t *testing.T) {
	t.Parallel()
	s, err := Open(vfs.NewMem(64<<20), "store", Options{})
	require.NoError(t, err)
	defer s.Close()
	q := s.Queue("t", 8, 0)
	for range 3000 {
		q.Append(own(q.End()))
	}
	require.NoError(t, s.Flush())
	s.handles.forget(q, 1) // the flusher's own
	_, removals, err := s.handles.lookup(fileKey{q, 0})
	require.NoError(t, err)
	stale, err := s.fs.Open(q.path(0))
	require.NoError(t, err)

	q.Trim(q.End())
	q.Capture()
	require.NoError(t, s.Sweep())
	h, err := s.handles.insert(fileKey{q, 0}, stale, removals)
	require.NoError(t, err)
	require.Nil(t, h)
	_, err = stale.Size()
	require.Error(t, err, "it is closed")

	for range 3000 {
		q.Append(own(q.End()))
	}
	require.NoError(t, s.Flush())
	got := make([]Entry, 3000)
	_, err = q.Read(3000, got)
	require.NoError(t, err)
	requireOwn(t, 3000, got)
}

// A file that is in use when it is evicted or forgotten stays open for its user.
func TestHandleOutlivesItsListing(t *testing.T) {
	t.Parallel()
	s, err := Open(vfs.NewMem(64<<20), "store", Options{MaxOpen: 1})
	require.NoError(t, err)
	var qs [3]*Queue
	for i := range qs {
		qs[i] = s.Queue("t", 8, coord.QueueID(i))
		for range 2000 {
			qs[i].Append(own(qs[i].End()))
		}
	}
	require.NoError(t, s.Flush())
	var hs [3]*handle
	for i, q := range qs {
		hs[i], err = s.handles.acquire(q, 0)
		require.NoError(t, err)
	}
	require.Equal(t, 3, s.handles.count(), "files in use are not closed")
	s.handles.forget(qs[0], 1)
	require.NoError(t, s.Close())
	for _, h := range hs {
		_, err := h.file.Size()
		require.NoError(t, err)
		s.handles.release(h)
		_, err = h.file.Size()
		require.Error(t, err, "its last user closed it")
	}
}
