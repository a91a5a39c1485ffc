package keyindex

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"

	"github.com/pocketmq/mq/internal/coord"
)

// Range says which pairs Ascend visits: from From on, in its order, those with a
// hash below To and a position below Below.
type Range struct {
	From  uint64
	Pos   coord.Position // of the hash From, not below this position
	To    uint64
	Below coord.Position
}

// Ascend calls visit with the pairs of a range, ordered by hash and then by
// position, the lowest first, until it returns false. (Where a hash is a time,
// that is the order of time.)
//
// It holds no lock meanwhile, no file open, and one page of each file in memory;
// of the pairs in memory it orders a copy. The order needs all files, so the first
// one that is damaged ends it with a *CorruptError: Rebuild, and begin again. A
// file that DropBefore takes meanwhile is left out.
func (x *Index) Ascend(r Range, visit func(hash uint64, pos coord.Position) bool) error {
	if x.closed.Load() {
		return ErrClosed
	}
	st := x.state.Load()
	first := pair{r.From, r.Pos}
	sources := []source{st.ascending(r)}
	for _, s := range st.spans {
		if s.from >= r.Below || x.spent(s, r.From, r.To) {
			continue
		}
		c := &cursor{x: x, reader: reader{span: s, path: x.path(s)}, to: r.To}
		err := c.seek(first)
		if err != nil && !x.droppedSince(s) {
			return err
		}
		if err == nil && c.ok {
			sources = append(sources, source{cursor: c})
		} else if err == nil && r.Pos == 0 {
			x.spend(s, r.From, r.To)
		} else if err == nil {
			x.spend(s, r.From+1, r.To)
		}
	}
	for {
		least := -1
		for i := range sources {
			if p, ok := sources[i].head(); ok && (least < 0 || p.before(sources[least].pair)) {
				least = i
			}
		}
		if least < 0 {
			return nil
		}
		s := &sources[least]
		if s.pair.pos < r.Below && !visit(s.pair.hash, s.pair.pos) {
			return nil
		}
		if err := s.next(); err != nil && !x.droppedSince(s.cursor.span) {
			return err
		}
	}
}

// before orders pairs as Ascend does.
func (p pair) before(q pair) bool {
	return p.hash < q.hash || p.hash == q.hash && p.pos < q.pos
}

// source is where pairs come from in their order: memory, or a file.
type source struct {
	pair   pair   // the first one left, after head
	pairs  []pair // a heap: seldom are all of them asked for
	cursor *cursor
}

// head returns the first pair that is left.
func (s *source) head() (p pair, ok bool) {
	if s.cursor != nil {
		s.pair, ok = s.cursor.pair, s.cursor.ok
		return s.pair, ok
	}
	if len(s.pairs) == 0 {
		return p, false
	}
	s.pair = s.pairs[0]
	return s.pair, true
}

func (s *source) next() error {
	if s.cursor != nil {
		return s.cursor.next()
	}
	last := len(s.pairs) - 1
	s.pairs[0] = s.pairs[last]
	s.pairs = s.pairs[:last]
	s.sink(0)
	return nil
}

