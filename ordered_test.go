package mq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// sendKeyed stores messages number from to to-1, their keys in turn.
func sendKeyed(t testing.TB, b *mq.Broker, topic string, from, to int, keys ...string) {
	t.Helper()
	ms := numbered(topic, from, to)
	for i, m := range ms {
		m.ShardingKey = keys[(from+i)%len(keys)]
	}
	send(t, b, ms...)
}

// journal is what a handler saw, by key.
type journal struct {
	mu   sync.Mutex
	seen map[string][]string
}

func (j *journal) note(m *mq.Message) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.seen == nil {
		j.seen = map[string][]string{}
	}
	j.seen[m.ShardingKey] = append(j.seen[m.ShardingKey], string(m.Body))
}

func (j *journal) of(key string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string{}, j.seen[key]...)
}

func TestOrderedByKey(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 4)
	crowd := newCrowd()
	push(t, b, "G", "T", crowd.handle, &mq.PushOptions{Ordered: true})
	sendKeyed(t, b, "T", 0, 2000, "a", "b", "c", "d", "e", "f", "g")
	consumed(t, b, "G")
	crowd.verify(t, 2000)
}

// TestOrderedWithoutKeys: the order of the queue.
func TestOrderedWithoutKeys(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	var in inbox
	push(t, b, "G", "T", in.handle, &mq.PushOptions{Ordered: true})
	sendBodies(t, b, "T", 500)
	in.await(t, 500)
	require.Equal(t, bodiesTo(500), in.bodies())
}

// TestOrderedKeysRunBesideEachOther: one that is slow holds up its own messages.
func TestOrderedKeysRunBesideEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendKeyed(t, b, "T", 0, 300, "slow", "fast", "")
		free := make(chan struct{})
		var seen journal
		push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
			seen.note(m)
			if m.ShardingKey == "slow" {
				return passing(ctx, free)
			}
			return nil
		}, &mq.PushOptions{Ordered: true})
		pass(50 * time.Millisecond)
		require.Equal(t, []string{"0"}, seen.of("slow"))
		require.Len(t, seen.of("fast"), 100)
		require.Len(t, seen.of(""), 100)
		require.Equal(t, int64(100), lag(t, b, "G"), "what is done is acknowledged")
		close(free)
		pass(50 * time.Millisecond)
		require.Zero(t, lag(t, b, "G"))
		require.Len(t, seen.of("slow"), 100)
	})
}

// TestOrderedFailsInPlace: the message comes again after a second, RocketMQ's
// suspendCurrentQueueTimeMillis, before the next one of its key; other keys go
// on meanwhile.
func TestOrderedFailsInPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendKeyed(t, b, "T", 0, 100, "bad", "good")
		var seen, attempts journal
		push(t, b, "G", "T", func(_ context.Context, m *mq.Message) error {
			seen.note(m)
			attempts.note(&mq.Message{ShardingKey: string(m.Body), Body: fmt.Append(nil, m.Attempt)})
			if string(m.Body) == "10" && m.Attempt <= 3 {
				m.Body = []byte("scribbled")
				m.ShardingKey = "another"
				if m.Attempt == 2 {
					panic("no")
				}
				return errors.New("no")
			}
			return nil
		}, &mq.PushOptions{Ordered: true})
		pass(900 * time.Millisecond)
		require.Equal(t, []string{"0", "2", "4", "6", "8", "10"}, seen.of("bad"))
		require.Len(t, seen.of("good"), 50)
		pass(time.Second)
		require.Len(t, seen.of("bad"), 7)
		pass(2 * time.Second)
		want := []string{"0", "2", "4", "6", "8", "10", "10", "10", "10"}
		for i := 12; i < 100; i += 2 {
			want = append(want, fmt.Sprint(i))
		}
		require.Equal(t, want, seen.of("bad"))
		require.Equal(t, []string{"1", "2", "3", "4"}, attempts.of("10"))
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestOrderedFailsWhileMembersChange: neither a retry that waits nor one that
// runs lets the next message of its key by.
func TestOrderedFailsWhileMembersChange(t *testing.T) {
	t.Parallel()
	const n, keys = 2000, 11
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 4)
	var mu sync.Mutex
	handled := map[string]int{} // by key: number of the last one consumed
	var faults []string
	consumedTimes := map[int]int{}
	handler := func(_ context.Context, m *mq.Message) error {
		mu.Lock()
		defer mu.Unlock()
		var i int
		_, _ = fmt.Sscan(string(m.Body), &i)
		want := handled[m.ShardingKey] + keys
		if _, ok := handled[m.ShardingKey]; !ok {
			_, _ = fmt.Sscan(m.ShardingKey, &want)
		}
		if i != want {
			faults = append(faults, fmt.Sprintf("key %s: %d, want %d", m.ShardingKey, i, want))
		}
		if i%13 == 0 && m.Attempt <= 2 {
			return errors.New("no")
		}
		handled[m.ShardingKey] = i
		consumedTimes[i]++
		return nil
	}
	o := &mq.PushOptions{Ordered: true, Concurrency: 3, Backoff: func(int) time.Duration { return 100 * time.Microsecond }}
	push(t, b, "G", "T", handler, o)
	names := []string{}
	for i := range keys {
		names = append(names, fmt.Sprint(i))
	}
	var sender sync.WaitGroup
	sender.Go(func() { sendKeyed(t, b, "T", 0, n, names...) })
	for range 40 {
		c := push(t, b, "G", "T", handler, o)
		require.NoError(t, c.Close())
	}
	sender.Wait()
	consumed(t, b, "G")
	mu.Lock()
	defer mu.Unlock()
	require.Empty(t, faults)
	require.Len(t, consumedTimes, n)
	for i, times := range consumedTimes {
		require.Equal(t, 1, times, "message %d", i)
	}
}

