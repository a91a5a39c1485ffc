package commitlog_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/vfs"
)

// noCreate lets no file be made until it is opened again.
func noCreate(mem *vfs.Mem, err error) {
	mem.Fail(func(c vfs.Call) error {
		if c.Op == vfs.OpCreate {
			return err
		}
		return nil
	})
}

// fill appends until there is no room left, and returns the error.
func fill(t *testing.T, l *commitlog.Log, room commitlog.Room, size int) error {
	t.Helper()
	for range 1 << 20 {
		if _, _, err := tryPut(ctx, l, room, string(make([]byte, size))); err != nil {
			return err
		}
	}
	t.Fatal("there is always room")
	return nil
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	mem := o.FS.(*vfs.Mem)
	noCreate(mem, syscall.ENOSPC)
	require.ErrorIs(t, fill(t, l, commitlog.Wait, 500), commitlog.ErrDiskFull)
	// From now on every send fails at once, and tries again.
	for range 10 {
		_, _, err := tryPut(ctx, l, commitlog.Wait, string(make([]byte, 500)))
		require.ErrorIs(t, err, commitlog.ErrDiskFull)
	}
	before := l.Written()
	// The reserve is still there, for what drains the store.
	_, _, err := tryPut(ctx, l, commitlog.Reserved, "ack")
	require.NoError(t, err)
	require.ErrorIs(t, fill(t, l, commitlog.Reserved, 100), commitlog.ErrDiskFull)
	assert.GreaterOrEqual(t, l.Written()-before, commitlog.Position(64<<10/4-200), "a quarter of a small segment")
	require.NoError(t, l.Sync(ctx), "it is full, not broken")
	// Later sends try again.
	mem.Fail(nil)
	require.Eventually(t, func() bool {
		_, _, err := tryPut(ctx, l, commitlog.Wait, "again")
		return err == nil
	}, waitTime, pollTime)
	require.NoError(t, l.Close())
	_, _, got := killed(t, o).open(commitlog.Start{})
	assert.Equal(t, "again", got[len(got)-1])
}

func TestDiskFullThenPoke(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	noCreate(o.FS.(*vfs.Mem), syscall.ENOSPC)
	require.ErrorIs(t, fill(t, l, commitlog.Wait, 500), commitlog.ErrDiskFull)
	o.FS.(*vfs.Mem).Fail(nil)
	creates := o.FS.(*vfs.Mem).Calls(vfs.OpCreate)
	require.Eventually(t, func() bool { l.Poke(); return o.FS.(*vfs.Mem).Calls(vfs.OpCreate) > creates }, waitTime, pollTime)
	require.Eventually(t, func() bool {
		_, _, err := tryPut(ctx, l, commitlog.Wait, "again")
		return err == nil
	}, waitTime, pollTime)
}

// When space is short smaller segments are tried, down to 1 MiB.
func TestSmallerSegmentsWhenSpaceIsShort(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	o.SegmentBytes = 16 << 20
	var tried []int64
	var mu sync.Mutex
	mem.Fail(func(c vfs.Call) error {
		if c.Op != vfs.OpCreate {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		tried = append(tried, c.Size)
		if len(tried) > 1 && c.Size > 1<<20 {
			return syscall.ENOSPC
		}
		return nil
	})
	l, _, _ := open(t, o, commitlog.Start{})
	for len(l.Segments()) < 2 {
		put(t, l, string(make([]byte, 100<<10)))
	}
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, []int64{4 << 20, 8 << 20, 4 << 20, 2 << 20, 1 << 20}, tried[:5])
}

