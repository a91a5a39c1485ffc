package history

import (
	"maps"
	"slices"
)

// Clone returns a checker that has been told the same. What is added to one of
// them does not concern the other.
//
// A clone of a clone to which nothing was added costs a copy of what is known of
// each message; its operations are shared. So a history that begins many others
// is told once, cloned, and that clone cloned for each: by several goroutines at
// a time, if they like, for a checker is not changed by it.
func (c *Checker) Clone() *Checker {
	d := *c
	report := *c.report
	report.Anomalies, report.Counts = slices.Clone(report.Anomalies), maps.Clone(report.Counts)
	d.report, d.ops = &report, c.ops.clone()

	d.messages, d.names, d.lines = slices.Clone(c.messages), c.names.clone(), map[queue]*line{}
	for q, l := range c.lines {
		d.lines[q] = &line{slots: l.slots.clone(), peaks: slices.Clone(l.peaks), durable: l.durable}
	}
	d.unsynced, d.unsyncedAcks, d.volatileAcks = slices.Clone(c.unsynced), slices.Clone(c.unsyncedAcks), slices.Clone(c.volatileAcks)
	d.marks, d.scans = maps.Clone(c.marks), maps.Clone(c.scans)

	d.acks, d.calls = slices.Clone(c.acks), maps.Clone(c.calls)
	for call, acks := range d.calls {
		d.calls[call] = slices.Clone(acks)
	}
	d.moving, d.sought, d.asked = maps.Clone(c.moving), maps.Clone(c.sought), maps.Clone(c.asked)
	d.crowds, d.shares = map[string]*crowd{}, map[groupQueue]*share{}
	for group, g := range c.crowds {
		d.crowds[group] = &crowd{deals: g.deals, got: slices.Clone(g.got), moves: slices.Clone(g.moves)}
	}
	for q, s := range c.shares {
		d.shares[q] = s.clone()
	}
	return &d
}

func (s *share) clone() *share {
	d := &share{acks: s.acks.clone(), furthest: s.furthest, reached: map[string]*position{}}
	for member, p := range s.reached {
		d.reached[member] = new(*p)
	}
	return d
}

// ops are operations, in pieces that never move: the first of them are shared
// with clones.
type ops struct {
	pieces [][]Op
	n      int
	room   int // of the last piece
}

func (o *ops) len() int { return o.n }

func (o *ops) add(more []Op) {
	o.n += len(more)
	last := len(o.pieces) - 1
	if last < 0 || cap(o.pieces[last])-len(o.pieces[last]) < len(more) {
		last++
		o.room = max(len(more), min(2*o.room, 4096), 64)
		o.pieces = append(o.pieces, make([]Op, 0, o.room))
	}
	o.pieces[last] = append(o.pieces[last], more...)
}

func (o *ops) at(i int) *Op {
	for _, piece := range o.pieces {
		if i < len(piece) {
			return &piece[i]
		}
		i -= len(piece)
	}
	return nil
}

func (o *ops) all() []Op { return slices.Concat(o.pieces...) }

func (o *ops) clone() ops {
	pieces := slices.Clone(o.pieces)
	for i, piece := range pieces {
		pieces[i] = slices.Clip(piece)
	}
	return ops{pieces: pieces, n: o.n}
}

// names are the numbers of messages by their ids. They never change, so clones
// share those that they have in common.
type names struct{ past, own map[string]int }

func (n *names) find(id string) (int, bool) {
	if number, ok := n.past[id]; ok {
		return number, true
	}
	number, ok := n.own[id]
	return number, ok
}

func (n *names) clone() names {
	past := n.past
	if len(n.own) > 0 {
		past = make(map[string]int, len(n.past)+len(n.own))
		maps.Copy(past, n.past)
		maps.Copy(past, n.own)
	}
	return names{past: past, own: map[string]int{}}
}

// byOffset has a number for offsets of a queue. Most of them are dense.
type byOffset struct {
	dense  []int32 // one more than the number; 0: none
	sparse map[int64]int32
}

// get returns -1 if there is none.
func (b *byOffset) get(offset int64) int {
	if offset >= 0 && offset < int64(len(b.dense)) && b.dense[offset] != 0 {
		return int(b.dense[offset]) - 1
	}
	return int(b.sparse[offset]) - 1
}

func (b *byOffset) set(offset int64, n int) {
	n32 := int32(n) + 1
	if offset < 0 || offset > int64(len(b.dense))+1024 { // so what is not dense takes no more than it should
		if b.sparse == nil {
			b.sparse = map[int64]int32{}
		}
		b.sparse[offset] = n32
		return
	}
	if more := offset + 1 - int64(len(b.dense)); more > 0 {
		b.dense = append(b.dense, make([]int32, more)...)
	}
	b.dense[offset] = n32
}

func (b *byOffset) clone() byOffset {
	return byOffset{dense: slices.Clone(b.dense), sparse: maps.Clone(b.sparse)}
}
