package mq_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// TestSimpleOrdered: one message of a key at a time, whatever happens to it;
// other keys go on.
func TestSimpleOrdered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		for i := range 4 {
			for _, key := range []string{"a", "b", "c"} {
				send(t, b, &mq.Message{Topic: "T", ShardingKey: key, Body: fmt.Appendf(nil, "%s%d", key, i)})
			}
		}
		o := &mq.SimpleOptions{Ordered: true}
		one, two := simple(t, b, "G", o, "T"), simple(t, b, "G", o, "T")
		ms := receiveFrom(t, one, 3, time.Minute)
		require.Equal(t, []string{"a0", "b0", "c0"}, bodiesOf(ms))
		nothingToReceive(t, two)

		// a is stuck, b fails, c goes on.
		require.NoError(t, one.Nack(t.Context(), ms[1]))
		for _, want := range []string{"c0", "c1", "c2", "c3"} {
			if want != "c0" {
				ms[2] = receiveFrom(t, two, 1, time.Hour)[0]
				for string(ms[2].Body) == "b0" {
					require.NoError(t, two.ChangeInvisible(t.Context(), ms[2], time.Minute))
					ms[2] = receiveFrom(t, two, 1, time.Hour)[0]
				}
			}
			require.Equal(t, want, string(ms[2].Body))
			require.NoError(t, two.Ack(t.Context(), ms[2]))
		}
		nothingToReceive(t, one)
		pass(time.Minute)
		var order []string
		for range 8 {
			m := receiveFrom(t, two, 1, time.Minute)[0]
			order = append(order, string(m.Body))
			require.Equal(t, m.Offset <= 1, m.Attempt > 1, "%s, attempt %d", m.Body, m.Attempt)
			require.NoError(t, one.Ack(t.Context(), m))
		}
		require.True(t, slices.IsSortedFunc(order, func(x, y string) int {
			if x[0] != y[0] {
				return 0
			}
			return int(x[1]) - int(y[1])
		}), "%v", order)
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestSimpleOrderedIsStrict under load: while a message of a key is out, no other
// of it is, even though receivers fail, wait too long, and come and go.
func TestSimpleOrderedIsStrict(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	const keys, each = 10, 40
	for i := range each {
		for k := range keys {
			send(t, b, &mq.Message{Topic: "T", ShardingKey: fmt.Sprint(k), Body: fmt.Appendf(nil, "%d", i)})
		}
	}
	var mu sync.Mutex
	next := map[string]int{} // by key: acknowledged so far
	total := 0
	var running sync.WaitGroup
	for member := range 3 {
		running.Add(1)
		go func() {
			defer running.Done()
			for life := 0; ; life++ {
				c, err := b.NewSimpleConsumer("G", &mq.SimpleOptions{Ordered: true})
				if err == nil {
					err = c.Subscribe("T", mq.All)
				}
				if err != nil {
					t.Error(err)
					return
				}
				for round := range 50 {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
					ms, err := c.Receive(ctx, 4, time.Hour)
					cancel()
					if err != nil {
						break
					}
					for i, m := range ms {
						if (round+i+member)%3 == 0 {
							if err := c.Nack(context.Background(), m); err != nil {
								t.Error(err)
							}
							continue
						}
						mu.Lock()
						if fmt.Sprint(next[m.ShardingKey]) != string(m.Body) {
							t.Errorf("key %s: got %s, want %d", m.ShardingKey, m.Body, next[m.ShardingKey])
						}
						next[m.ShardingKey]++
						total++
						if err := c.Ack(context.Background(), m); err != nil {
							t.Error(err)
						}
						mu.Unlock()
					}
				}
				mu.Lock()
				finished := total == keys*each || t.Failed()
				mu.Unlock()
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				if finished {
					return
				}
			}
		}()
	}
	running.Wait()
	require.Zero(t, lag(t, b, "G"))
}

// TestNackTakesTurns: a message that is given back for ever does not keep others
// from being received, even one at a time.
func TestNackTakesTurns(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 50)
	c := simple(t, b, "G", &mq.SimpleOptions{MaxAttempts: -1}, "T")
	good := 0
	for attempts := 0; good < 49; attempts++ {
		require.Less(t, attempts, 200)
		m := receiveFrom(t, c, 1, time.Hour)[0]
		if string(m.Body) == "0" {
			require.NoError(t, c.Nack(t.Context(), m))
			continue
		}
		good++
		require.NoError(t, c.Ack(t.Context(), m))
	}
	require.EqualValues(t, 1, lag(t, b, "G"))
}

// TestSimpleBounds: a queue that has as much out as may be waits for
// acknowledgements; what comes again is not held up by that.
func TestSimpleBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		for range 20 {
			send(t, b, &mq.Message{Topic: "T", Body: make([]byte, 1000)})
		}
		for _, ordered := range []bool{false, true} {
			messages := simple(t, b, fmt.Sprint("messages", ordered), &mq.SimpleOptions{PrefetchMessages: 10, Ordered: ordered}, "T")
			bytes := simple(t, b, fmt.Sprint("bytes", ordered), &mq.SimpleOptions{PrefetchBytes: 5500, Ordered: ordered}, "T")
			if ordered { // all messages are of one key
				receiveFrom(t, messages, 1, time.Minute)
				nothingToReceive(t, messages)
				receiveFrom(t, bytes, 1, time.Minute)
				nothingToReceive(t, bytes)
				continue
			}
			ms := receiveFrom(t, messages, 10, time.Minute)
			nothingToReceive(t, messages)
			receiveFrom(t, bytes, 6, time.Minute)
			nothingToReceive(t, bytes)
			require.NoError(t, messages.Ack(t.Context(), ms[3], ms[8]))
			receiveFrom(t, messages, 2, time.Hour)
			nothingToReceive(t, messages)
			pass(time.Minute)
			require.Equal(t, 2, receiveFrom(t, messages, 8, time.Hour)[7].Attempt)
			nothingToReceive(t, messages)
		}
	})
}
