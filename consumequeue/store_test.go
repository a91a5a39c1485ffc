package consumequeue_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

const folder = root + "/t@8/0"

// sizes lists a folder as name:size.
func sizes(t *testing.T, fsys vfs.FS, dir string) []string {
	t.Helper()
	entries, err := fsys.List(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, fmt.Sprintf("%s:%d", e.Name, e.Size))
	}
	return names
}

func TestFewEntriesMakeNoFile(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{})
	for id := range 100 {
		fill(s.Queue("t", coord.TopicID(id), 0), 8)
	}
	fill(s.Queue("t", 8, 0), 1024-8)
	require.NoError(t, s.Flush())
	require.NoError(t, s.Sync())
	require.NoError(t, s.Sweep())
	require.Empty(t, sizes(t, fsys, root))
	require.Zero(t, fsys.Calls(vfs.OpSync)+fsys.Calls(vfs.OpSyncDir))
}

func TestFilesAreNamedByTheirFirstOffset(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{})
	q := s.Queue("t", 8, 0)
	fill(q, consumequeue.FileEntries+5000)
	require.NoError(t, s.Flush())
	st := q.Capture()
	require.Equal(t, []string{
		"00000000000000000000:6000000",
		fmt.Sprintf("%020d:%d", consumequeue.FileEntries, (st.Flushed-consumequeue.FileEntries)*consumequeue.EntrySize),
	}, sizes(t, fsys, folder))
	require.LessOrEqual(t, st.End-st.Flushed, coord.Offset(1024))
	requireOwn(t, 0, all(t, q))

	// One byte per byte: an entry in the file is the entry's encoding.
	f, err := fsys.Open(filepath.Join(folder, "00000000000000300000"))
	require.NoError(t, err)
	raw := make([]byte, consumequeue.EntrySize)
	_, err = f.ReadAt(raw, 7*consumequeue.EntrySize)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	got, err := consumequeue.DecodeEntry(raw)
	require.NoError(t, err)
	require.Equal(t, entry(consumequeue.FileEntries+7), got)
}

func TestSyncSyncsWhatWasWritten(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	// One descriptor: most files are written and synced through different ones.
	s := open(t, fsys, consumequeue.Options{MaxOpen: 1})
	for id := range coord.QueueID(3) {
		fill(s.Queue("t", 8, id), 3000)
	}
	require.NoError(t, s.Flush())
	require.LessOrEqual(t, s.Stats().OpenFiles, 1)
	fsys.Record()
	require.NoError(t, s.Sync())
	synced := map[string]bool{}
	for _, c := range fsys.Ops() {
		if c.Op == vfs.OpSync || c.Op == vfs.OpSyncDir {
			synced[filepath.ToSlash(c.Name)] = true
		}
	}
	for _, dir := range []string{"store", root, root + "/t@8", root + "/t@8/0", root + "/t@8/1", root + "/t@8/2"} {
		require.Contains(t, synced, dir)
	}
	for id := range 3 {
		require.Contains(t, synced, fmt.Sprintf("%s/t@8/%d/%020d", root, id, 0))
	}
	before := fsys.Calls(vfs.OpSync)
	require.NoError(t, s.Sync())
	require.Equal(t, before, fsys.Calls(vfs.OpSync), "nothing is synced twice")
	require.NoError(t, s.Queue("t", 8, 1).Patch(0, entry(0)))
	require.NoError(t, s.Sync())
	require.Equal(t, before+1, fsys.Calls(vfs.OpSync))
}

func TestFailedSyncIsTriedAgain(t *testing.T) {
	t.Parallel()
	for _, op := range []vfs.Op{vfs.OpSync, vfs.OpSyncDir} {
		fsys := newMem()
		s := open(t, fsys, consumequeue.Options{})
		fill(s.Queue("t", 8, 0), 3000)
		require.NoError(t, s.Flush())
		fsys.FailNth(op, 1, syscall.EIO)
		require.ErrorIs(t, s.Sync(), syscall.EIO)
		before := fsys.Calls(op)
		require.NoError(t, s.Sync())
		require.Greater(t, fsys.Calls(op), before)
	}
}

// Whatever call of a flush fails, nothing is lost, and the next one succeeds.
func TestFailedFlushLosesNothing(t *testing.T) {
	t.Parallel()
	for _, op := range []vfs.Op{vfs.OpMkdirAll, vfs.OpCreate, vfs.OpOpen, vfs.OpSize, vfs.OpWrite, vfs.OpCut} {
		t.Run(op.String(), func(t *testing.T) {
			t.Parallel()
			for nth := 1; ; nth++ {
				fsys := newMem()
				s := open(t, fsys, consumequeue.Options{})
				q := s.Queue("t", 8, 0)
				q.AppendAt(consumequeue.FileEntries-2000, entry(consumequeue.FileEntries-2000))
				fill(q, 5000)
				fsys.FailNth(op, nth, syscall.ENOSPC)
				err := s.Flush()
				requireOwn(t, q.Min(), all(t, q))
				if err == nil {
					require.Greater(t, nth, 1, "the flush makes no such call")
					return
				}
				require.ErrorIs(t, err, syscall.ENOSPC)
				require.Equal(t, q.Min(), q.Capture().Flushed)
				fill(q, 100)
				require.NoError(t, s.Flush())
				requireOwn(t, q.Min(), all(t, q))
				require.Greater(t, q.Capture().Flushed, q.Min())
			}
		})
	}
}

