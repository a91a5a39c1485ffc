package keyindex_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/keyindex"
	"github.com/pocketmq/mq/internal/vfs"
)

const dir = "store/index"

func open(t *testing.T, fsys vfs.FS) *keyindex.Index {
	t.Helper()
	x, err := keyindex.Open(fsys, dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, x.Close()) })
	return x
}

// found looks a hash up.
func found(t *testing.T, x *keyindex.Index, hash uint64) []coord.Position {
	t.Helper()
	var got []coord.Position
	require.NoError(t, x.Lookup(hash, func(pos coord.Position) bool {
		got = append(got, pos)
		return true
	}))
	return got
}

func names(t *testing.T, fsys vfs.FS) []string {
	t.Helper()
	entries, err := fsys.List(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names
}

func name(from, to coord.Position) string { return fmt.Sprintf("%020d-%020d", from, to) }

func TestLookupNewestFirst(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1 << 20)
	x := open(t, fsys)
	require.Empty(t, found(t, x, 7))
	for pos := coord.Position(0); pos < 60; pos += 10 {
		x.Add(7, pos)
		x.Add(8, pos)
	}
	want := []coord.Position{50, 40, 30, 20, 10, 0}
	require.Equal(t, want, found(t, x, 7))
	require.EqualValues(t, 12*16, x.Pending())
	require.NoError(t, x.Flush(20))
	require.Equal(t, want, found(t, x, 7))
	require.NoError(t, x.Flush(40))
	require.Equal(t, want, found(t, x, 7))
	require.EqualValues(t, 40, x.Covered())
	require.NoError(t, x.Flush(40))
	require.NoError(t, x.Flush(30))
	require.Equal(t, []string{name(0, 20), name(20, 40)}, names(t, fsys))
	require.Empty(t, found(t, x, 9))

	for stop := 1; stop <= len(want); stop++ {
		var got []coord.Position
		require.NoError(t, x.Lookup(7, func(pos coord.Position) bool {
			got = append(got, pos)
			return len(got) < stop
		}))
		require.Equal(t, want[:stop], got)
	}
}

func TestFlushWithoutPairsMakesNoFile(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1 << 20)
	x := open(t, fsys)
	x.Add(1, 5)
	require.NoError(t, x.Flush(10))
	require.NoError(t, x.Flush(20))
	require.EqualValues(t, 20, x.Covered())
	x.Add(1, 25)
	require.NoError(t, x.Flush(30))
	require.Equal(t, []string{name(0, 10), name(10, 30)}, names(t, fsys), "no gap in the names")

	x = open(t, fsys)
	require.EqualValues(t, 30, x.Covered())
	x.Add(1, 25)
	x.Add(1, 35)
	require.Equal(t, []coord.Position{35, 25, 5}, found(t, x, 1), "a replay adds nothing twice")
}

func TestFlushIsDurable(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1 << 20)
	x := open(t, fsys)
	x.Add(1, 5)
	fsys.Record()
	require.NoError(t, x.Flush(10))
	var ops []string
	for _, c := range fsys.Ops() {
		switch c.Op {
		case vfs.OpWrite, vfs.OpSync, vfs.OpRename, vfs.OpSyncDir:
			ops = append(ops, c.Op.String()+" "+filepath.ToSlash(c.Name))
		}
	}
	tmp := dir + "/" + name(0, 10) + ".tmp"
	require.Equal(t, []string{
		"write " + tmp, "write " + tmp, "sync " + tmp, "rename " + tmp, "sync folder " + dir, "sync folder store",
	}, ops)
}

