package mq

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
)

// TestFullIsWhatHasNoRoomNow: the log counts, then asks. If what it counted is
// dropped in between, and it has become more again when it asks the next time, the
// answer to the first time says nothing of that.
func TestFullIsWhatHasNoRoomNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 8 * mib
		b, err := OpenMemory(&Options{SegmentBytes: mib, Retention: Retention{MaxBytes: limit}})
		require.NoError(t, err)
		ask := func(bytes int64) error {
			err := b.upkeep.ask(bytes, mib, limit)
			synctest.Wait()
			return err
		}
		require.ErrorIs(t, ask(limit), commitlog.ErrLater)
		require.ErrorIs(t, ask(limit), commitlog.ErrLater, "there was room")
		require.NoError(t, ask(0))
		require.NoError(t, b.Close())
	})
}
