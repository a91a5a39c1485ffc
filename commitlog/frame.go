package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// A frame is the unit of atomicity. Every record, every frame and every frame
// of the log's own begins with the same header, 8-aligned, little-endian:
//
//	 0       2     3       4          8           12           16           24
//	+-------+-----+-------+----------+-----------+------------+------------+
//	| magic | ver | flags | size u32 | epoch u32 | behind u32 | hash u64   |
//	+-------+-----+-------+----------+-----------+------------+------------+
//
//	size    header and payload, without the padding to the next multiple of 8
//	behind  (position - synced mark known when it was written) / 8;
//	        all ones: further behind than that can say
//
// A frame of one record is that record:
//
//	| header | head ............ | body ............ | padding |
//
// A frame of several is a header of its own with records in it:
//
//	| header, flag batch | record, flag inner | record, flag inner | ...
//
// The hash covers header and head in one pass; while it is computed its own
// field holds the hash of the body, which was computed before the append lock
// was taken. Position and store id are XORed in instead of being stored: a
// frame that lies where it was not written, or that came here inside somebody's
// body, is none.
//
//	hash = xxhash64(header[0:16] | xxhash64(body) | head) ^ position ^ store id
//
// For a batch's header the hash of the body counts as 0 and there is no head;
// its records have hashes of their own, so that one can be read alone.
const (
	headerSize   = 24
	frameAlign   = 8
	frameMagic   = 0x4d50 // "PM"
	frameVersion = 1
	hashAt       = 16

	flagBatch   = 1 << 0 // the payload is records
	flagInner   = 1 << 1 // a record inside a batch: never the start of a frame
	flagControl = 1 << 2 // the log's own: END, EPOCH, START

	// behindUnknown says that the synced mark was too far away to be noted:
	// 32 GiB, which only a log that is hardly ever synced reaches.
	behindUnknown = 1<<32 - 1
)

// HeaderBytes is how far behind the start of a frame of several its first record
// begins.
const HeaderBytes = headerSize

// MaxFrameBytes is the largest frame.
const MaxFrameBytes = 16 << 20

// emptyBody is xxhash64 of no bytes, which every record without a body has.
var emptyBody = xxhash.Sum64(nil)

// Ways in which bytes are no frame or record.
var (
	errShort    = errors.New("cut short")
	errHeader   = errors.New("not a frame header")
	errEpoch    = errors.New("epoch went back")
	errHash     = errors.New("hash differs")
	errHead     = errors.New("head length makes no sense")
	errBatch    = errors.New("batch does not add up")
	errControl  = errors.New("unknown control frame")
	errNotStart = errors.New("not the start of a frame")
)

// header is a decoded frame or record header.
type header struct {
	flags  uint8
	size   uint32
	epoch  uint32
	behind uint32
}

// put encodes h into the first bytes of b, all but the hash.
func (h header) put(b []byte) {
	_ = b[headerSize-1]
	binary.LittleEndian.PutUint64(b, frameMagic|frameVersion<<16|uint64(h.flags)<<24|uint64(h.size)<<32)
	binary.LittleEndian.PutUint64(b[8:], uint64(h.epoch)|uint64(h.behind)<<32)
}

// parseHeader decodes the header at the beginning of b. It checks what can be
// checked without a hash.
func parseHeader(b []byte) (header, error) {
	if len(b) < headerSize {
		return header{}, errShort
	}
	first := binary.LittleEndian.Uint64(b)
	second := binary.LittleEndian.Uint64(b[8:])
	h := header{flags: uint8(first >> 24), size: uint32(first >> 32), epoch: uint32(second), behind: uint32(second >> 32)}
	switch {
	case first&0xffffff != frameMagic|frameVersion<<16:
		return header{}, errHeader
	case h.size < headerSize || h.size > MaxFrameBytes:
		return header{}, errHeader
	}
	switch h.flags {
	case 0, flagBatch, flagInner, flagControl:
		return h, nil
	}
	return header{}, errHeader
}

// padded returns the bytes of log that a frame or record takes.
func (h header) padded() int64 { return align(int64(h.size)) }

// mark returns the synced mark known when the frame at pos was written.
func (h header) mark(pos Position) (Position, bool) {
	if h.behind == behindUnknown {
		return 0, false
	}
	mark := pos - Position(h.behind)*frameAlign
	return mark, mark >= 0
}

// behindOf encodes a mark for a frame at pos. Both are 8-aligned.
func behindOf(pos, mark Position) uint32 {
	n := (pos - mark) / frameAlign
	if n >= behindUnknown {
		return behindUnknown
	}
	return uint32(n)
}

func align(n int64) int64 { return (n + frameAlign - 1) &^ (frameAlign - 1) }

// BodyHash returns the hash of a record's body, which Frame.Next wants. It is
// computed outside the append lock.
func BodyHash(body []byte) uint64 {
	if len(body) == 0 {
		return emptyBody
	}
	return xxhash.Sum64(body)
}

