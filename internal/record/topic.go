package record

import "encoding/binary"

// A topic's payload, all numbers varints but the flags:
//
//	+------+------+-------+--------+----------+------+--------------+--------+-------+
//	| kind | id/8 | flags | queues | name len | name | queues × end | for ms | count |
//	+------+------+-------+--------+----------+------+--------------+--------+-------+
//	flags: bit 0 synced, bit 1 ends follow, bit 2 a window (for, count) follows
//
// A topic deletion's, and a group deletion's:
//
//	+------+------+
//	| kind | id/8 |
//	+------+------+
const (
	topicSynced = 1 << 0
	topicEnds   = 1 << 1
	topicWindow = 1 << 2
)

// Topic says that a topic is there and what it is like. It is written when the
// topic is created or changed, and again when retention removes the segment
// that the last such record is in.
type Topic struct {
	ID     TopicID // 0: the position of this record, which creates the topic
	Name   string
	Queues int
	Synced bool

	// Ends are the next offsets of its queues, so that offsets go on when all of
	// a queue's messages are gone. One for each queue, or nil: all zero.
	Ends []Offset

	// Window is that of its deduplication; zero: it has none.
	Window Window
}

// Window is how long and for how many messages back a topic knows the
// deduplication keys that were sent to it.
type Window struct {
	For   int64 // ms, positive
	Count int   // positive
}

// Limits of a window.
const (
	MaxWindowFor   int64 = 1 << 48
	MaxWindowCount       = 1 << 20
)

func (w Window) canBe() bool {
	return w == Window{} || w.For > 0 && w.For < MaxWindowFor && w.Count > 0 && w.Count <= MaxWindowCount
}

// Validate reports what keeps the record from being encoded. Which names are
// fit for a topic is not its business.
func (t *Topic) Validate() error { return invalid(KindTopic, t.flaw()) }

func (t *Topic) flaw() string {
	if t.ID != 0 && !canName(t.ID) {
		return "id is no record"
	}
	if t.Queues < 1 || t.Queues > MaxQueues {
		return "number of queues out of range"
	}
	if t.Ends != nil && len(t.Ends) != t.Queues {
		return "not an end for each queue"
	}
	for _, o := range t.Ends {
		if !canOffset(o) {
			return "end out of range"
		}
	}
	if !t.Window.canBe() {
		return "window out of range"
	}
	return ""
}

// Size returns the length of the encoded record, which must be valid.
func (t *Topic) Size() int {
	size := 1 + idLen(t.ID) + 1 + uvarintLen(uint64(t.Queues)) + textLen(t.Name) + offsetsLen(t.Ends)
	if w := t.Window; w != (Window{}) {
		size += uvarintLen(uint64(w.For)) + uvarintLen(uint64(w.Count))
	}
	return size
}

// Put writes the record into dst, which must be as long as Size said.
func (t *Topic) Put(dst []byte) {
	var flags byte
	if t.Synced {
		flags |= topicSynced
	}
	if t.Ends != nil {
		flags |= topicEnds
	}
	if t.Window != (Window{}) {
		flags |= topicWindow
	}
	out := append(dst[:0:len(dst)], byte(KindTopic))
	out = appendID(out, t.ID)
	out = append(out, flags)
	out = binary.AppendUvarint(out, uint64(t.Queues))
	out = appendText(out, t.Name)
	out = appendOffsets(out, t.Ends)
	if w := t.Window; w != (Window{}) {
		out = binary.AppendUvarint(out, uint64(w.For))
		out = binary.AppendUvarint(out, uint64(w.Count))
	}
	mustFill(dst, out)
}

// DecodeTopic reads the record in payload; nothing of it points into payload.
func DecodeTopic(payload []byte) (Topic, error) {
	r := read(KindTopic, payload)
	var t Topic
	t.ID = TopicID(r.id())
	flags := r.flags(topicSynced | topicEnds | topicWindow)
	t.Synced = flags&topicSynced != 0
	t.Queues = int(r.uvarint(MaxQueues + 1))
	t.Name = r.text()
	if flags&topicEnds != 0 {
		t.Ends = r.offsets(t.Queues)
	}
	if flags&topicWindow != 0 {
		t.Window.For = int64(r.uvarint(uint64(MaxWindowFor)))
		t.Window.Count = int(r.uvarint(MaxWindowCount + 1))
		if t.Window.For == 0 || t.Window.Count == 0 {
			r.fail("window of nothing")
		}
	}
	if err := r.end(t.flaw()); err != nil {
		return Topic{}, err
	}
	return t, nil
}

// TopicDelete says that a topic is gone, with its messages and what groups had
// got to in it.
type TopicDelete struct {
	ID TopicID
}

// Validate reports what keeps the record from being encoded.
func (d *TopicDelete) Validate() error { return invalid(KindTopicDelete, deleteFlaw(d.ID)) }

// Size returns the length of the encoded record, which must be valid.
func (d *TopicDelete) Size() int { return 1 + idLen(d.ID) }

// Put writes the record into dst, which must be as long as Size said.
func (d *TopicDelete) Put(dst []byte) { putDelete(dst, KindTopicDelete, d.ID) }

// DecodeTopicDelete reads the record in payload.
func DecodeTopicDelete(payload []byte) (TopicDelete, error) {
	id, err := decodeDelete(KindTopicDelete, payload)
	return TopicDelete{ID: TopicID(id)}, err
}

// The two deletions differ in their kind and in what their id names.

func deleteFlaw[P ~int64](id P) string {
	if !canName(id) {
		return "id is no record"
	}
	return ""
}

func putDelete[P ~int64](dst []byte, k Kind, id P) {
	mustFill(dst, appendID(append(dst[:0:len(dst)], byte(k)), id))
}

func decodeDelete(k Kind, payload []byte) (Position, error) {
	r := read(k, payload)
	id := r.id()
	if err := r.end(deleteFlaw(id)); err != nil {
		return 0, err
	}
	return id, nil
}
