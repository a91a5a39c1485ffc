package commitlog_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/vfs"
)

// laid is a record and where it lies.
type laid struct {
	pos  commitlog.Position
	size uint32
	body string

	from, to commitlog.Position // its frame
}

// fillZeros makes a payload of the tests that means nothing: it is all head, and
// has a length of head that no other has.
func fillZeros(payload []byte) {
	clear(payload)
	payload[0] = 1
}

// randomLog makes a log of several small segments: frames of one record, batches,
// reopened in between.
func randomLog(t *testing.T, rnd *rand.Rand) (all []laid, s *stored, start commitlog.Start) {
	o, _ := memOptions(t)
	o.SegmentBytes = 32 << 10
	frames := 30 + rnd.IntN(200)
	for life := range 1 + rnd.IntN(3) {
		l, _, _ := open(t, o, commitlog.Start{})
		for range frames {
			var bodies []string
			for range 1 + max(0, rnd.IntN(9)-4) {
				bodies = append(bodies, fmt.Sprintf("%d.%d.%s", life, len(all)+len(bodies), strings.Repeat("b", rnd.IntN(400))))
			}
			refs, end := put(t, l, bodies...)
			from := refs[0].Position
			if len(refs) > 1 {
				from -= commitlog.HeaderBytes
			}
			for i, r := range refs {
				all = append(all, laid{r.Position, r.Size, bodies[i], from, end})
			}
			if rnd.IntN(10) == 0 {
				require.NoError(t, l.Sync(ctx))
			}
		}
		start = commitlog.Start{}
		if rnd.IntN(2) == 0 {
			start = commitlog.Start{Synced: l.Written(), Clean: true}
			require.NoError(t, l.Close())
		}
		s = killed(t, o)
		o = s.o
	}
	return all, s, start
}

// damage changes some bytes and tells which positions were hit.
func (s *stored) damageAtRandom(rnd *rand.Rand, end commitlog.Position) (from, to commitlog.Position) {
	bases := s.bases()
	if len(bases) == 0 {
		return 0, 0
	}
	i := rnd.IntN(len(bases))
	next := commitlog.Position(1 << 60)
	if i+1 < len(bases) {
		next = bases[i+1]
	}
	if rnd.IntN(8) == 0 {
		require.NoError(s.t, s.mem.Remove(s.name(bases[i])))
		return bases[i], next
	}
	s.with(bases[i], func(f vfs.File) {
		size, err := f.Size()
		require.NoError(s.t, err)
		if size == 0 { // cut already
			return
		}
		size = max(1, min(size, int64(end-bases[i])))
		off := rnd.Int64N(size)
		from = bases[i] + commitlog.Position(off)
		n := min(size-off, 1+rnd.Int64N(1<<rnd.IntN(12)))
		b := make([]byte, n)
		switch rnd.IntN(4) {
		case 0:
			require.NoError(s.t, f.Cut(off))
			to = next
			return
		case 1: // zeros
		case 2:
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
		case 3:
			b = b[:1]
			_, err := f.ReadAt(b, off)
			require.NoError(s.t, err)
			b[0] ^= 1 << rnd.IntN(8)
		}
		_, err = f.WriteAt(b, off)
		require.NoError(s.t, err)
		to = from + commitlog.Position(len(b))
	})
	return from, to
}

// A salvaged log has no gaps, and every record whose own bytes are whole, at its
// place; and Examine says where the others were.
func TestSalvage(t *testing.T) {
	t.Parallel()
	for range 120 {
		seed := rand.Uint64()
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { salvageOnce(t, rand.New(rand.NewPCG(seed, 0))) }) {
			return
		}
	}
}

