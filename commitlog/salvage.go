package commitlog

import (
	"errors"
	"fmt"

	"github.com/pocketmq/mq/internal/vfs"
)

const (
	// fillerBytes is the largest frame that Salvage fills a gap with, and
	// leastFrame the smallest there is: a header and a byte.
	fillerBytes = 1 << 20
	leastFrame  = headerSize + frameAlign
)

// Target is where Salvage writes.
type Target struct {
	FS  vfs.FS
	Dir string // made if it is missing; must not hold segments

	// Fill makes payload, at least one byte, one that means nothing.
	Fill func(payload []byte)
}

// Salvage copies what is sound of the log in o.Dir into a new one. All of it
// stays at its position, under the store's id and in its epoch. Where something
// was damaged there are frames that mean nothing, so the new log has no gap; a
// segment of which nothing is left is passed over by the END before it. The new
// log goes on behind what was proven to be synced, even where that is lost.
//
// More is kept than Open keeps: also what is valid behind a torn place. x is
// told of it as by Examine, and so is what the result says. The new log is
// synced when Salvage returns nil; its end is in the result. If nothing in o.Dir
// is sound there is none: ErrNotFound.
func Salvage(o Options, s Start, x *Examiner, to Target) (*Examination, error) {
	o, err := o.prepared()
	if err != nil {
		return nil, err
	}
	w := &salvager{examination: newExamination(o, s, x), to: to}
	r := w.r
	defer func() { _ = r.handles.close() }() // only read
	if err := r.load(); err != nil {
		return nil, err
	}
	defer r.leaveWindow()
	r.salvage, r.onFrame, r.onGap, r.replay = true, w.frame, w.gap, w.record
	x.Place = r.place
	if len(r.segments) == 0 || !r.known {
		return nil, fmt.Errorf("%w: nothing is sound in %s", ErrNotFound, o.Dir)
	}
	if err := to.FS.MkdirAll(to.Dir); err != nil {
		return nil, fmt.Errorf("commitlog: make folder: %w", err)
	}
	err = w.copy()
	if err != nil {
		return nil, errors.Join(err, w.abandon())
	}
	out := w.result()
	out.End = w.end
	return out, nil
}

// salvager writes a new log beside the walk over the old one.
//
//	old  |header|frame|#####|frame|END|   |header|frame|########|   |###  ###|   |header|frame|
//	new  |header|frame|fill |frame|END|   |header|frame|END ----------------->   |header|frame|
type salvager struct {
	*examination
	to Target

	src   *segment // whose copy is being written, nil: none
	file  vfs.File
	at    int64 // where buf belongs in the file
	buf   []byte
	batch int64 // offset of the batch header that is not complete, 0: none
	epoch uint32
	ended int64    // when the segment ended, as its END says; 0: it has not
	end   Position // behind what was written
	first Position // base of the first segment written
	names int      // segments written
}

func (w *salvager) copy() error {
	if err := w.r.walk(); err != nil {
		return err
	}
	if w.names == 0 {
		return fmt.Errorf("%w: nothing is sound in %s", ErrNotFound, w.r.opts.Dir)
	}
	if err := w.conclude(); err != nil {
		return err
	}
	if err := w.leave(); err != nil {
		return err
	}
	if err := w.to.FS.SyncDir(w.to.Dir); err != nil {
		return fmt.Errorf("commitlog: sync folder: %w", err)
	}
	return nil
}

// conclude ends the new log behind everything that was synced, also what is lost:
// ids are positions, and a checkpoint may know some of those. What got one of them
// again would be taken for what had it.
func (w *salvager) conclude() error {
	w.end = w.src.base() + Position(w.off())
	switch {
	case w.ended == 0 && w.end >= w.r.proven:
		return nil
	case w.ended != 0 && w.src.next() >= w.r.proven: // the last segment is complete
		return w.seal(w.src.next(), w.ended)
	}
	h := w.src.header
	h.base = Position(roundUp(int64(max(w.src.next(), w.r.proven)), pageBytes))
	err := w.turn(&segment{header: h})
	w.end = h.base + segmentHeaderSize
	return err
}

