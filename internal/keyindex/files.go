package keyindex

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

// tmp ends the names of files that are not complete yet.
const tmp = ".tmp"

// Open opens the index in dir, which need not exist. It reads names and sizes
// only; a file that turns out to be damaged is reported by Lookup.
func Open(fsys vfs.FS, dir string) (*Index, error) {
	x := &Index{fs: fsys, dir: dir}
	entries, err := fsys.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("keyindex: open %s: %w", dir, err)
	}
	st := new(state)
	for _, e := range entries {
		s, ok := parseName(strings.TrimSuffix(e.Name, tmp))
		if !ok || e.Dir {
			continue // somebody else's
		}
		s.size = e.Size
		useless := e.Name
		if !strings.HasSuffix(e.Name, tmp) {
			useless = st.add(s)
		}
		if useless == "" {
			continue
		}
		if err := fsys.Remove(filepath.Join(dir, useless)); err != nil {
			return nil, fmt.Errorf("keyindex: remove %s: %w", useless, err)
		}
	}
	x.state.Store(st)
	return x, nil
}

// add appends the span of a file found at open, in the order of names. What
// lies between it and the one before is a file that is missing. It returns the
// name of a file that is of no use: two overlap if a flush failed after it had
// named its file, and the next one covered more; then the longer one has all.
func (st *state) add(s span) (useless string) {
	if n := len(st.spans); n > 0 {
		switch last := st.spans[n-1]; {
		case s.from == last.from:
			useless, st.spans = last.name(), st.spans[:n-1]
		case s.to <= last.to:
			return s.name()
		case s.from < last.to: // no flush makes this
			useless, s = s.name(), span{from: last.to, to: s.to}
		case s.from > last.to:
			st.spans = append(st.spans, span{from: last.to, to: s.from})
		}
	}
	st.spans = append(st.spans, s)
	st.covered = s.to
	return useless
}

// Flush moves the pairs below upTo to a new file, which is durable when it
// returns. All of them have been added. Without pairs there is no file. After an
// error the pairs are still in memory.
func (x *Index) Flush(upTo coord.Position) error {
	x.fileMu.Lock()
	defer x.fileMu.Unlock()
	if x.closed.Load() {
		return ErrClosed
	}
	st := x.state.Load()
	if upTo <= st.covered {
		return nil
	}
	pairs := st.pending(upTo)
	spans := st.spans
	if len(pairs) > 0 {
		s := span{from: st.covered, to: upTo}
		if n := len(spans); n > 0 {
			s.from = spans[n-1].to // without a gap for what had no keys
		}
		if err := x.writeFile(&s, pairs); err != nil {
			return err
		}
		spans = append(slices.Clip(spans), s)
	}
	x.replace(func(next *state) {
		next.spans, next.covered = spans, upTo
		// A fresh array: adding extends it in place. The last chunk stays even
		// if all of it is covered, it is the adder's.
		n := 0
		for n < len(next.chunks)-1 && next.chunks[n].positions[chunkPairs-1] < upTo {
			n++
		}
		next.chunks = append([]*chunk(nil), next.chunks[n:]...)
	})
	return nil
}

// pending returns the pairs in memory from covered up to upTo.
func (st *state) pending(upTo coord.Position) []pair {
	var pairs []pair
	for _, c := range st.chunks {
		n := int(c.n.Load())
		for i, pos := range c.positions[:n] {
			if pos >= st.covered && pos < upTo {
				pairs = append(pairs, pair{c.hashes[i], pos})
			}
		}
	}
	return pairs
}

// replace publishes a changed copy of the state.
func (x *Index) replace(change func(next *state)) {
	x.stateMu.Lock()
	defer x.stateMu.Unlock()
	next := *x.state.Load()
	change(&next)
	x.state.Store(&next)
}

// writeFile sorts pairs and makes them the durable file of a span, whose size it
// sets. The name appears when the content is synced, so a file that has one is
// complete unless the disk lost something. The caller holds fileMu.
func (x *Index) writeFile(s *span, pairs []pair) (err error) {
	slices.SortFunc(pairs, pair.compare)
	h := header{from: s.from, to: s.to, pairs: int64(len(pairs))}
	s.size = h.size()
	path := x.path(*s)
	defer func() {
		if err != nil {
			err = fmt.Errorf("keyindex: write %s: %w", path, err)
		}
	}()
	if err := x.fs.MkdirAll(x.dir); err != nil {
		return err
	}
	if err := x.fs.Remove(path + tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := x.fs.Create(path+tmp, s.size)
	if err != nil {
		return err
	}
	err = writePages(f, h, pairs)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, x.fs.Remove(path+tmp))
	}
	if err := x.fs.Rename(path+tmp, path); err != nil {
		return err
	}
	return errors.Join(x.fs.SyncDir(x.dir), x.fs.SyncDir(filepath.Dir(x.dir)))
}

