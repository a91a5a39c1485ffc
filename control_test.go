package mq_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// TestUnsubscribePush: nothing begins after it, what is under way is
// acknowledged, and who subscribes again gets nothing twice.
func TestUnsubscribePush(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 1)
			createTopic(t, b, "other", 1)
			sendBodies(t, b, "T", 30)
			g := newGate()
			c := push(t, b, "G", "T", g.handle, &mq.PushOptions{Ordered: ordered, Concurrency: 2})
			require.NoError(t, c.Subscribe("other", mq.All))
			synctest.Wait()
			begun := g.len()
			require.Positive(t, begun)
			require.NoError(t, c.Unsubscribe("T"))
			require.Equal(t, queuesOf("other", 0), c.Assigned())
			require.ErrorIs(t, c.Unsubscribe("T"), mq.ErrNotAssigned)
			require.ErrorIs(t, c.Unsubscribe("none"), mq.ErrTopicNotFound)
			g.open()
			pass(time.Hour)
			require.Equal(t, begun, g.len())
			require.EqualValues(t, 30-begun, lag(t, b, "G"))

			require.NoError(t, c.Subscribe("T", mq.All))
			synctest.Wait()
			require.ElementsMatch(t, bodiesTo(30), g.bodies(), "each once")
			require.Zero(t, lag(t, b, "G"))
		})
	}
}

// TestUnsubscribeRetries: who subscribes to nothing any more gets no retries
// either; they come when it subscribes again.
func TestUnsubscribeRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 1)
		var in inbox
		c := push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
			_ = in.handle(ctx, m)
			if in.len() < 3 {
				return mq.RetryAfter(0)
			}
			return nil
		}, nil)
		synctest.Wait()
		require.Equal(t, 3, in.len())
		require.NoError(t, c.Unsubscribe("T"))
		require.Empty(t, c.Assigned())
		require.NoError(t, c.Subscribe("T", mq.All))
		require.Len(t, c.Assigned(), 2)
	})
}

// TestUnsubscribeGivesToOthers: while the topic's other subscribers go on.
func TestUnsubscribeGivesToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 30)
		stuck, free := newGate(), newGate()
		free.open()
		one := push(t, b, "G", "T", stuck.handle, &mq.PushOptions{Concurrency: 1})
		synctest.Wait()
		two := push(t, b, "G", "T", free.handle, nil)
		require.NoError(t, one.Unsubscribe("T"))
		synctest.Wait()
		require.Equal(t, 1, stuck.len())
		require.Equal(t, bodiesTo(30)[1:], free.bodies())
		require.Equal(t, queuesOf("T", 0), two.Assigned())
		stuck.open()
		synctest.Wait()
		require.Zero(t, lag(t, b, "G"))
		require.ErrorIs(t, func() error { require.NoError(t, one.Close()); return one.Unsubscribe("T") }(), mq.ErrClosed)
	})
}

// TestUnsubscribePull: what was polled and not committed comes again to who
// subscribes again.
func TestUnsubscribePull(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 4)
	c := pull(t, b, "G", "T", nil)
	ms := poll(t, c, 3)
	require.NoError(t, c.Commit(t.Context(), ms[0]))
	require.NoError(t, c.Unsubscribe("T"))
	nothingMore(t, c)
	require.NoError(t, c.Subscribe("T", mq.All))
	require.Equal(t, bodiesTo(4)[1:], bodiesOf(poll(t, c, 3)))
	require.NoError(t, c.Commit(t.Context()))
	require.Zero(t, lag(t, b, "G"))

	assigned, err := b.NewPullConsumer("H", nil)
	require.NoError(t, err)
	require.NoError(t, assigned.Assign(mq.Queue{Topic: "T"}))
	require.ErrorIs(t, assigned.Unsubscribe("T"), mq.ErrNotAssigned)
	require.NoError(t, assigned.Close())
}

// TestUnsubscribeSimple: what was received stays invisible and may be
// acknowledged.
func TestUnsubscribeSimple(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 4)
	c := simple(t, b, "G", nil, "T")
	ms := receiveFrom(t, c, 2, time.Hour)
	require.NoError(t, c.Unsubscribe("T"))
	require.Empty(t, c.Assigned())
	nothingToReceive(t, c)
	require.NoError(t, c.Ack(t.Context(), ms[0]))
	require.NoError(t, c.Subscribe("T", mq.All))
	require.Equal(t, bodiesTo(4)[2:], bodiesOf(receiveFrom(t, c, 2, time.Hour)))
	nothingToReceive(t, c)
	require.NoError(t, c.Ack(t.Context(), ms[1]))
	require.EqualValues(t, 2, lag(t, b, "G"))
}

