package mq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// TestSendTakesTurns: round robin over the queues, dense offsets, ids that rise.
func TestSendTakesTurns(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 3)
	results := sendBodies(t, b, "T", 9)
	next := map[mq.QueueID]mq.Offset{}
	ids := map[mq.MessageID]bool{}
	for i, r := range results {
		require.Equal(t, "T", r.Topic)
		require.Equal(t, next[r.Queue], r.Offset)
		next[r.Queue]++
		require.Equal(t, (results[0].Queue+mq.QueueID(i))%3, r.Queue)
		require.False(t, r.ID.IsZero())
		ids[r.ID] = true
	}
	require.Len(t, ids, 9)
}

func TestSendChoosesQueues(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 8)
	used := func(o *mq.ProducerOptions, key string) map[mq.QueueID]int {
		p := newProducer(t, b, o)
		queues := map[mq.QueueID]int{}
		for range 200 {
			r, err := p.Send(t.Context(), &mq.Message{Topic: "T", ShardingKey: key})
			require.NoError(t, err)
			queues[r.Queue]++
		}
		return queues
	}
	require.Len(t, used(nil, ""), 8)
	require.Len(t, used(&mq.ProducerOptions{Selector: mq.Random}, "key"), 8, "misses one of 8 once in 10^10")
	require.Equal(t, map[mq.QueueID]int{0: 200}, used(&mq.ProducerOptions{Selector: mq.ByShardingKey}, ""))
	last := func(_ *mq.Message, queues int) mq.QueueID { return mq.QueueID(queues - 1) }
	require.Equal(t, map[mq.QueueID]int{7: 200}, used(&mq.ProducerOptions{Selector: last}, "key"))

	require.Len(t, used(nil, "user-7"), 1, "one key, one queue")
	spread := map[mq.QueueID]bool{}
	for i := range 200 {
		spread[mq.ByShardingKey(&mq.Message{ShardingKey: fmt.Sprint(i)}, 8)] = true
	}
	require.Len(t, spread, 8)
}

// TestSendKeepsEveryByte: names and values are binary-safe, and what was handed
// in may be reused at once.
func TestSendKeepsEveryByte(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 1)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	want := func() *mq.Message {
		return &mq.Message{
			Topic: "T", Tag: "a || b\x00", ShardingKey: string(every), Keys: []string{string(every), "", "k"},
			Properties: map[string]string{"": "", "empty": "", string(every): string(every)}, Body: bytes.Clone(every),
		}
	}
	m := want()
	r := send(t, b, m)[0]
	clear(m.Body)
	clear(m.Properties)
	m.Keys[0], m.Tag = "changed", "changed"
	require.True(t, m.ID.IsZero(), "Send does not write the fields of a delivery")

	got := poll(t, pull(t, b, "G", "T", nil), 1)[0]
	require.Equal(t, want().Body, got.Body)
	require.Equal(t, want().Properties, got.Properties)
	require.Equal(t, want().Keys, got.Keys)
	require.Equal(t, want().Tag, got.Tag)
	require.Equal(t, want().ShardingKey, got.ShardingKey)
	require.Equal(t, r.ID, got.ID)
	require.Equal(t, 1, got.Attempt)
	require.False(t, got.StoredAt.IsZero())
	require.False(t, got.BornAt.After(got.StoredAt))
}

func TestSendEmptyBody(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	send(t, b, &mq.Message{Topic: "T"})
	got := poll(t, pull(t, b, "G", "T", nil), 1)[0]
	require.NotNil(t, got.Body, "nil goes in, empty comes out")
	require.Empty(t, got.Body)
	require.Nil(t, got.Keys)
	require.Empty(t, got.Properties)
}

// TestDeliveredBodiesAreTheReceivers: writing to one touches no other, nor what
// is stored.
func TestDeliveredBodiesAreTheReceivers(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	for i := range 50 {
		send(t, b, &mq.Message{Topic: "T", Tag: "tag", Body: bytes.Repeat([]byte{byte(i)}, 100)})
	}
	first := poll(t, pull(t, b, "A", "T", nil), 50)
	for _, m := range first {
		m.Body = append(m.Body, "more"...)
		for i := range m.Body {
			m.Body[i] = 0xFF
		}
	}
	for i, m := range poll(t, pull(t, b, "B", "T", nil), 50) {
		require.Equal(t, bytes.Repeat([]byte{byte(i)}, 100), m.Body)
		require.Equal(t, "tag", first[i].Tag)
	}
}

