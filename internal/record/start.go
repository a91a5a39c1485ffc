package record

import "encoding/binary"

// A start's payload, all numbers varints but the flags:
//
//	+------+------+---------+---------+-------+---------+--------------+
//	| kind | id/8 | group/8 | topic/8 | flags | sub len | subscription |
//	+------+------+---------+---------+-------+---------+--------------+
//	| count | count × offset |
//	+-------+----------------+
//	flags: bit 0 reset
const startReset = 1 << 0

// Start says where a group stands in the queues of a topic: when it first
// subscribes, after a reset, and again when retention would lose that. It holds
// offsets, never "earliest" or "latest", so that a replay comes to the same.
type Start struct {
	ID           Position // 0: the position of this record; acks name it
	Group        GroupID
	Topic        TopicID
	Offsets      []Offset // one per queue; queues beyond it start at 0
	Subscription string   // the filter, as the engine writes it down
	Reset        bool     // an administrator's, not the first subscription's
}

// Validate reports what keeps the record from being encoded.
func (s *Start) Validate() error { return invalid(KindStart, s.flaw()) }

func (s *Start) flaw() string {
	if s.ID != 0 && !canName(s.ID) {
		return "id is no record"
	}
	if !canName(s.Group) || !canName(s.Topic) {
		return "group or topic is no record"
	}
	if len(s.Offsets) > MaxQueues {
		return "more offsets than queues can be"
	}
	for _, o := range s.Offsets {
		if !canOffset(o) {
			return "offset out of range"
		}
	}
	return ""
}

// Size returns the length of the encoded record, which must be valid.
func (s *Start) Size() int {
	return 1 + idLen(s.ID) + idLen(s.Group) + idLen(s.Topic) + 1 + textLen(s.Subscription) +
		uvarintLen(uint64(len(s.Offsets))) + offsetsLen(s.Offsets)
}

// Put writes the record into dst, which must be as long as Size said.
func (s *Start) Put(dst []byte) {
	var flags byte
	if s.Reset {
		flags |= startReset
	}
	out := append(dst[:0:len(dst)], byte(KindStart))
	out = appendID(out, s.ID)
	out = appendID(out, s.Group)
	out = appendID(out, s.Topic)
	out = append(out, flags)
	out = appendText(out, s.Subscription)
	out = binary.AppendUvarint(out, uint64(len(s.Offsets)))
	out = appendOffsets(out, s.Offsets)
	mustFill(dst, out)
}

// DecodeStart reads the record in payload; nothing of it points into payload.
func DecodeStart(payload []byte) (Start, error) {
	r := read(KindStart, payload)
	var s Start
	s.ID = r.id()
	s.Group = GroupID(r.id())
	s.Topic = TopicID(r.id())
	s.Reset = r.flags(startReset)&startReset != 0
	s.Subscription = r.text()
	s.Offsets = r.offsets(int(r.uvarint(MaxQueues + 1)))
	if err := r.end(s.flaw()); err != nil {
		return Start{}, err
	}
	return s, nil
}
