package mq_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// TestCloseWakesEverybody: it works while calls are blocked anywhere, many times
// and from many goroutines, and each call returns when all is done.
func TestCloseWakesEverybody(t *testing.T) {
	t.Parallel()
	for _, memory := range []bool{false, true} {
		var b *mq.Broker
		if memory {
			b = mqtest.OpenMemory(t, nil)
		} else {
			b = mqtest.Open(t, nil)
		}
		require.NoError(t, b.CreateTopic("T", nil))
		createTopic(t, b, "W", 4)
		var calls sync.WaitGroup
		var begun atomic.Int64
		spawn := func(call func() error) {
			calls.Go(func() {
				for {
					err := call()
					begun.Add(1)
					if errors.Is(err, mq.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for _, topic := range []string{"T", "W"} {
			p := newProducer(t, b, nil)
			m := &mq.Message{Topic: topic, Body: make([]byte, 100)}
			spawn(func() error { _, err := p.Send(context.Background(), m); return err })
			spawn(func() error { _, err := p.SendBatch(context.Background(), []*mq.Message{m, m}); return err })
			spawn(func() error { return p.SendAsync(context.Background(), m, nil) })
			spawn(func() error {
				err := p.SendOneWay(m)
				if errors.Is(err, mq.ErrBackpressure) {
					return nil
				}
				return err
			})
		}
		spawn(func() error { return b.Sync(context.Background()) })
		c, err := b.NewPullConsumer("Pull", nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("W", mq.All))
		spawn(func() error {
			ms, err := c.Poll(context.Background(), 32)
			if err != nil {
				return err
			}
			return c.Commit(context.Background(), ms...)
		})
		idle, err := b.NewPullConsumer("Idle", nil)
		require.NoError(t, err)
		spawn(func() error { _, err := idle.Poll(context.Background(), 1); return err })
		var handlers sync.WaitGroup
		blocked := make(chan struct{}, 100)
		for i := range 3 {
			h, err := b.NewPushConsumer(fmt.Sprint("Push", i), func(ctx context.Context, _ *mq.Message) error {
				handlers.Add(1)
				defer handlers.Done()
				select {
				case blocked <- struct{}{}:
				default:
				}
				<-ctx.Done()
				return ctx.Err()
			}, nil)
			require.NoError(t, err)
			require.NoError(t, h.Subscribe("T", mq.All))
		}
		<-blocked
		mqtest.Eventually(t, func() bool { return begun.Load() > 200 }, "everybody is busy")
		for range 4 {
			calls.Go(func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
				handlers.Wait() // none is left: this does not block
			})
		}
		calls.Wait()
		require.NoError(t, b.Close())
	}
}

// TestDone: whoever waits for Done is woken by Close, and before Close waits for
// anybody.
func TestDone(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	select {
	case <-b.Done():
		t.Fatal("done before Close")
	default:
	}
	began := make(chan struct{})
	c, err := b.NewPushConsumer("G", func(context.Context, *mq.Message) error {
		close(began)
		select {
		case <-b.Done(): // not the handler's context: Close waits for this
		case <-time.After(5 * time.Second):
			t.Error("not done while Close waits")
		}
		return nil
	}, nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	_, err = newProducer(t, b, nil).Send(t.Context(), &mq.Message{Topic: "T"})
	require.NoError(t, err)
	<-began
	require.NoError(t, b.Close())
	<-b.Done()
}

// TestClosedBroker: every call says so, and nothing panics.
func TestClosedBroker(t *testing.T) {
	t.Parallel()
	for _, b := range []*mq.Broker{mqtest.OpenMemory(t, written()), mqtest.Open(t, written())} {
		r := sendBodies(t, b, "T", 3)[0]
		p := newProducer(t, b, nil)
		c := pull(t, b, "G", "T", nil)
		ms := poll(t, c, 1)
		handler := func(context.Context, *mq.Message) error { return nil }
		require.NoError(t, b.Close())
		ctx := t.Context()
		m := &mq.Message{Topic: "T"}
		q := mq.Queue{Topic: "T"}
		for name, call := range map[string]func() error{
			"Send":            func() error { _, err := p.Send(ctx, m); return err },
			"SendBatch":       func() error { _, err := p.SendBatch(ctx, []*mq.Message{m}); return err },
			"SendAsync":       func() error { return p.SendAsync(ctx, m, nil) },
			"SendOneWay":      func() error { return p.SendOneWay(m) },
			"NewProducer":     func() error { _, err := b.NewProducer(nil); return err },
			"NewPullConsumer": func() error { _, err := b.NewPullConsumer("G", nil); return err },
			"NewPushConsumer": func() error { _, err := b.NewPushConsumer("G", handler, nil); return err },
			"Subscribe":       func() error { return c.Subscribe("U", mq.All) },
			"Assign":          func() error { return c.Assign(q) },
			"Poll":            func() error { _, err := c.Poll(ctx, 1); return err },
			"Commit":          func() error { return c.Commit(ctx) },
			"Commit one":      func() error { return c.Commit(ctx, ms...) },
			"Seek":            func() error { return c.Seek(q, 0) },
			"Pause":           func() error { return c.Pause(q) },
			"CreateTopic":     func() error { return b.CreateTopic("U", nil) },
			"UpdateTopic":     func() error { return b.UpdateTopic("T", mq.TopicConfig{Queues: 9}) },
			"DeleteTopic":     func() error { return b.DeleteTopic("T") },
			"DeleteGroup":     func() error { return b.DeleteGroup("G") },
			"ResetOffset":     func() error { return b.ResetOffset("G", "T", mq.Earliest) },
			"Resubscribe":     func() error { return b.Resubscribe("G", "T", mq.All) },
			"MessageByID":     func() error { _, err := b.MessageByID(r.ID); return err },
			"MessagesByKey":   func() error { _, err := b.MessagesByKey("T", "k", 1); return err },
			"OffsetAt":        func() error { _, err := b.OffsetAt(q, time.Now()); return err },
			"StoredAt":        func() error { _, err := b.StoredAt(q, 0); return err },
			"Sync":            func() error { return b.Sync(ctx) },
			"Check":           func() error { return b.Check(ctx) },
		} {
			require.ErrorIs(t, call(), mq.ErrClosed, name)
		}
		require.NoError(t, p.Close())
		require.NoError(t, c.Close())
		require.NoError(t, b.Shutdown(ctx))
		require.Equal(t, int64(3), b.Stats().Messages, "what was known stays known")
		require.Equal(t, []string{"T"}, b.Topics())
		require.Equal(t, []string{"G"}, b.Groups())
	}
}

// TestLocked: one broker owns a directory; the second is told who, and the first
// does not notice.
func TestLocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	for range 2 {
		_, err := mq.Open(dir, nil)
		require.ErrorIs(t, err, mq.ErrLocked)
		require.ErrorContains(t, err, fmt.Sprint(os.Getpid()))
		require.ErrorContains(t, err, dir)
	}
	sendBodies(t, b, "T", 3)
	require.NoError(t, b.Close())
	b = mqtest.OpenDir(t, dir, written())
	require.Equal(t, int64(3), b.Stats().Messages)
}

// TestLockedByAnotherProcess names its pid.
func TestLockedByAnotherProcess(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("MQ_TEST_OPEN")
	if dir != "" { // the other process
		_, err := mq.Open(dir, nil)
		fmt.Println("other process:", err)
		return
	}
	dir = t.TempDir()
	mqtest.OpenDir(t, dir, nil)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLockedByAnotherProcess$", "-test.v")
	cmd.Env = append(os.Environ(), "MQ_TEST_OPEN="+dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), mq.ErrLocked.Error())
	require.Contains(t, string(out), fmt.Sprint(os.Getpid()))
}

// TestShutdownDrains: handlers under way finish with their context alive, and
// nothing new is begun.
func TestShutdownDrains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 1000)
		var cancelled, finished atomic.Int64
		c, err := b.NewPushConsumer("G", func(ctx context.Context, _ *mq.Message) error {
			<-time.After(10 * time.Millisecond)
			if ctx.Err() != nil {
				cancelled.Add(1)
			}
			finished.Add(1)
			return nil
		}, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", mq.All))
		pass(25 * time.Millisecond)
		require.NoError(t, b.Shutdown(t.Context()))
		require.Zero(t, cancelled.Load())
		require.Positive(t, finished.Load())
		require.LessOrEqual(t, finished.Load(), int64(60), "20 at once, in the third round")
		total, _, err := b.Lag("G")
		require.NoError(t, err)
		require.Equal(t, 1000-finished.Load(), total, "what was handled is acknowledged")
	})
}

