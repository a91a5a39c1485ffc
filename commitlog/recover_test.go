package commitlog_test

import (
	"encoding/binary"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/vfs"
)

// stored is what a process that was killed leaves, to be damaged and opened.
type stored struct {
	t   *testing.T
	mem *vfs.Mem
	o   commitlog.Options
}

// killed returns what is stored at this moment.
func killed(t *testing.T, o commitlog.Options) *stored {
	s := &stored{t: t, mem: o.FS.(*vfs.Mem).Clone(), o: o}
	s.o.FS = s.mem
	return s
}

func (s *stored) name(base commitlog.Position) string {
	return filepath.Join(s.o.Dir, segmentName(base))
}

func (s *stored) with(base commitlog.Position, use func(f vfs.File)) {
	s.t.Helper()
	f, err := s.mem.Open(s.name(base))
	require.NoError(s.t, err)
	use(f)
	require.NoError(s.t, f.Close())
}

// flip damages one byte; the segment is found by position.
func (s *stored) flip(pos commitlog.Position) {
	s.t.Helper()
	base := s.baseOf(pos)
	s.with(base, func(f vfs.File) {
		b := []byte{0}
		_, err := f.ReadAt(b, int64(pos-base))
		require.NoError(s.t, err)
		b[0] ^= 0x55
		_, err = f.WriteAt(b, int64(pos-base))
		require.NoError(s.t, err)
	})
}

// zero loses [from, to), as a page that was not written back.
func (s *stored) zero(from, to commitlog.Position) {
	s.t.Helper()
	base := s.baseOf(from)
	s.with(base, func(f vfs.File) {
		_, err := f.WriteAt(make([]byte, to-from), int64(from-base))
		require.NoError(s.t, err)
	})
}

func (s *stored) bases() (bases []commitlog.Position) {
	list, err := s.mem.List(s.o.Dir)
	require.NoError(s.t, err)
	for _, e := range list {
		var n commitlog.Position
		for _, c := range strings.TrimLeft(e.Name, "0") {
			n = n*10 + commitlog.Position(c-'0')
		}
		bases = append(bases, n)
	}
	return bases
}

func (s *stored) baseOf(pos commitlog.Position) commitlog.Position {
	bases := s.bases()
	i, found := slices.BinarySearch(bases, pos)
	if found {
		return bases[i]
	}
	require.Positive(s.t, i)
	return bases[i-1]
}

func (s *stored) open(from commitlog.Start) (*commitlog.Log, *commitlog.Recovery, []string) {
	s.t.Helper()
	return open(s.t, s.o, from)
}

// again kills the log that was opened on s.
func (s *stored) again() *stored { return killed(s.t, s.o) }

func newLog(t *testing.T) (*commitlog.Log, commitlog.Options) {
	o, _ := memOptions(t)
	o.SegmentBytes = 64 << 10
	l, _, _ := open(t, o, commitlog.Start{})
	return l, o
}

func TestRecoverAfterKill(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	bodies := numbered(300, 1000)
	for _, b := range bodies {
		put(t, l, b)
	}
	l2, rec, got := killed(t, o).open(commitlog.Start{})
	assert.Equal(t, bodies, got)
	assert.False(t, rec.Clean)
	assert.Empty(t, rec.Cut)
	assert.Empty(t, rec.Corrupt)
	assert.Positive(t, rec.Rewritten)
	assert.Equal(t, uint32(2), rec.Epoch)
	assert.Equal(t, int64(300), rec.Replayed)
	assert.Equal(t, l.StoreID(), l2.StoreID())
	assert.Equal(t, l2.Written(), l2.Synced())
	assert.Equal(t, bodies, scan(t, l2))
	put(t, l2, "new")
}

func TestRecoverFromACheckpoint(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	bodies := numbered(300, 1000)
	marks := make([]commitlog.Position, len(bodies))
	for i, b := range bodies {
		marks[i] = l.Written()
		put(t, l, b)
	}
	require.NoError(t, l.Sync(ctx))
	s := killed(t, o)
	for _, i := range []int{0, 1, 59, 60, 61, 150, 299} {
		_, rec, got := s.again().open(commitlog.Start{From: marks[i], Synced: marks[i]})
		assert.Equal(t, bodies[i:], got, "from %d", i)
		assert.Empty(t, rec.Corrupt)
	}
	// Every value of Written may be a beginning, the end included.
	_, rec, got := s.again().open(commitlog.Start{From: l.Written(), Synced: l.Written()})
	assert.Empty(t, got)
	assert.Empty(t, rec.Corrupt)
	assert.Zero(t, rec.Rewritten)
}

