// Package blockcache is a bounded cache of aligned blocks of files, shared by
// all who read them.
//
// However many ask for a block that is not there, one of them loads it. Buffers
// are used again and again, but never while somebody holds a reference, so a
// reader may work on a block's bytes in place, without a copy and without a
// lock.
package blockcache

import (
	"errors"
	"fmt"
	"sync"
)

// errAborted is what those get who waited for a load that panicked.
var errAborted = errors.New("blockcache: load aborted")

// Key names a block.
type Key struct {
	File  uint64 // the caller's number of the file; never used for another one
	Block int64  // offset in the file divided by the block size
}

// Stats says what a cache did and holds.
type Stats struct {
	Hits, Misses int64 // a load that was waited for counts as a hit
	Evictions    int64
	Blocks       int   // buffers allocated, in use or not
	Bytes        int64 // of those
	Referenced   int   // blocks that somebody holds
}

// Cache is a bounded cache of blocks. It holds at most the bytes it was made
// for, unless more blocks than that are referenced at the same time: a reader
// that holds one block while it waits for another must not wait for itself.
//
// A block is in one of three places:
//
//	blocks + clock   to be found; loading or loaded
//	nowhere          dropped or failed while referenced; the last Release frees it
//	free             buffer waiting for its next key
//
// Eviction is CLOCK: a hit marks a block, the hand clears marks and takes the
// first block that has none and that nobody holds. A new block has no mark, so
// one long scan does not push out what is read again and again.
type Cache struct {
	blockSize int
	maxBlocks int

	mu       sync.Mutex // protects everything below, and the fields of all blocks that say so
	blocks   map[Key]*Block
	clock    []*Block // the same blocks, in a ring
	hand     int
	free     []*Block
	detached int // blocks that are nowhere
	stats    Stats
}

// Block is a reference to a loaded block. Release it exactly once.
type Block struct {
	cache *Cache
	buf   []byte // blockSize bytes; written by the loader alone, before loaded is closed

	// Below: guarded by cache.mu.
	key    Key
	slot   int  // in clock; -1 when it is not there
	refs   int  // a loading block is referenced by its loader
	marked bool // hit since the hand passed

	// loaded is closed when size and err are final; both are read only after. A
	// channel for each load, so that waiters of an earlier one are not confused.
	loaded chan struct{}
	size   int
	err    error
}

// New returns an empty cache of at most maxBytes in blocks of blockSize bytes,
// but of one block at least. Memory is taken when it is first needed.
func New(maxBytes int64, blockSize int) *Cache {
	if blockSize <= 0 {
		panic("blockcache: block size must be positive")
	}
	return &Cache{
		blockSize: blockSize,
		maxBlocks: int(max(1, maxBytes/int64(blockSize))),
		blocks:    make(map[Key]*Block),
	}
}

// Get returns the block of that name, loading it if need be. load fills dst,
// which has the block size, and returns how many bytes there are: fewer at the
// end of a file. It runs outside locks. Its error is returned to all who wait
// for this load, and not remembered.
//
// A hit takes no allocation.
func (c *Cache) Get(key Key, load func(dst []byte) (n int, err error)) (*Block, error) {
	return c.GetAtLeast(key, 0, load)
}

// GetAtLeast is Get for a file that still grows: a block that was loaded when it
// had fewer than need bytes is loaded anew. The block it returns may be shorter
// all the same, if the file is.
func (c *Cache) GetAtLeast(key Key, need int, load func(dst []byte) (n int, err error)) (*Block, error) {
	for {
		b, mine := c.reference(key, need)
		if mine {
			return c.load(b, load)
		}
		<-b.loaded
		if b.err != nil {
			err := b.err
			b.Release()
			return nil, err
		}
		if b.size >= need {
			return b, nil
		}
		// We joined a load that began before the file had grown. The next round
		// finds it loaded and too short, and replaces it.
		b.Release()
	}
}

// reference returns a referenced block of that name; mine if the caller has to
// load it.
func (c *Cache) reference(key Key, need int) (b *Block, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.blocks[key]; b != nil {
		if !b.tooShortLocked(need) {
			b.refs++
			b.marked = true
			c.stats.Hits++
			return b, false
		}
		c.removeLocked(b)
	}
	c.stats.Misses++
	b = c.takeLocked()
	b.key, b.refs, b.marked = key, 1, false
	b.loaded, b.size, b.err = make(chan struct{}), 0, nil
	c.blocks[key] = b
	b.slot = len(c.clock)
	c.clock = append(c.clock, b)
	return b, true
}

