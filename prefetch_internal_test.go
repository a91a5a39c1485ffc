package mq

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestFullQueueIsLeftAlone: a queue of which as much is out as may be is looked at
// by nobody until something is acknowledged, whatever arrives meanwhile.
func TestFullQueueIsLeftAlone(t *testing.T) {
	t.Parallel()
	rows := map[string]PushOptions{
		"messages": {PrefetchMessages: 3, Concurrency: 5},
		"bytes":    {PrefetchBytes: 1, Concurrency: 5},
		"ordered":  {PrefetchMessages: 3, Concurrency: 5, Ordered: true},
	}
	for name, o := range rows {
		synctest.Test(t, func(t *testing.T) {
			b, err := OpenMemory(&Options{Durability: Written, DefaultQueues: 1})
			require.NoError(t, err)
			p, err := b.NewProducer(nil)
			require.NoError(t, err)
			send := func() {
				_, err := p.Send(context.Background(), &Message{Topic: "T"})
				require.NoError(t, err)
			}
			free := make(chan struct{})
			c, err := b.NewPushConsumer("G", func(context.Context, *Message) error {
				<-free
				return nil
			}, &o)
			require.NoError(t, err)
			for range 10 {
				send()
			}
			require.NoError(t, c.Subscribe("T", All))
			g := c.group
			idle := func() (turns int) {
				synctest.Wait()
				g.mu.Lock()
				defer g.mu.Unlock()
				cur := c.owned[0]
				require.True(t, cur.fullLocked(), name)
				require.False(t, cur.queued, name)
				require.False(t, cur.armed.Load(), name)
				require.Empty(t, c.ready, name)
				require.Equal(t, c.running, len(c.workers)-len(c.parked), name)
				return c.running
			}
			<-time.After(time.Second)
			was := idle()
			for range 100 {
				send()
				<-time.After(10 * time.Millisecond)
				require.Equal(t, was, idle(), name)
			}
			close(free)
			<-time.After(time.Second)
			synctest.Wait()
			require.Zero(t, lagOf(t, b), name)
			require.NoError(t, b.Close())
		})
	}
}

// TestFullQueueIsNotAskedFor: the same of messages that are asked for.
func TestFullQueueIsNotAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := OpenMemory(&Options{Durability: Written, DefaultQueues: 1})
		require.NoError(t, err)
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		send := func() {
			_, err := p.Send(context.Background(), &Message{Topic: "T"})
			require.NoError(t, err)
		}
		c, err := b.NewSimpleConsumer("G", &SimpleOptions{PrefetchMessages: 2})
		require.NoError(t, err)
		for range 5 {
			send()
		}
		require.NoError(t, c.Subscribe("T", All))
		ms, err := c.Receive(context.Background(), 5, time.Hour)
		require.NoError(t, err)
		require.Len(t, ms, 2)
		got := make(chan int)
		go func() {
			more, err := c.Receive(context.Background(), 5, time.Hour)
			if err != nil {
				panic(err)
			}
			got <- len(more)
		}()
		for range 100 {
			synctest.Wait() // returns: whoever asks is asleep
			c.group.mu.Lock()
			require.Len(t, c.parked, 1)
			require.Empty(t, c.group.pool.ready)
			c.group.mu.Unlock()
			send()
		}
		require.NoError(t, c.Ack(context.Background(), ms[0]))
		require.Equal(t, 1, <-got)
		require.NoError(t, b.Close())
	})
}
