package history_test

import (
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/history"
	"github.com/pocketmq/mq/internal/history/toy"
)

// TestClone: wherever a history is divided, clones that are told the rest judge
// it like one checker that is told all, and learn nothing from each other.
func TestClone(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		flaw := append(slices.Clone(history.Classes), "")[seed%12]
		ops, _ := toy.Run(seed, 40, flaw)
		want := history.Check(ops)
		for n := range 5 {
			at := len(ops) * n / 4
			first := history.NewChecker()
			first.Add(ops[:at]...)
			base := first.Clone()
			var together sync.WaitGroup
			for range 2 {
				together.Go(func() {
					c := base.Clone()
					c.Add(ops[at:]...)
					if r := c.Report(); want.String() != r.String() || !slices.Equal(ops, c.History()) {
						t.Errorf("seed %d, divided at %d: %v, not %v", seed, at, r, want)
					}
				})
			}
			together.Wait()
			require.Equal(t, history.Check(ops[:at]).String(), base.Report().String())
			require.Equal(t, base.Report().String(), first.Report().String())
		}
	}
}

// What TestMutilate asks for: a short history that is continued in many ways.
func BenchmarkClone(b *testing.B) {
	base := history.NewChecker()
	var polls []history.Op
	for i := range 1400 {
		id := strconv.Itoa(i)
		off := int64(i)
		base.Add(send(id, synced), sent(id, off), ack(off, off, synced), calls(history.OpAcked, off))
		p := poll(id, off)
		p.Group = "Reader"
		polls = append(polls, p)
	}
	base = base.Clone()
	b.ReportAllocs()
	for b.Loop() {
		c := base.Clone()
		c.Add(plain(history.OpKill))
		c.Add(polls...)
		c.Add(plain(history.OpDrained))
		require.NoError(b, c.Report().Err())
	}
}