func TestTryDoesNotWait(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	gate := make(chan struct{})
	blocked := &createGate{FS: mem, gate: gate}
	o.FS, o.SegmentBytes = blocked, 64<<10
	l, _, _ := open(t, o, commitlog.Start{})
	blocked.shut.Store(true)
	require.ErrorIs(t, fill(t, l, commitlog.Try, 500), commitlog.ErrBackpressure)
	// ctx ends waiting.
	cancelled, cancel := context.WithCancel(ctx)
	got := make(chan error)
	go func() {
		_, _, err := tryPut(cancelled, l, commitlog.Wait, string(make([]byte, 500)))
		got <- err
	}()
	require.Eventually(t, func() bool { return l.Stats().RoomWaits == 1 }, waitTime, pollTime)
	cancel()
	require.ErrorIs(t, <-got, context.Canceled)
	_, _, err := tryPut(ctx, l, commitlog.Try, string(make([]byte, 500)))
	assert.ErrorIs(t, err, commitlog.ErrBackpressure, "nobody waits any more, but the reserve is not for this")
	// Waiting ends when the segment is there.
	go func() {
		_, _, err := tryPut(ctx, l, commitlog.Wait, string(make([]byte, 500)))
		got <- err
	}()
	require.Eventually(t, func() bool { return l.Stats().RoomWaits == 2 }, waitTime, pollTime)
	close(gate)
	require.NoError(t, <-got)
}

// createGate holds back the making of files.
type createGate struct {
	vfs.FS
	shut atomic.Bool
	gate chan struct{}
}

func (g *createGate) Create(name string, size int64) (vfs.File, error) {
	if g.shut.Load() {
		<-g.gate
	}
	return g.FS.Create(name, size)
}

func TestCloseWhileBlocked(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	gate := make(chan struct{})
	blocked := &createGate{FS: mem, gate: gate}
	o.FS, o.SegmentBytes = blocked, 64<<10
	l, _, _ := open(t, o, commitlog.Start{})
	blocked.shut.Store(true)
	require.ErrorIs(t, fill(t, l, commitlog.Try, 500), commitlog.ErrBackpressure)
	const senders = 5
	got := make(chan error, senders)
	for range senders {
		go func() {
			_, _, err := tryPut(ctx, l, commitlog.Wait, string(make([]byte, 500)))
			got <- err
		}()
	}
	require.Eventually(t, func() bool { return l.Stats().RoomWaits == senders }, waitTime, pollTime)
	closed := make(chan error)
	go func() { closed <- l.Close() }()
	for range senders {
		assert.ErrorIs(t, <-got, commitlog.ErrClosed)
	}
	close(gate)
	require.NoError(t, <-closed)
	_, _, err := tryPut(ctx, l, commitlog.Wait, "late")
	assert.ErrorIs(t, err, commitlog.ErrClosed)
	assert.NoError(t, l.Wait(ctx, l.Written()), "Close synced it")
	l.Read([]commitlog.Ref{{Position: 64}}, func(_ int, _ commitlog.Record, err error) bool {
		assert.ErrorIs(t, err, commitlog.ErrClosed)
		return true
	})
	assert.ErrorIs(t, l.Scan(0, l.Written(), func(commitlog.Record) error { return nil }), commitlog.ErrClosed)
	_, rec, _ := killed(t, withFS(o, mem)).open(commitlog.Start{From: l.Written(), Synced: l.Written(), Clean: true})
	assert.True(t, rec.Clean)
}

func withFS(o commitlog.Options, fs vfs.FS) commitlog.Options {
	o.FS = fs
	return o
}

// A frame too large for the prepared, unused successor replaces it.
func TestLargeFrames(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, o commitlog.Options) {
		o.SegmentBytes = 64 << 10
		l, _, _ := open(t, o, commitlog.Start{})
		var bodies []string
		var refs []commitlog.Ref
		for _, size := range []int{30000, 300000, 10, 20000, 1 << 20, 1 << 20, 5, 15 << 20, 70000, 1} {
			b := numbered(1, size)[0]
			r, _ := put(t, l, b)
			bodies, refs = append(bodies, b), append(refs, r...)
		}
		require.NoError(t, l.Sync(ctx))
		assert.Equal(t, bodies, read(t, l, refs))
		_, _, err := tryPut(ctx, l, commitlog.Wait, string(make([]byte, commitlog.MaxFrameBytes)))
		assert.ErrorIs(t, err, commitlog.ErrTooLarge)
		_, _, err = tryPut(ctx, l, commitlog.Try, string(make([]byte, 4<<20)))
		assert.ErrorIs(t, err, commitlog.ErrBackpressure, "asked for, but not waited for")
		at := l.Written()
		require.NoError(t, l.Close())
		_, rec, got := open(t, o, commitlog.Start{Synced: at, Clean: true})
		assert.True(t, rec.Clean)
		assert.Equal(t, bodies, got)
	})
}

