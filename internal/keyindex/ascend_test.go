package keyindex_test

import (
	"cmp"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/keyindex"
	"github.com/pocketmq/mq/internal/vfs"
)

type hashed struct {
	hash uint64
	pos  coord.Position
}

func (p hashed) compare(q hashed) int {
	return cmp.Or(cmp.Compare(p.hash, q.hash), cmp.Compare(p.pos, q.pos))
}

// ascend visits at most n pairs.
func ascend(t *testing.T, x *keyindex.Index, from uint64, pos coord.Position, to uint64, n int) []hashed {
	t.Helper()
	var got []hashed
	require.NoError(t, x.Ascend(keyindex.Range{From: from, Pos: pos, To: to, Below: 1 << 62}, func(hash uint64, pos coord.Position) bool {
		got = append(got, hashed{hash, pos})
		return len(got) < n
	}))
	return got
}

// TestAscend compares with a sorted slice: hashes of one pair and of many pages,
// in files and in memory, from every place on.
func TestAscend(t *testing.T) {
	t.Parallel()
	for _, hashes := range []uint64{1, 3, 100, 1 << 40} {
		rnd := rand.New(rand.NewPCG(hashes, 1))
		x := open(t, vfs.NewMem(1<<24))
		var want []hashed
		for pos := coord.Position(0); pos < 8000; pos++ {
			p := hashed{rnd.Uint64N(hashes), pos}
			if rnd.IntN(20) == 0 {
				p.hash |= 1 << 63
			}
			want = append(want, p)
			x.Add(p.hash, pos)
			if pos%1900 == 0 {
				require.NoError(t, x.Flush(pos))
			}
		}
		slices.SortFunc(want, hashed.compare)
		for _, to := range []uint64{1 << 63, 1<<64 - 1} {
			inside := want[:len(want):len(want)]
			if to == 1<<63 {
				n, _ := slices.BinarySearchFunc(want, hashed{to, 0}, hashed.compare)
				inside = want[:n]
			}
			require.Equal(t, inside, ascend(t, x, 0, 0, to, 1<<30))
			for range 100 {
				at := rnd.IntN(len(inside))
				from := inside[at]
				switch rnd.IntN(3) {
				case 0:
					from.pos, at = from.pos+1, at+1
				case 1:
					from.pos = 0
					at, _ = slices.BinarySearchFunc(inside, from, hashed.compare)
				}
				n := min(50, len(inside)-at)
				require.Equal(t, inside[at:at+n:at+n], append([]hashed{}, ascend(t, x, from.hash, from.pos, to, 50)...)[:n])
			}
		}
		for range 20 {
			var ask []uint64
			for range rnd.IntN(300) {
				p := want[rnd.IntN(len(want))]
				ask = append(ask, p.hash+rnd.Uint64N(2))
			}
			slices.Sort(ask)
			ask = slices.Compact(ask)
			var among, got []hashed
			for _, p := range want {
				if _, ok := slices.BinarySearch(ask, p.hash); ok {
					among = append(among, p)
				}
			}
			require.NoError(t, x.Among(ask, func(i int, pos coord.Position) { got = append(got, hashed{ask[i], pos}) }))
			slices.SortFunc(got, hashed.compare)
			require.Equal(t, among, got)
		}
	}
}

// TestAscendSpent: a file that has nothing left is not opened again, and one
// that is asked for earlier hashes is.
func TestAscendSpent(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1 << 20)
	x := open(t, fsys)
	x.Add(5, 10)
	x.Add(9, 20)
	require.NoError(t, x.Flush(30))
	require.Empty(t, ascend(t, x, 9, 21, 100, 9))
	opened := func(do func()) int {
		fsys.Record()
		do()
		n := 0
		for _, c := range fsys.Ops() {
			if c.Op == vfs.OpOpen {
				n++
			}
		}
		return n
	}
	require.Zero(t, opened(func() { require.Empty(t, ascend(t, x, 10, 0, 100, 9)) }))
	require.Equal(t, []hashed{{9, 20}}, ascend(t, x, 9, 0, 100, 9), "not below what is known to be spent")
	require.Equal(t, []hashed{{5, 10}, {9, 20}}, ascend(t, x, 0, 0, 100, 9))
}

