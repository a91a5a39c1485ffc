package commitlog

// Layout is the size of a frame, put together before the append lock is taken.
// Its zero value is a frame without records; Add adds one.
type Layout struct {
	records int
	bytes   int64 // of the records, each with header and padding
}

// Add returns the layout with one more record of so many payload bytes.
func (y Layout) Add(payloadBytes int) Layout {
	return Layout{records: y.records + 1, bytes: y.bytes + align(headerSize+int64(payloadBytes))}
}

// Size returns the bytes of log that the frame takes, with its padding.
func (y Layout) Size() int64 {
	if y.records > 1 {
		return headerSize + y.bytes
	}
	return y.bytes
}

// Frame is the frame that a fill function puts together inside Append. It is
// valid until that function returns.
type Frame struct {
	log    *Log
	buf    []byte   // the room reserved for it, as large as its layout
	at     Position // of buf[0]
	synced Position // the mark noted in its headers
	flags  uint8    // of a frame of one record
	batch  bool

	used    int // bytes of buf taken by records so far, padded
	records int

	// The record begun last, which Next or the end of fill seals.
	rec      int
	covered  int // header and head, what the hash's one pass goes over
	end      int // in buf, not padded
	bodyHash uint64
}

// begin makes f a new frame in buf.
func (f *Frame) begin(buf []byte, at, synced Position, flags uint8, batch bool) {
	f.buf, f.at, f.synced, f.flags, f.batch = buf, at, synced, flags, batch
	f.used, f.records, f.rec, f.covered, f.end, f.bodyHash = 0, 0, 0, 0, 0, 0
	if batch {
		f.used = headerSize
	}
}

// Position returns where the next record will be: what a record that names
// itself by its position needs to know.
func (f *Frame) Position() Position { return f.at + Position(f.used) }

// Epoch returns the epoch the frame is appended in.
func (f *Frame) Epoch() uint32 { return f.log.epoch }

// Now returns the time in Unix milliseconds. It comes from a clock that is read
// every 2 ms while frames are appended, and never decreases while the log is
// open.
func (f *Frame) Now() int64 { return f.log.clock.nowLocked() }

// Next begins the next record of the frame: head bytes that the caller puts into
// dst, all of them, and body, which is copied behind them. bodyHash is
// BodyHash(body); it is not looked at when body is empty. dst is valid until the
// next call or the end of fill.
//
// Record at with its size is what an index notes and a Ref asks for. A frame
// that outgrows the layout given to Append is a mistake of the caller and
// panics; it may stay below it.
func (f *Frame) Next(head int, body []byte, bodyHash uint64) (dst []byte, at Position, size uint32) {
	f.sealRecord()
	n := headerSize + head + len(body)
	rec, padded := f.used, int(align(int64(n)))
	if padded > len(f.buf)-rec || (f.records > 0 && !f.batch) {
		panic("commitlog: a frame outgrew its layout")
	}
	b := f.buf[rec : rec+padded : rec+padded]
	at, size = f.at+Position(rec), uint32(n)
	header{flags: f.recordFlags(), size: size, epoch: f.log.epoch, behind: behindOf(at, f.synced)}.put(b)
	copy(b[headerSize+head:n], body)
	clear(b[n:])
	if len(body) == 0 {
		bodyHash = emptyBody
	}
	f.rec, f.covered, f.end, f.bodyHash = rec, headerSize+head, rec+n, bodyHash
	f.used = rec + padded
	f.records++
	return b[headerSize : headerSize+head : headerSize+head], at, size
}

func (f *Frame) recordFlags() uint8 {
	if f.batch {
		return flagInner
	}
	return f.flags
}

// sealRecord hashes the record begun last, whose head is complete now.
func (f *Frame) sealRecord() {
	if f.records > 0 {
		seal(f.buf[f.rec:f.end], f.covered, f.bodyHash, f.at+Position(f.rec), f.log.codec.store)
	}
}

// finish seals the frame. A batch gets its header last: until then nothing in it
// begins a valid frame.
func (f *Frame) finish() error {
	if f.records == 0 {
		return errEmptyFrame
	}
	f.sealRecord()
	if f.batch {
		header{flags: flagBatch, size: uint32(f.end), epoch: f.log.epoch, behind: behindOf(f.at, f.synced)}.put(f.buf)
		seal(f.buf, headerSize, 0, f.at, f.log.codec.store)
	}
	return nil
}

// giveUp leaves the reserved room as zeros, as it was before.
func (f *Frame) giveUp() {
	clear(f.buf)
	f.buf = nil
}
