package mq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/vfs"
)

// testFS is a heap of which a test can hold up syncs and fail reads.
type testFS struct {
	*vfs.Mem
	sync  atomic.Pointer[func() error] // called before the log's syncs
	read  atomic.Pointer[func() error] // called before reads of the log
	room  atomic.Pointer[func()]       // called before a segment of the log is made
	syncs atomic.Int64
}

func newTestFS() *testFS { return &testFS{Mem: vfs.NewMem(0)} }

func (fs *testFS) Create(name string, size int64) (vfs.File, error) {
	if hook := fs.room.Load(); hook != nil && ofLog(name) {
		(*hook)()
	}
	f, err := fs.Mem.Create(name, size)
	return fs.file(name, f), err
}

func (fs *testFS) Open(name string) (vfs.File, error) {
	f, err := fs.Mem.Open(name)
	return fs.file(name, f), err
}

func (fs *testFS) file(name string, f vfs.File) vfs.File {
	if f == nil || !ofLog(name) {
		return f
	}
	return &testFile{f, fs}
}

func ofLog(name string) bool { return strings.Contains(filepath.ToSlash(name), "commitlog/") }

type testFile struct {
	vfs.File
	fs *testFS
}

func (f *testFile) Sync() error { return f.fs.syncing(f.File.Sync) }

func (f *testFile) Map(size int64) (vfs.Mapping, error) {
	m, err := f.File.Map(size)
	return &testMapping{m, f.fs}, err
}

type testMapping struct {
	vfs.Mapping
	fs *testFS
}

func (m *testMapping) Sync(off, n int64) error {
	return m.fs.syncing(func() error { return m.Mapping.Sync(off, n) })
}

func (fs *testFS) syncing(sync func() error) error {
	fs.syncs.Add(1)
	if hook := fs.sync.Load(); hook != nil {
		if err := (*hook)(); err != nil {
			return err
		}
	}
	return sync()
}

func (f *testFile) ReadAt(p []byte, off int64) (int, error) {
	if hook := f.fs.read.Load(); hook != nil {
		if err := (*hook)(); err != nil {
			return 0, err
		}
	}
	return f.File.ReadAt(p, off)
}

// openOn opens a memory broker on fs.
func openOn(t testing.TB, fs vfs.FS, o *Options) *Broker {
	t.Helper()
	opts := o.withDefaults(true)
	require.NoError(t, opts.validate())
	b := newBroker(opts, fs, "")
	require.NoError(t, b.open())
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// pollNow returns what a poll gets without waiting for anything to arrive. Its
// millisecond is one of a bubble (testing/synctest), or nothing may be there in it.
func pollNow(t testing.TB, c *PullConsumer) (bodies []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	ms, err := c.Poll(ctx, 32)
	if !errors.Is(err, context.DeadlineExceeded) {
		require.NoError(t, err)
	}
	for _, m := range ms {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

// TestSyncedIsInvisibleBeforeItsSync: to no consumer, whoever sent it and
// however. A message of a Written topic behind it is there at once.
func TestSyncedIsInvisibleBeforeItsSync(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS()
		b := openOn(t, fs, nil)
		require.NoError(t, b.CreateTopic("Synced", &TopicConfig{Queues: 1}))
		require.NoError(t, b.CreateTopic("Written", &TopicConfig{Queues: 1, Durability: Written}))
		c, err := b.NewPullConsumer("G", nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("Synced", All))
		w, err := b.NewPullConsumer("W", nil)
		require.NoError(t, err)
		require.NoError(t, w.Subscribe("Written", All))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)

		held := make(chan struct{})
		hook := func() error { <-held; return nil }
		fs.sync.Store(&hook)
		var sent sync.WaitGroup
		var answered atomic.Int64
		sent.Go(func() {
			_, err := p.Send(t.Context(), &Message{Topic: "Synced", Body: []byte("send")})
			require.NoError(t, err)
			answered.Add(1)
		})
		synctest.Wait()
		sent.Go(func() {
			_, err := p.SendBatch(t.Context(), []*Message{{Topic: "Written", Body: []byte("w")}, {Topic: "Synced", Body: []byte("batch")}})
			require.NoError(t, err)
			answered.Add(1)
		})
		synctest.Wait()
		require.NoError(t, p.SendAsync(t.Context(), &Message{Topic: "Synced", Body: []byte("async")}, func(_ SendResult, err error) {
			require.NoError(t, err)
			answered.Add(1)
		}))
		require.NoError(t, p.SendOneWay(&Message{Topic: "Synced", Body: []byte("one way")}))
		synctest.Wait()

		q := Queue{Topic: "Synced"}
		require.NoError(t, c.Pause(q))
		require.NoError(t, c.Resume(q)) // it looks at the queue, although nobody woke it
		require.Empty(t, pollNow(t, c))
		require.Equal(t, []string{"w"}, pollNow(t, w), "a batch's records go by their own topics")
		require.Zero(t, answered.Load())
		fs.sync.Store(nil)
		close(held)
		sent.Wait()
		synctest.Wait()
		require.Equal(t, []string{"send", "batch", "async", "one way"}, pollNow(t, c))
		require.Equal(t, int64(3), answered.Load())
	})
}

