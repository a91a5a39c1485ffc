package soak

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/internal/labrow"
)

var (
	duration = flag.Duration("for", 3*time.Second, "how long TestSoak works")
	seed     = flag.Uint64("seed", 1, "of what its clients do")
)

// TestSoak: nothing is lost, nothing acknowledged comes again, and nothing is
// left behind: goroutines, descriptors, memory.
func TestSoak(t *testing.T) {
	const lives = 3
	length := min(*duration/(lives+1), 4*time.Second)
	opts := &mq.Options{SegmentBytes: 1 << 20, Retention: mq.Retention{Age: -1, MaxBytes: 8 << 20}, SyncEvery: 20 * time.Millisecond}
	dir := t.TempDir()
	goroutines, descriptors := runtime.NumGoroutine(), openFiles()
	var heaps []uint64
	var sent, acknowledged, delivered, acks, operations int
	began := time.Now()
	for n := 1; n == 1 || time.Since(began) < *duration; n++ {
		r := &round{dir: dir, number: n, seed: *seed<<32 + uint64(n)<<16, opts: opts}
		report, err := r.run(lives, length)
		require.NoError(t, err, "round %d", n)
		sent, acknowledged = sent+report.Sent, acknowledged+report.Acknowledged
		delivered, acks, operations = delivered+report.Delivered, acks+report.Acks, operations+report.Operations()
		report, r = nil, nil
		require.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+1 }, 5*time.Second, 10*time.Millisecond, // the +1 is this one
			"goroutines: %d at first, %d now", goroutines, runtime.NumGoroutine())
		require.LessOrEqual(t, openFiles(), descriptors, "descriptors")
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		heaps = append(heaps, m.HeapAlloc)
		t.Logf("round %d at %v: %d messages sent, heap %d KiB, %d goroutines, %d descriptors", n, time.Since(began).Round(time.Second), sent, m.HeapAlloc>>10, runtime.NumGoroutine(), openFiles())
	}
	if n := len(heaps); n > 3 {
		require.Less(t, heaps[n-1], heaps[1]+heaps[1]/2+8<<20, "heap after each round: %v", heaps)
	}
	labrow.Row{
		Tool: "soak", Runs: int64(len(heaps) * (lives + 1)), Acknowledged: int64(acknowledged), Operations: int64(operations),
		Note: fmt.Sprintf("%v, %d rounds of %d lives: %d messages sent, %d delivered, %d acknowledged by groups; heap %d KiB at first and %d at the end",
			time.Since(began).Round(time.Second), len(heaps), lives+1, sent, delivered, acks, heaps[0]>>10, heaps[len(heaps)-1]>>10),
		Seconds: time.Since(began).Seconds(),
	}.Log(t)
}

// openFiles counts the descriptors of this process; 0 where nobody tells.
func openFiles() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(list)
}
