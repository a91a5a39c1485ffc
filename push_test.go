package mq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

func TestPushHandlesEverything(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 4)
	sendBodies(t, b, "T", 1000)
	crowd := newCrowd()
	push(t, b, "G", "T", crowd.handle, nil)
	sendBodies(t, b, "U", 1) // another topic
	consumed(t, b, "G")
	crowd.verify(t, 1000)
	require.Equal(t, int64(1000), b.Stats().Acked)
}

// TestPushWakesUpByArrival: the message is handled in the moment it is sent,
// after any time of waiting.
func TestPushWakesUpByArrival(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, nil)
		require.NoError(t, b.CreateTopic("T", nil))
		handled := make(chan time.Time)
		push(t, b, "G", "T", func(context.Context, *mq.Message) error {
			handled <- time.Now()
			return nil
		}, nil)
		for range 10 {
			pass(time.Hour)
			sent := time.Now()
			sendBodies(t, b, "T", 1)
			require.Equal(t, sent, <-handled)
		}
	})
}

// attempt is one delivery to a handler that fails.
type attempt struct {
	number int
	after  time.Duration
	queue  mq.QueueID
	body   string
}

// TestFailedComesAgainLater: after RocketMQ's growing delays, whether it returns
// an error or panics, with a rising Attempt and unchanged.
func TestFailedComesAgainLater(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("no") },
		"panic": func() error { panic("no") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const times = 20
				var failed []mq.FailedInfo
				b := mqtest.OpenMemory(t, &mq.Options{Durability: mq.Written, Hooks: &mq.Hooks{
					Failed: func(info mq.FailedInfo) { failed = append(failed, info) },
				}})
				createTopic(t, b, "T", 1)
				began := time.Now()
				var seen []attempt
				push(t, b, "G", "T", func(_ context.Context, m *mq.Message) error {
					seen = append(seen, attempt{m.Attempt, time.Since(began), m.Queue, string(m.Body)})
					if m.Attempt > times {
						return nil
					}
					m.Body[0], m.Offset, m.Queue, m.Topic = 'x', 99, 99, "changed" // it is the handler's
					return fail()
				}, &mq.PushOptions{MaxAttempts: -1})
				r := sendBodies(t, b, "T", 1)[0]
				pass(48 * time.Hour)
				var want []attempt
				due := time.Duration(0)
				for n := 1; n <= times+1; n++ {
					want = append(want, attempt{n, due, 0, "0"})
					due += mq.RetryDelays(n)
				}
				require.Equal(t, want, seen)
				require.Zero(t, lag(t, b, "G"))
				require.Equal(t, int64(times), b.Stats().Failed)
				require.Len(t, failed, times)
				for i, info := range failed {
					require.Equal(t, mq.RetryDelays(i+1), info.Retry)
					require.Equal(t, i+1, info.Attempt)
					require.Equal(t, mq.Queue{Topic: "T"}, info.Queue)
					var panicked *mq.PanicError
					require.Equal(t, name == "panic", errors.As(info.Err, &panicked))
				}
				require.Equal(t, "G", failed[0].Group)
				require.Equal(t, mq.Offset(0), failed[0].Offset)
				require.Equal(t, r.Queue, failed[0].Queue.ID)
			})
		})
	}
}

func TestRetryDelaysGrow(t *testing.T) {
	t.Parallel()
	require.Equal(t, 10*time.Second, mq.RetryDelays(1))
	require.Equal(t, 30*time.Second, mq.RetryDelays(2))
	require.Equal(t, 2*time.Hour, mq.RetryDelays(16))
	require.Equal(t, 2*time.Hour, mq.RetryDelays(1<<40))
	require.Equal(t, 10*time.Second, mq.RetryDelays(-5))
}

// TestFailedHoldsNothingUp: in its own queue neither.
func TestFailedHoldsNothingUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 2)
		var fine atomic.Int64
		push(t, b, "G", "T", func(_ context.Context, m *mq.Message) error {
			if len(m.Body) == 1 { // 0 to 9
				return errors.New("poison")
			}
			fine.Add(1)
			return nil
		}, nil)
		sendBodies(t, b, "T", 500)
		pass(20 * time.Millisecond)
		require.Equal(t, int64(490), fine.Load())
		require.Zero(t, lag(t, b, "G"), "what failed holds nothing back")
		require.Equal(t, int64(10), b.Stats().Waiting)
		pass(10 * time.Second)
		require.Equal(t, int64(20), b.Stats().Failed, "and they came again")
	})
}

// TestFailedAtOnce: a Backoff of nothing is a hot loop if it is asked for, and
// ends when the handler is content.
func TestFailedAtOnce(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 1)
	push(t, b, "G", "T", func(_ context.Context, m *mq.Message) error {
		if m.Attempt <= 300 {
			return errors.New("again")
		}
		return nil
	}, &mq.PushOptions{Backoff: func(int) time.Duration { return -1 }, MaxAttempts: -1})
	consumed(t, b, "G")
	require.Equal(t, int64(300), b.Stats().Failed)
}

