package mq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/history"
)

// hits reports whether the wound reaches into [from, to) of the log.
func (v *victim) hits(w wound, from, to coord.Position) bool {
	f := v.files[w.file]
	a := f.base + coord.Position(w.off)
	b := a + coord.Position(w.n)
	if w.kind == "cut" {
		b = f.base + victimSegment // what is not in the file any more
	}
	return f.log && from < b && to > a
}

// proven is up to where something still proves that the log was synced: the
// checkpoint, and the last frame unless it is hit.
func (v *victim) proven(w wound) coord.Position {
	if v.hits(w, v.last, 1<<60) {
		return v.to
	}
	return max(v.to, v.noted)
}

// unproven reports whether a record that ends at to lies behind what was hit,
// with nothing to prove any more that it was synced.
func (v *victim) unproven(w wound, to coord.Position) bool {
	f := v.files[w.file]
	return f.log && to > v.proven(w) && to > f.base+coord.Position(w.off)
}

// forgotten is from where on the end of a queue may be as if it had never been:
// nothing proves any more that it was synced, or all of it was hit and is newer
// than the checkpoint, so that nothing else knows of its offsets. Opening takes
// what is not proven for the torn end of a log; Repair keeps what is sound of it.
func (v *victim) forgotten(w wound, repaired bool) map[Queue]Offset {
	ends := map[Queue]Offset{}
	whole := map[Queue]bool{} // the last message that is
	for i := len(v.sent) - 1; i >= 0 && v.sent[i].behind > min(v.from, v.to); i-- {
		m := &v.sent[i]
		q := Queue{m.Topic, m.Queue}
		switch {
		case whole[q]:
		case v.unproven(w, m.behind) && (!repaired || v.hits(w, m.frame, m.behind)), v.hits(w, m.from, m.to):
			ends[q] = m.Offset
		default:
			whole[q] = true
		}
	}
	return ends
}

// fate continues the history: the process has ended, and this is all that the
// wound excuses.
func (v *victim) fate(w wound, repaired bool) []history.Op {
	ops := []history.Op{{Kind: history.OpKill}}
	if !v.files[w.file].log {
		return ops
	}
	ends := v.forgotten(w, repaired)
	for q, off := range ends {
		ops = append(ops, history.Op{Kind: history.OpTorn, Topic: q.Topic, Queue: int(q.ID), Offset: int64(off)})
	}
	for i := range v.sent {
		m := &v.sent[i]
		if end, ok := ends[Queue{m.Topic, m.Queue}]; v.hits(w, m.from, m.to) && !(ok && m.Offset >= end) {
			ops = append(ops, history.Op{Kind: history.OpDamaged, ID: m.id})
		}
	}
	for i := range v.acks {
		if a := &v.acks[i]; a.to > v.from && (v.hits(w, a.from, a.to) || v.unproven(w, a.to)) {
			ops = append(ops, a.damaged...) // what is older is in the checkpoint as well
		}
	}
	return ops
}

// witness tells the judge what consumers see of a store.
type witness struct {
	*victim
	judge *history.Checker
	got   []bool               // by message
	ends  map[MessageID]string // of queues: their last messages, with the topic
	ops   []history.Op         // a buffer
}

const sentinel = "the end"

// look has a new group and the old ones consume everything, up to a message that
// is sent to every queue first. An error says that they could not.
func (v *victim) look(ctx context.Context, b *Broker, judge *history.Checker) (*witness, error) {
	x := &witness{victim: v, judge: judge, got: make([]bool, len(v.sent)), ends: map[MessageID]string{}}
	for q := range v.queues {
		if t := b.names.topic(q.Topic); t == nil || int(q.ID) >= len(*t.queues.Load()) {
			continue // what was in it is missing
		}
		if err := x.end(ctx, b, q); err != nil {
			return nil, err
		}
	}
	return x, errors.Join(x.drain(ctx, b, "Reader", "W", "S"), x.drain(ctx, b, "G", "W", "S"), x.drain(ctx, b, "P", "S"))
}

// end sends the last message of a queue.
func (x *witness) end(ctx context.Context, b *Broker, q Queue) error {
	p, err := b.NewProducer(&ProducerOptions{Selector: func(*Message, int) QueueID { return q.ID }})
	if err != nil {
		return err
	}
	m := &Message{Topic: q.Topic, Body: []byte(sentinel)}
	r, err := p.Send(ctx, m)
	if err != nil {
		return err
	}
	x.judge.Add(sendOps(r, m)...)
	x.ends[r.ID] = q.Topic
	return nil
}

// drain has a group consume all of these topics. The history need not know what
// kind of consumer does it.
func (x *witness) drain(ctx context.Context, b *Broker, group string, topics ...string) error {
	c, err := b.NewPullConsumer(group, nil)
	if err != nil {
		return err
	}
	open := map[MessageID]bool{}
	for id, topic := range x.ends {
		if slices.Contains(topics, topic) {
			open[id], err = true, errors.Join(err, c.Subscribe(topic, All))
		}
	}
	for n := 0; len(open) > 0 && err == nil; {
		var ms []*Message
		ms, err = c.Poll(ctx, 256)
		n += len(ms)
		if err != nil {
			err = fmt.Errorf("%s got %d, waiting for %v: %w", group, n, slices.Collect(maps.Keys(open)), err)
		}
		ops := slices.Grow(x.ops[:0], len(ms))
		for _, m := range ms {
			delete(open, m.ID)
			ops = append(ops, x.delivery(group, m))
		}
		x.judge.Add(ops...)
		x.ops = ops
	}
	for _, name := range topics {
		x.judge.Add(history.Op{Kind: history.OpDrained, Group: group, Topic: name})
	}
	return err
}

// delivery is a message that a group was handed.
func (x *witness) delivery(group string, m *Message) history.Op {
	var id string
	if n, sent := x.numbers[m.ID]; sent {
		id, x.got[n] = x.sent[n].id, true
	} else {
		id = m.ID.String() // the end of a queue, or what nobody sent
	}
	return history.Op{
		Kind: history.OpPoll, Group: group, Member: group, ID: id, Topic: m.Topic, Queue: int(m.Queue), Offset: int64(m.Offset), Hash: hashOf(m),
	}
}

// lost are the messages that nobody got.
func (x *witness) lost() (lost []*victimMessage) {
	for i, got := range x.got {
		if !got {
			lost = append(lost, &x.sent[i])
		}
	}
	return lost
}