func TestUnusedSuccessor(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	for i := range 40 { // beyond a quarter: a successor is prepared
		put(t, l, numbered(40, 1000)[i])
	}
	require.Eventually(t, func() bool { return len(killed(t, o).bases()) == 2 }, waitTime, pollTime)
	s := killed(t, o)
	require.Len(t, l.Segments(), 1)
	l2, rec, got := s.open(commitlog.Start{})
	assert.Len(t, got, 40)
	assert.Empty(t, rec.Cut)
	assert.Empty(t, rec.Corrupt)
	for range 100 {
		put(t, l2, string(make([]byte, 1000)))
	}
	_, _, got = s.again().open(commitlog.Start{})
	assert.Len(t, got, 140)
}

// Catches: not writing again what is not proven to be on the disk.
func TestRewriteAfterUncleanEnd(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	require.NoError(t, l.Sync(ctx))
	proven := l.Synced()
	put(t, l, "b") // notes the mark
	_, end := put(t, l, "c")
	s := killed(t, o)
	s.mem.Record()
	_, rec, _ := s.open(commitlog.Start{})
	assert.Equal(t, int64(end-proven), rec.Rewritten)
	written, synced := commitlog.Position(0), false
	for _, c := range s.mem.Ops() {
		switch {
		case c.Op == vfs.OpWrite && c.Off == int64(proven):
			written = commitlog.Position(c.Off + c.Size)
		case c.Op == vfs.OpSync && written == end:
			synced = true
		case c.Op == vfs.OpCommit:
			require.True(t, synced, "before anything is appended")
		}
	}
	assert.Equal(t, end, written)
	assert.True(t, synced)
}

// Catches: deletions that the folder was not synced after; cutting first.
func TestFinalityOrder(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	var all []commitlog.Ref
	for len(l.Segments()) < 4 {
		refs, _ := put(t, l, string(make([]byte, 5000)))
		all = append(all, refs...)
	}
	s := killed(t, o)
	s.flip(all[3].Position) // nothing was synced: the end
	bases := s.bases()
	s.mem.Record()
	_, rec, got := s.open(commitlog.Start{})
	assert.Len(t, got, 3)
	assert.GreaterOrEqual(t, len(rec.Cut), 4, "one stretch per file")
	var steps []string
	for _, c := range s.mem.Ops() {
		switch c.Op {
		case vfs.OpRemove, vfs.OpSyncDir, vfs.OpCut, vfs.OpAllocate, vfs.OpSync, vfs.OpCommit:
			steps = append(steps, c.Op.String()+" "+filepath.Base(c.Name))
		}
	}
	var want []string
	for i := len(bases) - 1; i > 0; i-- {
		want = append(want, "remove "+segmentName(bases[i]))
	}
	first := segmentName(0)
	want = append(want, "sync folder "+o.Dir, "cut "+first, "allocate "+first, "sync "+first)
	require.GreaterOrEqual(t, len(steps), len(want))
	assert.Equal(t, want, steps[:len(want)])
	assert.Contains(t, steps[len(want):], "commit "+first, "the EPOCH frame")
}

// Catches: not raising the epoch.
func TestEpoch(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	lost, _ := put(t, l, "lost")
	s := killed(t, o)
	s.zero(lost[0].Position, lost[0].Position+8)
	for want := uint32(2); want < 5; want++ {
		var epochs []uint32
		l2, rec, err := commitlog.Open(s.o, commitlog.Start{}, func(r commitlog.Record) error {
			epochs = append(epochs, r.Epoch)
			return nil
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = l2.Close() })
		assert.Equal(t, want, rec.Epoch)
		assert.Equal(t, want, l2.Epoch())
		assert.Equal(t, want-1, epochs[len(epochs)-1])
		assert.Equal(t, l2.Written(), l2.Synced(), "the raise is synced")
		put(t, l2, "b")
		s = s.again()
	}
	// It is found also if replay begins behind the frame that raised it, and a
	// frame of an older epoch is none.
	l3, _, _ := s.open(commitlog.Start{})
	at := l3.Written()
	require.NoError(t, l3.Close())
	l4, rec, _ := s.again().open(commitlog.Start{From: at, Synced: at, Clean: true})
	assert.True(t, rec.Clean)
	assert.Equal(t, uint32(5), l4.Epoch())
	_, rec, _ = s.again().open(commitlog.Start{From: at, Synced: at})
	assert.Equal(t, uint32(6), rec.Epoch)
	_, rec, _ = s.again().open(commitlog.Start{From: at, Synced: at, Epoch: 9})
	assert.Equal(t, uint32(10), rec.Epoch)
}