// TestSlowHoldsNothingUp: a handler that does not return keeps back its own
// message only. What is done around it is acknowledged within milliseconds, so
// that a kill -9 does not bring it back.
func TestSlowHoldsNothingUp(t *testing.T) {
	t.Parallel()
	rows := []struct{ concurrency, slow, finished int }{
		{1, 0, 0}, {1, 2, 2}, {2, 0, 199}, {2, 30, 199}, {20, 0, 199}, {20, 199, 199},
	}
	for _, row := range rows {
		t.Run(fmt.Sprintf("message %d of 200, concurrency %d", row.slow, row.concurrency), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := mqtest.OpenMemory(t, written())
				createTopic(t, b, "T", 1)
				sendBodies(t, b, "T", 200)
				free := make(chan struct{})
				push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
					if string(m.Body) == fmt.Sprint(row.slow) {
						return passing(ctx, free)
					}
					return nil
				}, &mq.PushOptions{Concurrency: row.concurrency})
				pass(10 * time.Millisecond)
				require.Equal(t, int64(200-row.finished), lag(t, b, "G"))
				committed, _ := done(t, b, "G", "T")
				require.Equal(t, mq.Offset(row.slow), committed)
				close(free)
				pass(10 * time.Millisecond)
				require.Zero(t, lag(t, b, "G"))
			})
		})
	}
}

// TestSlowHandlersRunAtOnce: as many as Concurrency says, and never more.
func TestSlowHandlersRunAtOnce(t *testing.T) {
	t.Parallel()
	for _, queues := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", queues)
			sendBodies(t, b, "T", 200)
			var running, most atomic.Int64
			push(t, b, "G", "T", func(context.Context, *mq.Message) error {
				n := running.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				<-time.After(100 * time.Millisecond)
				running.Add(-1)
				return nil
			}, nil)
			pass(50 * time.Millisecond)
			require.Equal(t, int64(20), running.Load())
			pass(1100 * time.Millisecond)
			require.Zero(t, lag(t, b, "G"), "200 messages, 20 at once, a tenth of a second each")
			require.Equal(t, int64(20), most.Load())
		})
	}
}

// TestPrefetchBounds what is handed out of one queue and not acknowledged.
func TestPrefetchBounds(t *testing.T) {
	t.Parallel()
	body := make([]byte, 1000)
	rows := []struct {
		name    string
		options mq.PushOptions
		begun   int // in each queue
	}{
		{"one message", mq.PushOptions{PrefetchMessages: 1}, 1},
		{"10 messages", mq.PushOptions{PrefetchMessages: 10}, 10},
		{"70 messages", mq.PushOptions{PrefetchMessages: 70}, 70},
		{"a message is larger", mq.PushOptions{PrefetchBytes: 10}, 1},
		{"10,000 bytes", mq.PushOptions{PrefetchBytes: 10_000}, 10},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := mqtest.OpenMemory(t, written())
				createTopic(t, b, "T", 2)
				for range 400 {
					send(t, b, &mq.Message{Topic: "T", Body: body})
				}
				var mu sync.Mutex
				begun := map[mq.QueueID]int{}
				free := make(chan struct{})
				o := row.options
				o.Concurrency = 300
				push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
					mu.Lock()
					begun[m.Queue]++
					mu.Unlock()
					return passing(ctx, free)
				}, &o)
				pass(200 * time.Millisecond)
				mu.Lock()
				require.Equal(t, map[mq.QueueID]int{0: row.begun, 1: row.begun}, begun)
				mu.Unlock()
				close(free)
				pass(time.Second)
				require.Zero(t, lag(t, b, "G"))
			})
		})
	}
}

// TestWhatWaitsTakesNoRoom: failed messages that wait to come again are not under
// way, so however many they are, those behind them have their turn.
func TestWhatWaitsTakesNoRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "Poison", 1)
		createTopic(t, b, "Fine", 1)
		sendBodies(t, b, "Poison", 100)
		sendBodies(t, b, "Fine", 100)
		var poisoned, fine atomic.Int64
		c := push(t, b, "G", "Poison", func(_ context.Context, m *mq.Message) error {
			if m.Topic == "Fine" {
				fine.Add(1)
				return nil
			}
			poisoned.Add(1)
			return errors.New("poison")
		}, &mq.PushOptions{PrefetchMessages: 7})
		require.NoError(t, c.Subscribe("Fine", mq.All))
		pass(9 * time.Second)
		require.Equal(t, int64(100), poisoned.Load())
		require.Equal(t, int64(100), fine.Load())
		pass(2 * time.Second)
		require.Equal(t, int64(200), poisoned.Load())
	})
}

// TestPushCloseCancelsHandlers and waits for them; what they did not finish
// comes again.
func TestPushCloseCancelsHandlers(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 100)
	h := newGate()
	c := push(t, b, "G", "T", h.handle, nil)
	h.awaitBegun(t, 20)
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Subscribe("U", mq.All), mq.ErrClosed)
	require.Equal(t, []string{"T"}, b.Topics())
	require.Equal(t, int64(100), lag(t, b, "G"))
	var rest inbox
	push(t, b, "G", "T", rest.handle, nil)
	rest.await(t, 100)
	bodies := rest.bodies()
	slices.Sort(bodies)
	want := bodiesTo(100)
	slices.Sort(want)
	require.Equal(t, want, bodies)
}

