package mq_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// TestMemoryBehavesLikeDisk: the same calls, the same answers.
func TestMemoryBehavesLikeDisk(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB, *mq.Options) *mq.Broker{"disk": mqtest.Open, "memory": mqtest.OpenMemory} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, nil)
			require.NoError(t, b.CreateTopic("T", &mq.TopicConfig{Queues: 1}))
			sendBodies(t, b, "T", 50)
			c := pull(t, b, "G", "T", nil)
			require.Equal(t, bodiesTo(50), bodiesOf(poll(t, c, 50)))
			require.NoError(t, c.Commit(t.Context()))
			require.Zero(t, lag(t, b, "G"))
			require.Equal(t, mq.Recovery{Clean: true}, b.Recovery())
			require.NoError(t, b.Sync(t.Context()))
			require.Equal(t, b.Stats().Written, b.Stats().Synced)
			require.NoError(t, b.Check(t.Context()))
		})
	}
}

// TestMemoryIsItsOwn: two brokers share nothing.
func TestMemoryIsItsOwn(t *testing.T) {
	t.Parallel()
	one, two := mqtest.OpenMemory(t, written()), mqtest.OpenMemory(t, written())
	r := sendBodies(t, one, "T", 1)[0]
	require.Empty(t, two.Topics())
	_, err := two.MessageByID(r.ID)
	require.ErrorIs(t, err, mq.ErrMessageNotFound)
}

// TestMemoryInABubble: timers are the standard library's, so that days pass in
// no time.
func TestMemoryInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, nil)
		fails := 5
		push(t, b, "G", "T", func(context.Context, *mq.Message) error {
			if fails--; fails >= 0 {
				return errors.New("not yet")
			}
			return nil
		}, &mq.PushOptions{Concurrency: 1})
		sendBodies(t, b, "T", 1)
		pass(7 * 24 * time.Hour)
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestMemoryIsBounded: a broker on the heap that is used as a queue for far more
// than its size keeps what it holds within it, whatever the number of messages.
func TestMemoryIsBounded(t *testing.T) { //nolint:paralleltest // measures the heap of the process
	const size = 16 << 20
	b := mqtest.OpenMemory(t, &mq.Options{Durability: mq.Written, Retention: mq.Retention{MaxBytes: size}})
	createTopic(t, b, "T", 4)
	var heap runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&heap)
	before := heap.HeapAlloc
	push(t, b, "G", "T", func(context.Context, *mq.Message) error { return nil }, nil)
	p := newProducer(t, b, nil)
	m := &mq.Message{Topic: "T", Body: make([]byte, 1000)}
	stored := 0
	for stored < 100_000 { // 100 MB
		_, err := p.Send(t.Context(), m)
		if errors.Is(err, mq.ErrFull) { // the consumer is behind
			runtime.Gosched()
			continue
		}
		require.NoError(t, err)
		stored++
	}
	consumed(t, b, "G")
	require.LessOrEqual(t, b.Stats().LogBytes, int64(size))
	runtime.GC()
	runtime.ReadMemStats(&heap)
	require.Less(t, int64(heap.HeapAlloc)-int64(before), int64(3*size))
	require.Zero(t, b.Stats().Missed)
}

// TestManyQueuesTakeLittle: 40,000 message queues with a message each cost
// memory by what is in them, and open no files.
func TestManyQueuesTakeLittle(t *testing.T) { //nolint:paralleltest // measures the heap of the process
	topics := 10_000
	if testing.Short() {
		topics = 1000
	}
	b := mqtest.OpenMemory(t, written())
	var heap runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&heap)
	before := heap.HeapAlloc
	p := newProducer(t, b, nil)
	for i := range topics {
		for range 4 {
			_, err := p.Send(t.Context(), &mq.Message{Topic: fmt.Sprint("T", i)})
			require.NoError(t, err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&heap)
	perQueue := (int64(heap.HeapAlloc) - int64(before) - b.Stats().LogBytes) / int64(4*topics)
	t.Logf("%d B a queue", perQueue)
	require.Less(t, perQueue, int64(2048))
}
