package mq

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/keyindex"
)

// TestOneErrClosed: who asks a store while it is being closed is told so in one
// way, whichever of its parts was closed first.
func TestOneErrClosed(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, consumequeue.ErrClosed, ErrClosed)
	require.ErrorIs(t, keyindex.ErrClosed, ErrClosed)
	b, err := OpenMemory(nil)
	require.NoError(t, err)
	require.NoError(t, b.Close())
	require.ErrorIs(t, b.keys.Among([]uint64{1}, nil), ErrClosed)
}
