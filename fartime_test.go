package mq_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// TestTimesFarOff: times that have no milliseconds are still before or after
// everything.
func TestTimesFarOff(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 3)
	send(t, b, &mq.Message{Topic: "T", Delay: time.Hour})
	require.NoError(t, b.UpdateGroup("G", mq.GroupConfig{}))
	never := []time.Time{time.Unix(1<<63-62135596801, 999999999), time.Unix(math.MaxInt64/1000, 0), time.Unix(1<<55, 0), time.Unix(1<<40, 0)}
	for _, at := range never {
		off, err := b.OffsetAt(mq.Queue{Topic: "T"}, at)
		require.NoError(t, err)
		require.Equal(t, mq.Offset(3), off, "%v", at)
		for _, from := range []time.Time{{}, at} {
			n := 0
			for _, err := range b.BrowseWaiting("T", from, at) {
				require.NoError(t, err)
				n++
			}
			require.Equal(t, map[bool]int{true: 1, false: 0}[from.IsZero()], n, "%v", at)
		}
		require.NoError(t, b.ResetOffset("G", "T", mq.At(at)))
		require.Zero(t, lag(t, b, "G"))
	}
	for _, at := range []time.Time{time.Unix(-1<<55, 0), time.Unix(math.MinInt64/1000, 0), {}} {
		off, err := b.OffsetAt(mq.Queue{Topic: "T"}, at)
		require.NoError(t, err)
		require.Zero(t, off, "%v", at)
		n := 0
		for _, err := range b.BrowseWaiting("T", at, time.Time{}) {
			require.NoError(t, err)
			n++
		}
		require.Equal(t, 1, n, "%v", at)
	}
}
