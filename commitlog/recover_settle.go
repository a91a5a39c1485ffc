package commitlog

import (
	"errors"
	"fmt"
	"io"
)

// settle makes the end that walk found final, whether or not bad bytes were
// seen behind it. A page that was lost reads as zeros, and behind it a valid
// frame may lie, ready to rise again when a later, shorter log ends right before
// it.
//
// Where the log ends before what is proven to be synced, nothing below that
// position is touched, and the log goes on in a new segment above it.
func (r *recovery) settle() error {
	keep := r.end
	if r.short {
		keep, r.last = r.proven, nil
	}
	for _, c := range r.junk {
		if c.From = max(c.From, keep); c.To > c.From {
			r.report.Cut = append(r.report.Cut, c)
		}
	}
	if err := r.removeFrom(keep); err != nil {
		return err
	}
	if err := r.cutAt(keep); err != nil {
		return err
	}
	if err := r.rewrite(); err != nil {
		return err
	}
	r.end = keep
	return nil
}

// removeFrom deletes the segments that begin at keep or behind it, newest first:
// after a crash in between, what is left still follows upon what is kept.
func (r *recovery) removeFrom(keep Position) error {
	n := len(r.segments)
	for ; n > 0 && r.segments[n-1].base() >= keep && r.segments[n-1] != r.last; n-- {
		if err := r.remove(r.segments[n-1]); err != nil {
			return err
		}
	}
	r.segments = r.segments[:n]
	if err := r.opts.FS.SyncDir(r.opts.Dir); err != nil {
		return fmt.Errorf("commitlog: sync folder: %w", err)
	}
	return nil
}

func (r *recovery) remove(s *segment) error {
	if err := errors.Join(r.handles.forget(s), r.opts.FS.Remove(s.name)); err != nil {
		return fmt.Errorf("commitlog: remove segment: %w", err)
	}
	return nil
}

// cutAt takes away the bytes behind keep. The segment that goes on is allocated
// again, so that they read as zeros.
func (r *recovery) cutAt(keep Position) error {
	if len(r.segments) == 0 {
		return nil
	}
	s := r.segments[len(r.segments)-1]
	off := int64(keep - s.base())
	if off >= s.bytes.Load() && s != r.last {
		return nil // nothing there
	}
	f, err := r.handles.acquire(s)
	if err != nil {
		return err
	}
	defer r.handles.release(s) // synced below
	if err := f.Cut(off); err != nil {
		return fmt.Errorf("commitlog: cut segment: %w", err)
	}
	s.bytes.Store(off)
	if s == r.last && !s.sealed() {
		return s.extend(f, off)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("commitlog: sync segment: %w", err)
	}
	return nil
}

// extend allocates the file of a segment that ends at off, as large as its
// capacity, or as far as there is space for an END frame at least, and syncs it.
func (s *segment) extend(f interface {
	Allocate(size int64) error
	Sync() error
}, off int64) error {
	s.limit = s.header.capacity
	err := f.Allocate(s.limit)
	if least := min(s.limit, roundUp(off+endSize, pageBytes)+pageBytes); outOfSpace(err) {
		s.limit = least
		err = f.Allocate(s.limit)
	}
	if outOfSpace(err) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	if err != nil {
		return fmt.Errorf("commitlog: allocate segment: %w", err)
	}
	s.bytes.Store(s.limit)
	if err := f.Sync(); err != nil {
		return fmt.Errorf("commitlog: sync segment: %w", err)
	}
	return nil
}

// rewrite writes and syncs again what is not proven to be synced. After a failed
// sync the page cache shows bytes that the disk never got, and counts them as
// clean: another sync alone would write nothing.
func (r *recovery) rewrite() error {
	if r.short {
		return nil
	}
	for _, s := range r.segments {
		if s.next() <= r.proven {
			continue
		}
		to := s.end.Load()
		if s == r.last {
			to = int64(r.end - s.base())
		}
		if from := max(0, int64(r.proven-s.base())); from < to {
			if err := r.rewriteSegment(s, from, to); err != nil {
				return fmt.Errorf("commitlog: rewrite %s: %w", s.name, err)
			}
		}
	}
	return nil
}

