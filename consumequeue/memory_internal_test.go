package consumequeue

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

// Not parallel: it looks at the memory of the whole process.
func TestEmptyQueuesAreSmall(t *testing.T) {
	const topics, queues = 10_000, 4
	heap := func() uint64 {
		runtime.GC()
		var ms runtime.MemStats
		runtime.ReadMemStats(&ms)
		return ms.HeapAlloc
	}
	before := heap()
	s, err := Open(vfs.NewMem(1<<20), "store", Options{})
	require.NoError(t, err)
	for id := range coord.TopicID(topics) {
		for q := range coord.QueueID(queues) {
			s.Queue("topic", id, q)
		}
	}
	empty := heap()
	require.Less(t, (empty-before)/(topics*queues), uint64(300), "bytes of an empty queue")
	for _, q := range s.queues() {
		q.Append(Entry{Size: 1})
	}
	one := heap()
	require.Less(t, (one-before)/(topics*queues), uint64(600), "bytes of a queue with one entry")
	t.Logf("%d and %d bytes", (empty-before)/(topics*queues), (one-before)/(topics*queues))
	require.Less(t, s.Stats().Unflushed, s.near(), "none is flushed early")
	runtime.KeepAlive(s)
}

func TestAppendAllocatesChunksOnly(t *testing.T) {
	s, err := Open(vfs.NewMem(1<<20), "store", Options{})
	require.NoError(t, err)
	q := s.Queue("t", 8, 0)
	for range 3000 {
		q.Append(Entry{Size: 1})
	}
	require.Zero(t, testing.AllocsPerRun(500, func() { q.Append(Entry{Size: 1}) }))
	dst := make([]Entry, 32)
	require.Zero(t, testing.AllocsPerRun(500, func() { _, _ = q.Read(2900, dst) }))
}
