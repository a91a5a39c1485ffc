package consumequeue

import (
	"encoding/binary"
	"fmt"

	"github.com/pocketmq/mq/internal/coord"
)

// EntrySize is the size of an encoded entry in bytes, RocketMQ's unit.
const EntrySize = 20

// Entry says where in the log a message of the queue is.
type Entry struct {
	Position coord.Position // of the message's record
	Size     uint32         // of the record in bytes; 0 marks a hole: no message has this offset
	Tag      uint64         // hash of the message's tag, to filter without reading the message
}

// Hole reports whether no message has the entry's offset.
func (e Entry) Hole() bool { return e.Size == 0 }

// An encoded entry, in memory, in a file and in a checkpoint. Little-endian.
//
//	 0              8         12             20
//	 +--------------+---------+--------------+
//	 | position i64 | size u32| tag hash u64 |
//	 +--------------+---------+--------------+
//
// An entry has no checksum of its own: it is believed only once the record it
// points at turns out to be that of its queue and offset.

// Put encodes the entry into the first EntrySize bytes of dst, which must be
// that long.
func (e Entry) Put(dst []byte) {
	_ = dst[EntrySize-1]
	binary.LittleEndian.PutUint64(dst, uint64(e.Position))
	binary.LittleEndian.PutUint32(dst[8:], e.Size)
	binary.LittleEndian.PutUint64(dst[12:], e.Tag)
}

// DecodeEntry is the inverse of Put. It fails only if src is too short: any
// bytes are an entry, if not always a true one.
func DecodeEntry(src []byte) (Entry, error) {
	if len(src) < EntrySize {
		return Entry{}, fmt.Errorf("consumequeue: decode entry: %d bytes, want %d", len(src), EntrySize)
	}
	return entryAt(src), nil
}

// entryAt decodes the entry at the start of src, which is long enough.
func entryAt(src []byte) Entry {
	_ = src[EntrySize-1]
	return Entry{
		Position: coord.Position(binary.LittleEndian.Uint64(src)),
		Size:     binary.LittleEndian.Uint32(src[8:]),
		Tag:      binary.LittleEndian.Uint64(src[12:]),
	}
}

// decodeEntries fills dst from src, which holds as many entries.
func decodeEntries(dst []Entry, src []byte) {
	for i := range dst {
		dst[i] = entryAt(src[i*EntrySize : (i+1)*EntrySize])
	}
}

// encodeEntries is the inverse of decodeEntries.
func encodeEntries(dst []byte, src []Entry) {
	for i, e := range src {
		e.Put(dst[i*EntrySize:])
	}
}