// Whatever call of a flush fails, the pairs are still found, the next flush
// succeeds, and opening again finds them once.
func TestFailedFlushLosesNothing(t *testing.T) {
	t.Parallel()
	for _, op := range []vfs.Op{vfs.OpMkdirAll, vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpClose, vfs.OpRename, vfs.OpSyncDir} {
		for nth := 1; nth <= 2; nth++ {
			t.Run(fmt.Sprint(op, nth), func(t *testing.T) {
				t.Parallel()
				fsys := vfs.NewMem(1 << 20)
				x := open(t, fsys)
				x.Add(1, 5)
				fsys.FailNth(op, nth, syscall.EIO)
				if err := x.Flush(10); err != nil {
					require.ErrorIs(t, err, syscall.EIO)
					require.Zero(t, x.Covered())
				}
				require.Equal(t, []coord.Position{5}, found(t, x, 1))
				x.Add(1, 15)
				if err := x.Flush(20); err != nil { // the second call was in here
					require.ErrorIs(t, err, syscall.EIO)
					require.Equal(t, []coord.Position{15, 5}, found(t, x, 1))
					require.NoError(t, x.Flush(20))
				}
				require.Equal(t, []coord.Position{15, 5}, found(t, x, 1))

				x = open(t, fsys)
				require.EqualValues(t, 20, x.Covered())
				require.Equal(t, []coord.Position{15, 5}, found(t, x, 1))
				for _, n := range names(t, fsys) {
					require.NotContains(t, n, "tmp")
				}
			})
		}
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1 << 20)
	x := open(t, fsys)
	for pos := coord.Position(0); pos < 50; pos += 10 {
		x.Add(1, pos)
		require.NoError(t, x.Flush(pos+10))
	}
	for _, row := range []struct {
		to, covered coord.Position
		files       int
	}{{100, 50, 5}, {50, 50, 5}, {39, 30, 3}, {10, 10, 1}, {9, 0, 0}, {0, 0, 0}} {
		x = open(t, fsys)
		require.NoError(t, x.Limit(row.to))
		require.Equal(t, row.covered, x.Covered())
		require.Len(t, names(t, fsys), row.files)
		x.Add(1, row.covered)
		require.Len(t, found(t, x, 1), row.files+1)
	}
}

func TestDropBefore(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1 << 20)
	x := open(t, fsys)
	for pos := coord.Position(0); pos < 50; pos += 10 {
		x.Add(1, pos)
		require.NoError(t, x.Flush(pos+10))
	}
	require.NoError(t, x.DropBefore(9))
	require.Len(t, names(t, fsys), 5)
	require.NoError(t, x.DropBefore(25))
	require.Equal(t, []string{name(20, 30), name(30, 40), name(40, 50)}, names(t, fsys))
	require.Equal(t, []coord.Position{40, 30, 20}, found(t, x, 1))
	require.NoError(t, x.DropBefore(1000))
	require.Empty(t, names(t, fsys))
	require.EqualValues(t, 50, x.Covered())
	x.Add(1, 60)
	require.NoError(t, x.Flush(70))
	require.Equal(t, []string{name(50, 70)}, names(t, fsys))
}

func TestOpenTidiesUp(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1 << 20)
	x := open(t, fsys)
	x.Add(1, 5)
	require.NoError(t, x.Flush(10))
	for _, n := range []string{
		name(10, 20) + ".tmp", "notes.txt", name(20, 10), name(5, 8), name(5, 15), "x" + name(0, 10)[1:],
	} {
		f, err := fsys.Create(filepath.Join(dir, n), 100)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	x = open(t, fsys)
	require.Equal(t, []string{name(0, 10), name(20, 10), "notes.txt", "x" + name(0, 10)[1:]}, names(t, fsys))
	err := x.Lookup(1, func(coord.Position) bool { return true })
	var corrupt *keyindex.CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.Equal(t, [2]coord.Position{10, 15}, [2]coord.Position{corrupt.From, corrupt.To}, "what only a useless file covered")

	fsys.FailNth(vfs.OpList, 1, syscall.EIO)
	_, err = keyindex.Open(fsys, dir)
	require.ErrorIs(t, err, syscall.EIO)
}

