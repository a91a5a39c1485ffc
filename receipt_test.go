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

// TestInvisibleTimeIsUp: then a message comes again, to whoever asks, and the
// receipt of before does not hold any more.
func TestInvisibleTimeIsUp(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 1)
			send(t, b, &mq.Message{Topic: "T", ShardingKey: "a", Body: []byte("0")}, &mq.Message{Topic: "T", ShardingKey: "b", Body: []byte("1")})
			o := &mq.SimpleOptions{Ordered: ordered, MaxAttempts: -1}
			one, two := simple(t, b, "G", o, "T"), simple(t, b, "G", o, "T")
			first := receiveFrom(t, one, 2, 10*time.Second)
			require.NoError(t, one.Ack(t.Context(), first[1]))
			began := time.Now()
			for attempt := 2; attempt < 20; attempt++ {
				again, err := two.Receive(t.Context(), 10, time.Duration(attempt)*time.Second)
				require.NoError(t, err)
				require.Equal(t, []string{"0"}, bodiesOf(again))
				require.Equal(t, attempt, again[0].Attempt)
				if attempt == 2 {
					require.Equal(t, 10*time.Second, time.Since(began))
				} else {
					require.Equal(t, time.Duration(attempt-1)*time.Second, time.Since(began))
				}
				began = time.Now()
				require.ErrorIs(t, one.Ack(t.Context(), first[0]), mq.ErrReceiptExpired)
				first[0] = again[0]
			}
			require.NoError(t, one.Ack(t.Context(), first[0]), "received by another member")
			pass(time.Hour)
			nothingToReceive(t, two)
			require.Zero(t, lag(t, b, "G"))
			require.Zero(t, invisible(t, b, "G"))
		})
	}
}

func TestChangeInvisible(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 3)
		c := simple(t, b, "G", nil, "T")
		ms := receiveFrom(t, c, 3, time.Minute)
		pass(59 * time.Second)
		began := time.Now()
		require.NoError(t, c.ChangeInvisible(t.Context(), ms[0], time.Hour)) // longer, from now on
		require.NoError(t, c.ChangeInvisible(t.Context(), ms[1], time.Millisecond))
		for _, want := range []struct {
			body string
			in   time.Duration
		}{{"1", time.Millisecond}, {"2", time.Second}, {"0", time.Hour}} {
			again, err := c.Receive(t.Context(), 1, 100*time.Hour)
			require.NoError(t, err)
			require.Equal(t, []any{want.body, 2}, []any{string(again[0].Body), again[0].Attempt})
			require.Equal(t, want.in, time.Since(began))
		}
		for _, m := range ms {
			require.ErrorIs(t, c.ChangeInvisible(t.Context(), m, time.Hour), mq.ErrReceiptExpired)
		}
	})
}

// TestReceiptChanged stays good for all calls.
func TestReceiptChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 1)
		c := simple(t, b, "G", nil, "T")
		m := receiveFrom(t, c, 1, time.Second)[0]
		for range 1000 {
			require.NoError(t, c.ChangeInvisible(t.Context(), m, time.Second))
			pass(999 * time.Millisecond)
		}
		require.EqualValues(t, 1, invisible(t, b, "G"))
		require.NoError(t, c.Ack(t.Context(), m))
	})
}

// TestReceiptRefused: every way in which a receipt ends, and that a refused call
// changes nothing.
func TestReceiptRefused(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, b *mq.Broker, c *mq.SimpleConsumer, m *mq.Message){
		"acknowledged": func(t *testing.T, _ *mq.Broker, c *mq.SimpleConsumer, m *mq.Message) {
			require.NoError(t, c.Ack(t.Context(), m))
		},
		"given back": func(t *testing.T, _ *mq.Broker, c *mq.SimpleConsumer, m *mq.Message) {
			require.NoError(t, c.Nack(t.Context(), m))
		},
		"given back and received": func(t *testing.T, _ *mq.Broker, c *mq.SimpleConsumer, m *mq.Message) {
			require.NoError(t, c.Nack(t.Context(), m))
			require.Equal(t, 2, receiveFrom(t, c, 1, time.Hour)[0].Attempt)
		},
		"time is up": func(t *testing.T, _ *mq.Broker, c *mq.SimpleConsumer, m *mq.Message) {
			require.NoError(t, c.ChangeInvisible(t.Context(), m, time.Nanosecond))
			pass(time.Nanosecond)
		},
		"reset": func(t *testing.T, b *mq.Broker, _ *mq.SimpleConsumer, _ *mq.Message) {
			require.NoError(t, b.ResetOffset("G", "T", mq.Earliest))
		},
		"topic deleted": func(t *testing.T, b *mq.Broker, _ *mq.SimpleConsumer, _ *mq.Message) {
			require.NoError(t, b.DeleteTopic("T"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, ordered := range []bool{false, true} {
					b := mqtest.OpenMemory(t, written())
					createTopic(t, b, "T", 1)
					sendBodies(t, b, "T", 1)
					c := simple(t, b, "G", &mq.SimpleOptions{Ordered: ordered}, "T")
					m := receiveFrom(t, c, 1, time.Hour)[0]
					end(t, b, c, m)
					synctest.Wait()
					owed, out := lag(t, b, "G"), invisible(t, b, "G")
					for range 2 {
						require.ErrorIs(t, c.Ack(t.Context(), m), mq.ErrReceiptExpired)
						require.ErrorIs(t, c.Nack(t.Context(), m), mq.ErrReceiptExpired)
						require.ErrorIs(t, c.ChangeInvisible(t.Context(), m, time.Second), mq.ErrReceiptExpired)
					}
					require.Equal(t, []int64{owed, out}, []int64{lag(t, b, "G"), invisible(t, b, "G")})
					pass(2 * time.Hour)
					if owed > 0 {
						require.NoError(t, c.Ack(t.Context(), receiveFrom(t, c, 1, time.Hour)...))
					}
				}
			})
		})
	}
}

