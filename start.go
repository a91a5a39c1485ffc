package mq

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// ResetOffset moves a group to another place in a topic: back, so that messages
// come again, or forward past some. Deliveries under way are finished, but
// their acknowledgements mean nothing any more. AtOffset moves one queue and
// leaves the others where they are. Broadcasting members are all moved;
// ResetInstance moves one. Delayed messages, and failed ones that come again, are not moved (as in RocketMQ).
//
// Messages that an ordered group has parked are still their queue's: they come
// again from their place there if that is not before the new one, and are passed
// over like their neighbours if it is.
//
// Errors: ErrGroupNotFound, ErrTopicNotFound, ErrOffsetOutOfRange,
// ErrQueueNotFound.
func (b *Broker) ResetOffset(groupName, topicName string, to Whence) error {
	return b.resetOffsets(groupName, topicName, to, func(*group) bool { return true })
}

// ResetInstance is ResetOffset for one broadcasting member of a group, by the
// name under which its offsets are kept (PushOptions.Instance): the others stay
// where they are. It need not be living.
//
// Errors: those of ResetOffset, ErrInvalidName for an instance without a name, and
// ErrGroupNotFound if the group never had a broadcasting member of that name.
func (b *Broker) ResetInstance(groupName, instance, topicName string, to Whence) error {
	if err := validateInstance(instance); err != nil {
		return err
	}
	err := b.resetOffsets(groupName, topicName, to, func(g *group) bool { return g.instance == instance })
	if errors.Is(err, ErrGroupNotFound) {
		return fmt.Errorf("%w, instance %q", err, instance)
	}
	return err
}

// resetOffsets is ResetOffset for those groups of the name that are meant.
func (b *Broker) resetOffsets(groupName, topicName string, to Whence, meant func(*group) bool) error {
	if err := b.alive(); err != nil {
		return err
	}
	t, err := b.knownTopic(topicName)
	if err != nil {
		return err
	}
	if to.kind == whenceOffset {
		if to.queue.Topic != topicName {
			return fmt.Errorf("%w: %v is not of topic %q", ErrQueueNotFound, to.queue, topicName)
		}
		if _, err := b.queueOf(to.queue); err != nil {
			return err
		}
	}
	b.members.Lock()
	defer b.unlockMembers()
	groups, err := b.knownGroup(groupName)
	if err != nil {
		return err
	}
	groups = slices.DeleteFunc(groups, func(g *group) bool { return !meant(g) })
	if len(groups) == 0 {
		return fmt.Errorf("%w: %q", ErrGroupNotFound, groupName)
	}
	for _, g := range groups {
		if err := g.reset(t, to); err != nil {
			return err
		}
	}
	return nil
}

// CopyOffsets moves a group to where another one is in a topic (RocketMQ's
// cloneGroupOffset): what that one has consumed, ranges ahead of its offsets
// included, this one has consumed, and what not comes to it. Messages of the other
// group that are under way, or come again to it, are not copied: what it was done
// with counts. Otherwise it is a ResetOffset: forward or back, with members or
// without; and it creates the group if there is none of that name. Broadcasting
// members are all moved.
//
// Errors: ErrGroupNotFound if there is no group from, ErrGroupKind if it is
// broadcasting, ErrNotAssigned if it never subscribed to the topic,
// ErrInvalidArgument if both are the same, ErrInvalidName, ErrTopicNotFound.
func (b *Broker) CopyOffsets(from, to, topicName string) error {
	if err := b.alive(); err != nil {
		return err
	}
	if from == to {
		return fmt.Errorf("%w: offsets of group %q copied to itself", ErrInvalidArgument, from)
	}
	t, err := b.knownTopic(topicName)
	if err != nil {
		return err
	}
	b.members.Lock()
	defer b.unlockMembers()
	if _, err := b.knownGroup(from); err != nil {
		return err
	}
	source := b.names.group(groupKey{name: from})
	if source == nil {
		return fmt.Errorf("%w: members of group %q have offsets of their own", ErrGroupKind, from)
	}
	known := false
	b.log.Exclusive(func() { known = source.subs[t.id] != nil })
	if !known {
		return fmt.Errorf("%w: group %q never subscribed to topic %q", ErrNotAssigned, from, topicName)
	}
	groups, err := b.groupsToMove(to)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := g.reset(t, Whence{kind: whenceGroup, group: source}); err != nil {
			return err
		}
	}
	return nil
}

// groupsToMove returns the groups of a name, which is created if need be.
// Broker.members is held.
func (b *Broker) groupsToMove(name string) ([]*group, error) {
	if err := validateGroup(name); err != nil {
		return nil, err
	}
	if groups := b.names.groupsNamed(name); len(groups) > 0 {
		return groups, nil
	}
	g, err := b.ensureGroup(groupKey{name: name})
	if err != nil {
		return nil, err
	}
	return []*group{g}, nil
}

