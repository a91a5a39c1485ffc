package mq

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/pocketmq/mq/internal/record"
)

// Whence is a place in the queues of a topic: where a new group starts, or
// where ResetOffset moves a group to. The zero value is Earliest.
type Whence struct {
	kind   whenceKind
	time   time.Time
	queue  Queue
	offset Offset
	group  *group // of CopyOffsets
}

type whenceKind uint8

const (
	whenceEarliest whenceKind = iota
	whenceLatest
	whenceTime
	whenceOffset
	whenceEndOf // of one queue; the engine's own
	whenceGroup
)

var (
	// Earliest is the oldest message stored (RocketMQ's CONSUME_FROM_FIRST_OFFSET).
	Earliest = Whence{}

	// Latest is behind the newest message stored (CONSUME_FROM_LAST_OFFSET).
	// Unlike RocketMQ's it does not depend on how much is stored or cached.
	Latest = Whence{kind: whenceLatest}
)

// At is the first message stored at t or later (CONSUME_FROM_TIMESTAMP).
func At(t time.Time) Whence { return Whence{kind: whenceTime, time: t} }

// AtOffset is one offset of one queue. ResetOffset moves that queue only; a
// group cannot start from it.
func AtOffset(q Queue, off Offset) Whence {
	return Whence{kind: whenceOffset, queue: q, offset: off}
}

// String says the place in words.
func (w Whence) String() string {
	switch w.kind {
	case whenceLatest:
		return "latest"
	case whenceTime:
		return "at " + w.time.Format(time.RFC3339Nano)
	case whenceOffset:
		return fmt.Sprintf("at %v offset %d", w.queue, w.offset)
	case whenceGroup:
		return fmt.Sprintf("where group %q is", w.group.name)
	}
	return "earliest"
}

// span is the offsets from <= o < to.
type span = record.Range

// progress is how far a group has got in one queue:
//
//	0 ........ committed ....[ahead]....[ahead]........ end
//	  all done           open      done
//
// ahead is sorted, its spans are disjoint, do not touch, and lie above
// committed. There are never more of them than messages under way.
type progress struct {
	committed Offset
	ahead     []span
	hands     []hand // messages given to handlers and not done; see handout.go
}

// add notes that the group is done with s, whatever was known of it before, and
// returns how many offsets that was news of.
func (p *progress) add(s span) (news int64) {
	if len(p.hands) > 0 {
		p.leaveHands(s)
	}
	s.From = max(s.From, p.committed)
	if s.From >= s.To {
		return 0
	}
	if len(p.ahead) == 0 && s.From == p.committed { // in order: the usual case
		p.committed = s.To
		return int64(s.To - s.From)
	}
	// lo..hi are the spans that touch s and become one with it.
	lo := sort.Search(len(p.ahead), func(i int) bool { return p.ahead[i].To >= s.From })
	hi := lo
	news = int64(s.To - s.From)
	for ; hi < len(p.ahead) && p.ahead[hi].From <= s.To; hi++ {
		news -= overlap(p.ahead[hi], s)
	}
	if lo < hi {
		s.From = min(s.From, p.ahead[lo].From)
		s.To = max(s.To, p.ahead[hi-1].To)
	}
	if s.From <= p.committed { // only possible when lo is 0
		p.committed = s.To
		p.ahead = slices.Delete(p.ahead, 0, hi)
		return news
	}
	p.ahead = slices.Replace(p.ahead, lo, hi, s)
	return news
}

func overlap(a, b span) int64 {
	return max(0, int64(min(a.To, b.To)-max(a.From, b.From)))
}

// consumed counts the offsets below end that the group is done with.
func (p *progress) consumed() int64 {
	return int64(p.committed) + p.aheadFrom(0)
}

// aheadFrom counts the offsets from off on that the group is done with ahead of
// committed.
func (p *progress) aheadFrom(off Offset) (n int64) {
	for _, s := range p.ahead {
		n += max(0, int64(s.To-max(s.From, off)))
	}
	return n
}

// open returns the offsets from <= o < to that the group is not done with.
func (p *progress) open(from, to Offset) (spans []span) {
	from = max(from, p.committed)
	for _, done := range p.ahead {
		if done.From >= to {
			break
		}
		if done.From > from {
			spans = append(spans, span{From: from, To: done.From})
		}
		from = max(from, done.To)
	}
	if from < to {
		spans = append(spans, span{From: from, To: to})
	}
	return spans
}

// contains reports whether the group is done with off.
func (p *progress) contains(off Offset) bool {
	if off < p.committed {
		return true
	}
	i := sort.Search(len(p.ahead), func(i int) bool { return p.ahead[i].To > off })
	return i < len(p.ahead) && p.ahead[i].From <= off
}