func TestMemoryIsBoundedByManyQueues(t *testing.T) {
	t.Parallel()
	const max = 256 << 10
	var full bool
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{MaxUnflushed: max, MaxOpen: 4, Full: func() { full = true }})
	var queues []*consumequeue.Queue
	for id := range coord.TopicID(500) {
		queues = append(queues, s.Queue("t", id, 0))
	}
	for round := range 60 {
		for i, q := range queues {
			if i%2 == 0 || round%50 == 0 { // some are slower
				q.Append(entry(q.End()))
			}
			if full {
				full = false
				require.Less(t, s.Stats().Unflushed, int64(max))
				require.NoError(t, s.Flush())
				require.LessOrEqual(t, s.Stats().OpenFiles, 4)
			}
		}
	}
	for _, q := range queues {
		requireOwn(t, 0, all(t, q))
	}
}

func TestFullAsksForLargeWrites(t *testing.T) {
	t.Parallel()
	calls := 0
	s := open(t, newMem(), consumequeue.Options{Full: func() { calls++ }})
	q := s.Queue("t", 8, 0)
	fill(q, 40_000)
	require.Zero(t, calls, "less than 1 MiB waits")
	fill(q, 20_000)
	require.Positive(t, calls)
	require.NoError(t, s.Flush())
	calls = 0
	fill(q, 40_000)
	require.Zero(t, calls)
}

// What was flushed last is read without a system call, and no more of it stays
// in memory than was asked for.
func TestNewestEntriesStayInMemory(t *testing.T) {
	t.Parallel()
	const kept = 200 << 10 // ten chunks
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{MaxKept: kept})
	one, other := s.Queue("t", 8, 0), s.Queue("t", 8, 1)
	for range 30 {
		fill(one, 2048)
		fill(other, 1024)
		require.NoError(t, s.Flush())
		require.LessOrEqual(t, s.Stats().Kept, int64(kept))
	}
	require.Greater(t, s.Stats().Kept, int64(kept/2))
	reads := fsys.Calls(vfs.OpRead)
	near := make([]consumequeue.Entry, 4000)
	n, err := one.Read(one.End()-4000, near)
	require.NoError(t, err)
	require.Equal(t, 4000, n)
	require.Equal(t, reads, fsys.Calls(vfs.OpRead), "the newest are in memory, of either queue")
	_, err = other.Read(other.End()-2000, near)
	require.NoError(t, err)
	require.Equal(t, reads, fsys.Calls(vfs.OpRead))
	requireOwn(t, 0, all(t, one))
	require.Greater(t, fsys.Calls(vfs.OpRead), reads)

	// An entry that is kept is restored in memory and in the file.
	off := one.End() - 3000
	require.Less(t, off, one.Capture().Flushed)
	require.NoError(t, one.Patch(off, entry(7)))
	require.Equal(t, entry(7), all(t, one)[off])
	for range 30 {
		fill(other, 2048)
		require.NoError(t, s.Flush())
	}
	require.Equal(t, entry(7), all(t, one)[off])

	s.Drop("t", 8)
	require.Zero(t, s.Stats().Kept)
}

func TestSweepRemovesWhatTheCaptureDoesNotName(t *testing.T) {
	t.Parallel()
	const file = consumequeue.FileEntries
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{})
	q := s.Queue("t", 8, 0)
	q.AppendAt(file-1, entry(file-1))
	q.Advance(3 * file)
	fill(q, 5000)
	require.NoError(t, s.Flush())
	q.Capture()
	q.Trim(2*file + 1)
	require.NoError(t, s.Sweep())
	require.Len(t, sizes(t, fsys, folder), 4, "the checkpoint was captured before")
	_, err := q.Read(file, make([]consumequeue.Entry, 1))
	require.ErrorIs(t, err, consumequeue.ErrTrimmed)

	q.Capture()
	require.NoError(t, s.Sweep())
	require.Len(t, sizes(t, fsys, folder), 2)
	requireOwn(t, 3*file, all(t, q)[file-1:]) // holes before

	// All of the last file: it goes, and the queue continues in another one.
	q.Trim(q.End() - 1)
	q.Capture()
	require.NoError(t, s.Sweep())
	require.Empty(t, sizes(t, fsys, folder))
	require.NoError(t, s.Sync(), "removed files are not synced")
	requireOwn(t, q.Min(), all(t, q))
	fill(q, 5000)
	require.NoError(t, s.Flush())
	require.NoError(t, s.Sync())
	require.Len(t, sizes(t, fsys, folder), 1)
	requireOwn(t, q.Min(), all(t, q))
	requireRestores(t, fsys, q)
}

