package mq

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// Origin says where a message comes from that is delivered again or was given
// up.
type Origin struct {
	Topic     string
	Queue     QueueID
	Offset    Offset
	Attempts  int    // deliveries that failed so far
	LastError string // what the last of them returned, cut to 1,024 bytes
}

// sendBackAgain is when a message is tried again that failed and could not be
// sent back, because the log has no room for it, say (RocketMQ's
// ConsumeMessageConcurrentlyService does so after 5 s as well).
const sendBackAgain = 5 * time.Second

// sendBack stores a message that failed once more, to come again or as a dead
// letter, and acknowledges it, in one frame: whatever breaks, the group has one
// of them to consume. The message is read again, for the handler owns the one it
// got.
func (g *group) sendBack(ctx context.Context, q *queue, start coord.Position, cl claim, attempts int, r retry, cause error) error {
	target := g.retryTopic
	if r.dead {
		target = g.deadTopic
	}
	t, err := target(ctx)
	if err != nil {
		return err
	}
	v := moveOne(g, q, start, cl.offset)
	origin := record.Origin{Attempts: attempts, LastError: errorText(cause)}
	if err := g.b.copyOf(&v.out[0], q, cl, origin); err != nil {
		return err
	}
	if err := v.out[0].address((*t.queues.Load())[0], r.after); err != nil {
		return err
	}
	return g.b.appendMoved(ctx, v)
}

// copyOf makes o a copy of the message that is claimed, with all that names it,
// but without a destination. Of origin the caller says what is new.
func (b *Broker) copyOf(o *outgoing, q *queue, cl claim, origin record.Origin) (err error) {
	ref := [1]commitlog.Ref{{Position: cl.entry.Position, Size: cl.entry.Size}}
	b.log.Read(ref[:], func(_ int, r commitlog.Record, readErr error) bool {
		var v record.View
		if err = readErr; err == nil {
			err = decodeAs(q, cl.offset, r, &v)
		}
		if err != nil {
			return false
		}
		v.Unpack(string(v.Text()), &o.head)
		o.message = &Message{Body: append([]byte(nil), v.Body...)}
		again := record.Again{Origin: &origin, Identity: record.Identity{Epoch: r.Epoch, Position: r.Position}}
		origin.Topic, origin.Queue, origin.Offset = q.topic.name, q.id, cl.offset
		if had := o.head.Again; had != nil {
			if had.Identity != (record.Identity{}) {
				again.Identity = had.Identity
			}
			if had.Origin != nil {
				origin.Topic, origin.Queue, origin.Offset = had.Origin.Topic, had.Origin.Queue, had.Origin.Offset
			}
		}
		o.head.Again = &again
		o.head.BornAt = v.BornAt()
		return false
	})
	if err != nil {
		return err
	}
	o.bodyHash = commitlog.BodyHash(o.message.Body)
	o.tagHash = tagHash(o.head.Tag)
	return nil
}

// address sends a copy to a queue, after a while if there is one.
func (o *outgoing) address(q *queue, after time.Duration) (err error) {
	o.topic, o.queue = q.topic, q
	o.head.Topic, o.head.Queue, o.head.Offset = q.topic.id, q.id, 0
	if after > 0 {
		o.head.Again.DeliverAt = ceilMilli(time.Now().Add(after)) // never early
	}
	o.headSize, err = o.head.HeadSize()
	return err
}

// errorText is the text of err, cut between two characters.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	s := err.Error()
	if len(s) <= record.MaxLastError {
		return s
	}
	n := record.MaxLastError
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// trial is a delivery that failed, of which message.
type trial struct {
	id       MessageID
	queue    Queue // that the message was first stored in
	offset   Offset
	attempts int // deliveries that failed, this one included
}

// trialOf says so from the record: the handler may have changed its message, and
// what comes from the retry topic was stored elsewhere first.
// Without an id: it cannot be read.
func (b *Broker) trialOf(q *queue, cl claim) trial {
	t := trial{queue: q.name(), offset: cl.offset, attempts: cl.attempt}
	ref := [1]commitlog.Ref{{Position: cl.entry.Position, Size: cl.entry.Size}}
	b.log.Read(ref[:], func(_ int, r commitlog.Record, err error) bool {
		var v record.View
		if err != nil || decodeAs(q, cl.offset, r, &v) != nil {
			return false
		}
		t.id = MessageID{store: b.log.StoreID(), epoch: r.Epoch, position: r.Position}
		if first := v.Identity(); first != (record.Identity{}) {
			t.id.epoch, t.id.position = first.Epoch, first.Position
		}
		if o := v.Origin(); o != nil && q.topic.again {
			t.queue, t.offset = Queue{o.Topic, o.Queue}, o.Offset
			t.attempts += o.Attempts
		}
		return false
	})
	return t
}