// TestOrderedQueueMovesUnderAHandler: the new owner of a queue does not touch a
// key that the old one is handling.
func TestOrderedQueueMovesUnderAHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendKeyed(t, b, "T", 0, 20, "held", "free")
		free := make(chan struct{})
		var one, two journal
		o := &mq.PushOptions{Ordered: true, Strategy: func(members []string, queues []mq.Queue) map[string][]mq.Queue {
			return map[string][]mq.Queue{members[len(members)-1]: queues}
		}}
		push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
			one.note(m)
			if m.ShardingKey == "held" {
				return passing(ctx, free)
			}
			return nil
		}, o)
		pass(20 * time.Millisecond)
		last := push(t, b, "G", "T", func(_ context.Context, m *mq.Message) error {
			two.note(m)
			return nil
		}, o)
		require.Equal(t, queuesOf("T", 0), last.Assigned())
		sendKeyed(t, b, "T", 20, 40, "held", "free")
		pass(20 * time.Millisecond)
		require.Equal(t, []string{"0"}, one.of("held"))
		require.Empty(t, two.of("held"))
		require.Len(t, two.of("free"), 10)
		close(free)
		pass(20 * time.Millisecond)
		var want []string
		for i := 0; i < 40; i += 2 {
			want = append(want, fmt.Sprint(i))
		}
		require.Equal(t, want, append(one.of("held"), two.of("held")...))
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestOrderedResetWhileHandling: the key waits for its handler, and then begins
// again where the reset says.
func TestOrderedResetWhileHandling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendKeyed(t, b, "T", 0, 10, "k")
		held := make(chan struct{})
		var seen journal
		push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
			seen.note(m)
			if string(m.Body) == "5" && len(seen.of("k")) == 6 {
				return passing(ctx, held)
			}
			return nil
		}, &mq.PushOptions{Ordered: true})
		pass(20 * time.Millisecond)
		require.Len(t, seen.of("k"), 6)
		require.NoError(t, b.ResetOffset("G", "T", mq.Earliest))
		pass(20 * time.Millisecond)
		require.Len(t, seen.of("k"), 6, "nothing of the key while its handler runs")
		close(held)
		pass(20 * time.Millisecond)
		require.Equal(t, append(bodiesTo(6), bodiesTo(10)...), seen.of("k"))
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestOrderedRetryAfterReset: a message that waits in its place to come again is
// forgotten by a reset, and not delivered twice. One that was sent back is
// another message by then, and not moved.
func TestOrderedRetryAfterReset(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 1)
			sendKeyed(t, b, "T", 0, 3, "k")
			var seen journal
			push(t, b, "G", "T", func(_ context.Context, m *mq.Message) error {
				seen.note(m)
				if len(seen.of("k")) == 1 {
					return errors.New("no")
				}
				return nil
			}, &mq.PushOptions{Ordered: ordered, Concurrency: 1})
			pass(20 * time.Millisecond)
			before := seen.of("k")
			require.NoError(t, b.ResetOffset("G", "T", mq.Earliest))
			pass(time.Hour)
			want := append(before, bodiesTo(3)...)
			if !ordered {
				want = append(want, "0")
			}
			require.Equal(t, want, seen.of("k"))
			require.Zero(t, lag(t, b, "G"))
		})
	}
}