func TestSweepOfADroppedTopic(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{})
	fill(s.Queue("t", 8, 0), 5000)
	fill(s.Queue("t", 16, 0), 5000)
	require.NoError(t, s.Flush())
	s.Drop("t", 8)
	require.NoError(t, s.Sync())
	require.NoError(t, s.Sweep())
	require.Equal(t, []string{"t@16:0", "t@8:0"}, sizes(t, fsys, root), "the checkpoint may still name it")
	fsys.FailNth(vfs.OpRemoveAll, 1, syscall.EIO)
	require.ErrorIs(t, s.Sweep(), syscall.EIO)
	require.NoError(t, s.Sweep())
	require.Equal(t, []string{"t@16:0"}, sizes(t, fsys, root))
	requireOwn(t, 0, all(t, s.Queue("t", 16, 0)))
}

func TestSweepUnknown(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	for _, dir := range []string{"a@1", "a@2", "lost+found", "x@y", "@3"} {
		require.NoError(t, fsys.MkdirAll(filepath.Join(root, dir, "0")))
	}
	s := open(t, fsys, consumequeue.Options{})
	require.NoError(t, s.SweepUnknown(func(dir string) bool { return dir == consumequeue.Dir("a", 2) }))
	require.Equal(t, []string{"a@2:0", "lost+found:0", "x@y:0"}, sizes(t, fsys, root))
}

func TestDir(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ topic, want string }{
		{"OrderTopic", "OrderTopic@64"},
		{"%RETRY%g", "%25RETRY%25g@64"},
		{"a|b", "a%7Cb@64"},
		{"..", "%2E%2E@64"},
		{"a/b\\c:d", "a%2Fb%5Cc%3Ad@64"},
		{"\x00\xff", "%00%FF@64"},
		{"", "@64"},
		{strings.Repeat("x", 300), strings.Repeat("x", 200) + "@64"},
	} {
		require.Equal(t, row.want, consumequeue.Dir(row.topic, 64))
	}
	require.LessOrEqual(t, len(consumequeue.Dir(strings.Repeat("|", 300), 1<<62)), 255)
}

func TestClose(t *testing.T) {
	t.Parallel()
	s := open(t, newMem(), consumequeue.Options{})
	q := s.Queue("t", 8, 0)
	fill(q, 5000)
	require.NoError(t, s.Flush())
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	for _, err := range []error{s.Flush(), s.Sync(), s.Sweep(), q.Patch(0, entry(0))} {
		require.ErrorIs(t, err, consumequeue.ErrClosed)
	}
	_, err := q.Read(0, make([]consumequeue.Entry, 1))
	require.ErrorIs(t, err, consumequeue.ErrClosed)
	var last [1]consumequeue.Entry
	_, err = q.Read(4999, last[:])
	require.NoError(t, err)
	requireOwn(t, 4999, last[:])
	require.Zero(t, s.Stats().OpenFiles)
}

func TestReadErrors(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{})
	q := s.Queue("t", 8, 0)
	fill(q, 5000)
	require.NoError(t, s.Flush())
	fsys.FailNth(vfs.OpRead, 1, syscall.EIO)
	dst := make([]consumequeue.Entry, 5000)
	_, err := q.Read(0, dst)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, "00000000000000000000@0")

	// A file that lost its end reads as holes, which Patch fills.
	f, err := fsys.Open(filepath.Join(folder, fmt.Sprintf("%020d", 0)))
	require.NoError(t, err)
	require.NoError(t, f.Cut(100*consumequeue.EntrySize+7))
	require.NoError(t, f.Close())
	n, err := q.Read(0, dst)
	require.NoError(t, err)
	require.Equal(t, 5000, n)
	requireOwn(t, 0, dst[:100])
	require.True(t, dst[100].Hole())
	flushed := q.Capture().Flushed
	for off := coord.Offset(100); off < flushed; off++ {
		require.NoError(t, q.Patch(off, entry(off)))
	}
	requireOwn(t, 0, all(t, q))
}

func TestOpenReportsErrors(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	fsys.FailNth(vfs.OpList, 1, syscall.EIO)
	_, err := consumequeue.Open(fsys, root, consumequeue.Options{})
	require.ErrorIs(t, err, syscall.EIO)
	require.False(t, errors.Is(err, consumequeue.ErrShort))
}

// TestSyncOfDropped: a checkpoint that captured a topic before it was dropped names
// its files, so they are synced for it; those that were swept are not missed.
func TestSyncOfDropped(t *testing.T) {
	t.Parallel()
	fsys := newMem()
	s := open(t, fsys, consumequeue.Options{})
	fill(s.Queue("t", 8, 0), 5000)
	require.NoError(t, s.Flush())
	syncs := fsys.Calls(vfs.OpSync)
	s.Drop("t", 8)
	fsys.FailNth(vfs.OpSyncDir, 1, syscall.EIO) // all of it is to be synced again
	require.ErrorIs(t, s.Sync(), syscall.EIO)
	require.Equal(t, syncs+1, fsys.Calls(vfs.OpSync))
	require.NoError(t, s.Sweep())
	require.NoError(t, s.Sweep())
	require.NoError(t, s.Sync())
}
