package mq

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// state is the fold over the log: what all frames together say. It is the same
// code that folds a record when it is appended, when the log is replayed and
// when a checkpoint is read, so the three cannot disagree.
//
// Everything here is guarded by the append lock: a record is folded in the same
// critical section that gives it its position, so the fold is in log order.
//
// Folding is idempotent: a record that a checkpoint contains already changes
// nothing when it is replayed. Messages and acks are (offsets below the end,
// spans done before); topics, groups and starts carry their ids.
type state struct {
	b      *Broker
	topics map[coord.TopicID]*topic
	groups map[coord.GroupID]*group

	ack    record.Ack // reused by every decoding
	hand   record.Handout
	starts []keptStart // of a rebuild under way
	second bool        // the second pass of a rebuild

	// Counters of Stats.
	messages, bodyBytes, acked int64
}

// clear makes it the fold over nothing.
func (s *state) clear() {
	s.topics, s.groups = map[coord.TopicID]*topic{}, map[coord.GroupID]*group{}
	s.b.timer.mark, s.b.timer.waiting, s.b.timer.restored = record.Due{}, 0, waitingState{}
}

// stateRecord is a record that is not a message: it is sized, written and then
// folded from the bytes that were written.
type stateRecord interface {
	Validate() error
	Size() int
	Put(dst []byte)
}

// errResized says that a record grew between sizing and appending.
var errResized = errors.New("mq: record changed its size")

// appendState appends the record that build returns and folds it. build runs
// under the append lock, more than once: its checks and the record hold at the
// position the record gets. A frame must be sized before it is placed, so a
// record whose size changed in between is built again.
func (b *Broker) appendState(ctx context.Context, room commitlog.Room, build func() (stateRecord, error)) (end coord.Position, err error) {
	for {
		var r stateRecord
		b.log.Exclusive(func() { r, err = build() })
		if err != nil {
			return 0, err
		}
		if err := r.Validate(); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrInvalidArgument, err)
		}
		size := r.Size()
		end, err = b.log.Append(ctx, room, commitlog.Layout{}.Add(size), func(f *commitlog.Frame) error {
			again, err := build()
			if err != nil {
				return err
			}
			if again.Size() != size {
				return errResized
			}
			dst, at, _ := f.Next(size, nil, emptyBody)
			again.Put(dst)
			return b.state.applyState(dst, at)
		})
		if !errors.Is(err, errResized) {
			return end, err
		}
	}
}

// applyState folds a record that is neither message nor ack.
func (s *state) applyState(payload []byte, at coord.Position) error {
	switch record.KindOf(payload) {
	case record.KindTopic:
		r, err := record.DecodeTopic(payload)
		if err != nil {
			return err
		}
		s.topic(&r, at)
	case record.KindTopicDelete:
		r, err := record.DecodeTopicDelete(payload)
		if err != nil {
			return err
		}
		s.deleteTopic(r.ID)
	case record.KindGroup:
		r, err := record.DecodeGroup(payload)
		if err != nil {
			return err
		}
		s.group(&r, at)
	case record.KindGroupDelete:
		r, err := record.DecodeGroupDelete(payload)
		if err != nil {
			return err
		}
		s.deleteGroup(r.ID)
	case record.KindStart:
		r, err := record.DecodeStart(payload)
		if err != nil {
			return err
		}
		s.start(&r, at)
	case record.KindSettle:
		r, err := record.DecodeSettle(payload)
		if err != nil {
			return err
		}
		s.b.timer.settle(s.topics[r.Topic], r.Due, at)
	}
	return nil
}

// keptStart is a start that waits for its group and its topic.
type keptStart struct {
	record.Start
	at coord.Position
}

// rebuildState is applyState for the first pass of a rebuild. It keeps the
// starts for applyStarts: the records that name their groups and topics may have
// been carried forward behind them.
func (s *state) rebuildState(r commitlog.Record) error {
	switch record.KindOf(r.Payload) {
	case record.KindStart:
		start, err := record.DecodeStart(r.Payload)
		if err == nil {
			s.starts = append(s.starts, keptStart{start, r.Position})
		}
		return err
	case record.KindMessage:
		var v record.View
		err := record.DecodeMessage(r.Payload, &v)
		if err == nil {
			s.b.timer.deliver(nil, v.Due()) // the second pass counts what waits above the last mark
		}
		return err
	case record.KindSettle:
		return nil
	}
	return s.applyState(r.Payload, r.Position)
}

// applyStarts folds what rebuildState kept.
func (s *state) applyStarts() {
	for i := range s.starts {
		s.start(&s.starts[i].Start, s.starts[i].at)
	}
	s.starts = nil
}

