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
	groups := slices.DeleteFunc(b.names.groupsNamed(groupName), func(g *group) bool { return !meant(g) })
	if len(groups) == 0 || groupName == "" {
		return fmt.Errorf("%w: %q", ErrGroupNotFound, groupName)
	}
	for _, g := range groups {
		if err := g.reset(t, to); err != nil {
			return err
		}
	}
	return nil
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
		if gt := g.topics[t]; gt != nil {
			for _, c := range gt.cursors {
				g.rewindLocked(c)
				c.scheduleLocked()
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
	if err != nil {
		return err
	}
	return g.b.durable(context.Background(), end, Synced)
}

// appendStart logs resolved offsets, so that a replay comes to the same. What
// the group has acknowledged ahead in queues that stay where they are stays
// acknowledged: it is repeated under the new start, in the same frame.
func (g *group) appendStart(t *topic, at Whence, byTime []Offset, reset bool) (coord.Position, error) {
	b := g.b
	for {
		var r *record.Start
		var kept []record.Ack
		var err error
		b.log.Exclusive(func() { r, kept, err = g.newStart(t, at, byTime, reset, b.log.Written()+commitlog.HeaderBytes) })
		if err != nil {
			return 0, err
		}
		layout := commitlog.Layout{}.Add(r.Size())
		for i := range kept {
			layout = layout.Add(kept[i].Size())
		}
		end, err := b.log.Append(context.Background(), commitlog.Reserved, layout, func(f *commitlog.Frame) error {
			if b.sealed {
				return ErrClosed
			}
			again, acks, err := g.newStart(t, at, byTime, reset, f.Position())
			if err != nil {
				return err
			}
			return b.placeStart(f, layout, again, acks)
		})
		if !errors.Is(err, errResized) {
			return end, b.noted(err)
		}
	}
}

// newStart returns the records of appendStart. The position of the start itself
// is only known when it is placed; near is as good for sizing. The append lock
// is held.
func (g *group) newStart(t *topic, at Whence, byTime []Offset, reset bool, near coord.Position) (*record.Start, []record.Ack, error) {
	if t.deleted.Load() {
		return nil, nil, fmt.Errorf("%w: %q", ErrTopicNotFound, t.name)
	}
	if g.deleted {
		return nil, nil, fmt.Errorf("%w: %q", ErrGroupNotFound, g.name)
	}
	r := &record.Start{Group: g.id, Topic: t.id, Reset: reset}
	var kept []record.Ack
	sub := g.subs[t.id]
	for _, q := range *t.queues.Load() {
		off, err := g.resolve(q, at, byTime)
		if err != nil {
			return nil, nil, err
		}
		r.Offsets = append(r.Offsets, off)
		if at.kind != whenceOffset || q.id == at.queue.ID || sub == nil {
			continue
		}
		if ahead := sub.progress(q.id).ahead; len(ahead) > 0 {
			kept = append(kept, record.Ack{Group: g.id, Start: near, Topic: t.id, Queue: q.id, Ranges: slices.Clone(ahead)})
		}
	}
	return r, kept, nil
}

// placeStart writes and folds a start and the acks that count from it, if the
// frame was sized for them.
func (b *Broker) placeStart(f *commitlog.Frame, layout commitlog.Layout, r *record.Start, kept []record.Ack) error {
	now := commitlog.Layout{}.Add(r.Size())
	for i := range kept {
		now = now.Add(kept[i].Size())
	}
	if now != layout {
		return errResized
	}
	dst, at, _ := f.Next(r.Size(), nil, emptyBody)
	for i := range kept {
		size := kept[i].Size()
		kept[i].Start = at
		if kept[i].Size() != size {
			return errResized
		}
	}
	r.Put(dst)
	if err := b.state.applyState(dst, at); err != nil {
		return err
	}
	for i := range kept {
		dst, _, _ := f.Next(kept[i].Size(), nil, emptyBody)
		kept[i].Put(dst)
		b.state.applyAck(&kept[i])
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
	case whenceOffset:
		if q.id != at.queue.ID { // the other queues stay where they are
			if sub := g.subs[q.topic.id]; sub != nil {
				return sub.progress(q.id).committed, nil
			}
			return q.entries.Min(), nil
		}
		if at.offset < 0 || at.offset > q.entries.End() {
			return 0, fmt.Errorf("%w: %v offset %d, the queue ends at %d", ErrOffsetOutOfRange, at.queue, at.offset, q.entries.End())
		}
		return at.offset, nil
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
