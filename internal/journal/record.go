package journal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// A record is one entry of the library's log. Little-endian:
//
//	 0        4     5      6       8            16         20         24         32
//	 +--------+-----+------+-------+------------+----------+----------+----------+- - - - -+
//	 | magic  | ver | kind | flags | number u64 | seq u32  | size u32 | hash u64 | payload |
//	 +--------+-----+------+-------+------------+----------+----------+----------+- - - - -+
//
//	number  the checkpoint; each is one more than the last that was begun
//	seq     chunk: 0, 1, 2, …; closing: how many chunks; withdrawal: 0
//	size    bytes of payload: the rest of the entry, no more and no less
//	hash    xxhash64 of the 24 bytes before it and the payload
//
// The payload of a chunk is a piece of the body, of a closing record
//
//	0             8               16
//	+-------------+---------------+
//	| length u64  | body hash u64 |     of the whole body
//	+-------------+---------------+
//
// and of a withdrawal nothing.
const (
	recordMagic   = 0x504a4d51 // "QMJP"
	recordVersion = 1

	headerSize  = 32
	hashOffset  = 24
	closingSize = 16

	// maxChunk bounds a record, and so what a damaged length can make us
	// allocate. Smaller than it could be because the library keeps three copies
	// of what is being written.
	maxChunk  = 256 << 10
	maxRecord = headerSize + maxChunk

	flagClean uint16 = 1 << 0 // closing record only
)

// kind says what a record is.
type kind uint8

const (
	kindChunk      kind = 1 // a piece of a body
	kindClosing    kind = 2 // the checkpoint is complete
	kindWithdrawal kind = 3 // the checkpoint is no longer a clean one
)

// errRecord says that an entry is no record of ours.
var errRecord = errors.New("damaged record")

// record is the decoded form.
type record struct {
	kind   kind
	clean  bool
	number uint64
	seq    uint32

	payload []byte // of a chunk; shares memory with what was decoded

	length   uint64 // of a closing record: bytes of the body
	bodyHash uint64 // of a closing record
}

// seal writes the header of r into the first bytes of entry, behind which the
// caller has placed the payload.
func (r *record) seal(entry []byte) {
	var flags uint16
	if r.clean {
		flags |= flagClean
	}
	le := binary.LittleEndian
	le.PutUint32(entry, recordMagic)
	entry[4] = recordVersion
	entry[5] = byte(r.kind)
	le.PutUint16(entry[6:], flags)
	le.PutUint64(entry[8:], r.number)
	le.PutUint32(entry[16:], r.seq)
	le.PutUint32(entry[20:], uint32(len(entry)-headerSize))
	le.PutUint64(entry[hashOffset:], recordHash(entry))
}

// encode returns r as an entry of its own.
func (r *record) encode() []byte {
	entry := make([]byte, headerSize, headerSize+closingSize+len(r.payload))
	switch r.kind {
	case kindChunk:
		entry = append(entry, r.payload...)
	case kindClosing:
		entry = binary.LittleEndian.AppendUint64(entry, r.length)
		entry = binary.LittleEndian.AppendUint64(entry, r.bodyHash)
	}
	r.seal(entry)
	return entry
}

// decode reads an entry. The record shares its memory. Errors are errRecord for
// damage, and ErrVersion: the place of magic, version and hash is for ever.
func decode(entry []byte) (record, error) {
	var r record
	le := binary.LittleEndian
	if len(entry) < headerSize || len(entry) > maxRecord {
		return r, fmt.Errorf("%w: %d bytes", errRecord, len(entry))
	}
	if le.Uint32(entry) != recordMagic {
		return r, fmt.Errorf("%w: magic", errRecord)
	}
	if le.Uint64(entry[hashOffset:]) != recordHash(entry) {
		return r, fmt.Errorf("%w: checksum", errRecord)
	}
	if entry[4] != recordVersion {
		return r, fmt.Errorf("%w %d", ErrVersion, entry[4]) // undamaged, so it is true
	}
	flags := le.Uint16(entry[6:])
	r.kind = kind(entry[5])
	r.clean = flags&flagClean != 0
	r.number = le.Uint64(entry[8:])
	r.seq = le.Uint32(entry[16:])
	if int(le.Uint32(entry[20:])) != len(entry)-headerSize {
		return r, fmt.Errorf("%w: length", errRecord)
	}
	return r, r.decodePayload(entry[headerSize:], flags)
}

// decodePayload checks what depends on the kind.
func (r *record) decodePayload(payload []byte, flags uint16) error {
	switch {
	case r.kind == kindChunk && flags == 0:
		r.payload = payload
		return nil
	case r.kind == kindClosing && flags&^flagClean == 0 && len(payload) == closingSize:
		r.length = binary.LittleEndian.Uint64(payload)
		r.bodyHash = binary.LittleEndian.Uint64(payload[8:])
		return nil
	case r.kind == kindWithdrawal && flags == 0 && len(payload) == 0 && r.seq == 0:
		return nil
	}
	return fmt.Errorf("%w: kind %d, flags %#x, %d bytes", errRecord, r.kind, flags, len(payload))
}

// recordHash covers all of an entry but the hash itself.
func recordHash(entry []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(entry[:hashOffset])
	_, _ = d.Write(entry[headerSize:])
	return d.Sum64()
}