// writePages writes a header and sorted pairs, 16 pages at a time.
func writePages(f vfs.File, h header, pairs []pair) error {
	buf := make([]byte, 0, 16*pageSize)
	sum := h.put(buf[:headerSize])
	if _, err := f.WriteAt(buf[:headerSize], 0); err != nil {
		return err
	}
	at := int64(headerSize)
	for n := int64(0); n < h.pages(); n++ {
		page := pairs[n*pagePairs : min((n+1)*pagePairs, int64(len(pairs)))]
		buf = buf[:len(buf)+pageSize]
		putPage(buf[len(buf)-pageSize:], page, n, sum)
		if len(buf) == cap(buf) || n == h.pages()-1 {
			if _, err := f.WriteAt(buf, at); err != nil {
				return err
			}
			at, buf = at+int64(len(buf)), buf[:0]
		}
	}
	return nil
}

// Rebuild makes the file of a *CorruptError again. scan calls add for every pair
// of the log from from up to to, in any order; others are ignored.
func (x *Index) Rebuild(from, to coord.Position, scan func(add func(hash uint64, pos coord.Position)) error) error {
	x.fileMu.Lock()
	defer x.fileMu.Unlock()
	if x.closed.Load() {
		return ErrClosed
	}
	i := slices.IndexFunc(x.state.Load().spans, func(s span) bool { return s.from == from && s.to == to })
	if i < 0 {
		return nil // dropped meanwhile
	}
	var pairs []pair
	err := scan(func(hash uint64, pos coord.Position) {
		if pos >= from && pos < to {
			pairs = append(pairs, pair{hash, pos})
		}
	})
	if err != nil {
		return fmt.Errorf("keyindex: rebuild %d-%d: %w", from, to, err)
	}
	s := span{from: from, to: to}
	if err := x.writeFile(&s, pairs); err != nil {
		return err
	}
	x.replace(func(next *state) {
		next.spans = slices.Clone(next.spans)
		next.spans[i] = s
		delete(x.done, from)
	})
	return nil
}

// Limit removes files that cover anything from to on: those made after the last
// checkpoint, whose part of the log will be replayed and may have been cut. It
// is called when the index has been opened, before anything is added.
func (x *Index) Limit(to coord.Position) error {
	x.fileMu.Lock()
	defer x.fileMu.Unlock()
	if x.closed.Load() {
		return ErrClosed
	}
	spans := x.state.Load().spans
	keep := len(spans)
	for keep > 0 && spans[keep-1].to > to {
		keep--
	}
	if keep == len(spans) {
		return nil
	}
	x.replace(func(next *state) {
		next.spans, next.covered, x.done = spans[:keep:keep], 0, nil
		if keep > 0 {
			next.covered = spans[keep-1].to
		}
	})
	// Newest first, so that an interruption leaves no gap. Synced, so that none
	// comes back beside a later file without pairs in its place.
	gone := slices.Clone(spans[keep:])
	slices.Reverse(gone)
	if err := x.remove(gone); err != nil {
		return err
	}
	if err := x.fs.SyncDir(x.dir); err != nil {
		return fmt.Errorf("keyindex: sync %s: %w", x.dir, err)
	}
	return nil
}

// Bounds returns from where to where files cover the log, 0 and 0 if there are
// none. Expect is told so when the index is opened again.
func (x *Index) Bounds() (from, to coord.Position) {
	if spans := x.state.Load().spans; len(spans) > 0 {
		from, to = spans[0].from, spans[len(spans)-1].to
	}
	return from, to
}

// Expect says what Bounds was when the last checkpoint was made. What no file
// covers of it counts as a file that is missing: one between others is noticed
// without, the first and the last are not. What DropBefore has taken since is to
// be dropped again. It is called behind Limit, before anything is added.
func (x *Index) Expect(from, to coord.Position) {
	x.replace(func(next *state) {
		spans := next.spans
		if len(spans) > 0 && from < spans[0].from {
			spans = slices.Insert(slices.Clone(spans), 0, span{from: from, to: spans[0].from})
		}
		if n := len(spans); n > 0 {
			from = spans[n-1].to
		}
		if from < to {
			spans = append(slices.Clip(spans), span{from: from, to: to})
			next.covered = to
		}
		next.spans = spans
	})
}

// DropBefore removes files that cover nothing from pos on. One that cannot be
// removed is not looked at any more, and tried again after the next Open.
func (x *Index) DropBefore(pos coord.Position) error {
	x.fileMu.Lock()
	defer x.fileMu.Unlock()
	if x.closed.Load() {
		return ErrClosed
	}
	spans := x.state.Load().spans
	n := 0
	for n < len(spans) && spans[n].to <= pos {
		n++
	}
	if n == 0 {
		return nil
	}
	// First the state, so that no new lookup wants what is about to go.
	x.replace(func(next *state) {
		next.spans = slices.Clone(spans[n:])
		for _, s := range spans[:n] {
			delete(x.done, s.from)
		}
	})
	return x.remove(spans[:n])
}

// remove removes the files of spans. The caller holds fileMu.
func (x *Index) remove(spans []span) error {
	var errs []error
	for _, s := range spans {
		if err := x.fs.Remove(x.path(s)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("keyindex: remove %s: %w", x.path(s), err))
		}
	}
	return errors.Join(errs...)
}

// path returns the path of the file of a span.
func (x *Index) path(s span) string { return filepath.Join(x.dir, s.name()) }
