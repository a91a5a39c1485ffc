package commitlog

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// Read hands the records of refs to visit, in their order, until it returns
// false. A record is verified before: by its hash, or, where its bytes are still
// mapped, this process wrote them, and the ref knows their size, by its header.
//
// For what cannot be read, visit gets an error and a Record with nothing but its
// position: ErrNotFound if no record begins there, a *CorruptionError if it is
// damaged, ErrClosed. If the bytes vanish while visit uses them (the file was
// cut by somebody else), visit is called again for that ref, with ErrPoisoned.
//
// r.Payload is only valid inside visit. Refs that are near each other are read
// together, so callers should sort and batch them. Nothing here takes a lock
// that appending needs.
func (l *Log) Read(refs []Ref, visit func(i int, r Record, err error) (more bool)) {
	rd := l.getReader()
	defer rd.close()
	for i := 0; i < len(refs); {
		next, err := l.readGuarded(rd, refs, i, visit)
		if err != nil {
			if !visit(next, Record{Position: refs[next].Position}, err) {
				return
			}
			next++
		}
		i = next
	}
}

// readGuarded visits refs from index i on, under a guard against faults. It
// returns the index where it stopped: len(refs) at the end or when visit wants
// no more, otherwise the ref at which it faulted.
func (l *Log) readGuarded(rd *reader, refs []Ref, i int, visit func(int, Record, error) bool) (at int, err error) {
	defer l.guardLoad(debug.SetPanicOnFault(true), rd, &err)
	for at = i; at < len(refs); at++ {
		r, err := l.readOne(rd, refs[at])
		if !visit(at, r, err) {
			return len(refs), nil
		}
	}
	return at, nil
}

// guardLoad is deferred around loads from a mapping; other panics go on.
func (l *Log) guardLoad(old bool, rd *reader, err *error) {
	cause := recover()
	debug.SetPanicOnFault(old)
	if cause == nil {
		return
	}
	fault := faultOf(cause)
	if fault == nil {
		panic(cause)
	}
	name := l.opts.Dir
	if rd.seg != nil {
		name = rd.seg.name
	}
	*err = l.poisonWith(fmt.Errorf("commitlog: load from %s: %w", name, fault))
}

// readOne returns the record that ref names.
func (l *Log) readOne(rd *reader, ref Ref) (Record, error) {
	pos := ref.Position
	none := Record{Position: pos}
	written := l.Written() // before the segment is looked for, see bound
	s := l.find(pos)
	if s == nil || pos >= written || pos < s.base()+segmentHeaderSize || pos%frameAlign != 0 {
		return none, fmt.Errorf("%w: %d", ErrNotFound, pos)
	}
	rd.enter(s, s.bound(written), int64(written-nearBytes-s.base()))
	off := int64(pos - s.base())
	h, b, err := l.record(rd, off, ref.Size)
	if err != nil {
		return none, rd.explain(err, off, ref.Size == 0)
	}
	trusted := rd.mapped(off) && ref.Size != 0 && pos >= l.fresh
	if !trusted {
		if err := l.codec.checkRecord(h, b, pos); err != nil {
			return none, rd.explain(err, off, ref.Size == 0)
		}
	}
	end := pos + Position(h.padded())
	return Record{Position: pos, Size: h.size, Epoch: h.epoch, End: end, Payload: b[headerSize:]}, nil
}

// record returns header and bytes of the record at off, not yet verified. size 0
// takes the header's word for it.
func (l *Log) record(rd *reader, off int64, size uint32) (header, []byte, error) {
	n := int64(size)
	if n < headerSize {
		n = headerSize
	}
	b, err := rd.bytes(off, n)
	if err != nil {
		return header{}, nil, err
	}
	h, err := parseHeader(b)
	switch {
	case err != nil:
		return header{}, nil, err
	case h.flags&(flagBatch|flagControl) != 0:
		return header{}, nil, errHeader // a frame, but no record
	case size != 0 && h.size != size:
		return header{}, nil, errHeader
	case size == 0:
		b, err = rd.bytes(off, int64(h.size))
	}
	return h, b, err
}

// explain turns the reason why bytes are no record into the error for the
// caller. Where only the position was known, it may simply be wrong.
func (r *reader) explain(err error, off int64, guess bool) error {
	var broken *readError
	switch {
	case errors.Is(err, ErrClosed), errors.Is(err, ErrNotFound):
		return err
	case guess && !errors.As(err, &broken):
		return fmt.Errorf("%w: %d: %w", ErrNotFound, r.seg.base()+Position(off), err)
	}
	return &CorruptionError{File: r.seg.name, Offset: off, Err: err}
}
