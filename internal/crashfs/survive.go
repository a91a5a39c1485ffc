package crashfs

import "math/rand/v2"

// temper is what one power cut is like. Were everything decided by the toss of a
// coin, all cuts would look alike: with a thousand dirty pages none would ever
// leave all but one.
type temper struct {
	keep    float64 // chance of a dirty page to be newer than the last sync
	torn    float64 // of such a page to be torn
	middle  float64 // of a page to be caught in a store
	names   float64 // of a change of names to be there
	ordered bool    // changes of names reach the disk in their order, as with most journals
}

func newTemper(rng *rand.Rand) temper {
	pick := func(odds ...float64) float64 { return odds[rng.IntN(len(odds))] }
	return temper{
		keep:    pick(0, 0.1, 0.5, 0.9, 1),
		torn:    pick(0, 0, 0.3, 1),
		middle:  pick(0, 0, 0.3),
		names:   pick(0, 0.2, 0.5, 0.8, 1),
		ordered: rng.IntN(3) == 0,
	}
}

// survivor returns what a power cut leaves of a file.
func (c *content) survivor(t temper, rng *rand.Rand) content {
	k := rng.IntN(len(c.sizes) + 1)
	if rng.IntN(2) == 0 {
		k = rng.IntN(2) * len(c.sizes) // none or all, as most often
	}
	size := c.sizeAt(k)
	fresh := content{mem: make([]byte, size), disk: make(map[int64]*page), diskSize: size}
	for _, p := range c.pages() {
		if p*pageBytes >= size {
			break // they are in order
		}
		if b := c.left(p, k, t, rng); b != nil {
			fresh.disk[p] = b
			copy(fresh.mem[p*pageBytes:], b[:])
		}
	}
	return fresh
}

// left returns what is left of one page.
func (c *content) left(p int64, k int, t temper, rng *rand.Rand) *page {
	versions := c.possible(p, k)
	if len(versions) == 1 {
		return c.kept(p, versions[0], k)
	}
	pick := c.picker(t, rng, len(versions))
	var b page
	for s := 0; s < pageBytes; s += sectorBytes {
		i := pick()
		c.copyKept(b[s:s+sectorBytes], p, s, versions[i], k)
		if i+1 < len(versions) && rng.Float64() < t.middle {
			from := rng.IntN(sectorBytes / wordBytes)
			to := from + rng.IntN(sectorBytes/wordBytes-from) + 1
			from, to = s+from*wordBytes, s+to*wordBytes
			c.copyKept(b[from:to], p, from, versions[i+1], k)
		}
	}
	return &b
}

// copyKept copies what the disk has of a version from an offset on.
func (c *content) copyKept(dst []byte, p int64, off int, v version, k int) {
	if b := c.kept(p, v, k); b != nil {
		copy(dst, b[off:])
		return
	}
	clear(dst)
}

// picker returns a function that says which of n versions each sector of one
// page has, the first being that of the last sync.
func (c *content) picker(t temper, rng *rand.Rand, n int) func() int {
	one := 0
	if rng.Float64() < t.keep {
		if one = n - 1; rng.IntN(2) == 0 {
			one = 1 + rng.IntN(n-1)
		}
		if rng.Float64() < t.torn {
			return func() int { return rng.IntN(n) }
		}
	}
	return func() int { return one }
}