func (r *recovery) rewriteSegment(s *segment, from, to int64) error {
	f, err := r.handles.acquire(s)
	if err != nil {
		return err
	}
	defer r.handles.release(s) // synced below
	buf := make([]byte, min(windowBytes, to-from))
	for from < to {
		b := buf[:min(int64(len(buf)), to-from)]
		if n, err := f.ReadAt(b, from); n < len(b) {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
		if _, err := f.WriteAt(b, from); err != nil {
			return err
		}
		from += int64(len(b))
		r.report.Rewritten += int64(len(b))
	}
	return f.Sync()
}

// dropBelowStart finishes what DropBefore began: a power cut may have undone
// some of its removals and not others.
func (r *recovery) dropBelowStart() error {
	n := 0
	for ; n < len(r.segments)-1 && r.segments[n].base() < r.logStart && r.segments[n] != r.last; n++ {
		if err := r.remove(r.segments[n]); err != nil {
			return err
		}
	}
	if n == 0 {
		return nil
	}
	r.segments = r.segments[n:]
	if err := r.opts.FS.SyncDir(r.opts.Dir); err != nil {
		return fmt.Errorf("commitlog: sync folder: %w", err)
	}
	return nil
}

// sealOld finds where the segments end that take no more frames, and when they
// were sealed.
func (r *recovery) sealOld() {
	for i, s := range r.segments {
		if s == r.last || s.sealed() {
			continue
		}
		size := s.bytes.Load()
		if !r.endsAt(s, size-endSize) {
			// The file is as it was before it was cut behind END: as large as its
			// capacity, or smaller where space was short.
			for off := int64(segmentHeaderSize); ; {
				h, _, err := r.frame(s, off, 0)
				if err != nil || r.endsAt(s, off) {
					break
				}
				off += h.padded()
			}
		}
		if s.sealed() {
			continue
		}
		// Damaged, or without END: the next one was made before this one ended.
		s.end.Store(max(size, segmentHeaderSize))
		s.stored.Store(s.header.created)
		if i+1 < len(r.segments) {
			s.stored.Store(r.segments[i+1].header.created)
		}
	}
	r.leaveWindow()
}

// endsAt tells whether an END frame lies at an offset, and notes what it says.
func (r *recovery) endsAt(s *segment, off int64) bool {
	h, b, err := r.frame(s, off, 0)
	if err != nil || h.flags != flagControl {
		return false
	}
	c, err := parseControl(b[headerSize:])
	if err != nil || c.kind != controlEnd {
		return false
	}
	s.end.Store(off + endSize)
	s.stored.Store(c.time)
	return true
}

// reopen makes s, which ends at off, the active segment again.
func (r *recovery) reopen(s *segment, off int64) (err error) {
	f, err := r.handles.acquire(s) // held until it is sealed and synced
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.handles.release(s))
		}
	}()
	if s.header.epoch == 0 { // damaged: made again, or each opening finds it
		if err := r.repairHeader(s, f); err != nil {
			return err
		}
	}
	if s.bytes.Load() != s.header.capacity {
		if err := s.extend(f, off); err != nil {
			return err
		}
	}
	// Pages that were read lie in large folios, and then a small sync writes
	// 256 KiB.
	if err := f.Forget(0, 0); err != nil {
		return fmt.Errorf("commitlog: forget cached pages: %w", err)
	}
	s.limit = s.bytes.Load()
	s.attach(mapFile(r.opts, f, s.limit))
	s.populated.Store(max(off&^(pageBytes-1), s.populated.Load()))
	return nil
}

func (r *recovery) repairHeader(s *segment, f io.WriterAt) error {
	s.header.epoch, s.header.store, s.header.created = r.highest, r.codec.store, r.now()
	s.header.start = r.segments[0].base()
	b := make([]byte, segmentHeaderSize)
	s.header.put(b)
	if _, err := f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("commitlog: repair segment header: %w", err)
	}
	return nil // synced with the EPOCH frame that follows
}

// succeed makes the segment that the log goes on in, above everything there was.
func (r *recovery) succeed(epoch uint32) error {
	header := segmentHeader{
		epoch: epoch, store: r.codec.store, created: r.now(),
		base: Position(roundUp(int64(r.end), pageBytes)), capacity: min(firstSegmentBytes, r.opts.SegmentBytes),
	}
	if n := len(r.segments); n > 0 {
		before := r.segments[n-1]
		header.base = max(header.base, before.next())
		header.capacity = min(r.opts.SegmentBytes, max(header.capacity, 2*before.header.capacity))
		header.start = r.segments[0].base()
	} else {
		header.start = header.base
	}
	s, err := r.add(header)
	if err != nil {
		return err
	}
	r.last, r.end = s, s.base()+segmentHeaderSize
	return nil
}

// add creates a segment as the last one of the log, small if space is short.
func (r *recovery) add(header segmentHeader) (*segment, error) {
	s, err := createSegment(r.opts, r.handles, header)
	if least := min(leastSegmentBytes, r.opts.SegmentBytes); outOfSpace(err) && header.capacity > least {
		header.capacity = least
		s, err = createSegment(r.opts, r.handles, header)
	}
	if outOfSpace(err) {
		return nil, fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	if err != nil {
		return nil, err
	}
	r.segments = append(r.segments, s)
	return s, nil
}
