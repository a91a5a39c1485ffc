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
	return rangesFlaw(a.Ranges)
}

func rangesFlaw(ranges []Range) string {
	end := Offset(0)
	for _, r := range ranges {
		if r.From < end || r.To <= r.From || r.To > MaxOffset {
			return "ranges do not ascend"
		}
		end = r.To
	}
	return ""
}

// Size returns the length of the encoded ack, which must be valid.
func (a *Ack) Size() int {
	return 1 + idLen(a.Group) + idLen(a.Start) + idLen(a.Topic) + uvarintLen(uint64(a.Queue)) + rangesLen(a.Ranges)
}

func rangesLen(ranges []Range) int {
	n, end := uvarintLen(uint64(len(ranges))), Offset(0)
	for _, r := range ranges {
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
	mustFill(dst, appendRanges(out, a.Ranges))
}

func appendRanges(out []byte, ranges []Range) []byte {
	out = binary.AppendUvarint(out, uint64(len(ranges)))
	end := Offset(0)
	for _, r := range ranges {
		out = binary.AppendUvarint(out, uint64(r.From-end))
		out = binary.AppendUvarint(out, uint64(r.To-r.From))
		end = r.To
	}
	return out
}

// DecodeAck reads the ack in payload into a, whose ranges it reuses, so folding
// a log of acks allocates nothing. When it fails, a is not to be used.
func DecodeAck(payload []byte, a *Ack) error {
	r := read(KindAck, payload)
	a.Group = GroupID(r.id())
	a.Start = r.id()
	a.Topic = TopicID(r.id())
	a.Queue = r.queue()
	a.Ranges = r.ranges(a.Ranges[:0])
	return r.end(a.flaw())
}

// ranges reads ranges behind those in into.
func (r *reader) ranges(into []Range) []Range {
	n := r.count(2) // a gap and a span take a byte each at least
	end := Offset(0)
	for range n {
		from := end + r.offset()
		end = from + Offset(r.uvarint(uint64(MaxOffset)+1))
		if end > MaxOffset { // before the next sum could overflow
			r.fail("range out of bounds")
		}
		if r.err != nil {
			return into
		}
		into = append(into, Range{From: from, To: end})
	}
	return into
}
