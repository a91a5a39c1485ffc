package mq

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/pocketmq/mq/internal/coord"
)

// Offset is the index of a message in its message queue. Offsets of a queue are
// dense and start at 0.
type Offset = coord.Offset

// QueueID is the number of a message queue within its topic, from 0.
type QueueID = coord.QueueID

// Message is what is sent and what is received.
//
// The upper fields are the sender's. Send* reads them during the call only: the
// message and everything in it may be reused as soon as the call returns. All
// fields of a delivered message belong to the receiver for as long as it likes.
type Message struct {
	// Topic the message goes to.
	Topic string

	// Tag by which consumers filter. At most 127 bytes, may be empty.
	Tag string

	// Keys under which the message can be found, see Broker.MessagesByKey. They
	// may hold any bytes. Keys and properties together take at most 32,767 bytes.
	Keys []string

	// Properties travel with the message. Names and values may be any bytes, a
	// value may be empty.
	Properties map[string]string

	// ShardingKey names the order the message belongs to: messages of one key
	// go to one queue, and an ordered consumer handles them one at a time, in
	// order. At most 1,024 bytes; empty for none.
	ShardingKey string

	// DedupKey names what is sent: in a topic with a window (TopicConfig.Dedup) a
	// message with a key that was sent within it is a repeat, which stores nothing.
	// At most 1,024 bytes, any; empty for none. Whoever sends a message on that it
	// received sends its key too. Elsewhere a key is an ErrNoDedupWindow.
	DedupKey string

	// Body is the payload. Empty is legal.
	Body []byte

	// One of the next three makes the message wait: nobody sees it before its
	// time, at most ten years ahead. Times count in milliseconds, rounded up, by
	// the system's clock. A time that is past delivers at once. A message that is
	// received has none of them.

	// DeliverAt is when the message is delivered.
	DeliverAt time.Time

	// Delay is how long after it is sent the message is delivered.
	Delay time.Duration

	// DelayLevel is one of RocketMQ's delay levels, from 1: 1s 5s 10s 30s 1m 2m 3m
	// 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h. One above 18 is 18, as there.
	DelayLevel int

	// The fields below are filled by a delivery. Send* neither reads nor writes
	// them.

	// ID names this message for ever: it is the one that Send returned, also when
	// the message was stored again since then, as one is that has waited.
	ID MessageID

	// Queue and Offset say where in the topic the message lies. The offset is -1
	// while it waits for its time.
	Queue  QueueID
	Offset Offset

	// BornAt is when the message was first sent, StoredAt when it was stored.
	// Both come from a clock of 2 ms. StoredAt never decreases while the broker is
	// open, however the system's clock is set.
	BornAt   time.Time
	StoredAt time.Time

	// Attempt is 1 at the first delivery to the group and rises by one with
	// each further one. What a pull consumer got and did not commit comes again
	// with the same number.
	Attempt int

	// Origin says why a message comes again or is a dead letter; nil for all
	// others. Topic, Queue, Offset and ID are those it was first stored under.
	Origin *Origin

	origin delivery
}

// delivery is where a message was handed out, which an acknowledgement names.
type delivery struct {
	cursor *cursor
	start  coord.Position // the start or reset record its group counted from
	offset Offset         // the message's own field may be changed by its receiver
	lease  *lease         // of a simple consumer
}

// SendResult says where a message was stored.
type SendResult struct {
	ID     MessageID
	Topic  string
	Queue  QueueID
	Offset Offset // -1 if the message waits: it gets one when it is delivered

	// Duplicate says that the message was a repeat and nothing was stored. All
	// else is what the first send returned, whatever has become of that message
	// since: it may have been delivered, consumed or recalled.
	Duplicate bool

	deliverAt int64 // Unix ms; 0: it does not wait
}

// MessageID names a message for ever: the store it is in, the epoch of that
// store (it rises with every unclean end, so that an id is never given out
// twice) and the position in its log. IDs can be compared with ==. The zero
// value names no message.
type MessageID struct {
	store    uint64
	epoch    uint32
	position coord.Position
}

// IsZero reports whether id names no message.
func (id MessageID) IsZero() bool { return id == MessageID{} }

const messageIDBytes = 8 + 4 + 8

// String returns the id as 40 hexadecimal digits: store, epoch, position.
func (id MessageID) String() string {
	return fmt.Sprintf("%016x%08x%016x", id.store, id.epoch, uint64(id.position))
}

// ParseID reads what MessageID.String wrote.
func ParseID(s string) (MessageID, error) {
	var raw [messageIDBytes]byte
	if len(s) != hex.EncodedLen(len(raw)) {
		return MessageID{}, fmt.Errorf("%w: message id %.60q: want %d hexadecimal digits", ErrInvalidArgument, s, hex.EncodedLen(len(raw)))
	}
	if _, err := hex.Decode(raw[:], []byte(s)); err != nil {
		return MessageID{}, fmt.Errorf("%w: message id %q: %w", ErrInvalidArgument, s, err)
	}
	id := MessageID{
		store:    bigEndian(raw[:8]),
		epoch:    uint32(bigEndian(raw[8:12])),
		position: coord.Position(bigEndian(raw[12:])),
	}
	if id.position < 0 || id.String() != s {
		return MessageID{}, fmt.Errorf("%w: message id %q: want lower case and a position", ErrInvalidArgument, s)
	}
	return id, nil
}

func bigEndian(b []byte) (v uint64) {
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v
}

// MarshalText and UnmarshalText let an id stand in JSON and text formats.
func (id MessageID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *MessageID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