// reset logs the new offsets and puts the cursors there. group.mu is held over
// both, so that nothing is handed out in between by the old offsets under the
// new start, or the other way round.
func (g *group) reset(t *topic, to Whence) error {
	byTime, err := g.b.offsetsByTime(t, to)
	if err != nil {
		return err
	}
	g.mu.Lock()
	end, err := g.appendStart(t, to, byTime, true)
	if err == nil {
		for _, moved := range []*topic{g.parkedFor(t), t} {
			if gt := g.topics[moved]; gt != nil {
				for _, c := range gt.cursors {
					g.rewindLocked(c)
					c.scheduleLocked()
				}
			}
		}
	}
	g.mu.Unlock()
	if err != nil {
		return err
	}
	return g.b.durable(context.Background(), end, Synced)
}

// ensureStart writes down where the group starts in t, if it never has.
func (g *group) ensureStart(t *topic, from Whence) error {
	known := false
	g.b.log.Exclusive(func() { known = g.subs[t.id] != nil })
	if known {
		return nil
	}
	byTime, err := g.b.offsetsByTime(t, from)
	if err != nil {
		return err
	}
	end, err := g.appendStart(t, from, byTime, false)
	if errors.Is(err, errStartThere) {
		return nil
	}
	if err != nil {
		return err
	}
	return g.b.durable(context.Background(), end, Synced)
}

// errStartThere: somebody else has written down where the group starts. Another
// start would undo what was acknowledged since. Not all who look for one hold
// Broker.members: see deadTopic.
var errStartThere = errors.New("mq: the group has a start")

// restart is where a group goes on in a topic, and what it has acknowledged ahead
// in queues that stay where they are: that is repeated under the new start.
type restart struct {
	*record.Start
	kept []record.Ack
}

func (r *restart) addTo(layout commitlog.Layout) commitlog.Layout {
	if r.Start != nil {
		layout = layout.Add(r.Size())
	}
	for i := range r.kept {
		layout = layout.Add(r.kept[i].Size())
	}
	return layout
}

// takes returns how far behind it the next record of its frame is.
func (r *restart) takes() coord.Position {
	n := r.addTo(commitlog.Layout{}).Size()
	if len(r.kept) > 0 {
		n -= commitlog.HeaderBytes // of the frame
	}
	return coord.Position(n)
}

// appendStart logs resolved offsets, so that a replay comes to the same. A reset
// takes the topic's parked messages along, in the same frame.
func (g *group) appendStart(t *topic, at Whence, byTime []Offset, reset bool) (coord.Position, error) {
	b := g.b
	build := func(near coord.Position) (rs []restart, layout commitlog.Layout, err error) {
		r, err := g.newStart(t, at, byTime, reset, near)
		rs, layout = append(rs, r), r.addTo(layout)
		if parked := g.parkedFor(t); err == nil && reset && parked != nil && g.subs[parked.id] != nil {
			r, err = g.newStart(parked, at.parked(), nil, reset, near+r.takes())
			rs, layout = append(rs, r), r.addTo(layout)
		}
		return rs, layout, err
	}
	for {
		var layout commitlog.Layout
		var err error
		b.log.Exclusive(func() { _, layout, err = build(b.log.Written() + commitlog.HeaderBytes) })
		if err != nil {
			return 0, err
		}
		end, err := b.log.Append(context.Background(), commitlog.Reserved, layout, func(f *commitlog.Frame) error {
			again, now, err := build(f.Position())
			if err != nil {
				return err
			}
			if now != layout {
				return errResized
			}
			return b.placeStarts(f, again)
		})
		if !errors.Is(err, errResized) {
			return end, b.noted(err)
		}
	}
}

// parkedFor returns the topic of the messages of t that the group has parked; nil
// if there never were any.
func (g *group) parkedFor(t *topic) *topic {
	if g.instance != "" {
		return nil
	}
	return g.b.names.topic(ParkedTopic(g.name, t.name))
}

// parked is where a reset moves the parked messages of the queues that it moves:
// behind all of them.
func (w Whence) parked() Whence {
	if w.kind == whenceOffset {
		return Whence{kind: whenceEndOf, queue: w.queue}
	}
	return Latest
}