// TestUnsubscribeAcksSkipped: what its filter passed holds nothing afterwards.
func TestUnsubscribeAcksSkipped(t *testing.T) {
	t.Parallel()
	o := written()
	o.SyncEvery = time.Hour
	b := mqtest.OpenMemory(t, o)
	createTopic(t, b, "T", 1)
	createTopic(t, b, "other", 1)
	sendBodies(t, b, "T", 20)
	c := pull(t, b, "G", "other", nil)
	require.NoError(t, c.Subscribe("T", mq.Tags("wanted")))
	nothingMore(t, c)
	require.EqualValues(t, 20, lag(t, b, "G"))
	require.NoError(t, c.Unsubscribe("T"))
	require.Zero(t, lag(t, b, "G"))
}

// TestPausePush: nothing begins between Pause and Resume, of queues that come
// meanwhile either.
func TestPausePush(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 1)
			createTopic(t, b, "late", 1)
			sendBodies(t, b, "T", 100)
			g := newGate()
			c := push(t, b, "G", "T", g.handle, &mq.PushOptions{Ordered: ordered})
			synctest.Wait()
			require.NoError(t, c.Pause())
			begun := g.len()
			g.open()
			require.NoError(t, c.Subscribe("late", mq.All))
			sendBodies(t, b, "late", 10)
			pass(time.Hour)
			require.Equal(t, begun, g.len())
			require.EqualValues(t, 110-begun, lag(t, b, "G"), "what was under way is acknowledged")
			require.NoError(t, c.Pause())
			require.NoError(t, c.Resume())
			synctest.Wait()
			require.Equal(t, 110, g.len())
			require.Zero(t, lag(t, b, "G"))
			require.NoError(t, c.Close())
			require.ErrorIs(t, c.Pause(), mq.ErrClosed)
			require.ErrorIs(t, c.Resume(), mq.ErrClosed)
		})
	}
}

// TestPauseWhileBusy: no handler begins after Pause has returned, however many
// were about to.
func TestPauseWhileBusy(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 4)
	const count = 5000
	var paused atomic.Bool
	var handled atomic.Int64
	var begun atomic.Int64
	c := push(t, b, "G", "T", func(context.Context, *mq.Message) error {
		begun.Add(1)
		handled.Add(1)
		return nil
	}, nil)
	p := newProducer(t, b, nil)
	go func() {
		for i := range count / 100 {
			if _, err := p.SendBatch(t.Context(), numbered("T", i*100, i*100+100)); err != nil {
				t.Error(err)
			}
		}
	}()
	for round := 0; handled.Load() < count && !t.Failed(); round++ {
		require.NoError(t, c.Pause())
		// Handlers that had begun may yet get to their first line.
		<-time.After(2 * time.Millisecond)
		paused.Store(true)
		before := begun.Load()
		<-time.After(2 * time.Millisecond)
		require.Equal(t, before, begun.Load(), "round %d", round)
		paused.Store(false)
		require.NoError(t, c.Resume())
		<-time.After(time.Millisecond)
	}
	consumed(t, b, "G")
	require.EqualValues(t, count, handled.Load(), "each once")
}

// TestSetConcurrency: more handlers run at once, then fewer, then more.
func TestSetConcurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 2)
		var running, most atomic.Int64
		c := push(t, b, "G", "T", func(ctx context.Context, _ *mq.Message) error {
			n := running.Add(1)
			defer running.Add(-1)
			for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
			}
			<-time.After(time.Second)
			return nil
		}, &mq.PushOptions{Concurrency: 3})
		sendBodies(t, b, "T", 2000)
		for _, n := range []int{3, 10, 2, 50, 1, 20} {
			require.NoError(t, c.SetConcurrency(n))
			pass(2 * time.Second) // those that had begun return
			most.Store(0)
			pass(3 * time.Second)
			require.EqualValues(t, n, most.Load(), "want %d at once", n)
		}
		for _, n := range []int{0, -1, 1<<16 + 1} {
			require.ErrorIs(t, c.SetConcurrency(n), mq.ErrInvalidOptions)
		}
		pass(time.Hour)
		require.Zero(t, lag(t, b, "G"))
		require.NoError(t, c.SetConcurrency(1)) // of workers that all wait
		sendBodies(t, b, "T", 3)
		pass(4 * time.Second)
		require.Zero(t, lag(t, b, "G"))
		require.NoError(t, c.Close())
		require.ErrorIs(t, c.SetConcurrency(2), mq.ErrClosed)
	})
}