// There is no space for a large frame, but for others.
func TestLargeFrameOnAFullDisk(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	o.FS.(*vfs.Mem).Fail(func(c vfs.Call) error {
		if c.Op == vfs.OpCreate && c.Size > 1<<20 {
			return syscall.ENOSPC
		}
		return nil
	})
	_, _, err := tryPut(ctx, l, commitlog.Wait, string(make([]byte, 4<<20)))
	require.ErrorIs(t, err, commitlog.ErrDiskFull)
	for range 500 {
		put(t, l, string(make([]byte, 1000)))
	}
	_, _, err = tryPut(ctx, l, commitlog.Wait, string(make([]byte, 4<<20)))
	require.ErrorIs(t, err, commitlog.ErrDiskFull)
}

// Options.Allow bounds the log; Reserved goes beyond, and what it got is not for
// the others.
func TestAllow(t *testing.T) {
	t.Parallel()
	full := errors.New("store is full")
	o, _ := memOptions(t)
	o.SegmentBytes = 64 << 10
	var limit atomic.Int64
	limit.Store(128 << 10)
	o.Allow = func(bytes, more int64) error {
		if bytes+more > limit.Load() {
			return full
		}
		return nil
	}
	l, _, _ := open(t, o, commitlog.Start{})
	require.ErrorIs(t, fill(t, l, commitlog.Wait, 500), full)
	require.Len(t, l.Segments(), 2)
	for len(l.Segments()) < 4 {
		_, _, err := tryPut(ctx, l, commitlog.Reserved, string(make([]byte, 500)))
		require.NoError(t, err)
		_, _, err = tryPut(ctx, l, commitlog.Wait, string(make([]byte, 500)))
		require.ErrorIs(t, err, full)
		_, _, err = tryPut(ctx, l, commitlog.Try, string(make([]byte, 500)))
		require.ErrorIs(t, err, full)
	}
	limit.Store(1 << 30)
	l.Poke()
	require.Eventually(t, func() bool {
		_, _, err := tryPut(ctx, l, commitlog.Wait, "x")
		return err == nil
	}, waitTime, pollTime)
	for len(l.Segments()) < 6 {
		put(t, l, string(make([]byte, 5000)))
	}
}

// Senders are served in the order of arrival, so a large frame is not starved.
func TestManySendersAndALargeFrame(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, o commitlog.Options) {
		o.SegmentBytes = 64 << 10
		l, _, _ := open(t, o, commitlog.Start{})
		var wg sync.WaitGroup
		var sent atomic.Int64
		for g := range 4 {
			wg.Go(func() {
				for i := range 100 {
					size := 300
					if g == 0 && i%10 == 0 {
						size = 200 << 10
					}
					if _, _, err := tryPut(ctx, l, commitlog.Wait, string(make([]byte, size))); err != nil {
						t.Error(err)
						return
					}
					sent.Add(1)
				}
			})
		}
		wg.Wait()
		assert.Equal(t, int64(400), sent.Load())
		assert.Len(t, scan(t, l), 400)
	})
}

func TestSealedIsToldOfEverySegment(t *testing.T) {
	t.Parallel()
	o, _ := memOptions(t)
	o.SegmentBytes = 64 << 10
	var told atomic.Int64
	o.Sealed = func() { told.Add(1) }
	l, _, _ := open(t, o, commitlog.Start{})
	for len(l.Segments()) < 5 {
		put(t, l, string(make([]byte, 5000)))
	}
	require.Eventually(t, func() bool { return told.Load() == 4 }, waitTime, pollTime)
}

