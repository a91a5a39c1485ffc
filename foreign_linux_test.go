package mq_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
)

// TestCutWhileABodyIsCopied: somebody cuts the segment behind the beginning of a
// message, so that the fault comes while its body is copied out. Consumers of
// every kind are told, and the process lives.
func TestCutWhileABodyIsCopied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := mq.Open(dir, written())
	require.NoError(t, err)
	require.NoError(t, b.CreateTopic("T", &mq.TopicConfig{Queues: 1}))
	ms := numbered("T", 0, 3)
	for i, m := range ms {
		m.Body = make([]byte, 1+i*100_000)
	}
	ids := send(t, b, ms...)
	c, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	require.NoError(t, os.Truncate(filepath.Join(dir, "commitlog", "00000000000000000000"), 64<<10))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = c.Poll(ctx, 32)
	require.ErrorIs(t, err, mq.ErrPoisoned)
	_, err = b.MessageByID(ids[1].ID)
	require.ErrorIs(t, err, mq.ErrPoisoned)
	_, err = b.MessageByID(ids[0].ID)
	require.NoError(t, err, "what is there stays readable")
	require.NoError(t, c.Close())
	require.ErrorIs(t, b.Close(), mq.ErrPoisoned)
}
