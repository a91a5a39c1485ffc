package record

import "encoding/binary"

// An ack's payload, all numbers varints:
//
//	+------+---------+---------+---------+-------+-------+---------------------+
//	| kind | group/8 | start/8 | topic/8 | queue | count | count × {gap, span} |
//	+------+---------+---------+---------+-------+-------+---------------------+
//
// gap: from the end of the range before (0 for the first) to From; span: To-From.
//
// A push consumer acks what a batch of one queue got done: mostly one range, and
// with concurrent handlers a few near each other, so gaps take a byte or two.

// Range is the offsets From <= o < To.
type Range struct {
	From, To Offset
}

// Ack says that a group is done with messages of one queue.
type Ack struct {
	Group GroupID

	// Start is the Start record that the delivery of these messages began from.
	// Once the group has a newer one for the topic, the ack means nothing.
	Start Position

	Topic  TopicID
	Queue  QueueID
	Ranges []Range // ascending, none empty, none overlapping; touching is fine
}

// Validate reports what keeps the ack from being encoded.
func (a *Ack) Validate() error { return invalid(KindAck, a.flaw()) }

func (a *Ack) flaw() string {
	if !canName(a.Group) || !canName(a.Start) || !canName(a.Topic) {
		return "group, start or topic is no record"
	}
	if a.Queue < 0 || a.Queue >= MaxQueues {
		return "queue out of range"
	}
	end := Offset(0)
	for _, r := range a.Ranges {
		if r.From < end || r.To <= r.From || r.To > MaxOffset {
			return "ranges do not ascend"
		}
		end = r.To
	}
	return ""
}

// Size returns the length of the encoded ack, which must be valid.
func (a *Ack) Size() int {
	n := 1 + idLen(a.Group) + idLen(a.Start) + idLen(a.Topic) +
		uvarintLen(uint64(a.Queue)) + uvarintLen(uint64(len(a.Ranges)))
	end := Offset(0)
	for _, r := range a.Ranges {
		n += uvarintLen(uint64(r.From-end)) + uvarintLen(uint64(r.To-r.From))
		end = r.To
	}
	return n
}

// Put writes the ack into dst, which must be as long as Size said.
func (a *Ack) Put(dst []byte) {
	out := append(dst[:0:len(dst)], byte(KindAck))
	out = appendID(out, a.Group)
	out = appendID(out, a.Start)
	out = appendID(out, a.Topic)
	out = binary.AppendUvarint(out, uint64(a.Queue))
	out = binary.AppendUvarint(out, uint64(len(a.Ranges)))
	end := Offset(0)
	for _, r := range a.Ranges {
		out = binary.AppendUvarint(out, uint64(r.From-end))
		out = binary.AppendUvarint(out, uint64(r.To-r.From))
		end = r.To
	}
	mustFill(dst, out)
}

// DecodeAck reads the ack in payload into a, whose ranges it reuses, so folding
// a log of acks allocates nothing. When it fails, a is not to be used.
func DecodeAck(payload []byte, a *Ack) error {
	r := read(KindAck, payload)
	a.Group = GroupID(r.id())
	a.Start = r.id()
	a.Topic = TopicID(r.id())
	a.Queue = r.queue()
	n := r.count(2) // a gap and a span take a byte each at least
	a.Ranges = a.Ranges[:0]
	end := Offset(0)
	for range n {
		from := end + r.offset()
		end = from + Offset(r.uvarint(uint64(MaxOffset)+1))
		if r.err != nil {
			return r.err
		}
		if end > MaxOffset { // before the next sum could overflow
			return malformed(KindAck, "range out of bounds")
		}
		a.Ranges = append(a.Ranges, Range{From: from, To: end})
	}
	return r.end(a.flaw())
}
