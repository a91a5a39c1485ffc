package commitlog_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/vfs"
)

func TestReadWhatIsNoRecord(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, o commitlog.Options) {
		l, _, _ := open(t, o, commitlog.Start{})
		single, _ := put(t, l, "single record")
		batch, end := put(t, l, "one", "two")
		header := single[0].Position + 56 // of the batch
		rows := map[string]commitlog.Ref{
			"negative":           {Position: -8},
			"segment header":     {Position: 0},
			"inside a header":    {Position: 8},
			"not aligned":        {Position: single[0].Position + 1},
			"inside a record":    {Position: single[0].Position + 8},
			"batch header":       {Position: header},
			"behind the end":     {Position: end},
			"far behind the end": {Position: 1 << 60},
		}
		for name, ref := range rows {
			l.Read([]commitlog.Ref{ref}, func(_ int, r commitlog.Record, err error) bool {
				assert.ErrorIs(t, err, commitlog.ErrNotFound, name)
				assert.Equal(t, ref.Position, r.Position)
				return true
			})
		}
		wrong := commitlog.Ref{Position: batch[1].Position, Size: batch[1].Size + 1}
		l.Read([]commitlog.Ref{wrong}, func(_ int, _ commitlog.Record, err error) bool {
			assert.ErrorIs(t, err, commitlog.ErrCorrupt, "an index that says another size is wrong, or the bytes are")
			return true
		})
		// It stops when told to.
		var seen int
		l.Read([]commitlog.Ref{single[0], batch[0], batch[1]}, func(int, commitlog.Record, error) bool {
			seen++
			return seen < 2
		})
		assert.Equal(t, 2, seen)
		// A scan may begin at a record inside a batch.
		var got []string
		require.NoError(t, l.Scan(batch[1].Position, end, func(r commitlog.Record) error {
			got = append(got, bodyOf(r))
			return nil
		}))
		assert.Equal(t, []string{"two"}, got)
		assert.ErrorIs(t, l.Scan(0, end, func(commitlog.Record) error { return assert.AnError }), assert.AnError)
	})
}

// Everything is verified that this process did not write itself.
func TestReadFindsDamage(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	var refs []commitlog.Ref
	for _, b := range numbered(200, 1000) {
		r, _ := put(t, l, b)
		refs = append(refs, r...)
	}
	require.NoError(t, l.Sync(ctx))
	at := l.Written()
	s := killed(t, o)
	for _, i := range []int{0, 100, 199} {
		s.flip(refs[i].Position + 500)
	}
	l2, rec, _ := s.open(commitlog.Start{From: at, Synced: at})
	assert.Empty(t, rec.Corrupt, "before the checkpoint nothing is looked at")
	l2.Read(refs, func(i int, r commitlog.Record, err error) bool {
		if i%100 == 0 || i == 199 {
			var corrupt *commitlog.CorruptionError
			assert.ErrorAs(t, err, &corrupt)
			assert.ErrorIs(t, err, commitlog.ErrCorrupt)
		} else {
			assert.NoError(t, err)
		}
		return true
	})
}

func TestReadErrorIsNotRemembered(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	refs, _ := put(t, l, "a")
	for len(l.Segments()) < 3 {
		put(t, l, string(make([]byte, 5000)))
	}
	require.NoError(t, l.Close())
	s := killed(t, o)
	l2, _, _ := s.open(commitlog.Start{From: l.Written(), Synced: l.Written(), Clean: true})
	s.mem.FailNth(vfs.OpRead, 1, errors.New("I/O error"))
	l2.Read(refs, func(_ int, _ commitlog.Record, err error) bool {
		assert.ErrorIs(t, err, commitlog.ErrCorrupt)
		return true
	})
	assert.Equal(t, []string{"a"}, read(t, l2, refs))
	assert.NoError(t, l2.Err())
}

// An error of fill appends nothing, and leaves nothing.
func TestFillFails(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, o commitlog.Options) {
		l, _, _ := open(t, o, commitlog.Start{})
		put(t, l, "a")
		at := l.Written()
		lay := commitlog.Layout{}.Add(testHead + 1000).Add(testHead + 1000)
		_, err := l.Append(ctx, commitlog.Wait, lay, func(f *commitlog.Frame) error {
			dst, _, _ := f.Next(testHead, make([]byte, 1000), commitlog.BodyHash(make([]byte, 1000)))
			dst[0] = testHead
			return assert.AnError
		})
		require.ErrorIs(t, err, assert.AnError)
		_, err = l.Append(ctx, commitlog.Wait, lay, func(*commitlog.Frame) error { return nil })
		require.Error(t, err, "a frame without records")
		assert.Equal(t, at, l.Written())
		for _, broken := range []func(f *commitlog.Frame){
			func(f *commitlog.Frame) { panic("in fill") },
			func(f *commitlog.Frame) { f.Next(testHead, make([]byte, 5000), 0) },
		} {
			assert.Panics(t, func() {
				_, _ = l.Append(ctx, commitlog.Wait, lay, func(f *commitlog.Frame) error { broken(f); return nil })
			})
		}
		// A frame may stay below its layout.
		end, err := l.Append(ctx, commitlog.Wait, lay, func(f *commitlog.Frame) error {
			assert.Equal(t, at+24, f.Position())
			dst, pos, _ := f.Next(testHead, []byte("b"), commitlog.BodyHash([]byte("b")))
			assert.Equal(t, at+24, pos)
			clear(dst)
			dst[0] = testHead
			return nil
		})
		require.NoError(t, err)
		assert.Equal(t, end, l.Written())
		put(t, l, "c")
		assert.Equal(t, []string{"a", "b", "c"}, scan(t, l))
		require.NoError(t, l.Close())
		_, _, got := open(t, o, commitlog.Start{})
		assert.Equal(t, []string{"a", "b", "c"}, got)
	})
}

