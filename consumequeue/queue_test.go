package consumequeue_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

const root = "store/consumequeue"

// entry makes an entry that tells its offset.
func entry(off coord.Offset) consumequeue.Entry {
	return consumequeue.Entry{Position: coord.Position(off) * 64, Size: uint32(off%1000) + 1, Tag: uint64(off) * 0x9e3779b97f4a7c15}
}

// fill appends n entries that tell their offsets.
func fill(q *consumequeue.Queue, n int) {
	for range n {
		q.Append(entry(q.End()))
	}
}

// all reads a queue from Min to End.
func all(t *testing.T, q *consumequeue.Queue) []consumequeue.Entry {
	t.Helper()
	dst := make([]consumequeue.Entry, q.End()-q.Min())
	n, err := q.Read(q.Min(), dst)
	require.NoError(t, err)
	require.Equal(t, len(dst), n)
	return dst
}

// requireOwn checks that entries from off on tell their offsets.
func requireOwn(t *testing.T, off coord.Offset, got []consumequeue.Entry) {
	t.Helper()
	for i, e := range got {
		if want := entry(off + coord.Offset(i)); e != want {
			require.Equal(t, want, e, "offset %d", off+coord.Offset(i))
		}
	}
}

func newMem() *vfs.Mem { return vfs.NewMem(256 << 20) }

func open(t *testing.T, fsys vfs.FS, o consumequeue.Options) *consumequeue.Store {
	t.Helper()
	s, err := consumequeue.Open(fsys, root, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestQueueIsOneForItsArguments(t *testing.T) {
	t.Parallel()
	s := open(t, newMem(), consumequeue.Options{})
	q := s.Queue("t", 8, 3)
	require.Same(t, q, s.Queue("t", 8, 3))
	require.NotSame(t, q, s.Queue("t", 8, 1))
	require.NotSame(t, q, s.Queue("t", 16, 3), "another life of the topic")
	require.Same(t, q, s.Queue("t", 8, 3))
	require.Equal(t, 3, s.Stats().Queues)
}

func TestReadBounds(t *testing.T) {
	t.Parallel()
	s := open(t, newMem(), consumequeue.Options{})
	q := s.Queue("t", 8, 0)
	dst := make([]consumequeue.Entry, 4)

	n, err := q.Read(0, dst)
	require.NoError(t, err)
	require.Zero(t, n)

	fill(q, 3)
	n, err = q.Read(1, dst)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	requireOwn(t, 1, dst[:n])

	n, err = q.Read(0, nil)
	require.NoError(t, err)
	require.Zero(t, n)
	for _, beyond := range []coord.Offset{3, 4, math.MaxInt64} {
		n, err = q.Read(beyond, dst)
		require.NoError(t, err)
		require.Zero(t, n)
	}
	for _, below := range []coord.Offset{-1, math.MinInt64} {
		_, err = q.Read(below, dst)
		require.ErrorIs(t, err, consumequeue.ErrTrimmed)
	}
	q.Trim(2)
	_, err = q.Read(1, dst)
	require.ErrorIs(t, err, consumequeue.ErrTrimmed)
	q.Trim(1)
	require.EqualValues(t, 2, q.Min(), "min does not go back")
	q.Trim(100)
	require.EqualValues(t, 3, q.Min(), "min stays within the queue")
}

func TestAppendAt(t *testing.T) {
	t.Parallel()
	hole := consumequeue.Entry{}
	for _, row := range []struct {
		name string
		does func(q *consumequeue.Queue)
		min  coord.Offset
		want []consumequeue.Entry
	}{
		{"in order", func(q *consumequeue.Queue) {
			q.AppendAt(0, entry(0))
			q.AppendAt(1, entry(1))
		}, 0, []consumequeue.Entry{entry(0), entry(1)}},
		{"again", func(q *consumequeue.Queue) {
			fill(q, 2)
			q.AppendAt(0, hole)
			q.AppendAt(1, hole)
			q.AppendAt(2, entry(2))
		}, 0, []consumequeue.Entry{entry(0), entry(1), entry(2)}},
		{"empty starts there", func(q *consumequeue.Queue) {
			q.AppendAt(7, entry(7))
		}, 7, []consumequeue.Entry{entry(7)}},
		{"trimmed starts there", func(q *consumequeue.Queue) {
			fill(q, 3)
			q.Trim(3)
			q.AppendAt(9, entry(9))
		}, 9, []consumequeue.Entry{entry(9)}},
		{"gap", func(q *consumequeue.Queue) {
			fill(q, 1)
			q.AppendAt(3, entry(3))
		}, 0, []consumequeue.Entry{entry(0), hole, hole, entry(3)}},
		{"gap without an end", func(q *consumequeue.Queue) {
			fill(q, 1)
			q.Advance(3)
		}, 0, []consumequeue.Entry{entry(0), hole, hole}},
		{"advance an empty one", func(q *consumequeue.Queue) {
			q.Advance(1 << 40)
			q.Advance(5)
		}, 1 << 40, []consumequeue.Entry{}},
		{"gap that nothing explains", func(q *consumequeue.Queue) {
			fill(q, 5)
			q.AppendAt(1<<47, entry(1<<47))
		}, 1 << 47, []consumequeue.Entry{entry(1 << 47)}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := open(t, newMem(), consumequeue.Options{})
			q := s.Queue("t", 8, 0)
			row.does(q)
			require.Equal(t, row.min, q.Min())
			require.Equal(t, row.want, all(t, q))
			require.LessOrEqual(t, s.Stats().Unflushed, int64(1024), "holes take no memory")
		})
	}
}

func TestHolesReachTheFile(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{})
	q := s.Queue("t", 8, 0)
	fill(q, 10)
	q.AppendAt(2*consumequeue.FileEntries+5, entry(2*consumequeue.FileEntries+5))
	require.NoError(t, q.Patch(1000, entry(1000)))
	for range 3000 {
		q.Append(entry(q.End()))
	}
	require.NoError(t, s.Flush())
	require.Less(t, len(q.Capture().Tail), 2000)

	got := all(t, q)
	requireOwn(t, 0, got[:10])
	require.True(t, got[10].Hole())
	requireOwn(t, 1000, got[1000:1001])
	for _, e := range got[1001 : 2*consumequeue.FileEntries+5] {
		if !e.Hole() {
			require.True(t, e.Hole())
		}
	}
	requireOwn(t, 2*consumequeue.FileEntries+5, got[2*consumequeue.FileEntries+5:])
}

