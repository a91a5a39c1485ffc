package keyindex

import (
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

func TestHeaderRoundTrip(t *testing.T) {
	t.Parallel()
	h := header{from: 1, to: 2, pairs: 256}
	var raw [headerSize]byte
	sum := h.put(raw[:])
	got, gotSum, err := decodeHeader(raw[:])
	require.NoError(t, err)
	require.Equal(t, h, got)
	require.Equal(t, sum, gotSum)
	require.EqualValues(t, 2, h.pages())
	require.EqualValues(t, headerSize+2*pageSize, h.size())

	for _, bad := range []header{{from: -1, to: 2}, {from: 2, to: 2}, {from: 1, to: 2, pairs: -1}, {from: 1, to: 2, pairs: 1 << 62}} {
		bad.put(raw[:])
		_, _, err := decodeHeader(raw[:])
		require.ErrorIs(t, err, errHeader)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	s := span{from: 5, to: 1 << 62}
	got, ok := parseName(s.name())
	require.True(t, ok)
	require.Equal(t, s, got)
	for _, bad := range []string{"", "1-2", s.name() + "0", "+" + s.name()[1:], span{from: 5, to: 5}.name()} {
		_, ok := parseName(bad)
		require.False(t, ok, bad)
	}
}

func FuzzDecodeHeader(f *testing.F) {
	var raw [headerSize]byte
	header{from: 0, to: 64, pairs: 300}.put(raw[:])
	f.Add(raw[:])
	f.Add(raw[:headerSize-1])
	f.Add(make([]byte, headerSize))
	f.Fuzz(func(t *testing.T, src []byte) {
		h, _, err := decodeHeader(src)
		if err != nil {
			return
		}
		var raw [headerSize]byte
		h.put(raw[:])
		require.Equal(t, src[:headerSize], raw[:])
	})
}

// fileOf returns the bytes of a file.
func fileOf(t testing.TB, pairs []pair, h header) []byte {
	fsys := vfs.NewMem(1 << 20)
	x, err := Open(fsys, "index")
	require.NoError(t, err)
	s := span{from: h.from, to: h.to}
	require.NoError(t, x.writeFile(&s, pairs))
	f, err := fsys.Open(x.path(s))
	require.NoError(t, err)
	raw := make([]byte, s.size)
	_, err = f.ReadAt(raw, 0)
	require.NoError(t, err)
	return raw
}

// FuzzLookup looks up in any bytes as a file: it may find things or damage, and
// neither panics nor goes on for ever. With fix, hashes are made to agree, to
// get behind them.
func FuzzLookup(f *testing.F) {
	var pairs []pair
	for i := range coord.Position(600) {
		pairs = append(pairs, pair{hash: uint64(i % 7), pos: i})
	}
	f.Add(fileOf(f, slices.Clone(pairs[:3]), header{from: 0, to: 1000}), uint64(1), false)
	f.Add(fileOf(f, pairs, header{from: 0, to: 1000}), uint64(3), true)
	f.Add([]byte{}, uint64(0), false)
	f.Fuzz(func(t *testing.T, raw []byte, hash uint64, fix bool) {
		if len(raw) > 1<<16 {
			return
		}
		s := span{from: 0, to: 1000}
		if fix && len(raw) >= headerSize {
			pages := int64(len(raw)-headerSize) / pageSize
			raw = slices.Clone(raw[:headerSize+pages*pageSize])
			h := header{from: s.from, to: s.to, pairs: max(0, pages*pagePairs-int64(raw[0])%pagePairs)}
			sum := h.put(raw)
			for n := range pages {
				page := raw[headerSize+n*pageSize:][:pageSize]
				var ps []pair
				for i := range pagePairs {
					ps = append(ps, pairAt(page[i*pairSize:]))
				}
				putPage(page, ps, n, sum)
			}
		}
		fsys := vfs.NewMem(1 << 20)
		require.NoError(t, fsys.MkdirAll("index"))
		file, err := fsys.Create("index/"+s.name(), int64(len(raw)))
		require.NoError(t, err)
		_, err = file.WriteAt(raw, 0)
		require.NoError(t, err)
		require.NoError(t, file.Close())
		x, err := Open(fsys, "index")
		require.NoError(t, err)
		visited := 0
		err = x.Lookup(hash, func(pos coord.Position) bool {
			require.True(t, pos >= s.from && pos < s.to)
			visited++
			return true
		})
		require.LessOrEqual(t, visited, len(raw)/pairSize)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
		}
	})
}

// FuzzName: a name that is read is the one that would be written.
func FuzzName(f *testing.F) {
	f.Add(span{from: 64, to: 4096}.name())
	f.Add("x")
	f.Fuzz(func(t *testing.T, name string) {
		if s, ok := parseName(name); ok {
			require.Equal(t, name, s.name())
		}
	})
}

// TestHostilePairs: a header that claims more pairs than any file holds costs a
// page.
func TestHostilePairs(t *testing.T) { //nolint:paralleltest // measures the heap of the process
	var raw [headerSize]byte
	h := header{from: 0, to: 1000, pairs: 1 << 49}
	h.put(raw[:])
	fsys := vfs.NewMem(0)
	require.NoError(t, fsys.MkdirAll("index"))
	f, err := fsys.Create("index/"+span{from: 0, to: 1000}.name(), headerSize)
	require.NoError(t, err)
	_, err = f.WriteAt(raw[:], 0)
	require.NoError(t, err)
	least := uint64(math.MaxUint64)
	for range 5 { // others allocate too
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err = Examine(fsys, "index", func(x Examined) error {
			require.ErrorIs(t, x.Err, ErrCorrupt)
			return nil
		})
		runtime.ReadMemStats(&after)
		require.NoError(t, err)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	require.Less(t, least, uint64(4*pageSize))
}