// off is where the next byte goes.
func (w *salvager) off() int64 { return w.at + int64(len(w.buf)) }

// frame copies a valid frame.
func (w *salvager) frame(pos Position, h header, b []byte) error {
	if err := w.examination.frame(pos, h, b); err != nil {
		return err
	}
	s := findSegment(w.r.segments, pos)
	if err := w.enter(s, pos); err != nil {
		return err
	}
	w.epoch = h.epoch
	if h.flags == flagControl {
		// END is written when it is known which segment follows.
		if c, err := parseControl(b[headerSize:]); err == nil && c.kind == controlEnd {
			w.ended = max(c.time, 1)
			return nil
		}
	}
	return w.write(b[:h.size])
}

// gap fills what lies between two frames, and keeps the whole records of batches
// that are damaged elsewhere. They are put into batches of their own: a batch
// header takes no more than the one that was there.
func (w *salvager) gap(from, to Position, cause error, damage bool) error {
	if !damage && to >= w.r.segments[len(w.r.segments)-1].next() {
		// The end. A batch that was being stored is all or nothing.
		return nil
	}
	w.note(from, to, cause, damage)
	err := w.r.eachSound(from, to, func(rec Record, b []byte) error {
		s := findSegment(w.r.segments, rec.Position)
		if err := w.reach(s, rec); err != nil || w.batch == 0 {
			return err
		}
		if err := w.write(b); err != nil {
			return err
		}
		return w.record(rec)
	})
	if err != nil {
		return err
	}
	return w.closeBatch()
}

// enter goes on at pos, of segment s, where a frame begins.
func (w *salvager) enter(s *segment, pos Position) error {
	if err := w.closeBatch(); err != nil {
		return err
	}
	if w.src != s {
		if err := w.turn(s); err != nil {
			return err
		}
	}
	return w.fill(int64(pos-s.base()), w.epoch)
}

// reach goes on with a record of a batch; where that is not possible no batch is
// open afterwards, and the record is lost.
func (w *salvager) reach(s *segment, rec Record) error {
	off := int64(rec.Position - s.base())
	if w.batch != 0 && w.src == s {
		free := off - w.off()
		switch {
		case w.epoch != rec.Epoch || free == headerSize || free >= headerSize+leastFrame,
			off+int64(rec.Size)-w.batch > MaxFrameBytes:
			// A header of its own, below.
		case free == 0:
			return nil
		case free > headerSize:
			return w.filler(free, w.epoch, flagInner)
		}
	}
	if err := w.closeBatch(); err != nil {
		return err
	}
	if w.src != s {
		if err := w.turn(s); err != nil {
			return err
		}
	}
	at := off - headerSize
	if free := at - w.off(); free != 0 && free < leastFrame {
		return nil
	}
	if err := w.fill(at, w.epoch); err != nil {
		return err
	}
	w.epoch, w.batch = rec.Epoch, at
	return w.write(make([]byte, headerSize))
}

