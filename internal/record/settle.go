package record

import "encoding/binary"

// A settlement's payload, all numbers varints:
//
//	+------+---------+----+------------+
//	| kind | topic/8 | at | position/8 |
//	+------+---------+----+------------+

// Settle says that a delayed message is never to be delivered: it was recalled,
// its topic is gone, or it is carried forward under another position.
type Settle struct {
	// Topic and Due are the delayed message's: when this is folded, its record
	// may be gone.
	Topic TopicID
	Due   Due
}

// Validate reports what keeps the record from being encoded.
func (s *Settle) Validate() error { return invalid(KindSettle, s.flaw()) }

func (s *Settle) flaw() string {
	if !canName(s.Topic) || !s.Due.canBe() {
		return "topic, time or position of no delayed message"
	}
	return ""
}

// Size returns the length of the encoded record, which must be valid.
func (s *Settle) Size() int {
	return 1 + idLen(s.Topic) + uvarintLen(uint64(s.Due.At)) + idLen(s.Due.Position)
}

// Put writes the record into dst, which must be as long as Size said.
func (s *Settle) Put(dst []byte) {
	out := append(dst[:0:len(dst)], byte(KindSettle))
	out = appendID(out, s.Topic)
	out = binary.AppendUvarint(out, uint64(s.Due.At))
	out = appendID(out, s.Due.Position)
	mustFill(dst, out)
}

// DecodeSettle reads the record in payload.
func DecodeSettle(payload []byte) (Settle, error) {
	r := read(KindSettle, payload)
	var s Settle
	s.Topic = TopicID(r.id())
	s.Due.At = int64(r.uvarint(1 << 63))
	s.Due.Position = r.id()
	if err := r.end(s.flaw()); err != nil {
		return Settle{}, err
	}
	return s, nil
}
