package record

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// A message's payload:
//
//	0      1         2                     8
//	+------+---------+---------------------+
//	| kind | tagLen  |     topic id/8      |   word 0
//	+------+---------+---------------------+
//	| queue u16      |     offset u48      |   word 1
//	+----------------+---------------------+
//	| metaLen u16    |    stored at u48    |   word 2, Unix ms
//	+----------------+---------------------+
//	| tag            tagLen bytes          |
//	+--------------------------------------+
//	| meta           metaLen bytes         |
//	+--------------------------------------+
//	| body           to the payload's end  |
//	+--------------------------------------+
//
// All but the body is the head. Three words are written and read at once, so a
// message with a tag alone costs 24 bytes and three stores. Meta is a sequence
// of fields in this order, at most one of each but the last two; the lengths are
// u16 (those from 'D' to 'O' are in again.go):
//
//	'B' | born at i64                           when it was made, Unix ms
//	'D' | deliver at i64                        of a delayed message, and of no other
//	'I' | epoch u32 | position i64              the id it was first stored under
//	'W' | at i64 | position i64                 the delayed message that this delivers
//	'O' | len | origin                          of a retry or a dead letter
//	'S' | len | sharding key                    never empty
//	'U' | len | deduplication key               never empty
//	'K' | len | key                             in the sender's order
//	'P' | name len | value len | name | value   names ascend and differ
//
// A delayed message is the same under another kind: what will be a message when
// its time has come. It has no offset yet, which is 0.
const (
	fixedHead     = 24
	bornAtField   = 1 + 8
	keyField      = 1 + 2 // besides the key; the other two keys' too
	propertyField = 1 + 2 + 2

	fieldBornAt      = 'B'
	fieldShardingKey = 'S'
	fieldDedupKey    = 'U'
	fieldKey         = 'K'
	fieldProperty    = 'P'

	low48 = 1<<48 - 1
)

// Message is what the head of a message says. The body is kept apart: it is
// copied and hashed by the log, and this package never looks at it.
type Message struct {
	Topic    TopicID
	Queue    QueueID
	Offset   Offset
	StoredAt int64 // Unix ms

	// BornAt is when the message was made, Unix ms. 0 means the time it was
	// stored, and takes no room.
	BornAt int64

	Tag         string
	ShardingKey string
	DedupKey    string
	Keys        []string
	Properties  map[string]string

	// Again is nil for all that is stored once. With a DeliverAt the message is a
	// delayed one.
	Again *Again
}

// HeadSize returns the length of the message's head. It fails with ErrTooLong,
// naming what is too long. Topic, Queue, Offset and StoredAt do not matter to
// it, so it is called before they are known.
func (m *Message) HeadSize() (int, error) {
	if len(m.Tag) > MaxTag {
		return 0, tooLong("tag", len(m.Tag), MaxTag)
	}
	size := fixedHead + len(m.Tag)
	if m.BornAt != 0 {
		size += bornAtField
	}
	if m.Again != nil {
		n, err := m.Again.size()
		if err != nil {
			return 0, err
		}
		size += n
	}
	if m.ShardingKey != "" {
		if len(m.ShardingKey) > MaxShardingKey {
			return 0, tooLong("sharding key", len(m.ShardingKey), MaxShardingKey)
		}
		size += keyField + len(m.ShardingKey)
	}
	if m.DedupKey != "" {
		if len(m.DedupKey) > MaxDedupKey {
			return 0, tooLong("deduplication key", len(m.DedupKey), MaxDedupKey)
		}
		size += keyField + len(m.DedupKey)
	}
	names := 0
	for _, k := range m.Keys {
		names += keyField + len(k)
	}
	if len(m.Properties) > 0 { // starting to range over none costs more than all of the above
		for k, v := range m.Properties {
			names += propertyField + len(k) + len(v)
		}
	}
	if names > MaxNames {
		return 0, tooLong("keys and properties", names, MaxNames)
	}
	return size + names, nil
}

