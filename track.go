package mq

import (
	"errors"
	"slices"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// TrackState is what a group did with a message (RocketMQ's TrackType).
type TrackState uint8

const (
	// NotConsumedYet: the group will come to the message, or the message still
	// waits for its time (NOT_CONSUME_YET).
	NotConsumedYet TrackState = iota

	// InHand: a handler has it, a pull consumer polled it and did not commit, or a
	// simple consumer received it and its time is not up (PULL).
	InHand

	// Retrying: it failed, and comes again.
	Retrying

	// Consumed: the group is done with it (CONSUMED). So it is for a group that
	// started behind it, or was moved past it.
	Consumed

	// Filtered: the group is done with it, and its filter does not want it
	// (CONSUMED_BUT_FILTERED).
	Filtered

	// Dead: the group gave it up. It is among the dead letters, or was purged.
	Dead
)

var trackStates = [...]string{"NotConsumedYet", "InHand", "Retrying", "Consumed", "Filtered", "Dead"}

// String returns the name of the constant.
func (s TrackState) String() string {
	if int(s) < len(trackStates) {
		return trackStates[s]
	}
	return "TrackState(?)"
}

// Track is what one group, or one broadcasting member of it, did with a message.
type Track struct {
	Group    string
	Instance string // of a broadcasting member
	State    TrackState

	// Of a message that failed and was sent back or given up: deliveries that
	// failed, and what the last of them returned.
	Attempts  int
	LastError string
}

// MessageTrack says what each group that ever subscribed to the topic of a message
// did with it, sorted by group (RocketMQ's messageTrackDetail). Groups go on
// meanwhile: each answer holds for a moment of its own.
//
// Filtered goes by the filter that the group has now, or had last (Filter); what
// was consumed under another one before counts by this one. One that is not known
// wants everything. What is parked (ParkedTopic) is not consumed yet, or retrying if
// it has failed, also while a handler has it.
//
// Errors: ErrMessageNotFound, ErrTopicNotFound if the topic is gone, ErrCorrupt,
// ErrClosed.
func (b *Broker) MessageTrack(id MessageID) ([]Track, error) {
	m, err := b.MessageByID(id)
	if err != nil {
		return nil, err
	}
	t, err := b.knownTopic(m.Topic)
	if err != nil {
		return nil, err
	}
	copies, err := b.copies(id)
	if err != nil {
		return nil, err
	}
	var groups []*group
	b.log.Exclusive(func() {
		for _, g := range b.state.groups {
			if g.subs[t.id] != nil {
				groups = append(groups, g)
			}
		}
	})
	slices.SortFunc(groups, compareGroups)
	var tracks []Track
	for _, g := range groups {
		track := Track{Group: g.name, Instance: g.instance, State: NotConsumedYet}
		if m.Offset >= 0 {
			g.track(&track, t, m, copies)
		}
		tracks = append(tracks, track)
	}
	return tracks, nil
}

// track fills in what became of a message that has an offset.
func (g *group) track(into *Track, t *topic, m *Message, copies []messageCopy) {
	if !g.doneWith(t, m.Queue, m.Offset) {
		into.State = g.underWay(t, m.Queue, m.Offset)
		return
	}
	into.State = Consumed
	for i := range copies { // the newest first
		c := &copies[i]
		switch c.topic.name {
		case DeadLetterTopic(g.name):
			into.State = Dead
		case RetryTopic(g.name):
			into.State = Retrying
			if !c.waits && g.doneWith(c.topic, c.queue, c.offset) {
				into.State = Consumed
			} else if !c.waits && g.underWay(c.topic, c.queue, c.offset) == InHand {
				into.State = InHand
			}
		case ParkedTopic(g.name, t.name):
			if !g.doneWith(c.topic, c.queue, c.offset) {
				into.State = NotConsumedYet // or in hand at this moment
				if c.origin.Attempts > 0 {
					into.State = Retrying
				}
			}
		default:
			continue
		}
		into.Attempts, into.LastError = c.origin.Attempts, c.origin.LastError
		return
	}
	f, _, err := g.filterOf(t)
	if err == nil && !f.wantsMessage(m) {
		into.State = Filtered
	}
}

// doneWith reports whether the group has consumed, or passed over, an offset.
func (g *group) doneWith(t *topic, q QueueID, off Offset) (done bool) {
	g.b.log.Exclusive(func() {
		if sub := g.subs[t.id]; sub != nil {
			done = int(q) < len(sub.queues) && sub.queues[q].contains(off)
		}
	})
	return done
}

// underWay says where an offset is that the group is not done with.
func (g *group) underWay(t *topic, q QueueID, off Offset) TrackState {
	g.mu.Lock()
	defer g.mu.Unlock()
	gt := g.topics[t]
	if gt == nil || int(q) >= len(gt.cursors) {
		return NotConsumedYet // nobody subscribes
	}
	return gt.cursors[q].trackLocked(off)
}

// trackLocked is underWay in a living cursor.
func (c *cursor) trackLocked(off Offset) TrackState {
	in := func(s span) bool { return s.From <= off && off < s.To }
	if off >= c.next {
		return NotConsumedYet
	}
	if slices.ContainsFunc(c.skipped, in) {
		return Filtered // its acknowledgement is on its way
	}
	comesAgain := func(attempt int) TrackState {
		if attempt > 1 {
			return Retrying
		}
		return NotConsumedYet
	}
	for i := range c.redo {
		if c.redo[i].offset == off {
			return comesAgain(c.redo[i].attempt)
		}
	}
	for i := range c.group.retries.queue {
		d := &c.group.retries.queue[i]
		if d.cursor == c && d.lease == nil && d.lane == nil && !d.ack && !d.resume && d.claim.offset == off {
			return Retrying
		}
	}
	if c.lanes != nil {
		switch ln, i := c.lanes.findLocked(off); {
		case ln == nil: // with a worker
		case i > 0 || !ln.waiting:
			return comesAgain(ln.items[i].attempt)
		case !c.lentLocked(off):
			return Retrying
		}
	}
	return InHand
}

// findLocked returns the lane that an offset waits in, and its place there; nil
// if it is with a worker.
func (l *lanes) findLocked(off Offset) (*lane, int) {
	for _, ln := range l.byKey {
		if i := slices.IndexFunc(ln.items, func(it item) bool { return it.offset == off }); i >= 0 {
			return ln, i
		}
	}
	return nil, 0
}

// lentLocked reports whether a simple consumer has received the offset.
func (c *cursor) lentLocked(off Offset) bool {
	return slices.ContainsFunc(c.group.retries.queue, func(d due) bool {
		return d.cursor == c && d.lease != nil && d.lease.claim.offset == off
	})
}

// messageCopy is a message stored once more, to come again or as a dead letter.
type messageCopy struct {
	topic  *topic
	queue  QueueID
	offset Offset
	waits  bool // for its time: it has no offset yet
	origin record.Origin
}

// copies returns the copies of the message first stored under id that are there,
// the newest first.
func (b *Broker) copies(id MessageID) (all []messageCopy, err error) {
	failed := b.identified(id, func(pos coord.Position) (more bool) {
		var c messageCopy
		found, readErr := b.copyAt(pos, id.identity(), &c)
		if readErr != nil {
			err = readErr
			return false
		}
		if found {
			all = append(all, c)
		}
		return true
	})
	return all, errors.Join(err, failed)
}

// copyAt reads the copy at a position, if there is one.
func (b *Broker) copyAt(pos coord.Position, of record.Identity, c *messageCopy) (found bool, err error) {
	var due record.Due
	b.log.Read([]commitlog.Ref{{Position: pos}}, func(_ int, r commitlog.Record, readErr error) bool {
		if readErr != nil {
			if !errors.Is(readErr, commitlog.ErrNotFound) {
				err = readErr
			}
			return false
		}
		var v record.View
		c.waits = record.KindOf(r.Payload) == record.KindDelayed
		decode := record.DecodeMessage
		if c.waits {
			decode = record.DecodeDelayed
		}
		if decode(r.Payload, &v) != nil || v.Identity() != of {
			return false
		}
		o := v.Origin()
		if o == nil {
			return false // the message itself, delivered when its time had come
		}
		c.origin, c.queue, c.offset = *o, v.Queue, v.Offset
		due = record.Due{At: v.DeliverAt(), Position: r.Position}
		b.log.Exclusive(func() { c.topic = b.state.topics[v.Topic] })
		found = c.topic != nil
		return false
	})
	if !found || err != nil || !c.waits {
		return found, err
	}
	if err = b.timer.stillWaits(due); errors.Is(err, ErrNotWaiting) {
		return false, nil // delivered: there is a newer copy
	}
	return err == nil, err
}