// sink puts pair i of the heap where it belongs below.
func (s *source) sink(i int) {
	h := s.pairs
	for {
		least := 2*i + 1
		if least >= len(h) {
			return
		}
		if right := least + 1; right < len(h) && h[right].before(h[least]) {
			least = right
		}
		if !h[least].before(h[i]) {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}

// ascending is what memory has of a range.
func (st *state) ascending(r Range) (s source) {
	first := pair{r.From, r.Pos}
	for _, c := range st.chunks {
		n := int(c.n.Load())
		for i, hash := range c.hashes[:n] {
			p := pair{hash, c.positions[i]}
			if hash < r.To && p.pos < r.Below && p.pos >= st.covered && !p.before(first) {
				s.pairs = append(s.pairs, p)
			}
		}
	}
	for i := len(s.pairs)/2 - 1; i >= 0; i-- {
		s.sink(i)
	}
	return s
}

// cursor walks a file in the order of Ascend. The pairs of one hash stand in the
// file with the highest position first, so those are walked from their end:
//
//	… | hash 7 | hash 8 … hash 8 | hash 9 | …
//	            begin <-- at    end
type cursor struct {
	x *Index
	reader
	to uint64

	page           int64 // loaded; valid if read is true
	read           bool
	begin, at, end int64 // of the pairs of one hash

	pair pair // at at
	ok   bool // there is one
}

// get returns pair i of the file.
func (c *cursor) get(i int64) (pair, error) {
	if n := i / pagePairs; !c.read || n != c.page {
		if err := c.fetch(n); err != nil {
			return pair{}, err
		}
	}
	return c.reader.at(int(i % pagePairs)), nil
}

// fetch reads page n. The file is open only meanwhile: there may be thousands.
func (c *cursor) fetch(n int64) error {
	c.read = false
	err := c.withFile(func() error { return c.load(n) })
	c.page, c.read = n, err == nil
	return err
}

// withFile calls do with the file open and its header read.
func (c *cursor) withFile(do func() error) error {
	if c.size == 0 {
		return c.corrupt(errMissing)
	}
	f, err := c.x.fs.Open(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c.corrupt(errMissing)
	}
	if err != nil {
		return fmt.Errorf("keyindex: open %s: %w", c.path, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	c.file = f
	if c.header.pairs == 0 { // not read yet
		if err := c.readHeader(); err != nil {
			return err
		}
	}
	return do()
}

// seek puts the cursor on the first pair that does not come before p.
func (c *cursor) seek(p pair) error {
	if err := c.withFile(func() error { return nil }); err != nil {
		return err
	}
	begin, err := c.firstFrom(0, p.hash)
	if err != nil {
		return err
	}
	if err := c.stand(begin); err != nil || !c.ok || c.pair.hash != p.hash {
		return err
	}
	// Down to the lowest position that is not below p's.
	low, high := c.begin, c.end // below low they do not come before p, from high on they do
	for low < high {
		mid := low + (high-low)/2
		q, err := c.get(mid)
		if err != nil {
			return err
		}
		if q.pos < p.pos {
			high = mid
		} else {
			low = mid + 1
		}
	}
	if low == c.begin {
		return c.stand(c.end)
	}
	return c.put(low - 1)
}

// firstFrom returns the first pair from i on with that hash or a higher one.
func (c *cursor) firstFrom(i int64, hash uint64) (int64, error) {
	// It is mostly near: first it is looked for in this page, then in two, in four.
	low, high := i, c.header.pairs
	for step := int64(pagePairs); low < high; step *= 2 {
		last := min(low/pagePairs*pagePairs+step, c.header.pairs) - 1
		p, err := c.get(last)
		if err != nil {
			return 0, err
		}
		if p.hash >= hash {
			high = last
			break
		}
		low = last + 1
	}
	for low < high {
		mid := low + (high-low)/2
		p, err := c.get(mid)
		if err != nil {
			return 0, err
		}
		if p.hash < hash {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, nil
}

// stand puts the cursor on the lowest position of the hash that begins at i.
func (c *cursor) stand(i int64) error {
	c.ok = false
	if i >= c.header.pairs {
		return nil
	}
	p, err := c.get(i)
	if err != nil || p.hash >= c.to {
		return err
	}
	c.begin, c.end = i, i+1
	// Mostly a hash has one pair.
	if c.end < c.header.pairs {
		q, err := c.get(c.end)
		if err != nil {
			return err
		}
		if q.hash == p.hash {
			if c.end, err = c.firstFrom(c.end, p.hash+1); err != nil {
				return err
			}
		}
	}
	return c.put(c.end - 1)
}

// put puts the cursor on pair i, of the hash it is at.
func (c *cursor) put(i int64) (err error) {
	c.ok = false
	if c.pair, err = c.get(i); err != nil {
		return err
	}
	if c.pair.pos < c.from || c.pair.pos >= c.span.to {
		return c.corrupt(errOrder)
	}
	c.at, c.ok = i, true
	return nil
}

// next moves to the next pair in the order of Ascend.
func (c *cursor) next() error {
	if c.at > c.begin {
		return c.put(c.at - 1)
	}
	return c.stand(c.end)
}

// Among calls visit with those of the hashes, which ascend, that have a pair,
// once for each pair. It reads every file once from front to back, and of it no
// more than the pages where the hashes would be. A damaged file ends it with a
// *CorruptError.
func (x *Index) Among(hashes []uint64, visit func(i int, pos coord.Position)) error {
	if x.closed.Load() {
		return ErrClosed
	}
	if len(hashes) == 0 {
		return nil
	}
	st := x.state.Load()
	for _, ch := range st.chunks {
		n := int(ch.n.Load())
		for j, hash := range ch.hashes[:n] {
			if hash < hashes[0] || hash > hashes[len(hashes)-1] || ch.positions[j] < st.covered {
				continue
			}
			if i, ok := slices.BinarySearch(hashes, hash); ok {
				visit(i, ch.positions[j])
			}
		}
	}
	for _, s := range st.spans {
		c := &cursor{x: x, reader: reader{span: s, path: x.path(s)}, to: hashes[len(hashes)-1] + 1}
		if err := c.among(hashes, visit); err != nil && !x.droppedSince(s) {
			return err
		}
	}
	return nil
}

// among is Among in one file.
func (c *cursor) among(hashes []uint64, visit func(i int, pos coord.Position)) error {
	err := c.seek(pair{hash: hashes[0]})
	for i := 0; err == nil && c.ok && i < len(hashes); {
		switch {
		case hashes[i] < c.pair.hash:
			i++
		case hashes[i] == c.pair.hash:
			visit(i, c.pair.pos)
			err = c.next()
		default:
			err = c.skipTo(hashes[i])
		}
	}
	return err
}

// skipTo moves on to the first pair with that hash or a higher one.
func (c *cursor) skipTo(hash uint64) error {
	// What comes next is in the page that is loaded, if its last pair is not
	// below: then no other is read.
	i := c.end
	if c.read && c.page == i/pagePairs && c.reader.at(c.len()-1).hash >= hash {
		in := int(i % pagePairs)
		n := sort.Search(c.len()-in, func(k int) bool { return c.reader.at(in+k).hash >= hash })
		return c.stand(i + int64(n))
	}
	begin, err := c.firstFrom(i, hash)
	if err != nil {
		return err
	}
	return c.stand(begin)
}

// spent reports whether a file is known to have no pair with from <= hash < to.
// Of an index by time most files are soon of that kind.
func (x *Index) spent(s span, from, to uint64) bool {
	x.stateMu.Lock()
	defer x.stateMu.Unlock()
	r, ok := x.done[s.from]
	return ok && r.from <= from && to <= r.to
}

func (x *Index) spend(s span, from, to uint64) {
	x.stateMu.Lock()
	defer x.stateMu.Unlock()
	if x.done == nil {
		x.done = map[coord.Position]hashes{}
	}
	x.done[s.from] = hashes{from, to}
}

// hashes are those from <= hash < to.
type hashes struct{ from, to uint64 }