// TestBatch: over topics and durabilities, results in the order of the messages.
func TestBatch(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, nil)
	createTopic(t, b, "W", 1)
	require.NoError(t, b.CreateTopic("S", &mq.TopicConfig{Queues: 1}))
	w, s := pull(t, b, "G", "W", nil), pull(t, b, "H", "S", nil)
	p := newProducer(t, b, nil)
	before := b.Stats().Syncs
	results, err := p.SendBatch(t.Context(), []*mq.Message{
		{Topic: "W", Body: []byte("0")}, {Topic: "S", Body: []byte("1")}, {Topic: "W", Body: []byte("2")},
	})
	require.NoError(t, err)
	require.Greater(t, b.Stats().Syncs, before, "the batch waits for its strongest topic")
	require.Len(t, results, 3)
	for i, r := range results {
		m, err := b.MessageByID(r.ID)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), string(m.Body))
		require.Equal(t, r.Offset, m.Offset)
	}
	require.Equal(t, []string{"0", "2"}, bodiesOf(poll(t, w, 2)))
	require.Equal(t, []string{"1"}, bodiesOf(poll(t, s, 1)))

	results, err = p.SendBatch(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, results)
}

// TestBatchIsAllOrNothing: one bad message, and nothing of the batch is there,
// not even a topic it would have made.
func TestBatchIsAllOrNothing(t *testing.T) {
	t.Parallel()
	large := make([]byte, 4<<20)
	rows := []struct {
		name string
		bad  *mq.Message
		want error
	}{
		{"nil message", nil, mq.ErrInvalidMessage},
		{"bad topic", &mq.Message{Topic: "a b"}, mq.ErrInvalidName},
		{"no topic", &mq.Message{}, mq.ErrInvalidName},
		{"reserved topic", &mq.Message{Topic: "TBW102"}, mq.ErrInvalidName},
		{"body over the limit", &mq.Message{Topic: "T", Body: make([]byte, 4<<20+1)}, mq.ErrTooLarge},
		{"tag over the limit", &mq.Message{Topic: "T", Tag: strings.Repeat("t", 128)}, mq.ErrInvalidMessage},
		{"batch over the limit", &mq.Message{Topic: "T", Body: large}, mq.ErrTooLarge},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := mqtest.OpenMemory(t, nil)
			createTopic(t, b, "T", 1)
			batch := []*mq.Message{{Topic: "T"}, {Topic: "New"}}
			if row.bad != nil && len(row.bad.Body) == len(large) {
				batch = append(batch, row.bad, row.bad, row.bad, row.bad)
			}
			before := b.Stats()
			_, err := newProducer(t, b, nil).SendBatch(t.Context(), append(batch, row.bad))
			require.ErrorIs(t, err, row.want)
			require.Equal(t, []string{"T"}, b.Topics())
			require.Equal(t, before.Written, b.Stats().Written, "bytes in the log")
			require.Equal(t, before.Sent, b.Stats().Sent)
		})
	}
}

// TestAsyncCallsBackOnce: for every send that returned nil, whatever the
// durability, exactly once, with the same result a Send would have.
func TestAsyncCallsBackOnce(t *testing.T) {
	t.Parallel()
	const n = 500
	b := mqtest.Open(t, nil)
	createTopic(t, b, "Written", 4)
	require.NoError(t, b.CreateTopic("Synced", &mq.TopicConfig{Durability: mq.Synced}))
	p := newProducer(t, b, nil)
	for _, topic := range []string{"Written", "Synced"} {
		var calls [n]atomic.Int32
		var left sync.WaitGroup
		left.Add(n)
		for i := range n {
			err := p.SendAsync(t.Context(), &mq.Message{Topic: topic, Body: fmt.Append(nil, i)}, func(r mq.SendResult, err error) {
				defer left.Done()
				calls[i].Add(1)
				if err != nil {
					t.Error(err)
					return
				}
				// No lock is held: a callback may use the broker.
				if m, err := b.MessageByID(r.ID); err != nil || string(m.Body) != fmt.Sprint(i) {
					t.Errorf("message %d: %v", i, err)
				}
			})
			require.NoError(t, err)
			if topic == "Written" {
				require.Equal(t, int32(1), calls[i].Load(), "before SendAsync returns")
			}
		}
		left.Wait()
		for i := range n {
			require.Equal(t, int32(1), calls[i].Load())
		}
	}
	require.NoError(t, p.SendAsync(t.Context(), &mq.Message{Topic: "Written"}, nil))
	require.NoError(t, p.SendAsync(t.Context(), &mq.Message{Topic: "Synced"}, nil))
	require.Len(t, poll(t, pull(t, b, "G", "Synced", nil), n+1), n+1)
	mqtest.Eventually(t, func() bool { return b.Stats().PendingCallbacks == 0 }, "no callback pending")
}

