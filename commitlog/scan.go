package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// scanner walks written frames. It goes from header to header, so it may also
// begin at a record inside a batch; every header and record is verified.
type scanner struct {
	log   *Log
	win   window
	seg   *segment
	bound int64

	frameEnd Position         // of the batch being walked
	damaged  *CorruptionError // the first one
}

// Scan hands every record in [from, to) to visit, in the order of the log,
// until visit returns an error, which comes back. from is the start of the log,
// of a frame or of a record. Damaged bytes are skipped; the first place comes
// back as a *CorruptionError when the scan is done.
//
// It reads files through a buffer of its own, so that a long scan does not push
// out what others read.
func (l *Log) Scan(from, to Position, visit func(Record) error) error {
	sc := &scanner{log: l}
	written := l.Written()
	to = min(to, written)
	for _, s := range *l.segments.Load() {
		if s.next() <= from || s.base() >= to {
			continue
		}
		err := sc.segment(s, max(segmentHeaderSize, int64(from-s.base())), to, written, visit)
		if err != nil {
			return err
		}
	}
	if sc.damaged != nil {
		return sc.damaged
	}
	return nil
}

// segment scans one segment from an offset.
func (sc *scanner) segment(s *segment, off int64, to, written Position, visit func(Record) error) (err error) {
	f, err := sc.log.handles.acquire(s)
	if errors.Is(err, ErrNotFound) {
		return nil // dropped since the scan began
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sc.log.handles.release(s)) }()
	sc.win.reset(f)
	sc.seg, sc.bound, sc.frameEnd = s, s.bound(written), 0
	off = align(off)
	for off < sc.bound && s.base()+Position(off) < to {
		n, err := sc.step(off, visit)
		var bad *notAFrame
		if errors.As(err, &bad) {
			if off, err = sc.skip(off, bad.err); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// notAFrame is the reason why bytes are no frame, told apart from errors of
// visit.
type notAFrame struct{ err error }

func (e *notAFrame) Error() string { return e.err.Error() }

// step takes one header at off and returns how far the next one is.
func (sc *scanner) step(off int64, visit func(Record) error) (int64, error) {
	h, b, err := sc.at(off)
	if err != nil {
		return 0, &notAFrame{err}
	}
	pos := sc.seg.base() + Position(off)
	switch {
	case h.flags&flagControl != 0:
		return h.padded(), nil
	case h.flags&flagBatch != 0:
		sc.frameEnd = pos + Position(h.padded())
		return headerSize, nil
	}
	end := pos + Position(h.padded())
	if h.flags&flagInner != 0 && sc.frameEnd > pos {
		end = sc.frameEnd
	}
	return h.padded(), visit(Record{Position: pos, Size: h.size, Epoch: h.epoch, End: end, Payload: b[headerSize:]})
}

// at returns the verified header or record at off.
func (sc *scanner) at(off int64) (header, []byte, error) {
	b, err := sc.win.bytes(off, headerSize, sc.bound)
	if err != nil {
		return header{}, nil, err
	}
	h, err := parseHeader(b)
	if err != nil {
		return header{}, nil, err
	}
	pos := sc.seg.base() + Position(off)
	if h.flags&flagBatch != 0 {
		return h, b, sc.log.codec.checkBatchHeader(b, pos)
	}
	if b, err = sc.win.bytes(off, int64(h.size), sc.bound); err != nil {
		return header{}, nil, err
	}
	return h, b, sc.log.codec.checkRecord(h, b, pos)
}

// skip notes damage at off and returns where the next valid header is, the
// segment's end if there is none.
func (sc *scanner) skip(off int64, cause error) (int64, error) {
	var broken *readError
	if errors.As(cause, &broken) {
		return 0, fmt.Errorf("commitlog: scan %s@%d: %w", sc.seg.name, off, broken.err)
	}
	if sc.damaged == nil {
		sc.damaged = &CorruptionError{File: sc.seg.name, Offset: off, Err: cause}
	}
	budget := newBudget(sc.bound - off)
	for {
		next, err := nextMagic(&sc.win, off+frameAlign, sc.bound, nil)
		if err != nil || next < 0 {
			return sc.bound, err
		}
		if h, _, err := sc.at(next); err == nil {
			return next, nil
		} else if !budget.spend(h.size) {
			return sc.bound, nil
		}
		off = next
	}
}

// budget bounds the work that bytes which only look like headers can cause.
// Somebody may send bodies full of them, each claiming 16 MiB; without the
// store's id none is valid, but finding that out takes a hash.
type budget struct{ bytes int64 }

// newBudget allows to hash the bytes themselves, and a gibibyte (0.1 s) more.
func newBudget(bytes int64) *budget { return &budget{bytes: bytes + 1<<30} }

func (b *budget) spend(size uint32) bool {
	b.bytes -= max(int64(size), headerSize)
	return b.bytes > 0
}

// nextMagic returns the first 8-aligned offset from off on at which a header may
// begin, or -1. junk, if not nil, is set behind the last byte of a word that is
// not zero.
func nextMagic(w *window, off, bound int64, junk *int64) (int64, error) {
	const want = frameMagic | frameVersion<<16
	for off = align(off); off+frameAlign <= bound; {
		b, err := w.ahead(off, frameAlign, bound)
		if errors.Is(err, errShort) {
			return -1, nil // the file is shorter than it should be
		}
		if err != nil {
			return -1, err
		}
		for i := 0; i+frameAlign <= len(b); i += frameAlign {
			word := binary.LittleEndian.Uint64(b[i:])
			if word == 0 {
				continue
			}
			if junk != nil {
				*junk = max(*junk, off+int64(i)+frameAlign)
			}
			if word&0xffffff == want {
				return off + int64(i), nil
			}
		}
		off += int64(len(b)) &^ (frameAlign - 1)
	}
	return -1, nil
}
