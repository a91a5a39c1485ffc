package consumequeue_test

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

// requireRestores checks that a queue comes back, from a copy of the files, as
// it is.
func requireRestores(t *testing.T, fsys *vfs.Mem, q *consumequeue.Queue) {
	t.Helper()
	st := q.Capture()
	s := open(t, fsys.Clone(), consumequeue.Options{})
	back := s.Queue("t", 8, 0)
	require.NoError(t, back.Restore(st))
	require.Equal(t, q.Min(), back.Min())
	require.Equal(t, q.End(), back.End())
	require.Equal(t, all(t, q), all(t, back))
	fill(back, 3000)
	require.NoError(t, s.Flush())
	requireOwn(t, q.End(), all(t, back)[q.End()-q.Min():])
}

func TestRestore(t *testing.T) {
	t.Parallel()
	const file = consumequeue.FileEntries
	for _, row := range []struct {
		name string
		does func(q *consumequeue.Queue)
	}{
		{"empty", func(*consumequeue.Queue) {}},
		{"one", func(q *consumequeue.Queue) { fill(q, 1) }},
		{"memory only", func(q *consumequeue.Queue) { fill(q, 1000) }},
		{"file and memory", func(q *consumequeue.Queue) { fill(q, 5000) }},
		{"two files", func(q *consumequeue.Queue) { q.Advance(file - 3000); fill(q, 5000) }},
		{"exactly one file", func(q *consumequeue.Queue) { q.Advance(file - 2048); fill(q, 2049) }},
		{"started high", func(q *consumequeue.Queue) { q.Advance(file + 77); fill(q, 5000) }},
		{"trimmed", func(q *consumequeue.Queue) { q.Advance(file - 3000); fill(q, 5000); q.Trim(file + 1) }},
		{"trimmed in memory", func(q *consumequeue.Queue) { fill(q, 5000); q.Trim(4999) }},
		{"trimmed empty", func(q *consumequeue.Queue) { fill(q, 5000); q.Trim(5000) }},
		{"ends without entries", func(q *consumequeue.Queue) { q.Advance(77) }},
		{"ends with holes", func(q *consumequeue.Queue) { fill(q, 10); q.Advance(5000) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			fsys := newMem()
			s := open(t, fsys, consumequeue.Options{})
			q := s.Queue("t", 8, 0)
			row.does(q)
			requireRestores(t, fsys, q)
			require.NoError(t, s.Flush())
			requireRestores(t, fsys, q)
			require.NoError(t, s.Sweep())
			requireRestores(t, fsys, q)
		})
	}
}

// What was written after the checkpoint is cut off: the log says it again, and
// perhaps differently.
func TestRestoreCutsWhatIsNotNamed(t *testing.T) {
	t.Parallel()
	const file = consumequeue.FileEntries
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{})
	q := s.Queue("t", 8, 0)
	fill(q, 5000)
	require.NoError(t, s.Flush())
	st := q.Capture()
	q.Advance(2 * file)
	fill(q, 5000)
	require.NoError(t, s.Flush())
	require.Len(t, sizes(t, fsys, folder), 3)

	s = open(t, fsys, consumequeue.Options{})
	q = s.Queue("t", 8, 0)
	require.NoError(t, q.Restore(st))
	require.Equal(t, []string{fmt.Sprintf("%020d:%d", 0, st.Flushed*consumequeue.EntrySize)}, sizes(t, fsys, folder))
	require.Len(t, all(t, q), 5000)
}

// A queue that the checkpoint does not know, because it is younger, has files
// all the same. They are gone before the first flush.
func TestFilesOfAnUnknownQueueAreNotUsed(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{})
	q := s.Queue("t", 8, 0)
	q.Append(entry(0))
	q.Advance(2 * consumequeue.FileEntries)
	for range 5000 {
		q.Append(consumequeue.Entry{Position: 1, Size: 1, Tag: 1})
	}
	require.NoError(t, s.Flush())

	s = open(t, fsys, consumequeue.Options{})
	q = s.Queue("t", 8, 0)
	fill(q, 2000)
	require.NoError(t, s.Flush())
	require.Len(t, sizes(t, fsys, folder), 1)
	requireOwn(t, 0, all(t, q))
	requireRestores(t, fsys, q)
}