// newStart returns the records of appendStart. The position of the start itself
// is only known when it is placed; near is as good for sizing. The append lock
// is held.
func (g *group) newStart(t *topic, at Whence, byTime []Offset, reset bool, near coord.Position) (restart, error) {
	if t.deleted.Load() {
		return restart{}, fmt.Errorf("%w: %q", ErrTopicNotFound, t.name)
	}
	if g.deleted {
		return restart{}, fmt.Errorf("%w: %q", ErrGroupNotFound, g.name)
	}
	r := restart{Start: &record.Start{Group: g.id, Topic: t.id, Reset: reset}}
	if sub := g.subs[t.id]; sub != nil {
		if !reset {
			return restart{}, errStartThere
		}
		r.Subscription = sub.filter
	}
	for _, q := range *t.queues.Load() {
		off, err := g.resolve(q, at, byTime)
		if err != nil {
			return restart{}, err
		}
		r.Offsets = append(r.Offsets, off)
		if ahead := g.keptAhead(q, at); len(ahead) > 0 {
			r.kept = append(r.kept, record.Ack{Group: g.id, Start: near, Topic: t.id, Queue: q.id, Ranges: slices.Clone(ahead)})
		}
	}
	return r, nil
}

// keptAhead is what the group shall have consumed ahead of its new offset in q:
// what it has, where it stays, or what the other group has that it goes to.
func (g *group) keptAhead(q *queue, at Whence) []span {
	switch {
	case at.kind == whenceGroup:
		g = at.group
	case at.kind != whenceOffset && at.kind != whenceEndOf || q.id == at.queue.ID:
		return nil
	}
	if sub := g.subs[q.topic.id]; sub != nil {
		return sub.progress(q.id).ahead
	}
	return nil
}

// placeStarts writes starts and the acks that count from them, and folds them
// when all have their place: errResized leaves everything as it was.
func (b *Broker) placeStarts(f *commitlog.Frame, rs []restart) error {
	places := make([]coord.Position, len(rs))
	for n, r := range rs {
		dst, at, _ := f.Next(r.Size(), nil, emptyBody)
		r.Put(dst)
		places[n] = at
		for i := range r.kept {
			size := r.kept[i].Size()
			r.kept[i].Start = at
			if r.kept[i].Size() != size {
				return errResized
			}
			dst, _, _ := f.Next(size, nil, emptyBody)
			r.kept[i].Put(dst)
		}
	}
	for n, r := range rs {
		b.state.start(r.Start, places[n])
		for i := range r.kept {
			b.state.applyAck(&r.kept[i])
		}
	}
	return nil
}

// offsetsByTime looks up what At asks for, by queue. That reads the log, so it
// is done before the append lock is taken.
func (b *Broker) offsetsByTime(t *topic, at Whence) ([]Offset, error) {
	if at.kind != whenceTime {
		return nil, nil
	}
	var offsets []Offset
	for _, q := range *t.queues.Load() {
		off, err := b.offsetAt(q, at.time)
		if err != nil {
			return nil, err
		}
		offsets = append(offsets, off)
	}
	return offsets, nil
}

// resolve turns a place into an offset of q. The append lock is held.
func (g *group) resolve(q *queue, at Whence, byTime []Offset) (Offset, error) {
	switch at.kind {
	case whenceLatest:
		return q.entries.End(), nil
	case whenceTime:
		if int(q.id) < len(byTime) {
			return byTime[q.id], nil
		}
		return 0, nil // the queue was added a moment ago
	case whenceOffset, whenceEndOf:
		if q.id != at.queue.ID { // the other queues stay where they are
			if sub := g.subs[q.topic.id]; sub != nil {
				return sub.progress(q.id).committed, nil
			}
			return q.entries.Min(), nil
		}
		if at.kind == whenceEndOf {
			return q.entries.End(), nil
		}
		if at.offset < 0 || at.offset > q.entries.End() {
			return 0, fmt.Errorf("%w: %v offset %d, the queue ends at %d", ErrOffsetOutOfRange, at.queue, at.offset, q.entries.End())
		}
		return at.offset, nil
	case whenceGroup:
		sub := at.group.subs[q.topic.id]
		if sub == nil {
			return 0, fmt.Errorf("%w: group %q does not subscribe to topic %q any more", ErrNotAssigned, at.group.name, q.topic.name)
		}
		return sub.progress(q.id).committed, nil
	}
	return q.entries.Min(), nil
}

// deleteGroup logs that g is gone. Broker.members is held.
func (b *Broker) deleteGroup(g *group) error {
	end, err := b.appendState(context.Background(), commitlog.Reserved, func() (stateRecord, error) {
		if g.deleted {
			return nil, fmt.Errorf("%w: %q", ErrGroupNotFound, g.name)
		}
		return &record.GroupDelete{ID: g.id}, nil
	})
	if err != nil {
		return err
	}
	return b.durable(context.Background(), end, Synced)
}
