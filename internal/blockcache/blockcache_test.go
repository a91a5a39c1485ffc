package blockcache_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/blockcache"
)

const blockSize = 64

var errDisk = errors.New("disk on fire")

// stamp is a load that writes who it is, so that a wrong block shows.
func stamp(k blockcache.Key) func([]byte) (int, error) {
	return func(dst []byte) (int, error) {
		binary.LittleEndian.PutUint64(dst, k.File)
		binary.LittleEndian.PutUint64(dst[8:], uint64(k.Block))
		return len(dst), nil
	}
}

func isStamp(b []byte, k blockcache.Key) bool {
	return len(b) == blockSize && binary.LittleEndian.Uint64(b) == k.File &&
		binary.LittleEndian.Uint64(b[8:]) == uint64(k.Block)
}

func unexpected(t *testing.T) func([]byte) (int, error) {
	return func([]byte) (int, error) {
		t.Error("loaded again")
		return 0, errDisk
	}
}

func get(t *testing.T, c *blockcache.Cache, k blockcache.Key) *blockcache.Block {
	t.Helper()
	b, err := c.Get(k, stamp(k))
	require.NoError(t, err)
	require.True(t, isStamp(b.Bytes(), k))
	return b
}

func TestHit(t *testing.T) {
	c := blockcache.New(10*blockSize, blockSize)
	k := blockcache.Key{File: 1, Block: 2}
	get(t, c, k).Release()
	b, err := c.Get(k, unexpected(t))
	require.NoError(t, err)
	require.True(t, isStamp(b.Bytes(), k))
	require.Equal(t, blockcache.Stats{Hits: 1, Misses: 1, Blocks: 1, Bytes: blockSize, Referenced: 1}, c.Stats())
	b.Release()

	var file uint64 = 7 // captured: the caller's closure must not allocate either
	require.Zero(t, testing.AllocsPerRun(100, func() {
		b, _ := c.Get(k, func([]byte) (int, error) { return int(file), nil })
		b.Release()
	}), "a hit takes no allocation")
}

func TestBoundAndReuse(t *testing.T) {
	t.Parallel()
	c := blockcache.New(3*blockSize+1, blockSize)
	for i := range 100 {
		get(t, c, blockcache.Key{Block: int64(i)}).Release()
	}
	s := c.Stats()
	require.Equal(t, 3, s.Blocks)
	require.Equal(t, int64(97), s.Evictions)
	require.Zero(t, s.Referenced)
}

func TestScanSparesWhatIsUsed(t *testing.T) {
	t.Parallel()
	c := blockcache.New(4*blockSize, blockSize)
	hot := blockcache.Key{File: 9}
	get(t, c, hot).Release()
	for i := range 50 {
		b, err := c.Get(hot, unexpected(t))
		require.NoError(t, err)
		b.Release()
		get(t, c, blockcache.Key{Block: int64(i)}).Release()
	}
}

func TestReferencedBlocksStay(t *testing.T) {
	t.Parallel()
	c := blockcache.New(2*blockSize, blockSize)
	var held []*blockcache.Block
	for i := range 5 {
		held = append(held, get(t, c, blockcache.Key{Block: int64(i)}))
	}
	require.Equal(t, 5, c.Stats().Blocks, "beyond the bound, rather than wait for itself")
	for i, b := range held {
		require.True(t, isStamp(b.Bytes(), blockcache.Key{Block: int64(i)}))
		b.Release()
	}
	require.Equal(t, 2, c.Stats().Blocks)
	require.Zero(t, c.Stats().Referenced)
	get(t, c, blockcache.Key{File: 1}).Release()
	require.Equal(t, 2, c.Stats().Blocks)
}

func TestDrop(t *testing.T) {
	t.Parallel()
	c := blockcache.New(4*blockSize, blockSize)
	a0, a1, b0 := blockcache.Key{File: 1}, blockcache.Key{File: 1, Block: 1}, blockcache.Key{File: 2}
	get(t, c, a0).Release()
	held := get(t, c, a1)
	get(t, c, b0).Release()
	c.Drop(1)
	require.True(t, isStamp(held.Bytes(), a1), "held bytes stay valid")

	again := get(t, c, a1)
	require.Equal(t, int64(4), c.Stats().Misses, "dropped blocks are loaded again")
	b, err := c.Get(b0, unexpected(t))
	require.NoError(t, err)
	b.Release()
	for i := range 10 {
		get(t, c, blockcache.Key{File: 3, Block: int64(i)}).Release()
	}
	require.True(t, isStamp(held.Bytes(), a1))
	held.Release()
	again.Release()
	require.LessOrEqual(t, c.Stats().Blocks, 4)
	require.Panics(t, held.Release)
}

