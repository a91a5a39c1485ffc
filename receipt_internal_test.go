package mq

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

// TestAckNotStoredHoldsReceipts: acknowledgements that find no room are none,
// and the messages stay with their receivers for the time they had.
func TestAckNotStoredHoldsReceipts(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx := context.Background()
			fs := newTestFS()
			b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1, SegmentBytes: mib})
			p, err := b.NewProducer(nil)
			require.NoError(t, err)
			for i := range 4 {
				_, err = p.Send(ctx, &Message{Topic: "T", Tag: "ab"[i%2 : i%2+1], ShardingKey: fmt.Sprint(i)})
				require.NoError(t, err)
			}
			c, err := b.NewSimpleConsumer("G", &SimpleOptions{Ordered: ordered})
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", Tags("a")))
			subscribed(t, b, "Eater")
			var ms []*Message
			for len(ms) < 2 {
				more, err := c.Receive(ctx, 1, time.Minute)
				require.NoError(t, err)
				ms = append(ms, more...)
			}
			fs.Fail(func(c vfs.Call) error {
				if c.Op == vfs.OpCreate {
					return syscall.ENOSPC
				}
				return nil
			})
			sent := int64(4 + eat(t, b))
			err = c.Ack(ctx, ms...)
			require.Error(t, err)
			require.NotErrorIs(t, err, ErrReceiptExpired)
			require.Equal(t, sent, lagOf(t, b))
			require.Equal(t, int64(2), b.Stats().Invisible)
			require.NoError(t, c.ChangeInvisible(ctx, ms[1], time.Hour))

			fs.Fail(nil)
			<-time.After(time.Minute + 3*readAgainAfter)
			synctest.Wait()
			require.ErrorIs(t, c.Ack(ctx, ms[0]), ErrReceiptExpired, "the time went on")
			require.NoError(t, c.Ack(ctx, ms[1]))
			again, err := c.Receive(ctx, 1, time.Minute)
			require.NoError(t, err)
			require.Equal(t, []any{Offset(0), 2}, []any{again[0].Offset, again[0].Attempt})
			require.NoError(t, c.Ack(ctx, again...))
			brief, cancel := context.WithTimeout(ctx, time.Second)
			_, err = c.Receive(brief, 1, time.Minute) // passes the rest
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
			<-time.After(3 * readAgainAfter)
			synctest.Wait()
			require.Zero(t, lagOf(t, b), "what the filter passed is acknowledged too")
			require.NoError(t, b.Close())
		})
	}
}

// TestAckedWhileItsQueueGoes: an acknowledgement that is stored is one, whoever has
// the queue by then. A caller who is told that a receipt has expired undoes what it
// did for the message, which would not come again.
func TestAckedWhileItsQueueGoes(t *testing.T) {
	t.Parallel()
	for _, reset := range []bool{false, true} {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
		sendNumbers(t, b, 0, 2)
		c, err := b.NewSimpleConsumer("G", nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		ms, err := c.Receive(t.Context(), 2, time.Minute)
		require.NoError(t, err)
		leases, err := c.leasesOf(t.Context(), ms)
		require.NoError(t, err)
		work, refused, err := c.settle(leases)
		require.NoError(t, err)
		require.Zero(t, refused)
		left, lag := 0, int64(0)
		if reset {
			require.NoError(t, b.ResetOffset("G", "T", Earliest))
			left, lag = len(ms), int64(len(ms))
		} else {
			require.NoError(t, c.Close())
		}
		_, stale, err := c.acknowledge(work)
		require.NoError(t, err)
		require.Equal(t, left, stale, "reset: %v", reset)
		require.Equal(t, lag, lagOf(t, b))
		require.NoError(t, b.Close())
	}
}

// TestAcknowledgedLeavesNothing: neither an entry in the heap until its time is
// up, nor a timer.
func TestAcknowledgedLeavesNothing(t *testing.T) {
	t.Parallel()
	b, err := OpenMemory(&Options{Durability: Written})
	require.NoError(t, err)
	defer b.Close()
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	c, err := b.NewSimpleConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", All))
	for range 100 {
		_, err := p.Send(t.Context(), &Message{Topic: "T"})
		require.NoError(t, err)
		ms, err := c.Receive(t.Context(), 1, 12*time.Hour)
		require.NoError(t, err)
		require.NoError(t, c.ChangeInvisible(t.Context(), ms[0], 24*time.Hour))
		require.Len(t, c.group.retries.queue, 1)
		require.NoError(t, c.Ack(t.Context(), ms...))
		require.Empty(t, c.group.retries.queue)
		require.Nil(t, c.group.retries.timer)
	}
}

// TestAskedForAfterACrash: what handlers had when the process ended is there at
// once, of all queues, for who asks for it; and that it was tried is known.
func TestAskedForAfterACrash(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"pull", "simple"} {
		fs := vfs.NewMem(0)
		b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 3})
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		for range 3 {
			_, err = p.Send(t.Context(), &Message{Topic: "T"})
			require.NoError(t, err)
		}
		begun := make(chan struct{})
		c, err := b.NewPushConsumer("G", func(ctx context.Context, _ *Message) error {
			begun <- struct{}{}
			<-ctx.Done()
			return nil
		}, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		for range 3 {
			<-begun
		}
		b = openOn(t, killed(fs), &Options{Durability: Written, DefaultQueues: 3})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var take func() ([]*Message, error)
		if kind == "pull" {
			c, err := b.NewPullConsumer("G", nil)
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", All))
			take = func() ([]*Message, error) { return c.Poll(ctx, 10) }
		} else {
			c, err := b.NewSimpleConsumer("G", nil)
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", All))
			take = func() ([]*Message, error) { return c.Receive(ctx, 10, time.Hour) }
		}
		for got := 0; got < 3; {
			ms, err := take()
			require.NoError(t, err, "%s: after %d", kind, got)
			for _, m := range ms {
				require.Equal(t, 2, m.Attempt)
			}
			got += len(ms)
		}
	}
}

// TestGivenBackAfterReading: what a Receive has read when its consumer wants nothing of
// the topic any more is received by another.
func TestGivenBackAfterReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS()
		b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1, DisableMmap: true, CacheBytes: -1})
		sendNumbers(t, b, 0, 3)
		var cs [2]*SimpleConsumer
		for i := range cs {
			c, err := b.NewSimpleConsumer("G", nil)
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", All))
			cs[i] = c
		}
		var once sync.Once
		hook := func() error {
			once.Do(func() { require.NoError(t, cs[0].Unsubscribe("T")) })
			return nil
		}
		fs.read.Store(&hook)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := cs[0].Receive(ctx, 3, time.Minute)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		ms, err := cs[1].Receive(t.Context(), 3, time.Minute)
		require.NoError(t, err)
		require.Len(t, ms, 3)
		require.NoError(t, b.Close())
	})
}