// A write that fails poisons: what fill did cannot be taken back.
func TestFailedWritePoisons(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	l, _, _ := open(t, o, commitlog.Start{})
	mem.FailNth(vfs.OpCommit, 1, errors.New("I/O error"))
	_, _, err := tryPut(ctx, l, commitlog.Wait, "a")
	require.ErrorIs(t, err, commitlog.ErrPoisoned)
	assert.Equal(t, l.Start()+64, l.Written())
	_, _, err = tryPut(ctx, l, commitlog.Wait, "b")
	assert.ErrorIs(t, err, commitlog.ErrPoisoned, "nor does anything follow it")
}

func TestConcurrentAppendAndRead(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, o commitlog.Options) {
		o.SegmentBytes, o.CacheBytes = 128<<10, 512<<10
		l, _, _ := open(t, o, commitlog.Start{})
		const senders, each = 3, 400
		var mu sync.Mutex
		var refs []commitlog.Ref
		var want []string
		var done atomic.Bool
		var sending, reading sync.WaitGroup
		for range senders {
			sending.Go(func() {
				for range each {
					body := numbered(1, 1+rand.IntN(3000))[0]
					r, end, err := tryPut(ctx, l, commitlog.Wait, body)
					if err == nil && rand.IntN(20) == 0 {
						err = l.Wait(ctx, end)
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					refs, want = append(refs, r...), append(want, body)
					mu.Unlock()
				}
			})
		}
		for range 2 {
			reading.Go(func() {
				for last := false; !last; {
					last = done.Load()
					mu.Lock()
					n := len(refs)
					from := max(0, rand.IntN(n+1)-50)
					rs, ws := refs[from:min(n, from+50)], want[from:min(n, from+50)]
					mu.Unlock()
					l.Read(rs, func(i int, r commitlog.Record, err error) bool {
						if err != nil || bodyOf(r) != ws[i] {
							t.Errorf("%+v: %d bytes, want %d: %v", rs[i], len(r.Payload), len(ws[i]), err)
						}
						return true
					})
				}
			})
		}
		reading.Go(func() {
			for !done.Load() {
				if err := l.Scan(l.Start(), l.Written(), func(commitlog.Record) error { return nil }); err != nil {
					t.Error(err)
				}
				l.Segments()
				l.Stats()
			}
		})
		sending.Wait()
		done.Store(true)
		reading.Wait()
		assert.Equal(t, want, read(t, l, refs))
		assert.Len(t, scan(t, l), senders*each)
	})
}

func TestAppendAndWaitDoNotAllocate(t *testing.T) {
	body := make([]byte, 128)
	hash := commitlog.BodyHash(body)
	lay := commitlog.Layout{}.Add(testHead + len(body))
	for _, mode := range modes {
		o := options(t, mode)
		o.SegmentBytes = 4 << 20
		l, _, _ := open(t, o, commitlog.Start{})
		var ref [1]commitlog.Ref
		fill := func(f *commitlog.Frame) error {
			_ = f.Now()
			dst, at, size := f.Next(testHead, body, hash)
			clear(dst)
			dst[0] = testHead
			ref[0] = commitlog.Ref{Position: at, Size: size}
			return nil
		}
		var sum int
		visit := func(_ int, r commitlog.Record, err error) bool { sum += len(r.Payload); return true }
		ctx := context.Background()
		allocs := testing.AllocsPerRun(2000, func() {
			end, err := l.Append(ctx, commitlog.Wait, lay, fill)
			if err == nil && mode == "mem" { // a descriptor's sync is not this package's
				err = l.Wait(ctx, end)
			}
			if err != nil {
				t.Fatal(err)
			}
			if mode != "portable" { // its tail is read past the cache
				l.Read(ref[:], visit)
			}
		})
		assert.Zero(t, allocs, mode)
	}
}

// A file that cannot be opened just now says nothing of what is in it: who asks
// for a record whose size it does not know must not be told that there is none.
func TestReadWithoutDescriptors(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	o.SegmentBytes = 16 << 10
	l, _, _ := open(t, o, commitlog.Start{})
	var refs []commitlog.Ref
	for len(l.Segments()) < 100 {
		r, _ := put(t, l, string(make([]byte, 5000)))
		refs = append(refs, r...)
	}
	require.NoError(t, l.Sync(ctx))
	require.Eventually(t, func() bool { // until files that nobody reads were closed
		read(t, l, refs[len(refs)/2:])
		return mem.Calls(vfs.OpClose) > 30
	}, waitTime, pollTime)
	mem.Fail(func(c vfs.Call) error {
		if c.Op == vfs.OpOpen {
			return syscall.EMFILE
		}
		return nil
	})
	l.Read([]commitlog.Ref{{Position: refs[0].Position}}, func(_ int, _ commitlog.Record, err error) bool {
		require.ErrorIs(t, err, syscall.EMFILE)
		require.NotErrorIs(t, err, commitlog.ErrNotFound)
		return true
	})
}