func tooLong(what string, n, limit int) error {
	return fmt.Errorf("record: encode message: %s of %d bytes, at most %d: %w", what, n, limit, ErrTooLong)
}

// PutHead writes the head into dst, which must be as long as HeadSize said. It
// panics if the message is not the one that was measured or its coordinates
// cannot be: then nothing of it may reach the log.
func (m *Message) PutHead(dst []byte) {
	tag, meta := len(m.Tag), len(dst)-fixedHead-len(m.Tag)
	// One comparison for all: any excess bit, so any negative number, shows.
	excess := uint64(m.Topic)>>(48+alignShift) | uint64(m.Topic)&(1<<alignShift-1) |
		uint64(m.Queue)/MaxQueues | uint64(m.Offset)>>48 | uint64(tag)/(MaxTag+1) | uint64(meta)>>16
	if excess != 0 || m.Topic == 0 {
		panic("record: encode message: a coordinate or a length is out of range")
	}
	kind := KindMessage
	if m.Again != nil && m.Again.DeliverAt != 0 {
		if kind = KindDelayed; m.Offset != 0 {
			panic("record: encode delayed message: it has an offset")
		}
	}
	// A clock far off must not stop a store: the nearest time that fits.
	stored := uint64(min(max(m.StoredAt, 0), low48))
	_ = dst[fixedHead-1]
	binary.LittleEndian.PutUint64(dst[0:8], uint64(kind)|uint64(tag)<<8|uint64(m.Topic)>>alignShift<<16)
	binary.LittleEndian.PutUint64(dst[8:16], uint64(m.Queue)|uint64(m.Offset)<<16)
	binary.LittleEndian.PutUint64(dst[16:24], uint64(meta)|stored<<16)
	copy(dst[fixedHead:], m.Tag)
	// Decided by the fields and not by the room for them, so that a message that
	// gained its first property since it was measured is found out too.
	if meta != 0 || m.hasMeta() {
		m.putMeta(dst[fixedHead+tag:])
	}
}

func (m *Message) hasMeta() bool {
	return m.BornAt != 0 || m.Again != nil || m.ShardingKey != "" || m.DedupKey != "" || len(m.Keys) != 0 || len(m.Properties) != 0
}

// putMeta fills dst with the fields. It appends within dst's length, so what
// does not fit goes astray instead of into the bytes behind.
func (m *Message) putMeta(dst []byte) {
	out := dst[:0:len(dst)]
	if m.BornAt != 0 {
		out = append(out, fieldBornAt)
		out = binary.LittleEndian.AppendUint64(out, uint64(m.BornAt))
	}
	if m.Again != nil {
		out = m.Again.append(out)
	}
	if m.ShardingKey != "" {
		out = appendKey(out, fieldShardingKey, m.ShardingKey)
	}
	if m.DedupKey != "" {
		out = appendKey(out, fieldDedupKey, m.DedupKey)
	}
	for _, k := range m.Keys {
		out = appendKey(out, fieldKey, k)
	}
	out = appendProperties(out, m.Properties)
	mustFill(dst, out)
}

func appendKey(out []byte, field byte, key string) []byte {
	out = append(out, field)
	out = binary.LittleEndian.AppendUint16(out, uint16(len(key)))
	return append(out, key...)
}

// appendProperties writes the properties by name. A map has no order of its
// own; with one property there is nothing to put in order, and up to 16 names
// are sorted on the stack.
func appendProperties(out []byte, properties map[string]string) []byte {
	if len(properties) <= 1 {
		for k, v := range properties {
			out = appendProperty(out, k, v)
		}
		return out
	}
	var few [16]string
	names := few[:0]
	for k := range properties {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		out = appendProperty(out, k, properties[k])
	}
	return out
}

func appendProperty(out []byte, name, value string) []byte {
	out = append(out, fieldProperty)
	out = binary.LittleEndian.AppendUint16(out, uint16(len(name)))
	out = binary.LittleEndian.AppendUint16(out, uint16(len(value)))
	out = append(out, name...)
	return append(out, value...)
}
