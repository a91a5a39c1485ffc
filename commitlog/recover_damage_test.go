package commitlog_test

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/vfs"
)

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

// TestShortSegmentWhoseCutIsUndone: a segment for which the disk had less room
// than its capacity is cut behind END, and the power takes that back. What lies
// behind END is not damage.
func TestShortSegmentWhoseCutIsUndone(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(0)
	o := commitlog.Options{FS: mem, Dir: "log", SegmentBytes: 256 << 10, HeadLen: headLen}
	l, _, _ := open(t, o, commitlog.Start{})
	put(t, l, "a")
	end := l.Written()
	require.NoError(t, l.Close())
	// Room for an END frame, and little more.
	mem.FailNth(vfs.OpAllocate, 1, syscall.ENOSPC)
	l, _, _ = open(t, o, commitlog.Start{From: end, Synced: end, Clean: true})
	var short int64
	for len(l.Segments()) < 2 {
		short = l.Segments()[0].Bytes
		put(t, l, string(make([]byte, 1500)))
	}
	require.Less(t, short, int64(64<<10))
	put(t, l, "b")
	want := scan(t, l)
	end = l.Written()
	require.NoError(t, l.Close())
	f, err := mem.Open(filepath.Join(o.Dir, segmentName(0)))
	require.NoError(t, err)
	size, err := f.Size()
	require.NoError(t, err)
	require.Less(t, size, short)
	require.NoError(t, f.Cut(short))
	require.NoError(t, f.Close())
	l, rec, _ := open(t, o, commitlog.Start{From: end, Synced: end, Clean: true})
	require.True(t, rec.Clean)
	require.Equal(t, want, scan(t, l))
}
