package commitlog

import (
	"errors"
	"fmt"
)

// errNoSegment says that no file holds a position.
var errNoSegment = errors.New("no segment holds this position")

// walk is the first step: it replays valid frames from Start.From on, and finds
// where the log ends. It changes nothing.
//
// At a bad place there are two possibilities. Either what belongs there was
// synced once: a checkpoint says so, or a valid frame further on noted a synced
// mark beyond the place. Then bytes were damaged, and the walk goes on with the
// next valid frame below the proven mark. Or nothing proves it: then this is the
// end, for frames that were not synced may be missing, or reach the disk in any
// order.
func (r *recovery) walk() error {
	if len(r.segments) == 0 { // a checkpoint speaks of a log that is gone
		r.damage(nil, 0, errNoSegment)
		r.end, r.short = r.proven, true
		return nil
	}
	pos := max(r.start.From, r.segments[0].base())
	r.findEpoch(pos)
	r.arrive(pos)
	for {
		next, err := r.step(pos)
		if err == nil {
			pos = next
			continue
		}
		var bad *notAFrame
		if !errors.As(err, &bad) {
			return err // of replay
		}
		next, more, err := r.judge(pos, bad.err)
		if err != nil || !more {
			return err
		}
		pos = next
	}
}

// arrive notes pos as the end of the log so far.
func (r *recovery) arrive(pos Position) {
	r.end, r.last = pos, findSegment(r.segments, pos)
	if r.last != nil && pos < r.last.base()+segmentHeaderSize {
		r.last = nil // its header has not been passed yet
	}
}

// findEpoch makes sure of the epoch before pos, which the frames behind it must
// not fall short of. Without a hint it is in the segment of pos: in the header,
// or in an EPOCH frame behind it.
func (r *recovery) findEpoch(pos Position) {
	defer func() { r.highest = max(r.highest, r.epoch) }()
	s := findSegment(r.segments, pos)
	if r.epoch = r.start.Epoch; r.epoch != 0 || s == nil {
		return
	}
	r.epoch = s.header.epoch
	for at := int64(segmentHeaderSize); s.base()+Position(at) < pos; {
		h, _, err := r.frame(s, at, r.epoch)
		if err != nil {
			return // damage before the checkpoint is found when it is read
		}
		r.epoch = h.epoch
		at += h.padded()
	}
}

// step takes the frame, or the header of a segment, at pos and returns where the
// next one is. A notAFrame says that there is none.
func (r *recovery) step(pos Position) (Position, error) {
	s := findSegment(r.segments, pos)
	if s == nil {
		return 0, &notAFrame{errNoSegment}
	}
	off := int64(pos - s.base())
	if off < segmentHeaderSize {
		if s.header.epoch == 0 || off != 0 { // no header was read
			return 0, &notAFrame{errSegmentHeader}
		}
		pos = s.base() + segmentHeaderSize
		r.arrive(pos)
		return pos, nil
	}
	h, b, err := r.frame(s, off, r.epoch)
	if err != nil {
		return 0, &notAFrame{err}
	}
	next := pos + Position(h.padded())
	if r.onFrame != nil {
		if err := r.onFrame(pos, h, b); err != nil {
			return 0, err
		}
	}
	r.epoch, r.highest = h.epoch, max(r.highest, h.epoch)
	if mark, ok := h.mark(pos); ok {
		r.proven = max(r.proven, mark)
	}
	if h.flags&flagControl != 0 {
		c, err := parseControl(b[headerSize:])
		if err != nil {
			return 0, &notAFrame{err}
		}
		r.arrive(next)
		return r.obey(s, next, c)
	}
	r.arrive(next)
	return next, eachRecord(h, b, pos, func(rec Record) error {
		r.report.Replayed++
		return r.replay(rec)
	})
}

// obey follows a control frame that ends at next.
func (r *recovery) obey(s *segment, next Position, c control) (Position, error) {
	switch c.kind {
	case controlEnd:
		r.last = s // next may be the first byte of the successor
		s.end.Store(int64(next - s.base()))
		s.stored.Store(c.time)
		return max(Position(c.value), next), nil
	case controlStart:
		r.logStart = max(r.logStart, min(Position(c.value), s.base()))
	}
	return next, nil
}

