package mq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// emptyBody is the hash of the body of records that have none.
var emptyBody = commitlog.BodyHash(nil)

// settled is offsets of one queue that a group is done with.
type settled struct {
	queue *queue
	start coord.Position // the record their delivery counted from
	spans []span         // ascending, not overlapping
	stale bool           // set by appendAcks: it was left out
}

// appendAcks logs that the group is done with these offsets, in one frame, and
// folds it. Those whose start has been superseded, or whose topic is gone, mean
// nothing any more and are left out: ErrStale says that there were such.
func (g *group) appendAcks(acks []settled) (end coord.Position, err error) {
	b := g.b
	for {
		var records []record.Ack
		var layout commitlog.Layout
		b.log.Exclusive(func() {
			for i := range acks {
				a := &acks[i]
				a.stale = g.currentStart(a.queue.topic.id) != a.start
				if !a.stale {
					records = append(records, record.Ack{
						Group: g.id, Start: a.start, Topic: a.queue.topic.id, Queue: a.queue.id, Ranges: a.spans,
					})
				}
			}
		})
		if len(records) == 0 {
			return 0, ErrStale
		}
		for i := range records {
			layout = layout.Add(records[i].Size())
		}
		end, err = b.log.Append(context.Background(), commitlog.Reserved, layout, func(f *commitlog.Frame) error {
			for i := range records {
				if g.currentStart(records[i].Topic) != records[i].Start {
					return errResized // reset since: leave it out
				}
			}
			for i := range records {
				dst, _, _ := f.Next(records[i].Size(), nil, emptyBody)
				records[i].Put(dst)
				b.state.applyAck(&records[i])
			}
			return nil
		})
		if errors.Is(err, errResized) {
			continue
		}
		if err == nil && len(records) < len(acks) {
			err = ErrStale
		}
		return end, b.noted(err)
	}
}

// currentStart returns the record that the group's offsets in a topic count
// from; 0 if there is none. The append lock is held.
func (g *group) currentStart(t coord.TopicID) coord.Position {
	if sub := g.subs[t]; sub != nil && !g.deleted {
		return sub.start
	}
	return 0
}

// ackOne is appendAcks for one queue, without allocation: push consumers call
// it for every batch.
func (g *group) ackOne(q *queue, start coord.Position, spans []span) (coord.Position, error) {
	b := g.b
	ack := record.Ack{Group: g.id, Start: start, Topic: q.topic.id, Queue: q.id, Ranges: spans}
	size := ack.Size()
	return b.log.Append(context.Background(), commitlog.Reserved, commitlog.Layout{}.Add(size), func(f *commitlog.Frame) error {
		if g.currentStart(q.topic.id) != start {
			return ErrStale
		}
		dst, _, _ := f.Next(size, nil, emptyBody)
		ack.Put(dst)
		b.state.applyAck(&ack)
		return nil
	})
}

// ack logs that the group is done with spans of the cursor's queue, which m
// handled. What comes from before a reset is dropped silently: its messages come
// again, or were skipped on purpose. What cannot be stored now, for want of
// room, is stored later; the error is for who has no later. A poisoned log stores
// nothing any more: then m gets no more messages, and Close says so.
func (g *group) ack(m *member, c *cursor, start coord.Position, spans []span) error {
	if len(spans) == 0 {
		return nil
	}
	end, err := g.ackOne(c.queue, start, spans)
	if err == nil && m.acks == Synced {
		err = g.b.log.Wait(context.Background(), end)
	}
	if err == nil || errors.Is(err, ErrStale) || isClosed(err) {
		return nil
	}
	g.b.opts.Logger.Error("acknowledgement not stored", "group", g.name, "queue", c.queue.name(), "err", g.b.noted(err))
	g.mu.Lock()
	defer g.mu.Unlock()
	if errors.Is(err, ErrPoisoned) {
		m.halted = !m.kind.pull && !m.kind.simple // who asks for messages may still read them
		return nil
	}
	if start == c.start && !c.retired {
		c.skipped = append(c.skipped, spans...)
		g.ackLaterLocked(c, readAgainAfter)
	}
	return fmt.Errorf("mq: group %q has messages of %v that are not acknowledged: %w", g.name, c.queue.name(), err)
}

// skipAckEvery is how many skipped offsets are acknowledged alone; fewer travel
// with the next acknowledgement, or alone after Options.SyncEvery.
const skipAckEvery = 1000

// ackSkippedLocked sees to it that skipped offsets are acknowledged in time, so
// that a filter that matches nothing holds nothing.
func (g *group) ackSkippedLocked(c *cursor) {
	n := c.skippedCountLocked()
	if n >= skipAckEvery {
		g.flushSkippedLocked(c)
	} else if n > 0 {
		g.ackLaterLocked(c, g.b.opts.SyncEvery)
	}
}

// ackLaterLocked has what c skipped acknowledged after a while.
func (g *group) ackLaterLocked(c *cursor, after time.Duration) {
	if !c.ackDue {
		c.ackDue = true
		g.retries.addLocked(g, due{at: time.Now().Add(after), cursor: c, ack: true})
	}
}

// flushSkippedLocked acknowledges what c skipped. group.mu is let go meanwhile.
// Without an owner it is left to the next one (giveLocked).
func (g *group) flushSkippedLocked(c *cursor) {
	owner, start := c.owner, c.start
	if owner == nil {
		return
	}
	spans := joinSpans(c.takeSkippedLocked())
	g.mu.Unlock()
	_ = g.ack(owner, c, start, spans) // stored later
	g.mu.Lock()
}