// TestShutdownGivesUp when its context ends, and closes all the same.
func TestShutdownGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 1)
		h := newGate()
		c, err := b.NewPushConsumer("G", h.handle, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", mq.All))
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, b.Shutdown(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(began))
		_, err = b.NewProducer(nil)
		require.ErrorIs(t, err, mq.ErrClosed)
	})
}

// TestShutdownBesideClose: whoever waits for a consumer that is closed meanwhile
// is not forgotten.
func TestShutdownBesideClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 5)
		h := newGate()
		c, err := b.NewPushConsumer("G", h.handle, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", mq.All))
		synctest.Wait()
		ended := make(chan error)
		go func() { ended <- b.Shutdown(context.Background()) }()
		synctest.Wait()
		require.NoError(t, c.Close())
		require.NoError(t, <-ended)
	})
}

// TestCloseWithManyMembers does not hang on those whom nobody closed.
func TestCloseWithManyMembers(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 4)
	for i := range 30 {
		c, err := b.NewPushConsumer(fmt.Sprint("G", i%3), func(ctx context.Context, _ *mq.Message) error {
			<-ctx.Done()
			return nil
		}, &mq.PushOptions{Ordered: true})
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", mq.All))
	}
	sendBodies(t, b, "T", 1000)
	began := time.Now()
	require.NoError(t, b.Close())
	require.Less(t, time.Since(began), patience)
}

