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

// Cutting or zeroing the tail at every byte never costs more than the frames
// that are hit, and never an opening.
func TestTornTail(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	var ends []commitlog.Position
	bodies := []string{"first", "second of them", "", "and the last"}
	for _, b := range bodies {
		_, end := put(t, l, b)
		ends = append(ends, end)
	}
	s := killed(t, o)
	for at := ends[0]; at < l.Written(); at++ {
		whole := 0
		for whole < len(ends) && ends[whole] <= at {
			whole++
		}
		cut := s.again()
		cut.with(0, func(f vfs.File) { require.NoError(t, f.Cut(int64(at))) })
		l, rec, got := cut.open(commitlog.Start{})
		// The padding of the last frame may be missing: its bytes are all there.
		if len(got) != whole {
			require.Equal(t, bodies[:whole+1], got, "cut at %d", at)
			require.Less(t, ends[whole]-at, commitlog.Position(8))
		} else {
			require.Equal(t, bodies[:whole], got, "cut at %d", at)
		}
		require.Empty(t, rec.Corrupt)
		put(t, l, "more")
		_, _, got = cut.again().open(commitlog.Start{})
		require.Equal(t, "more", got[len(got)-1])
	}
}

// A later valid frame whose noted mark lies beyond the place proves damage.
func TestDamageWithProof(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	refs, _ := put(t, l, "a")
	bad, _ := put(t, l, "b")
	more, _ := put(t, l, "c")
	require.NoError(t, l.Sync(ctx))
	last, _ := put(t, l, "d")
	s := killed(t, o)
	s.flip(bad[0].Position + 30)
	l2, rec, got := s.open(commitlog.Start{})
	assert.Equal(t, []string{"a", "c", "d"}, got)
	require.Len(t, rec.Corrupt, 1)
	assert.ErrorIs(t, rec.Corrupt[0], commitlog.ErrCorrupt)
	assert.Equal(t, int64(bad[0].Position), rec.Corrupt[0].Offset)
	assert.Equal(t, s.name(0), rec.Corrupt[0].File)
	assert.Empty(t, rec.Cut, "everything is kept")

	assert.Equal(t, []string{"a", "c", "d"}, read(t, l2, slices.Concat(refs, more, last)))
	l2.Read(bad, func(_ int, _ commitlog.Record, err error) bool {
		assert.ErrorIs(t, err, commitlog.ErrCorrupt)
		return true
	})
	var corrupt *commitlog.CorruptionError
	err := l2.Scan(0, l2.Written(), func(commitlog.Record) error { return nil })
	require.ErrorAs(t, err, &corrupt)
	assert.Equal(t, int64(bad[0].Position), corrupt.Offset)
	// It stays found, and stays damage.
	_, rec, got = s.again().open(commitlog.Start{})
	assert.Equal(t, []string{"a", "c", "d"}, got)
	assert.Len(t, rec.Corrupt, 1)
}

// Without proof the same damage is a torn tail, and what lies behind it must not
// rise again. Catches: the end not made final.
func TestStaleFrameDoesNotRise(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	torn, _ := put(t, l, "b")
	put(t, l, "stale")
	s := killed(t, o)
	s.flip(torn[0].Position + 30)
	l2, rec, got := s.open(commitlog.Start{})
	assert.Equal(t, []string{"a"}, got)
	assert.Empty(t, rec.Corrupt)
	require.Len(t, rec.Cut, 1)
	assert.Equal(t, torn[0].Position, rec.Cut[0].From)
	assert.GreaterOrEqual(t, rec.Cut[0].To, l.Written()-8)
	// The stale frame lies where a frame as large as the EPOCH frame and this
	// one would end, if it were still there.
	assert.Equal(t, []string{"a"}, scan(t, l2))
	base := s.baseOf(torn[0].Position)
	s.with(base, func(f vfs.File) {
		size, err := f.Size()
		require.NoError(t, err)
		behind := make([]byte, size-int64(l2.Written()))
		_, err = f.ReadAt(behind, int64(l2.Written()))
		require.NoError(t, err)
		assert.Equal(t, make([]byte, len(behind)), behind, "zeros behind the end")
	})
}

// The same where the damage is a page of zeros and the frame behind it begins
// exactly where the shorter tail will end.
func TestStaleFrameBehindZeros(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	const epochFrame = 48
	hole, _ := put(t, l, strings.Repeat("x", epochFrame-24-testHead)) // as large as the EPOCH frame
	require.Equal(t, uint32(epochFrame), hole[0].Size)
	put(t, l, "stale")
	s := killed(t, o)
	s.zero(hole[0].Position, hole[0].Position+epochFrame)
	_, _, got := s.open(commitlog.Start{})
	assert.Equal(t, []string{"a"}, got)
	_, _, got = s.again().open(commitlog.Start{})
	assert.Equal(t, []string{"a"}, got, "after another kill")
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

// A successor that is missing, empty or torn after END is simply the end.
func TestMissingSuccessor(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(s *stored, base commitlog.Position){
		"missing": func(s *stored, base commitlog.Position) { require.NoError(s.t, s.mem.Remove(s.name(base))) },
		"empty":   func(s *stored, base commitlog.Position) { s.with(base, func(f vfs.File) { _ = f.Cut(0) }) },
		"zeros":   func(s *stored, base commitlog.Position) { s.zero(base, base+64) },
		"torn":    func(s *stored, base commitlog.Position) { s.zero(base+20, base+64) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, o := newLog(t)
			n := 0
			for len(l.Segments()) < 2 {
				n++
				put(t, l, string(make([]byte, 1000)))
			}
			s := killed(t, o)
			base := l.Segments()[1].Base
			for _, later := range s.bases() {
				if later > base {
					require.NoError(t, s.mem.Remove(s.name(later)))
				}
			}
			// The frame that made the log roll lies in the successor.
			s.with(base, func(f vfs.File) { require.NoError(t, f.Cut(64)) })
			damage(s, base)
			l2, rec, got := s.open(commitlog.Start{})
			assert.Len(t, got, n-1)
			assert.Empty(t, rec.Corrupt)
			assert.Equal(t, base, l2.Segments()[1].Base, "made again under that base")
			put(t, l2, "more")
			_, _, got = s.again().open(commitlog.Start{})
			assert.Equal(t, "more", got[len(got)-1])
		})
	}
}