// applyContent folds messages, acks, and the ends that a topic's record
// carries. On a rebuild it runs in a second pass, when applyState has seen the
// whole log: the record that names a topic may have been carried forward behind
// the topic's messages.
func (s *state) applyContent(r commitlog.Record) error {
	switch record.KindOf(r.Payload) {
	case record.KindMessage:
		var v record.View
		if err := record.DecodeMessage(r.Payload, &v); err != nil {
			return err
		}
		s.message(&v, r)
	case record.KindDelayed:
		var v record.View
		if err := record.DecodeDelayed(r.Payload, &v); err != nil {
			return err
		}
		s.delayed(&v, r)
	case record.KindSettle:
		if s.second {
			return s.settleAgain(r)
		}
	case record.KindAck:
		if err := record.DecodeAck(r.Payload, &s.ack); err != nil {
			return err
		}
		s.applyAck(&s.ack)
	case record.KindHandout:
		if err := record.DecodeHandout(r.Payload, &s.hand); err != nil {
			return err
		}
		s.applyHandout(&s.hand)
	case record.KindTopic:
		t, err := record.DecodeTopic(r.Payload)
		if err != nil {
			return err
		}
		s.ends(&t)
	}
	return nil
}

// topic folds the creation or change of a topic.
func (s *state) topic(r *record.Topic, at coord.Position) {
	id := r.ID
	if id == 0 {
		id = coord.TopicID(at)
	}
	t, known := s.topics[id]
	if !known {
		t = &topic{name: r.Name, id: id, parked: strings.HasPrefix(r.Name, parkPrefix)}
		t.again = t.parked || strings.HasPrefix(r.Name, retryPrefix)
		t.queues.Store(new([]*queue))
		s.topics[id] = t
	}
	if at < t.at {
		return // a newer record is known
	}
	t.at = at
	d := Written
	if r.Synced {
		d = Synced
	}
	t.durability.Store(uint32(d))
	t.configure(r.Window)
	s.grow(t, r.Queues)
	if !known { // from here on it is found by its name, so it must be whole
		s.b.names.addTopic(t)
	}
}

// grow gives the topic queues up to n.
func (s *state) grow(t *topic, n int) {
	old := *t.queues.Load()
	if n <= len(old) {
		return
	}
	queues := append(make([]*queue, 0, n), old...)
	for id := len(old); id < n; id++ {
		q := &queue{topic: t, id: QueueID(id), entries: s.b.entries.Queue(t.name, t.id, QueueID(id))}
		q.readers.Store(new([]*cursor))
		queues = append(queues, q)
	}
	t.queues.Store(&queues)
}

// ends keeps the offsets of queues going on where they were although their
// messages are gone.
func (s *state) ends(r *record.Topic) {
	if t := s.topics[r.ID]; t != nil {
		for id, end := range r.Ends {
			(*t.queues.Load())[id].entries.Advance(end)
		}
	}
}

func (s *state) deleteTopic(id coord.TopicID) {
	t := s.topics[id]
	if t == nil {
		return
	}
	t.deleted.Store(true)
	delete(s.topics, id)
	s.b.timer.drop(t)
	s.b.names.dropTopic(t)
	s.b.entries.Drop(t.name, t.id)
	for _, g := range s.groups {
		delete(g.subs, id)
	}
}

// message folds a message: an entry of its queue, and its keys.
func (s *state) message(v *record.View, r commitlog.Record) {
	t := s.topics[v.Topic]
	if v.Again() {
		s.storedAgain(t, v, r)
	}
	if t == nil {
		return // deleted later in the log
	}
	s.grow(t, int(v.Queue)+1)
	q := (*t.queues.Load())[v.Queue]
	q.entries.AppendAt(v.Offset, consumequeue.Entry{Position: r.Position, Size: r.Size, Tag: t.entryTag(v)})
	if v.DedupKey != nil {
		s.keyed(t, v, r.Position)
	}
	if v.Keys() == 0 {
		return
	}
	for fs := v.Fields(); fs.Next(); {
		if fs.Field.Type == record.FieldKey {
			s.b.keys.Add(keyHash(t.id, string(fs.Field.Value)), r.Position)
		}
	}
}

// storedAgain folds what a message says that was stored before: it may be the
// delivery of a delayed one.
func (s *state) storedAgain(t *topic, v *record.View, r commitlog.Record) {
	if due := v.Due(); due != (record.Due{}) && !s.second {
		s.b.timer.deliver(t, due)
	}
	if id := v.Identity(); t != nil && id != (record.Identity{}) {
		s.b.addIdentity(id, r.Position)
	}
}

