package commitlog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"github.com/pocketmq/mq/internal/vfs"
)

func (r *recovery) now() int64 { return time.Now().UnixMilli() }

// load finds the segments and reads their headers. It changes nothing but
// making the folder.
func (r *recovery) load() error {
	entries, err := r.opts.FS.List(r.opts.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("commitlog: list segments: %w", err)
	}
	for _, e := range entries {
		base, ok := parseSegmentName(e.Name)
		if !ok || e.Dir {
			r.opts.Logger.Warn("commit log: not a segment, left alone", slog.String("name", e.Name))
			continue
		}
		s := &segment{name: segmentName(r.opts.Dir, base), limit: e.Size}
		s.header.base = base
		s.bytes.Store(e.Size)
		r.segments = append(r.segments, s) // names have one length: sorted is oldest first
	}
	// A folder without segments may be there because an earlier opening ended
	// between making it and making it durable.
	if len(r.segments) == 0 && !r.reading {
		if err := r.makeDir(); err != nil {
			return err
		}
	}
	r.codec.headLen = r.opts.HeadLen
	damaged, err := r.loadHeaders()
	if err != nil {
		return err
	}
	r.identify(damaged)
	r.proven = max(r.start.From, r.start.Synced)
	return nil
}

// Probe looks at the log in dir before anything is changed, there or beside it.
// It returns how many segments there are and whose they are, 0 if no header
// says it. ErrVersion means that Open would refuse the log.
func Probe(fsys vfs.FS, dir string) (store uint64, segments int, err error) {
	r := &recovery{opts: Options{FS: fsys, Dir: dir}, handles: &handles{fs: fsys}}
	defer func() { err = errors.Join(err, r.handles.close()) }()
	entries, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("commitlog: list segments: %w", err)
	}
	for _, e := range entries {
		base, ok := parseSegmentName(e.Name)
		if !ok || e.Dir {
			continue
		}
		segments++
		s := &segment{name: segmentName(dir, base)}
		s.header.base = base
		h, err := r.loadHeader(s)
		if errors.Is(err, ErrVersion) {
			return 0, 0, fmt.Errorf("commitlog: open %s: %w", s.name, err)
		}
		if err == nil && store == 0 {
			store = h.store
		}
	}
	return store, segments, nil
}

// loadHeaders reads the header of every segment, and returns the segments that
// have none to be trusted.
func (r *recovery) loadHeaders() (damaged []*segment, err error) {
	for i, s := range r.segments {
		h, err := r.loadHeader(s)
		if errors.Is(err, ErrVersion) {
			return nil, fmt.Errorf("commitlog: open %s: %w", s.name, err)
		}
		var broken *readError
		if errors.As(err, &broken) {
			return nil, fmt.Errorf("commitlog: open %s: %w", s.name, broken.err)
		}
		// A file from another store is as good as damaged.
		if err == nil && r.known && h.store != r.codec.store {
			err = errSegmentHeader
		}
		if err != nil {
			s.header.capacity = r.guessCapacity(i)
			damaged = append(damaged, s)
			continue
		}
		s.header = h
		r.codec.store, r.known = h.store, true
		r.highest = max(r.highest, h.epoch)
		r.logStart = max(r.logStart, h.start)
	}
	return damaged, nil
}

func (r *recovery) loadHeader(s *segment) (segmentHeader, error) {
	f, err := r.handles.acquire(s)
	if err != nil {
		return segmentHeader{}, &readError{err}
	}
	defer r.handles.release(s) // nothing was written
	b := make([]byte, segmentHeaderSize)
	if n, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return segmentHeader{}, &readError{err}
	} else if n < len(b) {
		return segmentHeader{}, errSegmentHeader
	}
	return parseSegmentHeader(b, s.base())
}

// guessCapacity returns the share of positions of a segment that does not say
// it: up to the next one, or as much as its file holds.
func (r *recovery) guessCapacity(i int) int64 {
	if i+1 < len(r.segments) {
		return int64(r.segments[i+1].base() - r.segments[i].base())
	}
	return max(min(firstSegmentBytes, r.opts.SegmentBytes), roundUp(r.segments[i].bytes.Load(), pageBytes))
}

// identify finds the store's id where no header says it: it is what must be
// XORed into the hash of the first frame. A log without any is a new store.
func (r *recovery) identify(damaged []*segment) {
	for _, s := range damaged {
		if r.known {
			return
		}
		r.codec.store, r.known = r.guessStore(s)
		r.leaveWindow()
	}
	if !r.known {
		r.codec.store = randomID()
	}
}

// maxGuesses is how many places of a segment are tried for the store's id.
const maxGuesses = 256

// guessStore works the id out from a frame of a segment, the first that is
// whole.
func (r *recovery) guessStore(s *segment) (uint64, bool) {
	defer func(c codec) { r.codec = c }(r.codec)
	bound := s.bytes.Load()
	for off, tries := int64(segmentHeaderSize), 0; tries < maxGuesses; tries++ {
		w, err := r.window(s)
		if err == nil {
			off, err = nextMagic(w, off, bound, nil)
		}
		if err != nil || off < 0 {
			break
		}
		if id, ok := r.guessAt(s, off); ok {
			return id, true
		}
		off += frameAlign
	}
	return 0, false
}

// guessAt works the id out from the frame at off, and believes it if the frame
// behind, or END, agrees.
func (r *recovery) guessAt(s *segment, off int64) (uint64, bool) {
	r.codec.store = 0
	h, b, err := r.bytes(s, off)
	if err != nil || h.flags == flagInner {
		return 0, false
	}
	pos, covered := s.base()+Position(off), uint64(0)
	if h.flags == flagBatch {
		covered = sumOf(b, headerSize, 0, pos, 0)
	} else if covered, err = r.codec.sum(h, b, pos); err != nil {
		return 0, false
	}
	r.codec.store = covered ^ binary.LittleEndian.Uint64(b[hashAt:])
	_, _, err = r.frame(s, off+h.padded(), 0)
	return r.codec.store, err == nil
}

// randomID returns the id of a new store.
func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, or ends the process
	return binary.LittleEndian.Uint64(b[:])
}