// A clean start takes no recovery, but only if nothing lies behind it.
func TestCleanStart(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	at := l.Written()
	require.NoError(t, l.Close())
	clean := commitlog.Start{From: at, Synced: at, Clean: true}
	s := killed(t, o)
	s.mem.Record()
	l2, rec, got := s.open(clean)
	assert.Empty(t, got)
	assert.Equal(t, &commitlog.Recovery{Clean: true, Start: 0, End: at, Epoch: 1}, rec)
	for _, c := range s.mem.Ops() {
		assert.NotContains(t, []vfs.Op{vfs.OpWrite, vfs.OpCommit, vfs.OpRemove, vfs.OpCut}, c.Op)
	}
	put(t, l2, "b") // the mark was not withdrawn: still found
	l3, rec, got := s.again().open(clean)
	assert.False(t, rec.Clean)
	assert.Equal(t, []string{"b"}, got)
	assert.Equal(t, uint32(2), l3.Epoch())
	// The file is longer, though with zeros: a kill before the first append.
	s = killed(t, o)
	s.with(0, func(f vfs.File) { require.NoError(t, f.Cut(64<<10)) })
	_, rec, _ = s.open(clean)
	assert.False(t, rec.Clean)
	// A close while the last segment is empty.
	l, o = newLog(t)
	for len(l.Segments()) < 2 {
		put(t, l, string(make([]byte, 7000)))
	}
	at = l.Written()
	require.NoError(t, l.Close())
	_, rec, _ = killed(t, o).open(commitlog.Start{From: at, Synced: at, Clean: true})
	assert.True(t, rec.Clean)
}

func TestUnknownVersionChangesNothing(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	s := killed(t, o)
	s.with(0, func(f vfs.File) {
		b := make([]byte, 64)
		_, err := f.ReadAt(b, 0)
		require.NoError(t, err)
		binary.LittleEndian.PutUint32(b[8:], 2)
		binary.LittleEndian.PutUint64(b[56:], commitlog.BodyHash(b[:56]))
		_, err = f.WriteAt(b, 0)
		require.NoError(t, err)
	})
	s.mem.Record()
	_, _, err := commitlog.Open(s.o, commitlog.Start{}, func(commitlog.Record) error { return nil })
	require.ErrorIs(t, err, commitlog.ErrVersion)
	for _, c := range s.mem.Ops() {
		assert.Contains(t, []vfs.Op{vfs.OpList, vfs.OpOpen, vfs.OpRead, vfs.OpClose}, c.Op)
	}
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	require.NoError(t, mem.MkdirAll(o.Dir))
	_, err := mem.Create(filepath.Join(o.Dir, "notes.txt"), 3)
	require.NoError(t, err)
	open(t, o, commitlog.Start{})
	_, err = mem.Open(filepath.Join(o.Dir, "notes.txt"))
	assert.NotErrorIs(t, err, fs.ErrNotExist)
}

// An error of replay, or of reading, ends opening; nothing was changed.
func TestOpenFailsWithReplay(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	s := killed(t, o)
	s.mem.Record()
	_, _, err := commitlog.Open(s.o, commitlog.Start{}, func(commitlog.Record) error { return assert.AnError })
	require.ErrorIs(t, err, assert.AnError)
	s.mem.FailNth(vfs.OpRead, 2, assert.AnError) // the first is the header
	_, _, err = commitlog.Open(s.o, commitlog.Start{}, func(commitlog.Record) error { return nil })
	require.ErrorIs(t, err, assert.AnError, "what cannot be read is not deleted")
	for _, c := range s.mem.Ops() {
		assert.NotContains(t, []vfs.Op{vfs.OpWrite, vfs.OpRemove, vfs.OpCut, vfs.OpAllocate}, c.Op)
	}
	_, _, got := s.open(commitlog.Start{})
	assert.Equal(t, []string{"a"}, got)
}