// failed settles an item whose handler failed, and says what that makes of it.
// A broadcasting member goes on without it.
func (c *PushConsumer) failed(b *batch, it *item, err error) (state uint32) {
	t := c.b.trialOf(b.cursor.queue, it.claim)
	c.b.counters.failed.Add(1)
	if c.kind.model != Clustering {
		c.group.tell(t, retry{after: -1}, err)
		return itemConsumed
	}
	if c.ctx.Err() != nil {
		// The consumer closes and has cancelled its handlers: that is no fault of the
		// message. It comes again when the group has somebody for it.
		c.group.tell(t, retry{}, err)
		return c.again(b, it, 0, itemUntried)
	}
	r := judge(err, t.attempts, c.most(), c.wait)
	c.group.tell(t, r, err)
	return c.settle(b, it, t, r, err)
}

// crashed settles an item that has no attempt left: the process ended while it was
// in hand, or it could not be buried when its handler failed last.
func (c *PushConsumer) crashed(b *batch, it *item) (state uint32) {
	t := c.b.trialOf(b.cursor.queue, it.claim)
	t.attempts-- // this one does not happen
	r := retry{after: -1, dead: true}
	c.group.mu.Lock()
	u, told := b.cursor.unburied[it.offset]
	c.group.mu.Unlock()
	if told {
		t.attempts = u.attempts
	} else {
		u.cause = errCrashed
		c.group.tell(t, r, u.cause)
	}
	return c.settle(b, it, t, r, u.cause)
}

// tell calls the hook.
func (g *group) tell(t trial, r retry, err error) {
	if hook := g.b.opts.Hooks.Failed; hook != nil {
		hook(FailedInfo{
			Group: g.name, Instance: g.instance, ID: t.id, Queue: t.queue, Offset: t.offset,
			Attempt: t.attempts, Retry: r.after, Dead: r.dead, Err: err,
		})
	}
}

// settle does with an item what r says.
//
// In an ordered group a message that comes again does so in its place, for what
// is behind it waits for it. Otherwise it is sent back, so that it holds up
// neither others nor the offset.
func (c *PushConsumer) settle(b *batch, it *item, t trial, r retry, cause error) (state uint32) {
	if !r.dead && b.lane != nil {
		c.group.mu.Lock()
		b.lane.blockedState().cause = cause
		c.group.mu.Unlock()
		return c.again(b, it, r.after, itemFailed)
	}
	g, q := c.group, b.cursor.queue
	err := g.sendBack(c.ctx, q, b.start, it.claim, t.attempts, r, cause)
	switch {
	case err == nil:
		if r.dead {
			g.b.counters.dead.Add(1)
		}
		g.mu.Lock()
		delete(b.cursor.unburied, it.offset)
		b.cursor.finishedLocked(b.start, 1, int64(it.entry.Size))
		g.mu.Unlock()
		return itemAcked
	case errors.Is(err, ErrStale):
		return itemConsumed // reset, or its topic deleted: nobody waits for it
	case !isClosed(err) && !errors.Is(err, context.Canceled):
		g.b.opts.Logger.Error("failed message not sent back", "group", g.name, "queue", q.name(), "offset", it.offset, "err", err)
	}
	if r.dead {
		g.mu.Lock()
		b.cursor.unburiedLocked(b.start, it.offset, unburied{t.attempts, cause})
		g.mu.Unlock()
	}
	return c.again(b, it, sendBackAgain, itemFailed)
}

// unburied is a message that is dead and could not be stored as a dead letter yet.
type unburied struct {
	attempts int
	cause    error
}

func (c *cursor) unburiedLocked(start coord.Position, off Offset, u unburied) {
	if start != c.start {
		return // it was reset, and comes again as if it had not been tried
	}
	if c.unburied == nil {
		c.unburied = map[Offset]unburied{}
	}
	c.unburied[off] = u
}