// A file that is damaged in any way is named, the others still answer, and it
// can be made again.
func TestDamage(t *testing.T) {
	t.Parallel()
	change := func(f func(raw []byte) []byte) func(t *testing.T, fsys vfs.FS, path string) {
		return func(t *testing.T, fsys vfs.FS, path string) {
			h, err := fsys.Open(path)
			require.NoError(t, err)
			size, err := h.Size()
			require.NoError(t, err)
			raw := make([]byte, size)
			_, err = h.ReadAt(raw, 0)
			require.NoError(t, err)
			raw = f(raw)
			require.NoError(t, h.Cut(int64(len(raw))))
			_, err = h.WriteAt(raw, 0)
			require.NoError(t, err)
			require.NoError(t, h.Close())
		}
	}
	flip := func(at int) func(t *testing.T, fsys vfs.FS, path string) {
		return change(func(raw []byte) []byte { raw[at] ^= 1; return raw })
	}
	for _, row := range []struct {
		name    string
		corrupt func(t *testing.T, fsys vfs.FS, path string)
	}{
		{"missing", func(t *testing.T, fsys vfs.FS, path string) { require.NoError(t, fsys.Remove(path)) }},
		{"empty", change(func(raw []byte) []byte { return nil })},
		{"header only", change(func(raw []byte) []byte { return raw[:40] })},
		{"cut", change(func(raw []byte) []byte { return raw[:len(raw)-1] })},
		{"longer", change(func(raw []byte) []byte { return append(raw, 0) })},
		{"zeroed", change(func(raw []byte) []byte { return make([]byte, len(raw)) })},
		{"zeroed behind the header", change(func(raw []byte) []byte { clear(raw[40:]); return raw })},
		{"magic", flip(0)},
		{"version", flip(4)},
		{"reserved", flip(6)},
		{"from", flip(8)},
		{"pairs", flip(24)},
		{"header hash", flip(39)},
		{"pair", flip(40)},
		{"padding", flip(40 + 1000)},
		{"page number", flip(40 + 4080)},
		{"page hash", flip(40 + 4095)},
		{"other file", func(t *testing.T, fsys vfs.FS, path string) {
			require.NoError(t, fsys.Rename(filepath.Join(filepath.Dir(path), name(20, 30)), path))
			x := open(t, fsys)
			require.NoError(t, x.Rebuild(20, 30, func(add func(uint64, coord.Position)) error { add(1, 20); return nil }))
		}},
	} {
		for _, opened := range []string{"before", "after"} {
			t.Run(row.name+"/"+opened, func(t *testing.T) {
				t.Parallel()
				fsys := vfs.NewMem(1 << 20)
				x := open(t, fsys)
				for pos := coord.Position(0); pos < 40; pos += 10 {
					x.Add(1, pos)
					require.NoError(t, x.Flush(pos+10))
				}
				row.corrupt(t, fsys, filepath.Join(dir, name(10, 20)))
				if opened == "after" {
					x = open(t, fsys)
				}
				var got []coord.Position
				visit := func(pos coord.Position) bool { got = append(got, pos); return true }
				err := x.Lookup(1, visit)
				require.ErrorIs(t, err, keyindex.ErrCorrupt)
				var corrupt *keyindex.CorruptError
				require.ErrorAs(t, err, &corrupt)
				require.Equal(t, filepath.Join(dir, name(10, 20)), corrupt.File)
				require.ErrorContains(t, err, corrupt.File)
				require.Equal(t, []coord.Position{30, 20, 0}, got)

				scan := func(add func(uint64, coord.Position)) error {
					add(1, 0)
					add(1, 10)
					add(1, 20)
					return nil
				}
				require.NoError(t, x.Rebuild(corrupt.From, corrupt.To, scan))
				require.Equal(t, []coord.Position{30, 20, 10, 0}, found(t, x, 1))
				require.Equal(t, []coord.Position{30, 20, 10, 0}, found(t, open(t, fsys), 1))
			})
		}
	}
}

func TestRebuildErrors(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1 << 20)
	x := open(t, fsys)
	x.Add(1, 5)
	require.NoError(t, x.Flush(10))
	require.ErrorIs(t, x.Rebuild(0, 10, func(func(uint64, coord.Position)) error { return syscall.EIO }), syscall.EIO)
	require.NoError(t, x.Rebuild(10, 20, nil), "not ours any more")
	require.Equal(t, []coord.Position{5}, found(t, x, 1))
	require.NoError(t, x.Rebuild(0, 10, func(func(uint64, coord.Position)) error { return nil }))
	require.Empty(t, found(t, x, 1))
}