// judge says what a bad place is: damage, then it returns where to go on; or the
// end, then more is false.
func (r *recovery) judge(pos Position, cause error) (next Position, more bool, err error) {
	if !r.searched {
		r.search(pos)
	}
	damage := pos < r.proven
	if !damage && !r.salvage {
		// The file system failing is no proof that there is nothing: better not
		// to open than to delete.
		if r.readErr != nil {
			return 0, false, fmt.Errorf("commitlog: open: %w", r.readErr)
		}
		return 0, false, nil
	}
	if damage {
		r.damage(findSegment(r.segments, pos), pos, cause)
	}
	found := Position(-1)
	r.eachBehind(pos, func(at Position, h header) bool {
		found = at
		return false
	}, nil)
	if found >= 0 && (found <= r.proven || r.salvage) {
		return found, true, r.pass(pos, found, cause, damage)
	}
	r.short = damage
	to := r.proven
	if r.salvage && len(r.segments) > 0 {
		to = max(to, r.segments[len(r.segments)-1].next())
	}
	return 0, false, r.pass(pos, to, cause, damage)
}

// pass goes on with the frame at to behind a bad place. Records of a batch that
// is damaged elsewhere are whole by themselves: they count, as they do when the
// log is scanned.
func (r *recovery) pass(from, to Position, cause error, damage bool) error {
	if r.onGap != nil {
		return r.onGap(from, to, cause, damage)
	}
	return r.eachSound(from, to, func(rec Record, _ []byte) error {
		r.report.Replayed++
		return r.replay(rec)
	})
}

// eachSound visits the whole records of batches that begin in [from, to), where
// no frame is valid. b is the record with its header.
func (r *recovery) eachSound(from, to Position, visit func(rec Record, b []byte) error) error {
	for _, s := range r.segments {
		if s.next() <= from || s.base() >= to {
			continue
		}
		off := max(segmentHeaderSize, align(int64(from-s.base())))
		bound := min(s.bytes.Load(), int64(to-s.base()))
		if err := r.eachSoundIn(s, off, bound, visit); err != nil {
			return err
		}
	}
	return nil
}

func (r *recovery) eachSoundIn(s *segment, off, bound int64, visit func(Record, []byte) error) error {
	budget := newBudget(bound - off)
	for {
		w, err := r.window(s)
		if err == nil {
			off, err = nextMagic(w, off, bound, nil)
		}
		if err != nil || off < 0 {
			return nil // what cannot be read is damaged, and reported as such
		}
		h, b, err := r.bytes(s, off)
		if err == nil {
			err = r.soundRecord(h, b, s.base()+Position(off))
		}
		switch {
		case err == nil && off+int64(h.size) > bound:
			return nil
		case err == nil:
			pos, end := s.base()+Position(off), off+h.padded()
			r.highest = max(r.highest, h.epoch)
			rec := Record{Position: pos, Size: h.size, Epoch: h.epoch, End: s.base() + Position(end), Payload: b[headerSize:]}
			if err := visit(rec, b); err != nil {
				return err
			}
			off = end
		case !budget.spend(h.size):
			return nil
		default:
			off += frameAlign
		}
	}
}

// soundRecord tells whether b is a record of a batch.
func (r *recovery) soundRecord(h header, b []byte, pos Position) error {
	if h.flags != flagInner {
		return errNotStart
	}
	if h.epoch < r.epoch {
		return errEpoch
	}
	return r.codec.checkRecord(h, b, pos)
}

// maxCorrupt is how many bad places are listed: what is damaged all over must
// not take memory without bound.
const maxCorrupt = 10_000

// damage reports a bad place.
func (r *recovery) damage(s *segment, pos Position, cause error) {
	if len(r.damaged) >= maxCorrupt {
		return
	}
	name, off := r.opts.Dir, int64(pos)
	if s != nil {
		name, off = s.name, int64(pos-s.base())
	}
	r.report.Corrupt = append(r.report.Corrupt, &CorruptionError{File: name, Offset: off, Err: cause})
	r.damaged = append(r.damaged, pos)
}

// excuseDropped forgets damage below the START frame that the walk came to
// later: a power cut in the middle of retention leaves some files there and not
// others, in any order.
func (r *recovery) excuseDropped() {
	n := 0
	for n < len(r.damaged) && r.damaged[n] < r.logStart {
		n++
	}
	r.report.Corrupt, r.damaged = r.report.Corrupt[n:], r.damaged[n:]
}

