package mq

import (
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPoisonedUnasked: the hook is told of a sync that fails while nobody waits
// for it, in the background and in Close.
func TestPoisonedUnasked(t *testing.T) {
	t.Parallel()
	for _, closes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			fs := newTestFS()
			var told atomic.Int64
			b := openOn(t, fs, &Options{Durability: Written, Hooks: &Hooks{Poisoned: func(error) { told.Add(1) }}})
			p, err := b.NewProducer(nil)
			require.NoError(t, err)
			_, err = p.Send(t.Context(), &Message{Topic: "T"})
			require.NoError(t, err)
			fail := func() error { return syscall.EIO }
			fs.sync.Store(&fail)
			if closes {
				require.ErrorIs(t, b.Close(), ErrPoisoned)
			} else {
				<-time.After(time.Minute)
				synctest.Wait()
			}
			require.Equal(t, int64(1), told.Load())
		})
	}
}