// TestCancelledSendMayBeStored: its caller is told the context's error, and who
// waits for the message gets it when it is synced.
func TestCancelledSendMayBeStored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS()
		b := openOn(t, fs, nil)
		require.NoError(t, b.CreateTopic("T", &TopicConfig{Queues: 1}))
		c, err := b.NewPullConsumer("G", nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		got := make(chan string)
		go func() {
			for range 2 {
				ms, err := c.Poll(t.Context(), 1)
				require.NoError(t, err)
				got <- string(ms[0].Body)
			}
		}()
		held := make(chan struct{})
		hook := func() error { <-held; return nil }
		fs.sync.Store(&hook)
		go func() { _, _ = p.Send(t.Context(), &Message{Topic: "T", Body: []byte("leader")}) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = p.Send(ctx, &Message{Topic: "T", Body: []byte("cancelled")})
		require.Equal(t, context.DeadlineExceeded, err, "unwrapped")
		fs.sync.Store(nil)
		close(held)
		require.Equal(t, "leader", <-got)
		require.Equal(t, "cancelled", <-got)
	})
}

// TestFailedSyncPoisons: no send is acknowledged any more, what is stored stays
// readable, handlers get nothing more, and the hook is told once.
func TestFailedSyncPoisons(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS()
		var told atomic.Int64
		var b *Broker
		b = openOn(t, fs, &Options{Hooks: &Hooks{Poisoned: func(err error) {
			require.ErrorIs(t, err, ErrPoisoned)
			_ = b.Stats() // no lock is held
			_ = b.Groups()
			told.Add(1)
		}}})
		require.NoError(t, b.CreateTopic("T", &TopicConfig{Queues: 1}))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		_, err = p.Send(t.Context(), &Message{Topic: "T", Body: []byte("before")})
		require.NoError(t, err)
		hook := func() error { return syscall.EIO }
		fs.sync.Store(&hook)
		_, err = p.Send(t.Context(), &Message{Topic: "T"})
		require.ErrorIs(t, err, ErrPoisoned)
		fs.sync.Store(nil)
		_, err = p.Send(t.Context(), &Message{Topic: "T"})
		require.ErrorIs(t, err, ErrPoisoned, "no retry makes it good")
		require.ErrorIs(t, p.SendOneWay(&Message{Topic: "T"}), ErrPoisoned)
		require.ErrorIs(t, b.CreateTopic("U", nil), ErrPoisoned)
		require.ErrorIs(t, b.Sync(t.Context()), ErrPoisoned)
		require.ErrorIs(t, b.Stats().Poisoned, ErrPoisoned)
		_, err = b.MessagesByKey("T", "k", 1)
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, int64(1), told.Load())
		require.Error(t, b.Close())
	})
}

// TestPoisonedDelivery: a pull consumer may still read, a push consumer stops
// because what it handles could not be acknowledged.
func TestPoisonedDelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS()
		b := openOn(t, fs, &Options{Durability: Written})
		require.NoError(t, b.CreateTopic("T", &TopicConfig{Queues: 1}))
		c, err := b.NewPullConsumer("Pull", nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", Tags("wanted")))
		var handled atomic.Int64
		free := make(chan struct{})
		h, err := b.NewPushConsumer("Push", func(context.Context, *Message) error {
			handled.Add(1)
			<-free
			return nil
		}, &PushOptions{Concurrency: 1, PrefetchMessages: 1})
		require.NoError(t, err)
		require.NoError(t, h.Subscribe("T", All))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		for i := range 10 {
			tag := "wanted"
			if i%2 == 0 {
				tag = "other"
			}
			_, err = p.Send(t.Context(), &Message{Topic: "T", Tag: tag, Body: fmt.Append(nil, i)})
			require.NoError(t, err)
		}
		hook := func() error { return syscall.EIO }
		fs.sync.Store(&hook)
		require.ErrorIs(t, b.Sync(t.Context()), ErrPoisoned)
		synctest.Wait()
		close(free)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ms, err := c.Poll(ctx, 2)
		require.NoError(t, err)
		require.Len(t, ms, 2)
		<-time.After(2 * time.Second) // the skipped ones should have been acknowledged
		ms, err = c.Poll(t.Context(), 32)
		require.NoError(t, err)
		require.Len(t, ms, 3)
		require.ErrorIs(t, c.Commit(t.Context()), ErrPoisoned)
		require.Equal(t, int64(1), handled.Load())
		require.Error(t, b.Close())
	})
}