func TestRestoreShort(t *testing.T) {
	t.Parallel()
	const file = consumequeue.FileEntries
	first, second := filepath.Join(folder, fmt.Sprintf("%020d", 0)), filepath.Join(folder, fmt.Sprintf("%020d", file))
	cut := func(name string, size int64) func(t *testing.T, fsys vfs.FS) {
		return func(t *testing.T, fsys vfs.FS) {
			f, err := fsys.Open(name)
			require.NoError(t, err)
			require.NoError(t, f.Cut(size))
			require.NoError(t, f.Close())
		}
	}
	for _, row := range []struct {
		name    string
		corrupt func(t *testing.T, fsys vfs.FS)
	}{
		{"no folder", func(t *testing.T, fsys vfs.FS) { require.NoError(t, fsys.RemoveAll(root)) }},
		{"no queue folder", func(t *testing.T, fsys vfs.FS) { require.NoError(t, fsys.RemoveAll(folder)) }},
		{"first missing", func(t *testing.T, fsys vfs.FS) { require.NoError(t, fsys.Remove(first)) }},
		{"last missing", func(t *testing.T, fsys vfs.FS) { require.NoError(t, fsys.Remove(second)) }},
		{"first short", cut(first, file*consumequeue.EntrySize-1)},
		{"last short", cut(second, 1000)},
		{"last empty", cut(second, 0)},
		{"renamed", func(t *testing.T, fsys vfs.FS) { require.NoError(t, fsys.Rename(first, first+"0")) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			fsys := newMem()
			s := open(t, fsys, consumequeue.Options{})
			q := s.Queue("t", 8, 0)
			q.Advance(file - 5000)
			fill(q, 10_000)
			require.NoError(t, s.Flush())
			st := q.Capture()

			row.corrupt(t, fsys)
			s = open(t, fsys, consumequeue.Options{})
			q = s.Queue("t", 8, 0)
			require.ErrorIs(t, q.Restore(st), consumequeue.ErrShort)
			require.Zero(t, q.End())
			// And the log makes it again.
			for off := coord.Offset(file - 5000); off < file+7000; off++ {
				q.AppendAt(off, entry(off))
			}
			require.NoError(t, s.Flush())
			requireOwn(t, q.Min(), all(t, q))
			require.NoError(t, s.Sync())
			requireRestores(t, fsys, q)
		})
	}
}

func TestRestoreErrors(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{})
	q := s.Queue("t", 8, 0)
	for _, st := range []consumequeue.State{
		{Min: -1},
		{Min: 5, Flushed: 4, End: 5},
		{Flushed: 5, End: 4},
		{End: 1},
		{Tail: make([]consumequeue.Entry, 1)},
		{Min: 0, Flushed: 0, End: 1 << 62},
	} {
		require.ErrorIs(t, q.Restore(st), consumequeue.ErrState)
	}
	require.ErrorIs(t, q.Restore(consumequeue.State{Flushed: 1 << 60, End: 1 << 60}), consumequeue.ErrShort)
	fill(q, 5000)
	require.ErrorIs(t, q.Restore(consumequeue.State{}), consumequeue.ErrState)
	require.NoError(t, s.Flush())
	st := q.Capture()
	fill(q, 5000)
	require.NoError(t, s.Flush())

	for _, op := range []vfs.Op{vfs.OpList, vfs.OpCut, vfs.OpOpen} {
		s := open(t, fsys, consumequeue.Options{})
		fsys.FailNth(op, 1, syscall.EIO)
		require.ErrorIs(t, s.Queue("t", 8, 0).Restore(st), syscall.EIO)
	}
}

func TestRestoreOfManyQueuesAsksNothing(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{})
	before := fsys.Calls(vfs.OpList) + fsys.Calls(vfs.OpOpen)
	tail := []consumequeue.Entry{entry(0)}
	for id := range coord.TopicID(1000) {
		require.NoError(t, s.Queue("t", id, 0).Restore(consumequeue.State{End: 1, Tail: tail}))
	}
	require.Equal(t, before, fsys.Calls(vfs.OpList)+fsys.Calls(vfs.OpOpen))
}

// TestCaptureOfDropped: a topic may be deleted while a checkpoint captures it. What
// was only in memory is gone then, and the checkpoint must not look for it in files.
func TestCaptureOfDropped(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 5000} {
		fsys := newMem()
		s := open(t, fsys, consumequeue.Options{})
		q := s.Queue("t", 8, 0)
		fill(q, n)
		require.NoError(t, s.Flush())
		s.Drop("t", 8)
		st := q.Capture()
		require.Equal(t, coord.Offset(n), st.End)
		require.NoError(t, open(t, fsys.Clone(), consumequeue.Options{}).Queue("t", 8, 0).Restore(st))
	}
}
