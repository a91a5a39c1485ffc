package mq

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestOneGroupOfAName: of those who create a group at the same time one does, and
// all of them have the same.
func TestOneGroupOfAName(t *testing.T) {
	t.Parallel()
	b := openOn(t, newTestFS(), &Options{Durability: Written})
	for i := range 20 {
		var asked, done sync.WaitGroup
		made := make([]*group, 4)
		asked.Add(len(made))
		b.log.Exclusive(func() { // nothing is logged until all have seen that there is no such group
			for n := range made {
				done.Go(func() {
					asked.Done()
					made[n], _ = b.ensureGroup(groupKey{name: fmt.Sprint("G", i)})
				})
			}
			asked.Wait()
			for range 100 {
				runtime.Gosched()
			}
		})
		done.Wait()
		require.NotNil(t, made[0])
		for _, g := range made {
			require.Same(t, made[0], g)
		}
		b.log.Exclusive(func() { require.Len(t, b.state.groups, i+1) })
	}
	require.NoError(t, b.Close())
}

// TestOneStart: who has not seen a group's start in a topic, because somebody else
// is writing one down, does not write another one over it.
func TestOneStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
		sendNumbers(t, b, 0, 3)
		c := subscribed(t, b, "G")
		require.Equal(t, numbersTo(3), pollAll(t, c))
		require.NoError(t, c.Commit(t.Context()))
		_, err := b.names.group(groupKey{name: "G"}).appendStart(b.names.topic("T"), Earliest, nil, false)
		require.ErrorIs(t, err, errStartThere)
		require.Zero(t, lagOf(t, b))
		require.NoError(t, b.Close())
	})
}