func TestReadErrorIsNoDamage(t *testing.T) {
	t.Parallel()
	for _, op := range []vfs.Op{vfs.OpOpen, vfs.OpRead, vfs.OpSize} {
		fsys := vfs.NewMem(1 << 20)
		x := open(t, fsys)
		x.Add(1, 5)
		require.NoError(t, x.Flush(10))
		fsys.FailNth(op, 1, syscall.EIO)
		err := x.Lookup(1, func(coord.Position) bool { return true })
		require.ErrorIs(t, err, syscall.EIO)
		require.NotErrorIs(t, err, keyindex.ErrCorrupt)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	x := open(t, vfs.NewMem(1<<20))
	require.NoError(t, x.Close())
	require.NoError(t, x.Close())
	for _, err := range []error{
		x.Flush(10), x.DropBefore(10), x.Limit(0), x.Rebuild(0, 1, nil),
		x.Lookup(1, func(coord.Position) bool { return true }),
	} {
		require.ErrorIs(t, err, keyindex.ErrClosed)
	}
}

// A random index against a map: many hashes, some with pages full of positions,
// and the greatest and least of all.
func TestModel(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	fsys := vfs.NewMem(64 << 20)
	x := open(t, fsys)
	model := make(map[uint64][]coord.Position)
	hashes := []uint64{0, 1, math.MaxUint64}
	for range 2000 {
		hashes = append(hashes, r.Uint64())
	}
	pos, dropped := coord.Position(0), coord.Position(0)
	checkpoint := pos
	add := func() {
		hash := hashes[min(r.IntN(len(hashes)), r.IntN(len(hashes)))]
		if r.IntN(3) == 0 {
			hash = hashes[r.IntN(3)]
		}
		x.Add(hash, pos)
		model[hash] = append(model[hash], pos)
		pos += coord.Position(8 * r.IntN(3))
	}
	for range 300 {
		switch r.IntN(10) {
		case 0, 1:
			require.NoError(t, x.Flush(pos))
			checkpoint = pos
		case 2:
			if x.Covered() > dropped {
				dropped += coord.Position(r.Int64N(int64(x.Covered()-dropped) + 1))
				require.NoError(t, x.DropBefore(dropped))
			}
		case 3:
			x = open(t, fsys)
			require.NoError(t, x.Limit(checkpoint))
			require.LessOrEqual(t, x.Covered(), checkpoint)
			replay(x, model, x.Covered())
		default:
			for range r.IntN(3000) {
				add()
			}
			pos += 8
		}
		for _, hash := range []uint64{hashes[r.IntN(3)], hashes[r.IntN(len(hashes))]} {
			want := slices.Clone(model[hash])
			slices.Reverse(want)
			got := found(t, x, hash)
			// What lies below dropped may be there or not.
			keep := func(ps []coord.Position) []coord.Position {
				return slices.DeleteFunc(ps, func(p coord.Position) bool { return p < dropped })
			}
			require.True(t, slices.Equal(keep(want), keep(got)), "hash %d", hash)
		}
	}
}

// replay adds the pairs from a position on, in order.
func replay(x *keyindex.Index, model map[uint64][]coord.Position, from coord.Position) {
	type pair struct {
		hash uint64
		pos  coord.Position
	}
	var pairs []pair
	for hash, ps := range model {
		for _, p := range ps {
			if p >= from {
				pairs = append(pairs, pair{hash, p})
			}
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int { return int(a.pos - b.pos) })
	for _, p := range pairs {
		x.Add(p.hash, p.pos)
	}
}

func TestEveryoneAtOnce(t *testing.T) {
	t.Parallel()
	x := open(t, vfs.NewMem(64<<20))
	var written, dropped atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	start := func(f func()) {
		wg.Go(func() {
			for !stop.Load() && !t.Failed() {
				f()
				runtime.Gosched()
			}
		})
	}
	start(func() { assert.NoError(t, x.Flush(coord.Position(written.Load()))) })
	start(func() {
		dropped.Store(written.Load() / 2)
		assert.NoError(t, x.DropBefore(coord.Position(dropped.Load())))
	})
	for range 2 {
		start(func() {
			// Every fourth position has hash 1; from newest to oldest, none is
			// missing or comes twice.
			end, last := written.Load(), int64(-1)
			err := x.Lookup(1, func(pos coord.Position) bool {
				if last < 0 {
					assert.GreaterOrEqual(t, int64(pos), end-4)
				} else {
					assert.Equal(t, last-4, int64(pos))
				}
				last = int64(pos)
				return !t.Failed()
			})
			assert.NoError(t, err)
			assert.LessOrEqual(t, last, max(3, dropped.Load()))
		})
	}
	for pos := range int64(40_000) {
		x.Add(uint64(pos%4), coord.Position(pos))
		written.Store(pos + 1)
	}
	stop.Store(true)
	wg.Wait()
}

func BenchmarkAdd(b *testing.B) {
	x, err := keyindex.Open(vfs.NewMem(1<<30), dir)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	pos := coord.Position(0)
	for b.Loop() {
		x.Add(uint64(pos), pos)
		if pos++; pos%(1<<20) == 0 {
			b.StopTimer()
			x, _ = keyindex.Open(vfs.NewMem(1<<30), dir)
			b.StartTimer()
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	fsys, folder := vfs.OS(), b.TempDir()
	x, err := keyindex.Open(fsys, folder)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	pos := coord.Position(0)
	for range 10 {
		for range 100_000 {
			x.Add(r.Uint64(), pos)
			pos += 8
		}
		if err := x.Flush(pos); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() { // in 10 files
		if err := x.Lookup(r.Uint64(), func(coord.Position) bool { return true }); err != nil {
			b.Fatal(err)
		}
	}
}