// A header that was damaged later is no torn one: frames lie behind it.
func TestDamagedSegmentHeader(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	bodies := numbered(150, 1000)
	for _, b := range bodies {
		put(t, l, b)
	}
	require.Len(t, l.Segments(), 3)
	s := killed(t, o)
	for _, seg := range l.Segments() {
		d := s.again()
		d.flip(seg.Base + 20)
		l2, rec, got := d.open(commitlog.Start{})
		assert.Equal(t, bodies, got)
		require.NotEmpty(t, rec.Corrupt)
		assert.Equal(t, d.name(seg.Base), rec.Corrupt[0].File)
		assert.Equal(t, l.StoreID(), l2.StoreID())
		put(t, l2, "more")
		_, _, got = d.again().open(commitlog.Start{})
		assert.Equal(t, append(bodies[:150:150], "more"), got)
	}
}

// With one segment the header is the only place that says the store's id; the
// frames know it too.
func TestDamagedHeaderOfTheOnlySegment(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	put(t, l, "b", "c")
	for at := commitlog.Position(0); at < 64; at++ {
		s := killed(t, o)
		s.flip(at)
		l2, rec, got := s.open(commitlog.Start{})
		require.Equal(t, []string{"a", "b", "c"}, got, "byte %d", at)
		require.Len(t, rec.Corrupt, 1)
		require.Equal(t, l.StoreID(), l2.StoreID())
	}
}

// A log that ends before what a checkpoint proves is damaged; it goes on above.
func TestLogEndsBeforeTheProvenMark(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	refs, _ := put(t, l, "b")
	_, end := put(t, l, "c")
	require.NoError(t, l.Sync(ctx))
	s := killed(t, o)
	s.with(0, func(f vfs.File) { require.NoError(t, f.Cut(int64(refs[0].Position))) })
	start := commitlog.Start{Synced: end}
	l2, rec, got := s.open(start)
	assert.Equal(t, []string{"a"}, got)
	require.Len(t, rec.Corrupt, 1)
	assert.Equal(t, int64(refs[0].Position), rec.Corrupt[0].Offset)
	assert.False(t, rec.Clean)
	more, _ := put(t, l2, "d")
	assert.Greater(t, more[0].Position, end, "no position comes back")
	require.NoError(t, l2.Sync(ctx))
	assert.Equal(t, []string{"d"}, read(t, l2, more))
	_, rec, got = s.again().open(start)
	assert.Equal(t, []string{"a", "d"}, got)
	assert.Len(t, rec.Corrupt, 1)
	// A log that is gone altogether.
	gone, _ := memOptions(t)
	l3, rec, got := open(t, gone, start)
	assert.Empty(t, got)
	assert.Len(t, rec.Corrupt, 1)
	assert.GreaterOrEqual(t, l3.Start(), end)
	put(t, l3, "e")
}

// A frame that was never proven must not appear behind a hole that was.
func TestShortLogIsCutAtTheProvenMark(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	b, _ := put(t, l, "b")
	require.NoError(t, l.Sync(ctx))
	proven := l.Synced()
	c, _ := put(t, l, "lost page")
	put(t, l, "never synced")
	s := killed(t, o)
	s.zero(b[0].Position, proven)
	s.zero(c[0].Position, c[0].Position+40)
	// What lies behind noted the mark, which proves the hole.
	_, rec, got := s.open(commitlog.Start{Synced: proven})
	assert.Equal(t, []string{"a"}, got)
	assert.Len(t, rec.Corrupt, 1)
	assert.NotEmpty(t, rec.Cut)
	_, _, got = s.again().open(commitlog.Start{Synced: proven})
	assert.Equal(t, []string{"a"}, got)
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

// Somebody's body full of our own frames is none of them.
func TestFramesInsideABody(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	raw := make([]byte, 4096)
	killed(t, o).with(0, func(f vfs.File) { _, _ = f.ReadAt(raw, 0) })
	big, _ := put(t, l, string(raw))
	require.NoError(t, l.Sync(ctx))
	put(t, l, "b")
	s := killed(t, o)
	s.flip(big[0].Position + 30)
	_, rec, got := s.open(commitlog.Start{})
	assert.Equal(t, []string{"a", "b"}, got)
	assert.Len(t, rec.Corrupt, 1)
}