func TestShortBlock(t *testing.T) {
	t.Parallel()
	c := blockcache.New(4*blockSize, blockSize)
	size := 10
	load := func(dst []byte) (int, error) { return size, nil }
	get := func(need int) int {
		b, err := c.GetAtLeast(blockcache.Key{}, need, load)
		require.NoError(t, err)
		defer b.Release()
		require.Equal(t, len(b.Bytes()), cap(b.Bytes()))
		return len(b.Bytes())
	}
	require.Equal(t, 10, get(0))
	size = 20
	require.Equal(t, 10, get(10))
	require.Equal(t, 20, get(11), "the file has grown")
	require.Equal(t, 20, get(0))
	require.Equal(t, 20, get(30), "no more to be had")
	require.Equal(t, 1, c.Stats().Blocks)
}

func TestLoadFails(t *testing.T) {
	t.Parallel()
	c := blockcache.New(4*blockSize, blockSize)
	k := blockcache.Key{File: 1}
	for name, load := range map[string]func([]byte) (int, error){
		"error":     func([]byte) (int, error) { return 5, errDisk },
		"too many":  func(dst []byte) (int, error) { return len(dst) + 1, nil },
		"too few":   func(dst []byte) (int, error) { return -1, nil },
		"dropped":   func(dst []byte) (int, error) { c.Drop(1); return 0, errDisk },
		"empty set": func(dst []byte) (int, error) { clear(dst); return 0, errDisk },
	} {
		_, err := c.Get(k, load)
		require.Error(t, err, name)
	}
	_, err := c.Get(k, func([]byte) (int, error) { return 0, errDisk })
	require.ErrorIs(t, err, errDisk)
	require.Panics(t, func() { _, _ = c.Get(k, func([]byte) (int, error) { panic("oops") }) })
	get(t, c, k).Release()
	require.Equal(t, 1, c.Stats().Blocks)
	require.Zero(t, c.Stats().Referenced)
}

// TestOneLoad has many ask at once: one loads, and all see its end, good or bad.
func TestOneLoad(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(dst []byte) (int, error){
		"loaded":   stamp(blockcache.Key{File: 1}),
		"failed":   func([]byte) (int, error) { return 0, errDisk },
		"panicked": func([]byte) (int, error) { panic("oops") },
	} {
		synctest.Test(t, func(t *testing.T) {
			c := blockcache.New(2*blockSize, blockSize)
			var loads, good, bad, panics atomic.Int32
			release := make(chan struct{})
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					defer func() {
						if recover() != nil {
							panics.Add(1)
						}
					}()
					b, err := c.Get(blockcache.Key{File: 1}, func(dst []byte) (int, error) {
						loads.Add(1)
						<-release
						return end(dst)
					})
					if err != nil {
						bad.Add(1)
						return
					}
					if isStamp(b.Bytes(), blockcache.Key{File: 1}) {
						good.Add(1)
					}
					b.Release()
				})
			}
			synctest.Wait() // all wait for the one that loads
			require.Equal(t, int32(1), loads.Load(), name)
			close(release)
			wg.Wait()
			require.Equal(t, int32(1), loads.Load(), name)
			require.Equal(t, int32(20), good.Load()+bad.Load()+panics.Load(), name)
			require.Equal(t, name == "loaded", good.Load() == 20, name)
			require.Equal(t, name == "panicked", panics.Load() == 1, name)
			require.Zero(t, c.Stats().Referenced, name)
		})
	}
}

// TestConcurrent mixes everything under the race detector; a buffer that is
// reused while somebody reads it shows as a race and as a wrong stamp.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	c := blockcache.New(8*blockSize, blockSize)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(g)))
			var held [3]*blockcache.Block
			var keys [3]blockcache.Key
			for range 3000 {
				i := r.IntN(len(held))
				if held[i] != nil {
					if !isStamp(held[i].Bytes(), keys[i]) {
						t.Error("wrong bytes in a held block")
					}
					held[i].Release()
					held[i] = nil
				}
				k := blockcache.Key{File: r.Uint64N(2), Block: r.Int64N(10)}
				if r.IntN(50) == 0 {
					c.Drop(k.File)
				}
				load := stamp(k)
				if r.IntN(20) == 0 {
					load = func([]byte) (int, error) { return 0, errDisk }
				}
				b, err := c.GetAtLeast(k, blockSize, load)
				if err == nil {
					held[i], keys[i] = b, k
				}
			}
			for _, b := range held {
				if b != nil {
					b.Release()
				}
			}
		})
	}
	wg.Wait()
	s := c.Stats()
	require.Zero(t, s.Referenced)
	require.LessOrEqual(t, s.Blocks, 8)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	require.Panics(t, func() { blockcache.New(100, 0) })
	get(t, blockcache.New(0, blockSize), blockcache.Key{}).Release()
}

func BenchmarkGet(b *testing.B) {
	c := blockcache.New(4*blockSize, blockSize)
	k := blockcache.Key{File: 1}
	load := stamp(k)
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			blk, _ := c.Get(k, load)
			blk.Release()
		}
	})
	b.Run("miss", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			k.Block++
			blk, _ := c.Get(k, load)
			blk.Release()
		}
	})
}