// search looks at everything behind pos once: for the largest synced mark that a
// valid frame noted, and for what is not zero.
func (r *recovery) search(pos Position) {
	r.searched = true
	complete := r.eachBehind(pos, func(at Position, h header) bool {
		if mark, ok := h.mark(at); ok {
			r.proven = max(r.proven, mark)
		}
		// The header of a segment is synced before a frame is stored behind it.
		if s := findSegment(r.segments, at); s.base() == pos {
			r.proven = max(r.proven, pos+segmentHeaderSize)
		}
		return true
	}, func(s *segment, from, to int64) {
		r.junk = append(r.junk, Cut{From: s.base() + Position(from), To: s.base() + Position(to)})
	})
	// Where it cannot be told, nothing may be deleted: without the store's id no
	// frame can be verified, and bytes made to look like headers may have used
	// up the time.
	if !complete || !r.known && len(r.junk) > 0 {
		r.proven = max(r.proven, r.segments[len(r.segments)-1].next())
	}
}

// eachBehind visits every valid frame that begins behind pos, until visit
// returns false, and tells junk, if not nil, what is not zero in each segment.
// It returns false when it gave up.
func (r *recovery) eachBehind(pos Position, visit func(Position, header) bool, junk func(s *segment, from, to int64)) bool {
	for _, s := range r.segments {
		if s.next() <= pos {
			continue
		}
		from := max(segmentHeaderSize, align(int64(pos-s.base())))
		dirty := int64(0)
		more, complete := r.eachIn(s, from, int64(pos-s.base()), &dirty, visit)
		if junk != nil && dirty > from {
			junk(s, from, dirty)
		}
		if !complete || !more {
			return complete
		}
	}
	return true
}

// eachIn is eachBehind for one segment: frames at from or later, but not at bad.
// A candidate costs a hash of the size it claims, so what only looks like a
// header is paid from a budget.
func (r *recovery) eachIn(s *segment, from, bad int64, dirty *int64, visit func(Position, header) bool) (more, complete bool) {
	bound := s.bytes.Load()
	budget := newBudget(bound)
	for off := from; ; {
		w, err := r.window(s)
		if err == nil {
			off, err = nextMagic(w, off, bound, dirty)
		}
		if err != nil {
			r.readErr = err
			return true, true
		}
		if off < 0 {
			return true, true
		}
		if off == bad {
			off += frameAlign
			continue
		}
		h, b, err := r.frame(s, off, r.epoch)
		if err != nil {
			if !budget.spend(r.claimed(s, off)) {
				return false, false
			}
			off += frameAlign
			continue
		}
		*dirty = max(*dirty, off+h.padded())
		if !visit(s.base()+Position(off), h) {
			return false, true
		}
		if h.flags&flagControl != 0 {
			if c, err := parseControl(b[headerSize:]); err == nil && c.kind == controlEnd {
				return true, true // what lies behind END is nobody's
			}
		}
		off += h.padded()
	}
}

// claimed returns the size that a header claims which turned out to be none.
func (r *recovery) claimed(s *segment, off int64) uint32 {
	h, _, err := r.bytes(s, off)
	if err != nil {
		return headerSize
	}
	return h.size
}

// frame returns the verified frame at an offset of a segment.
func (r *recovery) frame(s *segment, off int64, leastEpoch uint32) (header, []byte, error) {
	h, b, err := r.bytes(s, off)
	if err != nil {
		return header{}, nil, err
	}
	return h, b, r.codec.checkFrame(h, b, s.base()+Position(off), leastEpoch)
}

// bytes returns what claims to be a frame at an offset of a segment.
func (r *recovery) bytes(s *segment, off int64) (header, []byte, error) {
	w, err := r.window(s)
	if err != nil {
		return header{}, nil, err
	}
	bound := s.bytes.Load()
	b, err := w.bytes(off, headerSize, bound)
	if err != nil {
		return header{}, nil, r.noteRead(err)
	}
	h, err := parseHeader(b)
	if err != nil {
		return header{}, nil, err
	}
	b, err = w.bytes(off, int64(h.size), bound)
	return h, b, r.noteRead(err)
}

// noteRead remembers that the file system failed, as opposed to the bytes.
func (r *recovery) noteRead(err error) error {
	var broken *readError
	if errors.As(err, &broken) {
		r.readErr = broken.err
	}
	return err
}

// window returns the buffer through which s is read.
func (r *recovery) window(s *segment) (*window, error) {
	if r.winSeg == s {
		return &r.win, nil
	}
	r.leaveWindow()
	f, err := r.handles.acquire(s)
	if err != nil {
		return nil, &readError{err}
	}
	r.winSeg = s
	r.win.reset(f)
	return &r.win, nil
}

// leaveWindow lets the file go that was read last.
func (r *recovery) leaveWindow() {
	if r.winSeg != nil {
		_ = r.handles.release(r.winSeg) // nothing was written through it
		r.winSeg = nil
		r.win.reset(nil)
	}
}
