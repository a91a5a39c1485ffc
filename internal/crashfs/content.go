package crashfs

import (
	"bytes"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
)

const (
	pageBytes   = 4096
	sectorBytes = 512
	wordBytes   = 8
)

type page [pageBytes]byte

// version is a page as it was after some store.
type version struct {
	bytes *page // nil: zeros; never changed once it is here
	at    int   // how many of the file's size changes came before
}

// content is the bytes of a file: as processes see them, and as they are on the
// disk, with what is between the two.
//
//	disk ──── sizes[0] ──── sizes[1] ──── now       size changes since the last sync
//	   └ v ── v ───── v ─────── v ─────── v         versions of a dirty page, at 0 0 1 2 2
type content struct {
	mem  []byte // as processes see them
	maps int    // living mappings; mem must not move while there are any

	disk     map[int64]*page // by page number; what is missing is zeros
	diskSize int64
	sizes    []int64             // changes since the last sync, oldest first
	dirty    map[int64][]version // pages stored to since then, oldest first
	stale    map[int64]bool      // clean pages of which the disk has other bytes
}

func (c *content) size() int64 { return int64(len(c.mem)) }

// clone copies c without its mappings.
func (c *content) clone() content {
	fresh := content{
		mem: bytes.Clone(c.mem), disk: maps.Clone(c.disk), diskSize: c.diskSize,
		sizes: slices.Clone(c.sizes), dirty: maps.Clone(c.dirty), stale: maps.Clone(c.stale),
	}
	for p, versions := range fresh.dirty {
		fresh.dirty[p] = slices.Clone(versions)
	}
	return fresh
}

// stored notes a version of every page in [off, off+n). Above most versions one
// that is not the newest is forgotten.
func (c *content) stored(off, n int64, most int, rng *rand.Rand) {
	to := min(off+n, c.size())
	if off >= to {
		return
	}
	if c.dirty == nil {
		c.dirty = make(map[int64][]version)
	}
	for p := off / pageBytes; p*pageBytes < to; p++ {
		b := new(page)
		copy(b[:], c.mem[p*pageBytes:])
		versions := append(c.dirty[p], version{bytes: b, at: len(c.sizes)})
		if len(versions) > most {
			i := rng.IntN(len(versions) - 1)
			versions = slices.Delete(versions, i, i+1)
		}
		c.dirty[p] = versions
		delete(c.stale, p)
	}
}

// resized notes a change of size. Of growth in small steps only the last few are
// told apart.
func (c *content) resized(old, size int64) {
	const most = 8
	n := len(c.sizes)
	if n >= most && c.sizeAt(n-1) < old && old < size {
		c.sizes[n-1] = size
		return
	}
	c.sizes = append(c.sizes, size)
}

// sizeAt returns the size after the first k changes.
func (c *content) sizeAt(k int) int64 {
	if k == 0 {
		return c.diskSize
	}
	return c.sizes[k-1]
}

// kept returns a page of which the disk has version v and the first k changes of
// size: what these cut off later than v is zeros.
func (c *content) kept(p int64, v version, k int) *page {
	end := c.sizeAt(k)
	for i := v.at; i < k; i++ {
		end = min(end, c.sizes[i])
	}
	keep := end - p*pageBytes
	switch {
	case v.bytes == nil || keep <= 0:
		return nil
	case keep >= pageBytes:
		return v.bytes
	}
	b := new(page)
	copy(b[:keep], v.bytes[:keep])
	return b
}

// possible returns the versions of a page that the disk may have together with
// the first k changes of size, oldest first; the first is that of the last sync.
func (c *content) possible(p int64, k int) []version {
	list := []version{{bytes: c.disk[p]}}
	for _, v := range c.dirty[p] {
		orphan := false // stored into blocks that never became the file's
		for i := k; i < v.at; i++ {
			orphan = orphan || c.sizes[i] <= p*pageBytes
		}
		if !orphan {
			list = append(list, v)
		}
	}
	return list
}

// pages returns the numbers of all pages that may not be zeros, in order.
func (c *content) pages() []int64 {
	all := make(map[int64]bool, len(c.disk)+len(c.dirty))
	for p := range c.disk {
		all[p] = true
	}
	for p := range c.dirty {
		all[p] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// sync makes all sizes durable, and the newest version of every dirty page of
// part for which write says so; the others of part look clean from now on. What
// is dirty elsewhere stays so.
func (c *content) sync(part, write func(p int64) bool) {
	k := len(c.sizes)
	disk := make(map[int64]*page)
	dirty := make(map[int64][]version)
	for _, p := range c.pages() {
		v, versions := version{bytes: c.disk[p]}, c.dirty[p]
		switch {
		case len(versions) == 0:
		case !part(p):
			for _, later := range versions {
				dirty[p] = append(dirty[p], version{bytes: c.kept(p, later, k)})
			}
		case write(p):
			v = versions[len(versions)-1]
		case p*pageBytes < c.size():
			if c.stale == nil {
				c.stale = make(map[int64]bool)
			}
			c.stale[p] = true
		}
		if b := c.kept(p, v, k); b != nil {
			disk[p] = b
		}
	}
	c.disk, c.diskSize = disk, c.sizeAt(k)
	c.sizes, c.dirty = nil, dirty
}

// syncSome writes the pages for which write says so; nothing else is durable,
// and all stay dirty.
func (c *content) syncSome(write func(p int64) bool) {
	if len(c.sizes) > 0 {
		return // the versions to come would have to be told from those on disk
	}
	for _, p := range c.pages() {
		if versions := c.dirty[p]; len(versions) > 0 && write(p) {
			if c.disk == nil {
				c.disk = make(map[int64]*page)
			}
			c.disk[p] = versions[len(versions)-1].bytes
		}
	}
}

// forget drops clean pages of n bytes at off, or up to the end, from the cache:
// what is seen from now on is what the disk has. Mapped pages stay, and so do
// dirty ones, and those that lie partly outside.
func (c *content) forget(off, n int64) {
	if c.maps > 0 {
		return
	}
	end := off + n
	if n == 0 {
		end = math.MaxInt64
	}
	for p := range c.stale {
		if p*pageBytes < off || (p+1)*pageBytes > end {
			continue
		}
		if p*pageBytes < c.size() {
			b := c.kept(p, version{bytes: c.disk[p]}, len(c.sizes))
			if b == nil {
				b = new(page)
			}
			copy(c.mem[p*pageBytes:], b[:])
		}
		delete(c.stale, p)
	}
}