// closeBatch completes the header of the batch that is open.
func (w *salvager) closeBatch() error {
	if w.batch == 0 {
		return nil
	}
	off := w.batch
	w.batch = 0
	// The last record may end with padding; it counts, as zeros do no harm.
	pos := w.src.base() + Position(off)
	var b [headerSize]byte
	header{flags: flagBatch, size: uint32(w.off() - off), epoch: w.epoch, behind: behindUnknown}.put(b[:])
	seal(b[:], headerSize, 0, pos, w.r.codec.store)
	if off >= w.at {
		copy(w.buf[off-w.at:], b[:])
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	return w.writeAt(b[:], off)
}

// fill writes frames that mean nothing up to off.
func (w *salvager) fill(off int64, epoch uint32) error {
	for free := off - w.off(); free > 0; free = off - w.off() {
		n := min(free, fillerBytes)
		if rest := free - n; rest != 0 && rest < leastFrame {
			n -= leastFrame
		}
		if n < leastFrame {
			return fmt.Errorf("commitlog: salvage %s@%d: %d bytes cannot be filled", w.src.name, w.off(), free)
		}
		if err := w.filler(n, epoch, 0); err != nil {
			return err
		}
	}
	return nil
}

// filler writes a frame or record of n bytes that means nothing.
func (w *salvager) filler(n int64, epoch uint32, flags uint8) error {
	b := make([]byte, n)
	w.to.Fill(b[headerSize:])
	pos := w.src.base() + Position(w.off())
	header{flags: flags, size: uint32(n), epoch: epoch, behind: behindUnknown}.put(b)
	head, ok := w.r.opts.HeadLen(b[headerSize:])
	if !ok || head > len(b)-headerSize {
		return errHead
	}
	seal(b, headerSize+head, BodyHash(b[headerSize+head:]), pos, w.r.codec.store)
	return w.write(b)
}

// turn ends the segment that is being written and begins the copy of s.
func (w *salvager) turn(s *segment) error {
	if w.src != nil {
		ended := w.ended
		if ended == 0 { // its END is lost
			ended = max(s.header.created, w.src.header.created, 1)
		}
		if err := w.seal(s.base(), ended); err != nil {
			return err
		}
		if err := w.leave(); err != nil {
			return err
		}
	} else {
		w.first, w.epoch = s.base(), max(s.header.epoch, 1)
	}
	h := s.header
	if h.epoch == 0 { // damaged
		h.epoch, h.store, h.created = max(w.epoch, 1), w.r.codec.store, w.r.now()
	}
	// What retention had dropped when it was made, and what is lost now.
	h.start = min(max(h.start, w.first), h.base)
	f, err := w.to.FS.Create(segmentName(w.to.Dir, h.base), 0)
	if err != nil {
		return fmt.Errorf("commitlog: create segment: %w", err)
	}
	w.src, w.file, w.at, w.buf, w.ended = s, f, 0, w.buf[:0], 0
	w.names++
	b := make([]byte, segmentHeaderSize)
	h.put(b)
	return w.write(b)
}

// seal writes the END of the segment, which names the one that follows.
func (w *salvager) seal(next Position, stored int64) error {
	if err := w.closeBatch(); err != nil {
		return err
	}
	b := make([]byte, endSize)
	control{kind: controlEnd, value: uint64(next), time: stored}.put(b[headerSize:])
	pos := w.src.base() + Position(w.off())
	header{flags: flagControl, size: endSize, epoch: w.epoch, behind: behindUnknown}.put(b)
	seal(b, endSize, emptyBody, pos, w.r.codec.store)
	w.end = next
	return w.write(b)
}

// leave writes and syncs what there is of the segment.
func (w *salvager) leave() error {
	if err := w.flush(); err != nil {
		return err
	}
	f := w.file
	w.file = nil
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("commitlog: sync segment: %w", err)
	}
	return nil
}

// abandon closes what an error left open.
func (w *salvager) abandon() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}

// write appends b and the padding behind it.
func (w *salvager) write(b []byte) error {
	w.buf = append(w.buf, b...)
	w.buf = append(w.buf, make([]byte, align(int64(len(b)))-int64(len(b)))...)
	if len(w.buf) < windowBytes {
		return nil
	}
	return w.flush()
}

func (w *salvager) flush() error {
	err := w.writeAt(w.buf, w.at)
	w.at, w.buf = w.off(), w.buf[:0]
	return err
}

func (w *salvager) writeAt(b []byte, off int64) error {
	if _, err := w.file.WriteAt(b, off); err != nil {
		return fmt.Errorf("commitlog: write %s@%d: %w", segmentName(w.to.Dir, w.src.base()), off, err)
	}
	return nil
}