// A run of holes is not written out, even if it is longer than anything a disk
// could take.
func TestLongRunOfHolesIsNotWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := consumequeue.Open(vfs.OS(), dir, consumequeue.Options{})
	require.NoError(t, err)
	defer s.Close()
	q := s.Queue("t", 8, 0)
	fill(q, 1)
	const far = 10*consumequeue.FileEntries + 17
	q.AppendAt(far, entry(far))
	fill(q, 5000)
	require.NoError(t, s.Flush())
	require.Less(t, s.Stats().Written, int64(200<<10))
	entries, err := vfs.OS().List(filepath.Join(dir, "t@8", "0"))
	require.NoError(t, err)
	require.Len(t, entries, 11)
	for _, e := range entries[:10] {
		require.EqualValues(t, consumequeue.FileEntries*consumequeue.EntrySize, e.Size)
	}
	got := make([]consumequeue.Entry, 10)
	_, err = q.Read(far-5, got)
	require.NoError(t, err)
	require.Equal(t, make([]consumequeue.Entry, 5), got[:5])
	requireOwn(t, far, got[5:])
}

func TestPatch(t *testing.T) {
	t.Parallel()
	s := open(t, newMem(), consumequeue.Options{})
	q := s.Queue("t", 8, 0)
	fill(q, 5000)
	require.NoError(t, s.Flush())
	flushed := q.Capture().Flushed
	require.Positive(t, flushed)

	damaged := consumequeue.Entry{Position: 1, Size: 2, Tag: 3}
	for _, off := range []coord.Offset{0, flushed - 1, flushed, q.End() - 1} {
		require.NoError(t, q.Patch(off, damaged))
		var got [1]consumequeue.Entry
		_, err := q.Read(off, got[:])
		require.NoError(t, err)
		require.Equal(t, damaged, got[0])
		require.NoError(t, q.Patch(off, entry(off)))
	}
	requireOwn(t, 0, all(t, q))
	require.Equal(t, entry(q.End()-1), q.Capture().Tail[q.End()-1-flushed], "a checkpoint has it too")

	fill(q, 5000)
	require.NoError(t, s.Flush())
	requireOwn(t, 0, all(t, q))

	q.Trim(10)
	require.ErrorIs(t, q.Patch(9, damaged), consumequeue.ErrTrimmed)
	require.ErrorIs(t, q.Patch(q.End(), damaged), consumequeue.ErrRange)
	require.ErrorIs(t, q.Patch(-1, damaged), consumequeue.ErrTrimmed)
}

func TestDropForgetsAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t, newMem(), consumequeue.Options{})
	q := s.Queue("t", 8, 0)
	fill(q, 3000)
	require.NoError(t, s.Flush())
	require.Positive(t, s.Stats().Unflushed)
	s.Drop("t", 8)
	s.Drop("t", 8)
	require.Zero(t, s.Stats().Unflushed)
	require.Zero(t, s.Stats().Queues)
	_, err := q.Read(0, make([]consumequeue.Entry, 1))
	require.ErrorIs(t, err, consumequeue.ErrDropped)
	_, err = q.Read(2999, make([]consumequeue.Entry, 1))
	require.ErrorIs(t, err, consumequeue.ErrDropped)
	require.NotSame(t, q, s.Queue("t", 8, 0))
}
