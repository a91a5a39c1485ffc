package record

import (
	"encoding/binary"
	"math/bits"
)

// What the small kinds are made of: varints in their shortest form, ids divided
// by the alignment, strings behind their length. An ack is the only one of them
// that is written often; with varints it takes some 20 bytes, and its frame with
// the header of 24 no more than 48.
//
// Each piece has three functions that mirror each other: …Len says how many
// bytes it takes, append… writes it, and a method of reader reads it.

// uvarintLen returns how many bytes binary.AppendUvarint writes for x.
func uvarintLen(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }

// Ids are positions of records, so their low bits are zero and stay out.

func idLen[P ~int64](id P) int { return uvarintLen(uint64(id) >> alignShift) }

func appendID[P ~int64](out []byte, id P) []byte {
	return binary.AppendUvarint(out, uint64(id)>>alignShift)
}

// canName reports whether id can be the position of a record.
func canName[P ~int64](id P) bool {
	return id > 0 && Position(id) < MaxPosition && id&(1<<alignShift-1) == 0
}

// canOffset reports whether o can be an offset that a message has or will have.
func canOffset(o Offset) bool { return o >= 0 && o < MaxOffset }

// Strings are bytes behind their number: any byte is legal in them.

func textLen(s string) int { return uvarintLen(uint64(len(s))) + len(s) }

func appendText(out []byte, s string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

// How many offsets there are is written by whoever knows it from elsewhere.

func offsetsLen(os []Offset) int {
	n := 0
	for _, o := range os {
		n += uvarintLen(uint64(o))
	}
	return n
}

func appendOffsets(out []byte, os []Offset) []byte {
	for _, o := range os {
		out = binary.AppendUvarint(out, uint64(o))
	}
	return out
}

// mustFill panics unless out is dst filled to its end: an encoder wrote more or
// less than it had announced, and the log must not get either.
func mustFill(dst, out []byte) {
	if len(out) != len(dst) {
		panic("record: encode: changed since it was measured")
	}
}

// reader takes a payload apart. Its first failure stays; what it returns from
// then on is zero, so that a decoder reads all its fields and asks once.
type reader struct {
	kind Kind
	rest []byte
	err  error
}

// read starts on a payload of that kind.
func read(k Kind, payload []byte) reader {
	r := reader{kind: k, rest: payload}
	if KindOf(payload) != k {
		r.fail("another kind of record")
		return r
	}
	r.rest = payload[1:]
	return r
}

// fail notes what is wrong and leaves nothing to read, so that whatever reads
// on ends at once.
func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = malformed(r.kind, what)
	}
	r.rest = nil
}

// end checks that nothing is left and returns what went wrong. The flaw is
// what keeps the decoded value from being encoded again, empty for nothing.
func (r *reader) end(flaw string) error {
	if len(r.rest) > 0 {
		r.fail("bytes behind the end")
	}
	if flaw != "" {
		r.fail(flaw)
	}
	return r.err
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.fail("cut short")
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

// flags reads a byte of which only the known bits may be set.
func (r *reader) flags(known byte) byte {
	b := r.byte()
	if b&^known != 0 && r.err == nil {
		r.err, r.rest = unknown(r.kind, "unknown flag"), nil
	}
	return b & known
}

// uvarint reads a varint below limit. A longer form than needed is refused: it
// would be a second encoding of the same value.
func (r *reader) uvarint(limit uint64) uint64 {
	// Most numbers of most records are one byte.
	if len(r.rest) > 0 && r.rest[0] < 0x80 && uint64(r.rest[0]) < limit {
		x := uint64(r.rest[0])
		r.rest = r.rest[1:]
		return x
	}
	x, n := binary.Uvarint(r.rest)
	switch {
	case n <= 0:
		r.fail("cut short")
	case n != uvarintLen(x):
		r.fail("number in a long form")
	case x >= limit:
		r.fail("number out of range")
	default:
		r.rest = r.rest[n:]
		return x
	}
	return 0
}

// id reads the position of a record, which may be 0 where that means something.
func (r *reader) id() Position {
	return Position(r.uvarint(uint64(MaxPosition)>>alignShift) << alignShift)
}

// offset and queue refuse what no message can have.

func (r *reader) offset() Offset { return Offset(r.uvarint(uint64(MaxOffset))) }

func (r *reader) queue() QueueID { return QueueID(r.uvarint(MaxQueues)) }

// count reads how many items of at least size bytes follow. It refuses more
// than the rest could hold, which bounds what a decoder allocates for them.
func (r *reader) count(size int) int {
	return int(r.uvarint(uint64(len(r.rest)/size) + 1))
}

// text copies, so that what is decoded outlives the payload.
func (r *reader) text() string { return string(r.bytes()) }

// bytes is a text in place.
func (r *reader) bytes() []byte {
	n := r.count(1)
	if n > len(r.rest) {
		r.fail("cut short")
		return nil
	}
	s := r.rest[:n:n]
	r.rest = r.rest[n:]
	return s
}

// offsets reads n offsets, nil for none. An offset takes a byte at least, so
// the length of the rest bounds what is allocated.
func (r *reader) offsets(n int) []Offset {
	if n > len(r.rest) {
		r.fail("cut short")
	}
	if r.err != nil || n == 0 {
		return nil
	}
	os := make([]Offset, n)
	for i := range os {
		os[i] = r.offset()
	}
	return os
}