// TestDrain: handlers finish, nothing is begun, others get the rest.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 1)
			for i := range 20 {
				send(t, b, &mq.Message{Topic: "T", ShardingKey: fmt.Sprint(i), Body: fmt.Appendf(nil, "%d", i)})
			}
			var cancelled atomic.Int64
			g := newGate()
			c := push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
				err := g.handle(ctx, m)
				if ctx.Err() != nil {
					cancelled.Add(1)
				}
				return err
			}, &mq.PushOptions{Ordered: ordered, Concurrency: 3})
			pass(time.Second)
			begun := g.len()
			require.Positive(t, begun)
			drained := make(chan error)
			go func() { drained <- c.Drain(t.Context()) }()
			synctest.Wait()
			require.Empty(t, c.Assigned())
			g.open()
			require.NoError(t, <-drained)
			require.Equal(t, begun, g.len())
			require.Zero(t, cancelled.Load())
			require.EqualValues(t, 20-begun, lag(t, b, "G"))
			require.NoError(t, c.Drain(t.Context()), "again")
			require.ErrorIs(t, c.Subscribe("T", mq.All), mq.ErrClosed)
		})
	}
}

// TestDrainInVain: when its context ends first it is Close.
func TestDrainInVain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 2)
		g := newGate() // returns when its context ends
		c := push(t, b, "G", "T", g.handle, nil)
		pass(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, c.Drain(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(began))
		require.Equal(t, 2, g.len())
		var in inbox // what was given up comes again
		push(t, b, "G", "T", in.handle, nil)
		pass(3 * time.Hour)
		require.ElementsMatch(t, bodiesTo(2), in.bodies())
	})
}

// TestTopicsChangeWhileRunning: a consumer of several topics takes one more, lets
// one go and changes a filter while messages of all of them come in; nothing that
// it wants is lost, nothing comes twice.
func TestTopicsChangeWhileRunning(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	for _, topic := range []string{"Stays", "Goes", "Comes", "Filtered"} {
		createTopic(t, b, topic, 2)
	}
	var mu sync.Mutex
	got := map[string]int{}  // by topic and tag
	seen := map[string]int{} // by id
	c := push(t, b, "G", "Stays", func(_ context.Context, m *mq.Message) error {
		mu.Lock()
		defer mu.Unlock()
		got[m.Topic+m.Tag]++
		seen[m.ID.String()]++
		return nil
	}, nil)
	require.NoError(t, c.Subscribe("Goes", mq.All))
	require.NoError(t, c.Subscribe("Filtered", mq.Tags("a")))
	const n = 500
	var senders sync.WaitGroup
	half := make(chan struct{}, 4)
	changed := make(chan struct{})
	for _, topic := range []string{"Stays", "Goes", "Comes", "Filtered"} {
		senders.Go(func() {
			p, err := b.NewProducer(nil)
			if err != nil {
				panic(err)
			}
			for i := range 2 * n {
				if i == n {
					half <- struct{}{}
					<-changed // the first half and the second are told apart by that
				}
				if _, err := p.Send(context.Background(), &mq.Message{Topic: topic, Tag: "ab"[i%2 : i%2+1]}); err != nil {
					panic(err)
				}
			}
		})
	}
	for range 4 {
		<-half // and the handlers are busy still, or not
	}
	require.NoError(t, c.Unsubscribe("Goes"))
	require.NoError(t, c.Subscribe("Comes", mq.All))
	mqtest.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got["Filtereda"] == n/2
	}, "what the old filter wants")
	require.NoError(t, c.Subscribe("Filtered", mq.Tags("b")))
	mu.Lock()
	gone := got["Goesa"] + got["Goesb"]
	mu.Unlock()
	close(changed)
	senders.Wait()
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got["Staysa"] == n && got["Staysb"] == n && got["Comesa"] == n && got["Comesb"] == n && got["Filteredb"] >= n/2
	}, patience, time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	require.LessOrEqual(t, got["Goesa"]+got["Goesb"], gone+20, "handlers under way finish")
	require.LessOrEqual(t, got["Filteredb"], n, "those of the first half that were not passed yet")
	require.Equal(t, n/2, got["Filtereda"])
	for id, times := range seen {
		require.Equal(t, 1, times, id)
	}
}
