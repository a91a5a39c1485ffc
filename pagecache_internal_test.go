package mq

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

// Only what every group with members has consumed may leave the page cache: what
// somebody waits for is read from memory.
func TestConsumedIsForgotten(t *testing.T) {
	fs := newTestFS()
	b := openOn(t, fs, &Options{DefaultQueues: 2})
	defer func() { require.NoError(t, b.Close()) }()
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	send := func() {
		for range 100 {
			_, err := p.Send(t.Context(), &Message{Topic: "t", Body: make([]byte, 1000)})
			require.NoError(t, err)
		}
	}
	consume := func(c *PullConsumer) {
		for left := 100; left > 0; {
			got, err := c.Poll(t.Context(), left)
			require.NoError(t, err)
			require.NoError(t, c.Commit(t.Context()))
			left -= len(got)
		}
	}
	forgets := func() (bytes int64) {
		b.upkeep.forgetAt = 0
		fs.Record()
		b.forgetConsumed()
		for _, c := range fs.Ops() {
			if c.Op == vfs.OpForget {
				bytes += c.Size
			}
		}
		return bytes
	}
	join := func(group string) *PullConsumer {
		c, err := b.NewPullConsumer(group, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("t", All))
		return c
	}
	send()
	require.Zero(t, forgets(), "nobody has consumed anything")
	fast, slow := join("quick"), join("lagging")
	consume(fast)
	require.Less(t, forgets(), int64(4096), "one group has it all to consume")
	consume(slow)
	require.Greater(t, forgets(), int64(100_000))
	send()
	consume(fast)
	require.Less(t, forgets(), int64(10_000))
	require.NoError(t, slow.Close())
	require.Greater(t, forgets(), int64(100_000), "nobody reads for a group without members")
	require.Zero(t, forgets())

	late := join("late") // and it is all still there
	consume(late)
	consume(late)
	to, ok := b.consumedTo()
	assert.True(t, ok)
	assert.EqualValues(t, math.MaxInt64, to)
	require.NoError(t, b.Sync(context.Background()))
}