// TestUnreadableLogIsReadLater: nothing is lost, acknowledged or overtaken
// because a read failed, also when a message is read for another attempt.
func TestUnreadableLogIsReadLater(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			fs := newTestFS()
			b := openOn(t, fs, &Options{Durability: Written, DisableMmap: true, CacheBytes: -1})
			require.NoError(t, b.CreateTopic("T", &TopicConfig{Queues: 1}))
			p, err := b.NewProducer(nil)
			require.NoError(t, err)
			const n = 200
			var want []string
			for i := range n {
				_, err := p.Send(t.Context(), &Message{Topic: "T", Body: fmt.Append(make([]byte, 0, 8), i)})
				require.NoError(t, err)
				want = append(want, fmt.Sprint(i))
			}
			var reads atomic.Int64
			hook := func() error {
				if reads.Add(1)%2 == 1 {
					return syscall.EIO
				}
				return nil
			}
			fs.read.Store(&hook)
			var mu sync.Mutex
			var got []string
			c, err := b.NewPushConsumer("G", func(_ context.Context, m *Message) error {
				if string(m.Body) == "7" && m.Attempt == 1 {
					return errors.New("again")
				}
				mu.Lock()
				defer mu.Unlock()
				got = append(got, string(m.Body))
				return nil
			}, &PushOptions{Concurrency: 1, Ordered: ordered})
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", All))
			<-time.After(time.Hour)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if ordered {
				require.Equal(t, want, got)
			} else {
				require.ElementsMatch(t, want, got)
			}
			require.Greater(t, reads.Load(), int64(1))
			total, _, err := b.Lag("G")
			require.NoError(t, err)
			require.Zero(t, total)
			require.NoError(t, b.Close())
		})
	}
}

// TestUnreadableLogLosesNothing: what has no entry any more, or a wrong one, is
// looked for in the log. If that cannot be read just now it is looked for later,
// and not told to be missed.
func TestUnreadableLogLosesNothing(t *testing.T) {
	t.Parallel()
	for _, entry := range []consumequeue.Entry{{}, {Position: 64, Size: 48}} {
		synctest.Test(t, func(t *testing.T) {
			fs := newTestFS()
			b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1, DisableMmap: true, CacheBytes: -1})
			sendNumbers(t, b, 0, 100)
			for _, off := range []Offset{3, 50, 51, 52, 99} {
				require.NoError(t, queueOne(t, b).entries.Patch(off, entry))
			}
			var mu sync.Mutex // protects both
			rnd := rand.New(rand.NewPCG(1, 1))
			hook := func() error {
				mu.Lock()
				defer mu.Unlock()
				if rnd.IntN(2) == 0 {
					return syscall.EIO
				}
				return nil
			}
			fs.read.Store(&hook)
			var got []string
			c, err := b.NewPushConsumer("G", func(_ context.Context, m *Message) error {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, string(m.Body))
				return nil
			}, &PushOptions{Concurrency: 1, Ordered: true})
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", All))
			<-time.After(time.Hour)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			require.Equal(t, numbersTo(100), got)
			require.Zero(t, b.Stats().Missed)
			require.NoError(t, b.Close())
		})
	}
}

// TestOneWayNeverWaits: it fails when the log is not prepared that far, and when
// it is there is room again.
func TestOneWayNeverWaits(t *testing.T) {
	t.Parallel()
	for _, durability := range []Durability{Written, Synced} {
		fs := newTestFS()
		b := openOn(t, fs, nil)
		require.NoError(t, b.CreateTopic("T", &TopicConfig{Durability: durability, Queues: 1}))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		disk := make(chan struct{}) // as slow as it takes
		slow := func() { <-disk }
		fs.room.Store(&slow)
		m := &Message{Topic: "T", Body: make([]byte, 3<<20)}
		stored := int64(0)
		for err = p.SendOneWay(m); err == nil && stored < 100; err = p.SendOneWay(m) {
			stored++
		}
		require.ErrorIs(t, err, ErrBackpressure)
		fs.room.Store(nil)
		close(disk)
		for err = ErrBackpressure; errors.Is(err, ErrBackpressure); err = p.SendOneWay(m) {
			runtime.Gosched() // until the segment is there
		}
		require.NoError(t, err)
		require.NoError(t, b.Sync(t.Context()))
		require.Equal(t, stored+1, b.Stats().Sent)
		c, err := b.NewPullConsumer("G", nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		for got := int64(0); got < stored+1; {
			ms, err := c.Poll(t.Context(), 32)
			require.NoError(t, err)
			got += int64(len(ms))
		}
	}
}
