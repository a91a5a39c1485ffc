package mq_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// TestDedupForEver: the longest window there can be is one.
func TestDedupForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createDedup(t, b, "T", mq.DedupWindow{For: math.MaxInt64})
		first := send(t, b, keyedMessage("T", "k"))[0]
		pass(1000 * time.Hour)
		require.Equal(t, again(first), send(t, b, keyedMessage("T", "k"))[0])
		for _, round := range []struct{ set, kept time.Duration }{
			{1, time.Millisecond},
			{time.Millisecond, time.Millisecond},
			{time.Millisecond + 1, 2 * time.Millisecond},
			{math.MaxInt64, math.MaxInt64 / time.Millisecond * time.Millisecond},
		} {
			require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Dedup: mq.DedupWindow{For: round.set}}))
			info, err := b.Topic("T")
			require.NoError(t, err)
			require.Equal(t, round.kept, info.Dedup.For)
		}
	})
}