// delayed folds a message that waits, or has waited.
func (s *state) delayed(v *record.View, r commitlog.Record) {
	t := s.topics[v.Topic]
	if t == nil {
		return // deleted later in the log
	}
	if v.DedupKey != nil {
		s.keyed(t, v, r.Position)
	}
	due := record.Due{At: v.DeliverAt(), Position: r.Position}
	if s.second && due.Compare(s.b.timer.mark) <= 0 {
		return
	}
	s.b.timer.add(t, due)
	if id := v.Identity(); id != (record.Identity{}) {
		s.b.addIdentity(id, r.Position)
	}
}

// settleAgain folds a settlement in the second pass of a rebuild: of what waits,
// the first pass has found the mark, and the log may no longer have all that was
// settled.
func (s *state) settleAgain(r commitlog.Record) error {
	settled, err := record.DecodeSettle(r.Payload)
	if err != nil || settled.Due.Compare(s.b.timer.mark) <= 0 || settled.Due.Position < s.b.log.Start() {
		return err
	}
	if counted, err := s.b.timer.counts(settled.Due); err != nil || !counted {
		return err // damage took the message, and it was not counted
	}
	s.b.timer.settle(s.topics[settled.Topic], settled.Due, r.Position)
	return nil
}

// group folds the creation or change of a group, or of one broadcasting member.
func (s *state) group(r *record.Group, at coord.Position) {
	id := r.ID
	if id == 0 {
		id = coord.GroupID(at)
	}
	g := s.groups[id]
	if g == nil {
		g = newGroup(s.b, r.Name, r.Instance, id)
		s.groups[id] = g
		s.b.names.addGroup(g)
	}
	if at < g.at {
		return // a newer record is known
	}
	g.at = at
	g.policy.Store(newPolicy(r.Policy))
}

func (s *state) deleteGroup(id coord.GroupID) {
	g := s.groups[id]
	if g == nil {
		return
	}
	g.deleted = true
	delete(s.groups, id)
	s.b.names.dropGroup(g)
}

// subscription is how far a group has got in a topic.
type subscription struct {
	start  coord.Position // the start or reset record the offsets count from; acks name it
	at     coord.Position // newest record that carries it
	filter string         // what the group wants, as Filter.stored wrote it
	queues []progress
}

// start folds where a group stands in a topic: its first subscription, a reset,
// or the same carried forward by retention (then it names its id).
func (s *state) start(r *record.Start, at coord.Position) {
	g := s.groups[r.Group]
	if g == nil || s.topics[r.Topic] == nil {
		return
	}
	id := r.ID
	if id == 0 {
		id = at
	}
	sub := g.subs[r.Topic]
	if sub == nil || id > sub.start {
		sub = &subscription{start: id}
		g.subs[r.Topic] = sub
	} else if id < sub.start {
		return // from before a reset
	}
	if at >= sub.at {
		sub.at, sub.filter = at, r.Subscription
	}
	for q, off := range r.Offsets {
		sub.progress(QueueID(q)).add(span{From: 0, To: off})
	}
}

// progress returns the progress in queue q. Queues added to a topic after the
// start begin at 0.
func (sub *subscription) progress(q QueueID) *progress {
	for len(sub.queues) <= int(q) {
		sub.queues = append(sub.queues, progress{})
	}
	return &sub.queues[q]
}

// applyAck folds an ack. One that counts from an older start than the group's
// means nothing any more: false.
//
// It leaves the ends of queues alone: in a checkpoint acks may be ahead of
// them, and their messages are replayed afterwards. See settleEnds.
func (s *state) applyAck(a *record.Ack) bool {
	g, t := s.groups[a.Group], s.topics[a.Topic]
	if g == nil || t == nil {
		return false
	}
	sub := g.subs[a.Topic]
	if sub == nil || a.Start != sub.start {
		return false
	}
	s.grow(t, int(a.Queue)+1)
	p := sub.progress(a.Queue)
	for _, r := range a.Ranges {
		s.acked += p.add(r)
	}
	return true
}

// settleEnds runs when everything is folded. What was acked was there: its
// offset is never given out again, although the message itself may be lost to
// damage.
func (s *state) settleEnds() {
	for _, g := range s.groups {
		for id, sub := range g.subs {
			queues := *s.topics[id].queues.Load()
			for q := range min(len(sub.queues), len(queues)) {
				p := &sub.queues[q]
				end := p.committed
				if n := len(p.ahead); n > 0 {
					end = p.ahead[n-1].To
				}
				queues[q].entries.Advance(end)
			}
		}
	}
	s.acked = 0 // Stats counts from opening
}
