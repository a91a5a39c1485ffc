package record

import "encoding/binary"

// A handout's payload, all numbers varints:
//
//	+------+---------+---------+---------+-------+-------+---------+--------+
//	| kind | group/8 | start/8 | topic/8 | queue | epoch | attempt | ranges |
//	+------+---------+---------+---------+-------+-------+---------+--------+
//
// ranges are those of an ack.

// Handout says that messages of one queue are about to be given to a handler.
// Those that are not acked when the process ends uncleanly were in its hands,
// and may be what ended it.
type Handout struct {
	Group GroupID
	Start Position // as in an ack
	Topic TopicID
	Queue QueueID

	Epoch   uint32  // of the log at that time: it rises with every unclean end
	Attempt int     // number of this delivery, from 1
	Ranges  []Range // ascending, none empty, none overlapping
}

// Validate reports what keeps the handout from being encoded.
func (h *Handout) Validate() error { return invalid(KindHandout, h.flaw()) }

func (h *Handout) flaw() string {
	switch {
	case !canName(h.Group) || !canName(h.Start) || !canName(h.Topic):
		return "group, start or topic is no record"
	case h.Queue < 0 || h.Queue >= MaxQueues:
		return "queue out of range"
	case h.Attempt < 1 || h.Attempt >= MaxAttempts:
		return "attempt out of range"
	}
	return rangesFlaw(h.Ranges)
}

// Size returns the length of the encoded handout, which must be valid.
func (h *Handout) Size() int {
	return 1 + idLen(h.Group) + idLen(h.Start) + idLen(h.Topic) + uvarintLen(uint64(h.Queue)) +
		uvarintLen(uint64(h.Epoch)) + uvarintLen(uint64(h.Attempt)) + rangesLen(h.Ranges)
}

// Put writes the handout into dst, which must be as long as Size said.
func (h *Handout) Put(dst []byte) {
	out := append(dst[:0:len(dst)], byte(KindHandout))
	out = appendID(out, h.Group)
	out = appendID(out, h.Start)
	out = appendID(out, h.Topic)
	out = binary.AppendUvarint(out, uint64(h.Queue))
	out = binary.AppendUvarint(out, uint64(h.Epoch))
	out = binary.AppendUvarint(out, uint64(h.Attempt))
	mustFill(dst, appendRanges(out, h.Ranges))
}

// DecodeHandout reads the handout in payload into h, whose ranges it reuses.
// When it fails, h is not to be used.
func DecodeHandout(payload []byte, h *Handout) error {
	r := read(KindHandout, payload)
	h.Group = GroupID(r.id())
	h.Start = r.id()
	h.Topic = TopicID(r.id())
	h.Queue = r.queue()
	h.Epoch = uint32(r.uvarint(1 << 32))
	h.Attempt = int(r.uvarint(MaxAttempts))
	h.Ranges = r.ranges(h.Ranges[:0])
	return r.end(h.flaw())
}
