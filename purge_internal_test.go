package mq

import (
	"context"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestPurgeFails: what could not be purged is not counted.
func TestPurgeFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS()
		b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1})
		c, err := b.NewPushConsumer("G", func(context.Context, *Message) error { return Discard(nil) }, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		_, err = p.Send(t.Context(), &Message{Topic: "T"})
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, int64(1), b.Stats().Dead)
		fail := func() error { return syscall.EIO }
		fs.sync.Store(&fail)
		require.ErrorIs(t, b.Sync(t.Context()), ErrPoisoned)
		n, err := b.PurgeDeadLetters("G")
		require.ErrorIs(t, err, ErrPoisoned)
		require.Zero(t, n)
	})
}
