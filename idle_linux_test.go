package mq_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
)

// Both run in a process of their own, for they measure the process.
const measured = "MQ_TEST_MEASURED"

// inOwnProcess runs the test alone in another process and returns true there.
func inOwnProcess(t *testing.T) bool {
	t.Helper()
	if os.Getenv(measured) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprint("-test.short=", testing.Short()))
	cmd.Env = append(os.Environ(), measured+"="+t.Name())
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "_test.go:") {
			t.Log(strings.TrimSpace(line))
		}
	}
	require.NoError(t, err, "%s", out)
	return false
}

// cpuTime is what the process has used so far.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestIdleBrokerUsesNoCPU: 10,000 topics of 4 queues, some of them with waiting
// consumers, at most 10 ms in 10 s. There is nothing to wait for here but time.
func TestIdleBrokerUsesNoCPU(t *testing.T) {
	t.Parallel()
	if !inOwnProcess(t) {
		return
	}
	topics, watch := 10_000, 10*time.Second
	if testing.Short() {
		topics, watch = 1000, 2*time.Second
	}
	b, err := mq.Open(t.TempDir(), &mq.Options{Durability: mq.Written})
	require.NoError(t, err)
	var creators sync.WaitGroup
	for worker := range 4 {
		creators.Go(func() {
			for i := worker; i < topics; i += 4 {
				if err := b.CreateTopic(fmt.Sprint("T", i), &mq.TopicConfig{Queues: 4}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	creators.Wait()
	handle := func(context.Context, *mq.Message) error { return nil }
	for i := range 10 {
		topic := fmt.Sprint("T", i)
		c, err := b.NewPushConsumer("G", handle, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe(topic, mq.All))
		p, err := b.NewPullConsumer("P", nil)
		require.NoError(t, err)
		require.NoError(t, p.Subscribe(topic, mq.All))
		go func() { _, _ = p.Poll(context.Background(), 1) }()
		for range 20 { // it has not always been idle
			send(t, b, &mq.Message{Topic: topic, Tag: "tag", Body: make([]byte, 100)})
		}
	}
	require.NoError(t, b.Sync(t.Context()))
	runtime.GC()
	debug.FreeOSMemory()
	<-time.After(time.Second) // clocks and pulses come to rest
	before := cpuTime(t)
	<-time.After(watch)
	used := cpuTime(t) - before
	t.Logf("%v of CPU in %v with %d topics", used, watch, topics)
	require.LessOrEqual(t, used, 10*time.Millisecond)
	require.NoError(t, b.Close())
}

// TestEmptyBrokerTakesLittleMemory: opened in an empty directory, under 32 MiB
// beyond what the process had before.
func TestEmptyBrokerTakesLittleMemory(t *testing.T) {
	t.Parallel()
	if !inOwnProcess(t) {
		return
	}
	before := residentBytes(t)
	b, err := mq.Open(t.TempDir(), nil)
	require.NoError(t, err)
	send(t, b, &mq.Message{Topic: "T"})
	used := residentBytes(t) - before
	t.Logf("%.1f MiB resident beyond the process itself (%.1f MiB)", float64(used)/(1<<20), float64(before)/(1<<20))
	require.Less(t, used, int64(32<<20))
	require.NoError(t, b.Close())
}

// residentBytes is what of the process lies in memory, mapped files included.
func residentBytes(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	var size, resident int64
	_, err = fmt.Sscan(string(text), &size, &resident)
	require.NoError(t, err)
	return resident * int64(os.Getpagesize())
}
