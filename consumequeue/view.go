package consumequeue

import (
	"maps"
	"sort"

	"github.com/pocketmq/mq/internal/coord"
)

// chunk is a piece of a queue in memory. It ends where the next one starts; the
// last one ends at the queue's end.
type chunk struct {
	start coord.Offset
	data  []byte // encoded entries; nil for a run of holes of any length
}

// view is what of a queue is in memory: an immutable snapshot that readers load
// without a lock.
//
//	in files               |
//	min …       … flushed-1|
//	      chunks: start …           … end-1
//
// Chunks follow each other without gaps; the first one starts at flushed, or
// before it where entries that are in files are kept for readers near the end.
// flushed is always between two chunks. "Immutable" has two exceptions, neither of which a reader can see: the writer
// stores entries beyond the published end into the last chunk, and it extends
// the array behind chunks beyond its length.
type view struct {
	flushed coord.Offset
	chunks  []chunk
	patched map[coord.Offset]Entry // restored entries that supersede those in chunks; nearly always nil
}

// start returns the first offset that is in memory.
func (v *view) start() coord.Offset {
	if len(v.chunks) == 0 {
		return v.flushed
	}
	return v.chunks[0].start
}

// noEntries is the view of every queue that never had an entry.
var noEntries view

// with returns the view with one more chunk. Only the writer calls it, so that
// no two views can claim the same slot of the array they share.
func (v *view) with(c chunk) *view {
	return &view{flushed: v.flushed, chunks: append(v.chunks, c), patched: v.patched}
}

// filed returns the view with everything below to in files, and kept.
func (v *view) filed(to coord.Offset) *view {
	if to <= v.flushed {
		return v
	}
	return &view{flushed: to, chunks: v.chunks, patched: v.patched}
}

// without returns the view without what is below to. Chunks are dropped whole:
// to is the start of one, or the end of them all.
func (v *view) without(to coord.Offset) *view {
	if to <= v.start() {
		return v
	}
	n := 0
	for n < len(v.chunks) && v.chunks[n].start < to {
		n++
	}
	// A fresh array, or the dropped chunks would stay reachable through the
	// front of the old one.
	next := &view{flushed: max(v.flushed, to), chunks: append([]chunk(nil), v.chunks[n:]...)}
	if v.patched != nil {
		next.patched = maps.Clone(v.patched)
		maps.DeleteFunc(next.patched, func(off coord.Offset, _ Entry) bool { return off < to })
	}
	return next
}

// patch returns the view with a restored entry.
func (v *view) patch(off coord.Offset, e Entry) *view {
	patched := maps.Clone(v.patched)
	if patched == nil {
		patched = make(map[coord.Offset]Entry, 1)
	}
	patched[off] = e
	return &view{flushed: v.flushed, chunks: v.chunks, patched: patched}
}

// bytes returns how much memory the chunks take: those in files, which are only
// kept, and the others.
func (v *view) bytes() (kept, unflushed int64) {
	for _, c := range v.chunks {
		if c.start < v.flushed {
			kept += int64(len(c.data))
		} else {
			unflushed += int64(len(c.data))
		}
	}
	return kept, unflushed
}

// find returns the index of the chunk that holds off, which is at or above
// start.
func (v *view) find(off coord.Offset) int {
	last := len(v.chunks) - 1
	if v.chunks[last].start <= off { // a consumer that keeps up
		return last
	}
	return sort.Search(last, func(i int) bool { return v.chunks[i].start > off }) - 1
}

// span returns the chunk that holds off, cut to the part from off on, and how
// many entries up to to it holds.
func (v *view) span(i int, off, to coord.Offset) (c chunk, n int) {
	c = v.chunks[i]
	if i+1 < len(v.chunks) {
		to = min(to, v.chunks[i+1].start)
	}
	if c.data != nil {
		c.data = c.data[int(off-c.start)*EntrySize:]
	}
	c.start = off
	return c, int(to - off)
}

// read fills dst with the entries from off on. The caller has loaded the
// queue's end before the view, and stays between start and that end.
func (v *view) read(off coord.Offset, dst []Entry) {
	to := off + coord.Offset(len(dst))
	for i, at := v.find(off), 0; at < len(dst); i++ {
		c, n := v.span(i, off+coord.Offset(at), to)
		if c.data == nil {
			clear(dst[at : at+n])
		} else {
			decodeEntries(dst[at:at+n], c.data)
		}
		at += n
	}
	if v.patched != nil {
		for i := range dst {
			if e, ok := v.patched[off+coord.Offset(i)]; ok {
				dst[i] = e
			}
		}
	}
}

// encode is read without decoding: it fills dst with the bytes that belong in
// the queue's file from off on.
func (v *view) encode(off coord.Offset, dst []byte) {
	to := off + coord.Offset(len(dst)/EntrySize)
	for i, at := v.find(off), off; at < to; i++ {
		c, n := v.span(i, at, to)
		part := dst[int(at-off)*EntrySize:][:n*EntrySize]
		if c.data == nil {
			clear(part)
		} else {
			copy(part, c.data)
		}
		at += coord.Offset(n)
	}
	for p, e := range v.patched {
		if p >= off && p < to {
			e.Put(dst[int(p-off)*EntrySize:])
		}
	}
}

// holes returns how many entries from off up to to are known to be holes, so
// that a file can be extended without writing them.
func (v *view) holes(off, to coord.Offset) int {
	if len(v.patched) > 0 {
		return 0
	}
	c, n := v.span(v.find(off), off, to)
	if c.data != nil {
		return 0
	}
	return n
}