// bind makes a hash that holds at one position of one store only.
func bind(sum uint64, pos Position, store uint64) uint64 { return sum ^ uint64(pos) ^ store }

// seal writes the hash into the header of the record or batch header that
// begins b; covered is headerSize plus the head's length.
func seal(b []byte, covered int, bodyHash uint64, pos Position, store uint64) {
	binary.LittleEndian.PutUint64(b[hashAt:], bodyHash)
	sum := bind(xxhash.Sum64(b[:covered]), pos, store)
	binary.LittleEndian.PutUint64(b[hashAt:], sum)
}

// sumOf computes what seal would write, without changing b, which may be mapped
// or shared.
func sumOf(b []byte, covered int, bodyHash uint64, pos Position, store uint64) uint64 {
	// Heads are small, mostly: one pass over a copy on the stack is twice as
	// fast as feeding a digest piece by piece.
	var onStack [512]byte
	if covered <= len(onStack) {
		copy(onStack[:], b[:covered])
		binary.LittleEndian.PutUint64(onStack[hashAt:], bodyHash)
		return bind(xxhash.Sum64(onStack[:covered]), pos, store)
	}
	var d xxhash.Digest
	d.Reset()
	binary.LittleEndian.PutUint64(onStack[:], bodyHash)
	_, _ = d.Write(b[:hashAt]) // a digest never fails
	_, _ = d.Write(onStack[:8])
	_, _ = d.Write(b[headerSize:covered])
	return bind(d.Sum64(), pos, store)
}

// codec verifies frames and records of one store.
type codec struct {
	store   uint64
	headLen func([]byte) (int, bool)
}

// sum returns the hash that the record b, exactly h.size bytes, should have.
func (c codec) sum(h header, b []byte, pos Position) (uint64, error) {
	payload := b[headerSize:]
	head := len(payload)
	if h.flags&flagControl == 0 {
		n, ok := c.headLen(payload)
		if !ok || n < 0 || n > len(payload) {
			return 0, errHead
		}
		head = n
	}
	covered := headerSize + head
	return sumOf(b, covered, BodyHash(b[covered:]), pos, c.store), nil
}

// checkRecord verifies the record b, exactly h.size bytes, at pos.
func (c codec) checkRecord(h header, b []byte, pos Position) error {
	sum, err := c.sum(h, b, pos)
	if err != nil {
		return err
	}
	if sum != binary.LittleEndian.Uint64(b[hashAt:]) {
		return errHash
	}
	return nil
}

// checkBatchHeader verifies the header of a batch; its size is to be trusted
// afterwards, its records are not.
func (c codec) checkBatchHeader(b []byte, pos Position) error {
	if sumOf(b, headerSize, 0, pos, c.store) != binary.LittleEndian.Uint64(b[hashAt:]) {
		return errHash
	}
	return nil
}

// checkFrame verifies the frame at the beginning of b, which holds at least its
// h.size bytes: its own hash, an epoch not below its predecessor's, and every
// record in it.
func (c codec) checkFrame(h header, b []byte, pos Position, leastEpoch uint32) error {
	switch {
	case h.flags&flagInner != 0:
		return errNotStart
	case h.epoch < leastEpoch:
		return errEpoch
	case int64(len(b)) < int64(h.size):
		return errShort
	case h.flags&flagBatch == 0:
		return c.checkRecord(h, b[:h.size], pos)
	}
	if err := c.checkBatchHeader(b, pos); err != nil {
		return err
	}
	return eachInner(h, b[:h.size], func(in header, at int) error {
		return c.checkRecord(in, b[at:at+int(in.size)], pos+Position(at))
	})
}

// eachInner walks the records of a batch, b being the whole frame.
func eachInner(h header, b []byte, visit func(in header, at int) error) error {
	at := headerSize
	for at < len(b) {
		in, err := parseHeader(b[at:])
		if err != nil || in.flags != flagInner || in.epoch != h.epoch || int64(at)+int64(in.size) > int64(len(b)) {
			return fmt.Errorf("record at %d of the frame: %w", at, errBatch)
		}
		if err := visit(in, at); err != nil {
			return err
		}
		at += int(in.padded())
	}
	// The last record is not padded inside the frame, so at may lie behind b.
	if at == headerSize || int64(at) != align(int64(len(b))) {
		return errBatch
	}
	return nil
}

// eachRecord hands every record of a verified frame to visit.
func eachRecord(h header, b []byte, pos Position, visit func(Record) error) error {
	end := pos + Position(h.padded())
	if h.flags&flagBatch == 0 {
		return visit(Record{Position: pos, Size: h.size, Epoch: h.epoch, End: end, Payload: b[headerSize:h.size:h.size]})
	}
	return eachInner(h, b[:h.size], func(in header, at int) error {
		to := at + int(in.size)
		return visit(Record{Position: pos + Position(at), Size: in.size, Epoch: in.epoch, End: end, Payload: b[at+headerSize : to : to]})
	})
}
