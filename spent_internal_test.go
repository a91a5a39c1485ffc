package mq

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

// TestDeadLetterWithoutRoom: a message that has no attempt left and finds no room
// among the dead letters is neither received once more nor lost.
func TestDeadLetterWithoutRoom(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		for _, nack := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				fs := newTestFS()
				b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1, SegmentBytes: mib})
				p, err := b.NewProducer(nil)
				require.NoError(t, err)
				for i := range 2 {
					_, err = p.Send(ctx, &Message{Topic: "T", Tag: "a", ShardingKey: "k", Body: fmt.Append(nil, i)})
					require.NoError(t, err)
				}
				c, err := b.NewSimpleConsumer("G", &SimpleOptions{Ordered: ordered, MaxAttempts: 1})
				require.NoError(t, err)
				require.NoError(t, c.Subscribe("T", Tags("a")))
				subscribed(t, b, "Eater")
				ms, err := c.Receive(ctx, 1, time.Minute)
				require.NoError(t, err)
				fs.Fail(func(c vfs.Call) error {
					if c.Op == vfs.OpCreate {
						return syscall.ENOSPC
					}
					return nil
				})
				eat(t, b)
				if nack {
					require.NoError(t, c.Nack(ctx, ms...))
				}
				nobody := func(d time.Duration) {
					brief, cancel := context.WithTimeout(ctx, d)
					defer cancel()
					for {
						got, err := c.Receive(brief, 1, time.Minute)
						if err != nil {
							require.ErrorIs(t, err, context.DeadlineExceeded)
							return
						}
						require.Equal(t, "1", string(got[0].Body), "attempt %d", got[0].Attempt)
						require.False(t, ordered)
						_ = c.Ack(ctx, got...)
					}
				}
				nobody(3 * time.Minute)
				require.Zero(t, b.Stats().Dead)
				fs.Fail(nil)
				if !ordered {
					nobody(time.Minute)
				} else {
					got, err := c.Receive(ctx, 1, time.Minute)
					require.NoError(t, err)
					require.Equal(t, "1", string(got[0].Body))
				}
				first := 0
				for letter, err := range b.DeadLetters("G") {
					require.NoError(t, err)
					if letter.Offset == 0 {
						first++
						require.Equal(t, 1, letter.Origin.Attempts)
					}
				}
				require.Equal(t, 1, first)
				require.NoError(t, b.Close())
			})
		}
	}
}
