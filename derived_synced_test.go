package mq_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// TestRetryTopicSynced: a message that comes again through a retry topic that was
// made Synced comes when it is synced, without another that wakes it.
func TestRetryTopicSynced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		var in inbox
		push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
			_ = in.handle(ctx, m)
			if m.Attempt == 1 {
				return errBroken
			}
			return nil
		}, &mq.PushOptions{Backoff: mq.Immediate})
		sendBodies(t, b, "T", 1)
		pass(time.Minute)
		require.Equal(t, 2, in.len())
		require.NoError(t, b.UpdateTopic(mq.RetryTopic("G"), mq.TopicConfig{Durability: mq.Synced}))
		sendBodies(t, b, "T", 1)
		pass(time.Minute)
		require.Equal(t, 4, in.len())
		require.Zero(t, lag(t, b, "G"))
	})
}