// While a larger successor is asked for, a sender rolls into the small one: that
// is in use now, and nothing may be made in its place.
func TestRollWhileSuccessorIsReplaced(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, o commitlog.Options) {
		o.SegmentBytes = 64 << 10
		var l *commitlog.Log
		var bodies []string
		var rolls atomic.Bool
		rolled := make(chan struct{})
		o.Allow = func(_, _ int64) error { // between the plan and its execution
			if rolls.Swap(false) {
				defer close(rolled)
				for len(l.Segments()) == 1 {
					b := numbered(1, 5000)[0]
					put(t, l, b)
					bodies = append(bodies, b)
				}
			}
			return nil
		}
		l, _, _ = open(t, o, commitlog.Start{})
		for l.Stats().Bytes < 2*o.SegmentBytes { // until there is a successor
			b := numbered(1, 500)[0]
			put(t, l, b)
			bodies = append(bodies, b)
		}
		rolls.Store(true)
		large := string(make([]byte, 300<<10))
		_, _, err := tryPut(ctx, l, commitlog.Try, large)
		require.ErrorIs(t, err, commitlog.ErrBackpressure)
		<-rolled
		put(t, l, large)
		bodies = append(bodies, large)
		require.NoError(t, l.Sync(ctx))
		assert.True(t, slices.Equal(bodies, scan(t, l)))
		require.NoError(t, l.Close())
		_, _, got := open(t, o, commitlog.Start{})
		assert.True(t, slices.Equal(bodies, got), "%d of %d records", len(got), len(bodies))
	})
}

// While it is undecided whether the log may grow, whoever waits for room sleeps:
// also where a segment is prepared that is for Reserved alone.
func TestUndecidedWaitsAsleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, _ := memOptions(t)
		o.SegmentBytes = 64 << 10
		var asked atomic.Int64
		reserved, cancel := context.WithCancel(t.Context())
		left := make(chan struct{})
		decided := false
		o.Allow = func(bytes, more int64) error {
			switch n := asked.Add(1); {
			case bytes+more <= o.SegmentBytes || decided || n > 1000:
				return nil
			case n == 2: // who asked has gone when the segment is there
				cancel()
				<-left
			}
			return commitlog.ErrLater
		}
		l, _, err := commitlog.Open(o, commitlog.Start{}, nil)
		require.NoError(t, err)
		put(t, l, string(make([]byte, 30_000)))
		synctest.Wait()
		large := string(make([]byte, 40_000))
		_, _, err = tryPut(reserved, l, commitlog.Reserved, large)
		require.ErrorIs(t, err, context.Canceled)
		close(left)
		synctest.Wait()
		require.Greater(t, l.Stats().Bytes, o.SegmentBytes, "there is one for Reserved")

		got := make(chan error, 1)
		go func() {
			_, _, err := tryPut(t.Context(), l, commitlog.Wait, large)
			got <- err
		}()
		synctest.Wait()
		assert.Less(t, asked.Load(), int64(10))
		decided = true
		l.Poke()
		require.NoError(t, <-got)
		require.NoError(t, l.Close())
	})
}

// An answer of Options.Allow that came late, and counts once, is for all that the
// log makes of it: what was prepared for Reserved, and what is to be.
func TestLateAnswerCountsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("store is full")
		o, _ := memOptions(t)
		o.SegmentBytes = 64 << 10
		var l *commitlog.Log
		var asked, answered atomic.Int64
		o.Allow = func(bytes, more int64) error {
			switch asked.Add(1); {
			case bytes+more <= 2*o.SegmentBytes || asked.Load() > 1000:
				return nil
			case answered.Swap(0) > 0:
				return full
			}
			time.AfterFunc(time.Millisecond, func() {
				answered.Store(1)
				l.Poke()
			})
			return commitlog.ErrLater
		}
		l, _, err := commitlog.Open(o, commitlog.Start{}, nil)
		require.NoError(t, err)
		require.ErrorIs(t, fill(t, l, commitlog.Wait, 500), full)
		for len(l.Segments()) < 3 {
			_, _, err := tryPut(t.Context(), l, commitlog.Reserved, string(make([]byte, 500)))
			require.NoError(t, err)
		}
		for range 100 { // past where its successor is wanted
			_, _, err := tryPut(t.Context(), l, commitlog.Reserved, string(make([]byte, 500)))
			require.NoError(t, err)
			asked.Store(0)
			<-time.After(time.Second)
			synctest.Wait()
			require.Less(t, asked.Load(), int64(10), "while nothing happens")
			within, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _, err = tryPut(within, l, commitlog.Wait, string(make([]byte, 500)))
			cancel()
			require.ErrorIs(t, err, full)
			require.Less(t, asked.Load(), int64(10))
		}
		require.NoError(t, l.Close())
	})
}