// TestReopen: everything is where it was, on mapped and on written segments.
func TestReopen(t *testing.T) {
	t.Parallel()
	for _, portable := range []bool{false, true} {
		dir := t.TempDir()
		o := &mq.Options{Durability: mq.Written, DisableMmap: portable}
		b := mqtest.OpenDir(t, dir, o)
		require.True(t, b.Recovery().Clean, "a new store is clean")
		createTopic(t, b, "T", 2)
		next := 0
		for range 4 {
			send(t, b, numbered("T", next, next+10)...)
			next += 10
			c := pull(t, b, "G", "T", nil)
			require.NoError(t, c.Commit(t.Context(), poll(t, c, 5)...))
			before, _, err := b.Lag("G")
			require.NoError(t, err)
			stats := b.Stats()
			require.NoError(t, b.Close())
			o.DisableMmap = !o.DisableMmap
			b = mqtest.OpenDir(t, dir, o)
			require.Equal(t, mq.Recovery{Clean: true}, b.Recovery())
			require.Equal(t, before, lag(t, b, "G"))
			require.Equal(t, stats.Messages, b.Stats().Messages)
		}
		require.NoError(t, b.Close())
		b = mqtest.OpenDir(t, dir, o)
		c := pull(t, b, "G", "T", nil)
		require.Len(t, poll(t, c, int(lag(t, b, "G"))), 20)
	}
}

// TestEmptyStoreIsSmall: an edge box does not pay for segments of 128 MiB.
func TestEmptyStoreIsSmall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, nil)
	require.Less(t, diskUsed(t, dir), int64(16<<20))
	sendBodies(t, b, "T", 1)
	require.Less(t, diskUsed(t, dir), int64(16<<20))
	require.NoError(t, b.Close())
	require.Less(t, diskUsed(t, dir), int64(2<<20), "closed, it is what it holds and a reserve")
}

// diskUsed adds up the sizes of all files, which are really allocated.
func diskUsed(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the log tidies up meanwhile
		}
		bytes += info.Size()
		return err
	}))
	return bytes
}

// TestShutdownBesideJoining: who becomes a consumer while the broker drains gets
// no messages, and holds nothing up.
func TestShutdownBesideJoining(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b *mq.Broker
		var in inbox
		draining := false
		b = mqtest.OpenMemory(t, &mq.Options{Durability: mq.Written, Hooks: &mq.Hooks{Rebalanced: func(mq.RebalancedInfo) {
			if !draining {
				return
			}
			draining = false
			late, err := b.NewPushConsumer("Late", in.handle, nil)
			require.NoError(t, err)
			require.NoError(t, late.Subscribe("T", mq.All))
			require.Empty(t, late.Assigned())
		}}})
		createTopic(t, b, "T", 1)
		push(t, b, "G", "T", func(context.Context, *mq.Message) error { return nil }, nil)
		sendBodies(t, b, "T", 1)
		synctest.Wait()
		draining = true
		require.NoError(t, b.Shutdown(t.Context()))
		require.Zero(t, in.len())
	})
}
