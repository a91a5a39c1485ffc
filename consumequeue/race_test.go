package consumequeue_test

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
)

// One writer, and beside it everything that may run beside it. Memory is so
// short that queues are sealed and flushed early all the time.
func TestEveryoneAtOnce(t *testing.T) {
	t.Parallel()
	const perQueue = 60_000
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{MaxUnflushed: 8 << 10, MaxOpen: 1})
	queues := []*consumequeue.Queue{s.Queue("t", 8, 0), s.Queue("t", 8, 1), s.Queue("t", 16, 0)}
	for _, q := range queues {
		q.Advance(consumequeue.FileEntries - perQueue/2) // over the border of two files
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	start := func(f func()) {
		wg.Go(func() {
			for !stop.Load() && !t.Failed() {
				f()
				runtime.Gosched()
			}
		})
	}
	for _, q := range queues {
		start(func() { readAll(t, q) })
		start(func() { captureOne(t, q) })
		// Patching with what is there already changes nothing that can be seen.
		start(func() {
			off := (q.Min() + q.End()) / 2
			if err := q.Patch(off, entry(off)); err != nil && !errors.Is(err, consumequeue.ErrTrimmed) {
				assert.ErrorIs(t, err, consumequeue.ErrRange)
			}
		})
	}
	start(func() { assert.NoError(t, s.Flush()) })
	start(func() { assert.NoError(t, s.Flush()) })
	start(func() {
		assert.NoError(t, s.Sync())
		assert.NoError(t, s.Sweep())
	})
	start(func() { queues[1].Trim(queues[1].End() - 5000) })

	for range perQueue {
		for _, q := range queues {
			q.Append(entry(q.End()))
		}
	}
	stop.Store(true)
	wg.Wait()
	for _, q := range queues {
		readAll(t, q)
	}
	require.NoError(t, s.Flush())
	require.Less(t, s.Stats().Unflushed, int64(8<<10))
}

// readAll reads a queue in batches and finds every entry there was when it
// began.
func readAll(t *testing.T, q *consumequeue.Queue) {
	dst := make([]consumequeue.Entry, 777)
	end := q.End()
	for off := q.Min(); off < end; {
		n, err := q.Read(off, dst)
		if errors.Is(err, consumequeue.ErrTrimmed) {
			off = q.Min()
			continue
		}
		if !assert.NoError(t, err) || !assert.Positive(t, n, "offset %d, end %d", off, end) {
			return
		}
		for i, e := range dst[:n] {
			if e != entry(off+coord.Offset(i)) && off+coord.Offset(i) >= q.Min() {
				assert.Equal(t, entry(off+coord.Offset(i)), e, "offset %d", off+coord.Offset(i))
				return
			}
		}
		off += coord.Offset(n)
	}
}

// captureOne captures a queue and checks the state.
func captureOne(t *testing.T, q *consumequeue.Queue) {
	before := q.End()
	st := q.Capture()
	assert.True(t, st.Min <= st.Flushed && st.Flushed <= st.End && st.End >= before, "%d %d %d", st.Min, st.Flushed, st.End)
	if !assert.Len(t, st.Tail, int(st.End-st.Flushed)) {
		return
	}
	for i, e := range st.Tail {
		if want := entry(st.Flushed + coord.Offset(i)); e != want {
			assert.Equal(t, want, e)
			return
		}
	}
}

// Reading what a checkpoint names, from the files as they are at any moment
// after it was captured and synced, gives the state at the capture.
func TestCaptureBesideFlushesRestores(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{MaxUnflushed: 8 << 10})
	q := s.Queue("t", 8, 0)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			assert.NoError(t, s.Flush())
			runtime.Gosched()
		}
	})
	wg.Go(func() {
		for !stop.Load() {
			fill(q, 10)
			q.Trim(q.End() - 3000)
			runtime.Gosched()
		}
	})
	for range 200 {
		st := q.Capture()
		assert.NoError(t, s.Sync())
		clone := fsys.Clone()
		back, err := consumequeue.Open(clone, root, consumequeue.Options{})
		if !assert.NoError(t, err) {
			break
		}
		r := back.Queue("t", 8, 0)
		if !assert.NoError(t, r.Restore(st)) {
			break
		}
		readAll(t, r)
		assert.NoError(t, back.Close())
		assert.NoError(t, s.Sweep())
	}
	stop.Store(true)
	wg.Wait()
}
