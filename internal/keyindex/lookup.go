package keyindex

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

// Lookup calls visit with the positions added with a hash, the highest first,
// until it returns false. It holds no lock meanwhile and one page in memory. A
// damaged file does not end the search: what the others have is visited, and the
// error joins a *CorruptError for each damaged one.
func (x *Index) Lookup(hash uint64, visit func(pos coord.Position) bool) error {
	if x.closed.Load() {
		return ErrClosed
	}
	st := x.state.Load()
	if !st.lookup(hash, visit) {
		return nil
	}
	var errs []error
	for i := len(st.spans) - 1; i >= 0; i-- {
		more, err := x.lookupFile(st.spans[i], hash, visit)
		if err != nil && !x.droppedSince(st.spans[i]) {
			errs = append(errs, err)
		}
		if !more {
			break
		}
	}
	return errors.Join(errs...)
}

// lookup is Lookup in memory. It is false if visit has had enough.
func (st *state) lookup(hash uint64, visit func(pos coord.Position) bool) (more bool) {
	for i := len(st.chunks) - 1; i >= 0; i-- {
		c := st.chunks[i]
		for j := int(c.n.Load()) - 1; j >= 0; j-- {
			if c.hashes[j] != hash {
				continue
			}
			if pos := c.positions[j]; pos >= st.covered && !visit(pos) {
				return false
			}
		}
	}
	return true
}

// droppedSince reports whether DropBefore has taken the file meanwhile.
func (x *Index) droppedSince(s span) bool {
	spans := x.state.Load().spans
	return len(spans) == 0 || s.from < spans[0].from
}

// lookupFile is Lookup in one file.
func (x *Index) lookupFile(s span, hash uint64, visit func(pos coord.Position) bool) (more bool, err error) {
	r := reader{span: s, path: x.path(s)}
	if s.size == 0 {
		return true, r.corrupt(errMissing)
	}
	f, err := x.fs.Open(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, r.corrupt(errMissing)
	}
	if err != nil {
		return true, fmt.Errorf("keyindex: open %s: %w", r.path, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	r.file = f
	if err := r.readHeader(); err != nil {
		return true, err
	}
	return r.lookup(hash, visit)
}

// reader looks up in one file. Nothing it reads is used before its hash agrees.
type reader struct {
	span
	path string
	file vfs.File

	header header
	sum    uint64 // hash of the header
	page   [pageSize]byte
	loaded []byte // the pairs of the page read last
}

// corrupt makes an error of a flaw.
func (r *reader) corrupt(flaw error) error {
	return &CorruptError{File: r.path, From: r.from, To: r.to, Err: flaw}
}

// readAt fills dst. A file that ends before is damaged.
func (r *reader) readAt(dst []byte, at int64) error {
	n, err := r.file.ReadAt(dst, at)
	switch {
	case n == len(dst):
		return nil
	case errors.Is(err, io.EOF):
		return r.corrupt(errSize)
	default:
		return fmt.Errorf("keyindex: read %s@%d: %w", r.path, at, err)
	}
}

// readHeader reads and checks the header against the file's name and size.
func (r *reader) readHeader() error {
	raw := r.page[:headerSize]
	if err := r.readAt(raw, 0); err != nil {
		return err
	}
	var err error
	if r.header, r.sum, err = decodeHeader(raw); err != nil {
		return r.corrupt(err)
	}
	if r.header.from != r.from || r.header.to != r.to {
		return r.corrupt(errHeader)
	}
	size, err := r.file.Size()
	if err != nil {
		return fmt.Errorf("keyindex: size of %s: %w", r.path, err)
	}
	if size != r.header.size() {
		return r.corrupt(errSize)
	}
	return nil
}

// load reads page n.
func (r *reader) load(n int64) error {
	if err := r.readAt(r.page[:], headerSize+n*pageSize); err != nil {
		return err
	}
	if err := checkPage(r.page[:], n, r.sum); err != nil {
		return r.corrupt(err)
	}
	r.loaded = r.page[:min(r.header.pairs-n*pagePairs, pagePairs)*pairSize]
	return nil
}

// at returns pair i of the page loaded last.
func (r *reader) at(i int) pair { return pairAt(r.loaded[i*pairSize:]) }

// len returns the number of pairs of the page loaded last, at least one.
func (r *reader) len() int { return len(r.loaded) / pairSize }

// lookup visits the positions of a hash.
func (r *reader) lookup(hash uint64, visit func(pos coord.Position) bool) (more bool, err error) {
	// The first page that ends with the hash or a greater one.
	first, end := int64(0), r.header.pages()
	for lo, hi := first, end; lo < hi; first = lo {
		mid := lo + (hi-lo)/2
		if err := r.load(mid); err != nil {
			return true, err
		}
		if r.at(r.len()-1).hash < hash {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for n := first; n < end; n++ {
		if err := r.load(n); err != nil {
			return true, err
		}
		i := sort.Search(r.len(), func(i int) bool { return r.at(i).hash >= hash })
		for ; i < r.len() && r.at(i).hash == hash; i++ {
			pos := r.at(i).pos
			if pos < r.from || pos >= r.to {
				return true, r.corrupt(errOrder)
			}
			if !visit(pos) {
				return false, nil
			}
		}
		if i < r.len() {
			break
		}
	}
	return true, nil
}