// TestAscendBelow: files from there on are not even opened.
func TestAscendBelow(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1 << 20)
	x := open(t, fsys)
	x.Add(3, 10)
	x.Add(2, 20)
	require.NoError(t, x.Flush(30))
	x.Add(1, 30)
	require.NoError(t, x.Flush(40))
	x.Add(1, 40)
	require.NoError(t, fsys.Remove(filepath.Join(dir, name(30, 40))))
	for below, want := range map[coord.Position][]coord.Position{30: {20, 10}, 20: {10}, 0: nil} {
		var got []coord.Position
		require.NoError(t, x.Ascend(keyindex.Range{To: 9, Below: below}, func(_ uint64, pos coord.Position) bool {
			got = append(got, pos)
			return true
		}))
		require.Equal(t, want, got)
	}
}

func TestAscendDamaged(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1 << 20)
	x := open(t, fsys)
	x.Add(5, 10)
	require.NoError(t, x.Flush(20))
	x.Add(6, 25)
	require.NoError(t, x.Flush(30))
	x.Add(7, 35)
	none := func(uint64, coord.Position) bool { t.Fatal("visited"); return false }
	for name, damage := range map[string]func(){
		"removed": func() { require.NoError(t, fsys.Remove(filepath.Join(dir, name(0, 20)))) },
		"flipped": func() {
			f, err := fsys.Open(filepath.Join(dir, name(0, 20)))
			require.NoError(t, err)
			_, err = f.WriteAt([]byte{0xff}, 100)
			require.NoError(t, err)
			require.NoError(t, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			damage()
			var bad *keyindex.CorruptError
			require.ErrorAs(t, x.Ascend(keyindex.Range{To: 100, Below: 100}, none), &bad)
			require.ErrorAs(t, x.Among([]uint64{5}, func(int, coord.Position) {}), &bad)
			require.NoError(t, x.Rebuild(bad.From, bad.To, func(add func(uint64, coord.Position)) error {
				add(5, 10)
				return nil
			}))
			require.Equal(t, []hashed{{5, 10}, {6, 25}, {7, 35}}, ascend(t, x, 0, 0, 100, 9))
		})
	}
	require.NoError(t, x.Ascend(keyindex.Range{To: 100, Below: 100}, func(uint64, coord.Position) bool {
		require.NoError(t, x.DropBefore(30)) // meanwhile
		return true
	}))
	require.Equal(t, []hashed{{7, 35}}, ascend(t, x, 0, 0, 100, 9))
	require.NoError(t, x.Close())
	require.ErrorIs(t, x.Ascend(keyindex.Range{To: 100, Below: 100}, none), keyindex.ErrClosed)
	require.ErrorIs(t, x.Among([]uint64{1}, nil), keyindex.ErrClosed)
}

func BenchmarkAscend(b *testing.B) {
	fsys := vfs.NewMem(1 << 30)
	x, err := keyindex.Open(fsys, dir)
	require.NoError(b, err)
	rnd := rand.New(rand.NewPCG(1, 1))
	for pos := coord.Position(0); pos < 1<<20; pos++ {
		x.Add(rnd.Uint64N(1<<40), pos)
		if pos%(1<<18) == 1<<17 {
			require.NoError(b, x.Flush(pos))
		}
	}
	for b.Loop() {
		n := 0
		require.NoError(b, x.Ascend(keyindex.Range{From: 1 << 20, To: 1 << 63, Below: 1 << 62}, func(uint64, coord.Position) bool { n++; return n < 1<<16 }))
	}
}