// TestAsyncCallsBackOnClose: senders race with Close. Who was told that the
// message is accepted gets its callback, once, and by then Close is not over or
// the sender's own call is not.
func TestAsyncCallsBackOnClose(t *testing.T) {
	t.Parallel()
	for range 8 {
		b := mqtest.OpenMemory(t, nil)
		require.NoError(t, b.CreateTopic("T", nil))
		var accepted, called atomic.Int64
		var senders, begun sync.WaitGroup
		for range 4 {
			begun.Add(1)
			senders.Go(func() {
				p, err := b.NewProducer(nil)
				if err != nil {
					t.Error(err)
				}
				for i := 0; ; i++ {
					if i == 10 {
						begun.Done()
					}
					err := p.SendAsync(context.Background(), &mq.Message{Topic: "T"}, func(_ mq.SendResult, err error) {
						called.Add(1)
						if err != nil && !errors.Is(err, mq.ErrClosed) {
							t.Error(err)
						}
					})
					if err != nil {
						if !errors.Is(err, mq.ErrClosed) {
							t.Error(err)
						}
						return
					}
					accepted.Add(1)
				}
			})
		}
		begun.Wait()
		require.NoError(t, b.Close())
		senders.Wait()
		require.Equal(t, accepted.Load(), called.Load())
	}
}

// TestSendWaitsForRoom: where SendOneWay fails, Send waits.
func TestSendWaitsForRoom(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	p := newProducer(t, b, nil)
	for range 10 {
		_, err := p.Send(t.Context(), &mq.Message{Topic: "T", Body: make([]byte, 3<<20)})
		require.NoError(t, err)
	}
}

func TestProducerClosed(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	p := newProducer(t, b, &mq.ProducerOptions{Group: "orders"})
	require.Equal(t, "orders", p.Group())
	require.NoError(t, p.Close())
	require.NoError(t, p.Close())
	m := &mq.Message{Topic: "T"}
	_, err := p.Send(t.Context(), m)
	require.ErrorIs(t, err, mq.ErrClosed)
	_, err = p.SendBatch(t.Context(), []*mq.Message{m})
	require.ErrorIs(t, err, mq.ErrClosed)
	require.ErrorIs(t, p.SendOneWay(m), mq.ErrClosed)
	require.ErrorIs(t, p.SendAsync(t.Context(), m, func(mq.SendResult, error) { t.Error("called") }), mq.ErrClosed)
	require.Empty(t, b.Topics())
}

// TestSendAllocatesNothing: the path of a message to a Written topic.
func TestSendAllocatesNothing(t *testing.T) { //nolint:paralleltest // counts what all goroutines allocate
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 4)
	p := newProducer(t, b, nil)
	createDedup(t, b, "D", mq.DedupWindow{For: time.Hour})
	repeated := &mq.Message{Topic: "D", DedupKey: "payment 7", Body: make([]byte, 128)}
	send(t, b, repeated)
	rows := map[string]*mq.Message{
		"repeat":      repeated,
		"body":        {Topic: "T", Body: make([]byte, 128)},
		"tag and key": {Topic: "T", Tag: "tag", ShardingKey: "user-7", Body: make([]byte, 128)},
		"property":    {Topic: "T", Properties: map[string]string{"region": "eu"}, Body: make([]byte, 128)},
	}
	for name, m := range rows {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			allocs := testing.AllocsPerRun(5000, func() {
				if _, err := p.Send(ctx, m); err != nil {
					t.Error(err)
				}
			})
			require.Zero(t, allocs)
			allocs = testing.AllocsPerRun(5000, func() {
				if err := p.SendAsync(ctx, m, nil); err != nil {
					t.Error(err)
				}
			})
			require.Zero(t, allocs)
		})
	}
}
