package mq

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

// TestTagsThatShareAHash: the index cannot tell them apart, so the message
// itself is looked at; what turns out unwanted is acknowledged like anything
// that is filtered out.
func TestTagsThatShareAHash(t *testing.T) {
	t.Parallel()
	b := openOn(t, vfs.NewMem(0), &Options{Durability: Written})
	require.NoError(t, b.CreateTopic("T", &TopicConfig{Queues: 1}))
	forged := Tags("wanted")
	forged.hashes[0] = tagHash("other") // so that the index says yes to it
	forged.hashes = append(forged.hashes, tagHash("wanted"))
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for _, tag := range []string{"other", "wanted", "other", "third", "wanted", "other"} {
		_, err := p.Send(t.Context(), &Message{Topic: "T", Tag: tag, Body: []byte(tag)})
		require.NoError(t, err)
	}
	var handled, wrong atomic.Int64
	push, err := b.NewPushConsumer("Push", func(_ context.Context, m *Message) error {
		handled.Add(1)
		if m.Tag != "wanted" {
			wrong.Add(1)
		}
		return nil
	}, nil)
	require.NoError(t, err)
	require.NoError(t, push.Subscribe("T", forged))
	pull, err := b.NewPullConsumer("Pull", nil)
	require.NoError(t, err)
	require.NoError(t, pull.Subscribe("T", forged))
	ms, err := pull.Poll(t.Context(), 32)
	require.NoError(t, err)
	require.Len(t, ms, 2)
	require.NoError(t, pull.Commit(t.Context()))
	for _, group := range []string{"Pull", "Push"} {
		require.Eventually(t, func() bool {
			total, _, err := b.Lag(group)
			return err == nil && total == 0
		}, 20*time.Second, 10*time.Millisecond)
	}
	require.Equal(t, int64(2), handled.Load())
	require.Zero(t, wrong.Load())
	require.Zero(t, b.Stats().Missed)
	require.NoError(t, b.Close())
}
