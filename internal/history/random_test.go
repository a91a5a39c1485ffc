package history_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/history"
	"github.com/pocketmq/mq/internal/history/toy"
)

func TestRandomSound(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		ops, _ := toy.Run(seed, 40, "")
		require.NoError(t, history.Check(ops).Err(), "seed %d", seed)
	}
}

// TestRandomFlaws: a flaw that has shown is found, by its name.
func TestRandomFlaws(t *testing.T) {
	t.Parallel()
	for _, class := range []history.Class{
		history.LostWrite, history.DuplicateOffset, history.InconsistentOffsets, history.AbortedRead, history.WrongBytes,
		history.NonMonotonicPoll, history.SkippedPoll, history.DeliveredAgain,
	} {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			shown, found := 0, 0
			for seed := range uint64(100) {
				ops, broken := toy.Run(seed, 60, class)
				r := history.Check(ops)
				if broken {
					shown++
				}
				if r.Counts[class] > 0 {
					found++
				}
			}
			t.Logf("found in %d of %d histories with it", found, shown)
			require.GreaterOrEqual(t, shown, 20)
			require.GreaterOrEqual(t, found, shown/2)
		})
	}
}

// A million operations take seconds.
func BenchmarkCheck(b *testing.B) {
	var rec history.Recorder
	for i := range 200_000 {
		id := strconv.Itoa(i)
		off := int64(i)
		rec.Add(send(id, synced), sent(id, off), poll(id, off), ack(int64(i), off, synced), calls(history.OpAcked, int64(i)))
	}
	rec.Add(plain(history.OpDrained))
	for b.Loop() {
		require.NoError(b, history.Check(rec.History()).Err())
	}
	b.ReportMetric(float64(len(rec.History()))*float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}
