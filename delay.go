package mq

import (
	"encoding/hex"
	"fmt"
	"math"
	"time"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// MaxDelayLevel is the last of RocketMQ's delay levels (Message.DelayLevel).
const MaxDelayLevel = 18

// delayLevels are RocketMQ's MessageStoreConfig.messageDelayLevel: "1s 5s 10s
// 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h".
var delayLevels = [MaxDelayLevel]time.Duration{
	1 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
	1 * time.Minute, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute, 5 * time.Minute,
	6 * time.Minute, 7 * time.Minute, 8 * time.Minute, 9 * time.Minute, 10 * time.Minute,
	20 * time.Minute, 30 * time.Minute, 1 * time.Hour, 2 * time.Hour,
}

// maxDelayYears is how far ahead a message may be sent. (RocketMQ's
// timerMaxDelaySec is three days.)
const maxDelayYears = 10

// deliverAt returns when a message with one of the three fields is due, Unix
// ms; 0: at once.
func deliverAt(m *Message) (int64, error) {
	now := time.Now()
	var at time.Time
	switch timed := !m.DeliverAt.IsZero(); {
	case timed && (m.Delay != 0 || m.DelayLevel != 0) || m.Delay != 0 && m.DelayLevel != 0:
		return 0, fmt.Errorf("%w: more than one of DeliverAt, Delay and DelayLevel", ErrInvalidMessage)
	case m.Delay < 0:
		return 0, fmt.Errorf("%w: a delay of %v", ErrInvalidMessage, m.Delay)
	case m.DelayLevel < 0:
		return 0, fmt.Errorf("%w: delay level %d", ErrInvalidMessage, m.DelayLevel)
	case m.Delay > 0:
		at = now.Add(m.Delay)
	case m.DelayLevel > 0:
		at = now.Add(delayLevels[min(m.DelayLevel, MaxDelayLevel)-1])
	default:
		at = m.DeliverAt
	}
	if !at.After(now) {
		return 0, nil
	}
	if at.After(now.AddDate(maxDelayYears, 0, 0)) {
		return 0, fmt.Errorf("%w: to be delivered at %v, more than %d years ahead", ErrInvalidMessage, at, maxDelayYears)
	}
	return ceilMilli(at), nil // never early
}

// ceilMilli is t in Unix ms, rounded up; of a time too far off for that the
// nearest there is.
func ceilMilli(t time.Time) int64 {
	const farthest = math.MaxInt64/1000 - 1 // seconds
	switch sec := t.Unix(); {
	case sec > farthest:
		return math.MaxInt64
	case sec < -farthest:
		return math.MinInt64
	}
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	return ms
}

// RecallHandle names a message that waits for its time, for Producer.Recall.
// Handles can be compared with ==, and stored as text. They stay good for as
// long as the message waits, whatever happens to the store meanwhile. The zero
// value names no message.
type RecallHandle struct {
	id MessageID
	at int64 // Unix ms
}

// RecallHandle returns what takes the message back before its time. It is zero
// if the message does not wait.
func (r SendResult) RecallHandle() RecallHandle {
	if r.deliverAt == 0 {
		return RecallHandle{}
	}
	return RecallHandle{r.ID, r.deliverAt}
}

// ID returns the id of the message.
func (h RecallHandle) ID() MessageID { return h.id }

// DeliverAt returns when the message is due.
func (h RecallHandle) DeliverAt() time.Time { return time.UnixMilli(h.at) }

// String returns the handle as 56 hexadecimal digits.
func (h RecallHandle) String() string { return fmt.Sprintf("%v%016x", h.id, uint64(h.at)) }

// ParseRecallHandle reads what RecallHandle.String wrote. Errors:
// ErrInvalidArgument.
func ParseRecallHandle(s string) (RecallHandle, error) {
	const idDigits, digits = 2 * messageIDBytes, 2 * (messageIDBytes + 8)
	if len(s) != digits {
		return RecallHandle{}, fmt.Errorf("%w: recall handle %.80q: want %d hexadecimal digits", ErrInvalidArgument, s, digits)
	}
	id, err := ParseID(s[:idDigits])
	if err != nil {
		return RecallHandle{}, err
	}
	at, err := hex.DecodeString(s[idDigits:])
	if err != nil {
		return RecallHandle{}, fmt.Errorf("%w: recall handle %q: %w", ErrInvalidArgument, s, err)
	}
	h := RecallHandle{id, int64(bigEndian(at))}
	if h.at < 0 || h.String() != s {
		return RecallHandle{}, fmt.Errorf("%w: recall handle %q: want lower case and a time", ErrInvalidArgument, s)
	}
	return h, nil
}

// MarshalText and UnmarshalText let a handle stand in JSON and text formats.
func (h RecallHandle) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *RecallHandle) UnmarshalText(text []byte) error {
	parsed, err := ParseRecallHandle(string(text))
	if err != nil {
		return err
	}
	*h = parsed
	return nil
}

// identity is the id as records name it.
func (id MessageID) identity() record.Identity {
	return record.Identity{Epoch: id.epoch, Position: id.position}
}

// idOf returns the id of the message in a record of this store at pos: that it
// was first stored under.
func (b *Broker) idOf(first record.Identity, epoch uint32, pos coord.Position) MessageID {
	if first == (record.Identity{}) {
		first = record.Identity{Epoch: epoch, Position: pos}
	}
	return MessageID{store: b.log.StoreID(), epoch: first.Epoch, position: first.Position}
}