// tooShortLocked tells whether b was loaded and has fewer than need bytes.
func (b *Block) tooShortLocked(need int) bool {
	if need <= 0 {
		return false
	}
	select {
	case <-b.loaded:
		return b.size < need
	default:
		return false
	}
}

// takeLocked returns a block whose buffer nobody holds: a free one, a new one
// while the bound allows it, an evicted one, and beyond the bound if all are
// referenced.
func (c *Cache) takeLocked() *Block {
	if n := len(c.free); n > 0 {
		b := c.free[n-1]
		c.free = c.free[:n-1]
		return b
	}
	if c.allocatedLocked() >= c.maxBlocks {
		if b := c.evictLocked(); b != nil {
			return b
		}
	}
	return &Block{cache: c, buf: make([]byte, c.blockSize), slot: -1}
}

func (c *Cache) allocatedLocked() int { return len(c.clock) + len(c.free) + c.detached }

// evictLocked takes the next block that is neither marked nor held out of the
// cache; nil if all are held. Two rounds are enough: the first clears all marks.
func (c *Cache) evictLocked() *Block {
	for range 2 * len(c.clock) {
		if c.hand >= len(c.clock) {
			c.hand = 0
		}
		b := c.clock[c.hand]
		switch {
		case b.refs > 0:
		case b.marked:
			b.marked = false
		default:
			c.unlinkLocked(b)
			c.stats.Evictions++
			return b
		}
		c.hand++
	}
	return nil
}

// unlinkLocked makes b impossible to find. The last block of the ring takes its
// place; CLOCK is an approximation anyway.
func (c *Cache) unlinkLocked(b *Block) {
	delete(c.blocks, b.key)
	last := len(c.clock) - 1
	c.clock[b.slot] = c.clock[last]
	c.clock[b.slot].slot = b.slot
	c.clock[last] = nil
	c.clock = c.clock[:last]
	b.slot = -1
}

// removeLocked takes b out of the cache, and frees it now or when its last
// reference goes.
func (c *Cache) removeLocked(b *Block) {
	c.unlinkLocked(b)
	if b.refs == 0 {
		c.freeLocked(b)
		return
	}
	c.detached++
}

// freeLocked keeps b's buffer for the next miss, or leaves it to the garbage
// collector if there are more than the bound allows.
func (c *Cache) freeLocked(b *Block) {
	if c.allocatedLocked() < c.maxBlocks {
		c.free = append(c.free, b)
	}
}

// load fills b, which the caller references, and wakes those who wait for it.
// Should load panic, they get an error and the panic goes on.
func (c *Cache) load(b *Block, load func(dst []byte) (n int, err error)) (*Block, error) {
	size, err := 0, errAborted
	defer func() {
		if err == nil {
			return
		}
		// It cannot be found any more once waiters see the error, so the next one
		// who asks loads again. Drop may have been faster.
		c.mu.Lock()
		if b.slot >= 0 {
			c.removeLocked(b)
		}
		c.mu.Unlock()
		b.err = err
		close(b.loaded)
		b.Release()
	}()
	size, err = load(b.buf)
	if err == nil && (size < 0 || size > len(b.buf)) {
		err = fmt.Errorf("blockcache: load returned %d bytes for a block of %d", size, len(b.buf))
	}
	if err != nil {
		return nil, err
	}
	b.size = size
	close(b.loaded)
	return b, nil
}

// Bytes returns what was loaded. The slice is shared: it must not be written to,
// nor be used after Release.
func (b *Block) Bytes() []byte { return b.buf[:b.size:b.size] }

// Release gives the reference back. One Release too many panics: the buffer may
// be another block's by then.
func (b *Block) Release() {
	c := b.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	b.refs--
	switch {
	case b.refs < 0:
		panic("blockcache: block released twice")
	case b.refs > 0:
	case b.slot < 0:
		c.detached--
		c.freeLocked(b)
	case c.allocatedLocked() > c.maxBlocks:
		c.unlinkLocked(b) // was taken beyond the bound
		c.stats.Evictions++
	}
}

// Drop forgets all blocks of a file. Blocks that are held stay valid until they
// are released, but will not be found again.
func (c *Cache) Drop(file uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Backwards, because removing moves the last one here.
	for i := len(c.clock) - 1; i >= 0; i-- {
		if b := c.clock[i]; b.key.File == file {
			c.removeLocked(b)
		}
	}
}

// Stats returns what the cache did and holds now.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Blocks = c.allocatedLocked()
	s.Bytes = int64(s.Blocks) * int64(c.blockSize)
	s.Referenced = c.detached
	for _, b := range c.clock {
		if b.refs > 0 {
			s.Referenced++
		}
	}
	return s
}