// TestAckLeavesOutExpired: what is good is acknowledged all the same. A message
// twice in one call is one that was acknowledged before.
func TestAckLeavesOutExpired(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 4)
	c := simple(t, b, "G", nil, "T")
	ms := receiveFrom(t, c, 4, time.Hour)
	require.NoError(t, c.Nack(t.Context(), ms[1]))
	err := c.Ack(t.Context(), ms[0], ms[1], ms[2], ms[2])
	require.ErrorIs(t, err, mq.ErrReceiptExpired)
	require.ErrorContains(t, err, "2 of 4")
	committed, ahead := done(t, b, "G", "T")
	require.Equal(t, []any{mq.Offset(1), int64(1)}, []any{committed, ahead})
	require.NoError(t, c.Ack(t.Context()))
	require.NoError(t, c.Nack(t.Context()))
}

// TestExpiryAgainstAck: exactly one of them has the message.
func TestExpiryAgainstAck(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		const count = 300
		for i := range count {
			send(t, b, &mq.Message{Topic: "T", ShardingKey: fmt.Sprint(i % 50), Body: fmt.Appendf(nil, "%d", i)})
		}
		var mu sync.Mutex
		acked, late := map[string]int{}, 0
		var running sync.WaitGroup
		for member := range 2 {
			c := simple(t, b, "G", &mq.SimpleOptions{Ordered: ordered}, "T")
			for range 2 {
				running.Add(1)
				go func() {
					defer running.Done()
					for round := 0; ; round++ {
						ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
						ms, err := c.Receive(ctx, 8, time.Microsecond<<((round+member)%12))
						cancel()
						if err != nil {
							return // everything is acknowledged
						}
						for _, m := range ms {
							err := c.Ack(context.Background(), m)
							mu.Lock()
							switch {
							case err == nil:
								acked[string(m.Body)]++
							case errors.Is(err, mq.ErrReceiptExpired):
								late++
							default:
								t.Error(err)
							}
							mu.Unlock()
						}
					}
				}()
			}
		}
		running.Wait()
		require.Len(t, acked, count)
		for body, n := range acked {
			require.Equal(t, 1, n, "acknowledgements of %s", body)
		}
		require.Zero(t, lag(t, b, "G"))
		t.Logf("ordered %v: %d acknowledgements came too late", ordered, late)
	}
}

// TestAckIsOneFrame: of many messages, on several queues.
func TestAckIsOneFrame(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 4)
	sendBodies(t, b, "T", 400)
	c := simple(t, b, "G", nil, "T")
	ms := receiveFrom(t, c, 400, time.Hour)
	before := b.Stats()
	require.NoError(t, c.Ack(t.Context(), ms...))
	after := b.Stats()
	require.EqualValues(t, 400, after.Acked-before.Acked)
	require.Less(t, after.Written-before.Written, int64(256), "bytes of the log")
}

// TestSimpleReset: messages come again at once, by other receipts.
func TestSimpleReset(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		for i := range 10 {
			send(t, b, &mq.Message{Topic: "T", ShardingKey: fmt.Sprint(i), Body: fmt.Appendf(nil, "%d", i)})
		}
		c := simple(t, b, "G", &mq.SimpleOptions{Ordered: ordered, PrefetchMessages: 10}, "T")
		ms := receiveFrom(t, c, 10, time.Hour)
		nothingToReceive(t, c)
		require.NoError(t, b.ResetOffset("G", "T", mq.AtOffset(mq.Queue{Topic: "T"}, 4)))
		require.Zero(t, invisible(t, b, "G"))
		require.ErrorIs(t, c.Ack(t.Context(), ms...), mq.ErrReceiptExpired)
		again := receiveFrom(t, c, 6, time.Hour)
		require.Equal(t, bodiesTo(10)[4:], bodiesOf(again))
		require.Equal(t, 1, again[0].Attempt)
		require.NoError(t, c.Ack(t.Context(), again...))
		require.Zero(t, lag(t, b, "G"))
	}
}
