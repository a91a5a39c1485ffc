// Package record says what the payloads of the commit log mean: messages, those
// that wait for their time, acks, and the coming and going of topics, groups and
// starting points.
//
// Everything that happens in a store is one of these records, so this package
// is the vocabulary of the log. It knows bytes and nothing else: no files, no
// locks, no fold. Three rules hold for all of it:
//
//   - There is one encoding per value. A decoder refuses what its encoder would
//     not have written, so decoding and encoding again gives the same bytes.
//   - A decoder never allocates more than a small multiple of its input, and no
//     input makes it panic: the hash of a frame says that it is what somebody
//     wrote, not that they wrote sense.
//   - Encoders do not fail. What may be wrong is asked before (Validate, or
//     HeadSize for a message), outside the append lock.
//
// All integers are little-endian or unsigned varints in their shortest form.
package record

import (
	"errors"
	"fmt"

	"github.com/pocketmq/mq/internal/coord"
)

// The coordinates a record speaks of, under the names of package coord.
type (
	// Position is a byte in the log; records begin at multiples of 8.
	Position = coord.Position
	// Offset is the index of a message in its queue.
	Offset = coord.Offset
	// QueueID is the number of a queue in its topic.
	QueueID = coord.QueueID
	// TopicID is the position of the record that created a topic.
	TopicID = coord.TopicID
	// GroupID is the position of the record that created a group.
	GroupID = coord.GroupID
)

// Limits of what a record can hold.
const (
	// MaxTag is the longest tag in bytes.
	MaxTag = 127

	// MaxShardingKey is the longest sharding key in bytes.
	MaxShardingKey = 1 << 10

	// MaxDedupKey is the longest deduplication key in bytes.
	MaxDedupKey = 1 << 10

	// MaxNames is what keys and properties may take together as encoded: 3 bytes
	// and its own for a key, 5 bytes and its own for a property. RocketMQ bounds
	// its properties by the same number (a signed 16-bit length).
	MaxNames = 1<<15 - 1

	// MaxQueues is how many message queues a topic can have.
	MaxQueues = 1 << 10

	// MaxOffset is beyond the last offset of a message queue: 48 bits in a
	// message's head. At a million messages a second into one queue they last
	// nine years.
	MaxOffset Offset = 1 << 48

	// MaxPosition is beyond the last position a record can name. Records are
	// 8-aligned, so 48 bits hold 2 PiB of log.
	MaxPosition Position = 1 << (48 + alignShift)

	// MaxHead is the longest head a message can have.
	MaxHead = fixedHead + MaxTag + bornAtField + maxAgain + keyField + MaxShardingKey + keyField + MaxDedupKey + MaxNames
)

// alignShift is log2 of the alignment of records, so of every id.
const alignShift = 3

// Kind is the first byte of every payload. Zero is no kind: it is what a page
// that was never written reads as.
type Kind uint8

// The kinds of records. The numbers are on disk and never change.
const (
	KindMessage     Kind = 1
	KindAck         Kind = 2
	KindTopic       Kind = 3
	KindTopicDelete Kind = 4
	KindGroup       Kind = 5
	KindGroupDelete Kind = 6
	KindStart       Kind = 7
	KindDelayed     Kind = 8
	KindSettle      Kind = 9
	KindHandout     Kind = 10

	// KindFiller says nothing. It stands where a repair found damage.
	KindFiller Kind = 255
)

var kindNames = [...]string{
	KindMessage:     "message",
	KindAck:         "ack",
	KindTopic:       "topic",
	KindTopicDelete: "topic deletion",
	KindGroup:       "group",
	KindGroupDelete: "group deletion",
	KindStart:       "start",
	KindDelayed:     "delayed message",
	KindSettle:      "settlement",
	KindHandout:     "handout",
}

// String returns the kind as it stands in error messages.
func (k Kind) String() string {
	if k == KindFiller {
		return "filler"
	}
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return kindNames[k]
}

// Known reports whether this version knows the kind.
func (k Kind) Known() bool { return k > 0 && int(k) < len(kindNames) || k == KindFiller }

// Errors of decoding and of sizing. All are wrapped with what was wrong.
var (
	// ErrMalformed: the bytes are not what an encoder writes.
	ErrMalformed = errors.New("malformed record")

	// ErrUnknown: a kind, a field or a flag that this version does not know.
	// Skipping it could lose what it says, so it is an error.
	ErrUnknown = errors.New("written by a later version")

	// ErrTooLong: a tag, a sharding or deduplication key, an origin, or keys and properties beyond a
	// limit.
	ErrTooLong = errors.New("too long")

	// ErrInvalid: a value that has no encoding.
	ErrInvalid = errors.New("invalid record")
)

// KindOf returns the kind of a payload, 0 if the payload is empty.
func KindOf(payload []byte) Kind {
	if len(payload) == 0 {
		return 0
	}
	return Kind(payload[0])
}

// HeadLen returns how many bytes at the start of a payload are its head; what
// follows is a message's body. Every other kind is head from end to end, also
// one that only a later version knows, so that its hash can still be checked.
// It is false for what cannot be a payload.
func HeadLen(payload []byte) (int, bool) {
	switch KindOf(payload) {
	case 0:
		return 0, false
	case KindMessage, KindDelayed:
		return messageHeadLen(payload)
	default:
		return len(payload), true
	}
}

// PutFiller makes payload, at least one byte, a record that says nothing. It
// stands where a repair found damage. Only its kind counts, so it has no decoder.
func PutFiller(payload []byte) {
	clear(payload)
	payload[0] = byte(KindFiller)
}

// malformed and unknown build the two errors of a decoder. They are never on
// the path of a record that is whole.
func malformed(k Kind, what string) error {
	return fmt.Errorf("record: decode %v: %s: %w", k, what, ErrMalformed)
}

func unknown(k Kind, what string) error {
	return fmt.Errorf("record: decode %v: %s: %w", k, what, ErrUnknown)
}

// invalid is Validate's error, nil without a flaw.
func invalid(k Kind, flaw string) error {
	if flaw == "" {
		return nil
	}
	return fmt.Errorf("record: encode %v: %s: %w", k, flaw, ErrInvalid)
}