// TestPushSubscribesInHandler: a handler may use the broker, all but its Close.
func TestPushSubscribesInHandler(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	createTopic(t, b, "U", 1)
	var c *mq.PushConsumer
	var ready sync.WaitGroup
	ready.Add(1)
	var got inbox
	c = push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
		ready.Wait()
		if m.Topic == "T" {
			if err := c.Subscribe("U", mq.All); err != nil {
				return err
			}
			p, err := b.NewProducer(nil)
			if err != nil {
				return err
			}
			if _, err := p.Send(ctx, &mq.Message{Topic: "U", Body: m.Body}); err != nil {
				return err
			}
		}
		_, _ = b.Group("G")
		return got.handle(ctx, m)
	}, nil)
	ready.Done()
	sendBodies(t, b, "T", 20)
	got.await(t, 40)
	consumed(t, b, "G")
}

// TestAckDurability: Synced acknowledgements wait for the disk, others do not.
func TestAckDurability(t *testing.T) {
	t.Parallel()
	for _, durability := range []mq.Durability{mq.Written, mq.Synced} {
		b := mqtest.Open(t, &mq.Options{Durability: mq.Written, SyncEvery: time.Hour})
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 10)
		push(t, b, "G", "T", func(context.Context, *mq.Message) error { return nil }, &mq.PushOptions{AckDurability: durability})
		c := pull(t, b, "H", "T", &mq.PullOptions{AckDurability: durability})
		consumed(t, b, "G")
		before := b.Stats()
		poll(t, c, 10)
		require.NoError(t, c.Commit(t.Context()))
		after := b.Stats()
		require.Equal(t, durability == mq.Synced, after.Synced == after.Written)
		require.Equal(t, durability == mq.Synced, after.Syncs > before.Syncs)
	}
}

// TestHandlersKeepTheirMessages: what a handler keeps is not written over by
// later deliveries.
func TestHandlersKeepTheirMessages(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	var kept inbox
	push(t, b, "G", "T", kept.handle, nil)
	for i := range 2000 {
		send(t, b, &mq.Message{Topic: "T", Tag: fmt.Sprint("tag", i), Keys: []string{fmt.Sprint("key", i)}, Body: fmt.Append(nil, i)})
	}
	kept.await(t, 2000)
	seen := map[string]bool{}
	for _, m := range kept.messages() {
		require.Equal(t, "tag"+string(m.Body), m.Tag)
		require.Equal(t, []string{"key" + string(m.Body)}, m.Keys)
		seen[string(m.Body)] = true
	}
	require.Len(t, seen, 2000)
}

// TestClosingIsNoAttempt: a message whose handler was cancelled because its consumer
// closes goes to another member with the attempt that it had, and is no dead letter
// although it was its last one.
func TestClosingIsNoAttempt(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 1)
			o := &mq.PushOptions{Ordered: ordered, MaxAttempts: 1}
			one := push(t, b, "G", "T", func(ctx context.Context, _ *mq.Message) error {
				<-ctx.Done()
				return ctx.Err()
			}, o)
			send(t, b, &mq.Message{Topic: "T", ShardingKey: "k"})
			pass(time.Second)
			var in inbox
			push(t, b, "G", "T", in.handle, o)
			require.NoError(t, one.Close())
			pass(time.Second)
			require.Empty(t, deadLetters(t, b, "G"))
			require.Equal(t, 1, in.len())
			require.Equal(t, 1, in.messages()[0].Attempt)
		})
	}
}

// textless is an error whose nil pointer, which is no nil error, has no text.
type textless struct{ text string }

func (e *textless) Error() string { return e.text }

// TestErrorPanics: an error that panics when it is asked for its text is a panic of
// the handler, and no end of the process.
func TestErrorPanics(t *testing.T) {
	t.Parallel()
	for _, model := range []mq.Model{mq.Broadcasting, mq.Clustering} {
		failed := make(chan mq.FailedInfo, 2)
		o := written()
		o.Hooks = &mq.Hooks{Failed: func(info mq.FailedInfo) { failed <- info }}
		b := mqtest.OpenMemory(t, o)
		var nothing *textless
		push(t, b, "G", "T", func(context.Context, *mq.Message) error { return nothing },
			&mq.PushOptions{Model: model, Instance: "m", Backoff: mq.Immediate, MaxAttempts: 2})
		sendBodies(t, b, "T", 1)
		for _, attempt := range []int{1, 2}[:2-int(model)] {
			info := <-failed
			var panicked *mq.PanicError
			require.True(t, errors.As(info.Err, &panicked), "a broadcasting member would only pass it on")
			require.Equal(t, attempt, info.Attempt)
		}
		drain(t, b, "G")
	}
}
