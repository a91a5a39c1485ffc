package commitlog

import (
	"errors"
	"io"
	"sync"

	"github.com/pocketmq/mq/internal/blockcache"
)

// blockBytes is how much is read back at a time from what is not mapped any
// more, aligned: some hundred small messages for one system call of 3 µs.
const blockBytes = 64 << 10

// nearBytes is how far behind the tail the mapping is read. Farther behind it is
// the cache's turn, which is bounded: each page that is loaded from a mapping
// becomes resident and stays so.
const nearBytes = 32 << 20

// reader gets bytes of one segment at a time, from where they are: the mapping;
// a block of the cache; or, near the tail of a segment without mapping and for
// records larger than a block, the file. Readers are reused.
type reader struct {
	log   *Log
	seg   *segment
	view  []byte // mapped bytes of seg, under a reference
	bound int64  // bytes of seg that are frames
	near  int64  // bytes of the view from here on are used

	block   *blockcache.Block // held
	blockAt int64             // its offset in seg

	load   func(dst []byte) (int, error) // loadBlock, bound once: a hit must not allocate
	loadAt int64

	direct window // what is read past the cache
	span   []byte // a record that lies in two blocks
}

var readerPool = sync.Pool{New: func() any {
	r := new(reader)
	r.load = r.loadBlock
	return r
}}

func (l *Log) getReader() *reader {
	r := readerPool.Get().(*reader)
	r.log = l
	return r
}

// close gives back everything the reader holds, and the reader.
func (r *reader) close() {
	r.leave()
	r.log = nil
	if cap(r.span) > keepBytes {
		r.span = nil
	}
	readerPool.Put(r)
}

// enter turns the reader to a segment, of which bound bytes may be read, those
// from near on through the mapping if there is one. The
// reference it takes keeps the mapping: a segment that is sealed and synced
// meanwhile is unmapped when the last reader leaves it.
func (r *reader) enter(s *segment, bound, near int64) {
	r.near = near
	if r.seg == s {
		r.bound = bound
		return
	}
	r.leave()
	r.seg, r.bound = s, bound
	if s.retain() {
		if r.view = s.view; r.view == nil {
			r.log.releaseMapping(s)
		}
	}
}

// leave gives back what the reader holds of its segment.
func (r *reader) leave() {
	if r.view != nil {
		r.log.releaseMapping(r.seg)
	}
	r.dropBlock()
	r.seg, r.view = nil, nil
	r.direct.reset(nil)
}

func (r *reader) dropBlock() {
	if r.block != nil {
		r.block.Release()
		r.block = nil
	}
}

// mapped tells whether bytes at off are loaded from the mapping.
func (r *reader) mapped(off int64) bool { return r.view != nil && off >= r.near }

// bytes returns [off, off+n) of the segment; the slice is valid until the next
// call. errShort: there are not so many.
func (r *reader) bytes(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || n > r.bound-off {
		return nil, errShort
	}
	if r.mapped(off) {
		return r.view[off : off+n : off+n], nil
	}
	first, last := off/blockBytes, (off+n-1)/blockBytes
	if last-first > 1 || !r.cacheable(last) {
		return r.uncached(off, n)
	}
	b, err := r.cached(first, min(blockBytes, off-first*blockBytes+n))
	if err != nil {
		return nil, err
	}
	b = b[off-first*blockBytes:]
	if first == last {
		return b[:n:n], nil
	}
	// In two blocks: put together, for a record is one slice.
	r.span = append(r.span[:0], b...)
	b, err = r.cached(last, n-int64(len(r.span)))
	if err != nil {
		return nil, err
	}
	r.span = append(r.span, b[:n-int64(len(r.span))]...)
	return r.span, nil
}

// cacheable tells whether a block never changes again: it lies wholly below
// written, or its segment is sealed.
func (r *reader) cacheable(block int64) bool {
	return (block+1)*blockBytes <= r.bound || r.seg.sealed()
}

// cached returns a block, which has need bytes at least.
func (r *reader) cached(block, need int64) ([]byte, error) {
	if r.block == nil || r.blockAt != block*blockBytes {
		r.dropBlock()
		r.loadAt = block * blockBytes
		b, err := r.log.cache.Get(blockcache.Key{File: uint64(r.seg.base()), Block: block}, r.load)
		if err != nil {
			return nil, err
		}
		r.block, r.blockAt = b, block*blockBytes
	}
	b := r.block.Bytes()
	if int64(len(b)) < need {
		return nil, errShort // somebody cut the file
	}
	return b, nil
}

// loadBlock reads a block for the cache.
func (r *reader) loadBlock(dst []byte) (n int, err error) {
	return r.withFile(func(f io.ReaderAt) (int, error) {
		n, err := f.ReadAt(dst, r.loadAt)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, &readError{err}
		}
		return n, nil
	})
}

// uncached reads past the cache, ahead for the records that follow.
func (r *reader) uncached(off, n int64) (b []byte, err error) {
	if b := r.direct.buffered(off, n); b != nil {
		return b, nil
	}
	_, err = r.withFile(func(f io.ReaderAt) (int, error) {
		r.direct.src = f
		b, err = r.direct.bytes(off, n, r.bound)
		return len(b), err
	})
	return b, err
}

func (r *reader) withFile(use func(io.ReaderAt) (int, error)) (int, error) {
	f, err := r.log.handles.acquire(r.seg)
	if err != nil {
		return 0, &readError{err} // it says nothing of what is in the file
	}
	n, err := use(f)
	return n, errors.Join(err, r.log.handles.release(r.seg))
}