func salvageOnce(t *testing.T, rnd *rand.Rand) {
	all, s, start := randomLog(t, rnd)
	last := all[len(all)-1]
	end := last.pos + commitlog.Position(last.size)
	type hit struct{ from, to commitlog.Position }
	var hits []hit
	for range rnd.IntN(4) {
		from, to := s.damageAtRandom(rnd, end)
		hits = append(hits, hit{from, to})
	}
	untouched := func(from, to commitlog.Position) bool {
		for _, h := range hits {
			if from < h.to && to > h.from {
				return false
			}
		}
		return true
	}
	// A batch at the end that nothing proves to be synced is all or nothing.
	sure := end
	if !start.Clean {
		sure = 0
		for _, r := range all {
			if untouched(r.from, r.to) {
				sure = r.from
			}
		}
	}
	whole := func(r laid) bool {
		return untouched(r.pos, r.pos+commitlog.Position(r.size)) && (r.from <= sure || untouched(r.from, r.to))
	}
	before := image(t, s.mem)
	ro := s.o
	ro.FS = vfs.ReadOnly(s.mem)
	found, err := commitlog.Examine(ro, start, &commitlog.Examiner{})
	require.NoError(t, err)

	dst := vfs.NewMem(0)
	var told []string
	x := &commitlog.Examiner{Record: func(r commitlog.Record) error {
		told = append(told, fmt.Sprint(r.Position, string(r.Payload[testHead:])))
		return nil
	}}
	out, err := commitlog.Salvage(ro, start, x, commitlog.Target{FS: dst, Dir: "new", Fill: fillZeros})
	require.Equal(t, before, image(t, s.mem), "nothing is changed")
	if errors.Is(err, commitlog.ErrNotFound) {
		for _, r := range all {
			require.False(t, whole(r), "%+v", r)
		}
		return
	}
	require.NoError(t, err)
	o := s.o
	o.FS, o.Dir = dst, "new"
	var got []string
	l, rec, err := commitlog.Open(o, commitlog.Start{Synced: out.End}, func(r commitlog.Record) error {
		if r.Payload[0] != 1 {
			got = append(got, fmt.Sprint(r.Position, string(r.Payload[testHead:])))
		}
		return nil
	})
	require.NoError(t, err)
	defer l.Close()
	require.Empty(t, rec.Corrupt)
	require.Empty(t, rec.Cut)
	require.Equal(t, told, got)
	// Zeros may have been written where zeros were.
	kept := map[string]bool{}
	for _, r := range got {
		kept[r] = true
	}
	var want []string
	for _, r := range all {
		if name := fmt.Sprint(r.pos, r.body); kept[name] || whole(r) {
			want = append(want, name)
		}
	}
	require.Equal(t, want, got)
	if len(want) < len(all) {
		// A log that was killed may end anywhere: what is cut off whole frames
		// leaves no trace but the length of the file.
		n := len(found.Gaps) + len(found.Torn) + len(found.Short)
		removed := false
		for _, h := range hits {
			removed = removed || h.to-h.from > 16<<10
		}
		if start.Clean || !removed {
			require.NotZero(t, n, "%+v", hits)
		}
	}
	again := o
	again.FS = vfs.ReadOnly(dst)
	found, err = commitlog.Examine(again, commitlog.Start{}, &commitlog.Examiner{})
	require.NoError(t, err)
	require.Empty(t, found.Gaps)
	require.Empty(t, found.Torn)
}

// image is the content of all files.
func image(t *testing.T, m *vfs.Mem) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	var walk func(dir string)
	walk = func(dir string) {
		list, err := m.List(dir)
		require.NoError(t, err)
		for _, e := range list {
			if e.Dir {
				walk(dir + "/" + e.Name)
				continue
			}
			f, err := m.Open(dir + "/" + e.Name)
			require.NoError(t, err)
			b := make([]byte, e.Size)
			_, err = f.ReadAt(b, 0)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			files[dir+"/"+e.Name] = b
		}
	}
	walk(".")
	return files
}

// Of a batch that is damaged in the middle, the other records are whole: the
// replay hands them out, as a scan does.
func TestWholeRecordsOfADamagedBatch(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "before")
	refs, _ := put(t, l, "a", "b", "c")
	put(t, l, "behind")
	require.NoError(t, l.Sync(ctx))
	put(t, l, "proof")
	for at, want := range map[commitlog.Position][]string{
		refs[0].Position - 1:  {"before", "a", "b", "c", "behind", "proof"}, // hash of the batch
		refs[0].Position + 30: {"before", "b", "c", "behind", "proof"},
		refs[1].Position:      {"before", "a", "c", "behind", "proof"},
		refs[2].Position + commitlog.Position(refs[2].Size) - 1: {"before", "a", "b", "behind", "proof"},
	} {
		s := killed(t, o)
		s.flip(at)
		l, rec, got := s.open(commitlog.Start{})
		assert.Equal(t, want, got)
		assert.Len(t, rec.Corrupt, 1)
		err := l.Scan(0, l.Written(), func(commitlog.Record) error { return nil })
		assert.ErrorIs(t, err, commitlog.ErrCorrupt)
	}
}

// A store whose only header and whose first frames are lost is still known by the
// frames behind them.
func TestStoreIDFromLaterFrames(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	put(t, l, "b")
	refs, _ := put(t, l, "c", "d")
	put(t, l, "e")
	s := killed(t, o)
	s.zero(0, refs[0].Position-24)
	l2, rec, got := s.open(commitlog.Start{Synced: l.Written()})
	assert.Equal(t, []string{"c", "d", "e"}, got)
	assert.Len(t, rec.Corrupt, 1)
	assert.Equal(t, l.StoreID(), l2.StoreID())
}

// What is missing at the front is noticed by the whole log.
func TestExamineFirstSegmentMissing(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	for _, b := range numbered(150, 1000) {
		put(t, l, b)
	}
	s := killed(t, o)
	found, err := commitlog.Examine(s.o, commitlog.Start{}, &commitlog.Examiner{})
	require.NoError(t, err)
	require.Empty(t, found.Gaps)
	require.NoError(t, s.mem.Remove(s.name(0)))
	found, err = commitlog.Examine(s.o, commitlog.Start{}, &commitlog.Examiner{})
	require.NoError(t, err)
	require.Len(t, found.Gaps, 1)
	require.True(t, found.Gaps[0].Missing())
	require.Equal(t, commitlog.Position(0), found.Gaps[0].From)
	_, err = commitlog.Examine(commitlog.Options{FS: vfs.NewMem(0), Dir: "none", HeadLen: headLen}, commitlog.Start{}, &commitlog.Examiner{})
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
}
