package mq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pocketmq/mq/internal/coord"
)

// lease is one delivery of a message to a simple consumer, and its receipt: it
// holds as long as its expiry waits in the group's retries. Whoever takes it out
// of there, under group.mu, has the message: the timer, an Ack, a Nack, a reset
// or the end of the cursor. So exactly one of them does.
type lease struct {
	cursor *cursor
	start  coord.Position
	claim  claim
	lane   *lane // of an ordered group: waits meanwhile

	attempt int // Message.Attempt: that of the claim, and what failed before it was sent again
	place   int // in retries.queue; nowhere: the receipt does not hold any more
}

// holdsLocked reports whether the message is still its receiver's.
func (l *lease) holdsLocked() bool { return l.place != nowhere }

// nowhere is the place of what is not in a heap.
const nowhere = -1

// placed notes where in the heap d is.
func (d *due) placed(at int) {
	if d.lease != nil {
		d.lease.place = at
	}
}

// comesBackLocked ends a lease whose message was not acknowledged: it is handed
// out again, before what is new to the group, or made a dead letter in that moment.
func (l *lease) comesBackLocked() {
	again := l.claim
	again.attempt++
	if l.lane != nil {
		l.lane.items[0].claim = again
		l.cursor.lanes.freeLocked(l.lane)
		return
	}
	l.cursor.redo = append(l.cursor.redo, again)
}

// Ack acknowledges messages that any member of the group received. When it
// returns none of them comes again after the process ends, and with
// AckDurability Synced after a power cut. However many, they are one frame of
// the log.
//
// A message whose receipt does not hold any more, because its time was up or it
// was acknowledged before, is left out, and ErrReceiptExpired says so; the others
// are acknowledged all the same. After another error none is, and their receipts
// hold as they did. If ctx ends in the wait for the disk, all of them are
// acknowledged, but not yet Synced. Without messages nothing happens.
//
// Errors: ErrReceiptExpired, ErrNotAssigned, ErrPoisoned, ErrClosed, that of
// ctx.
func (c *SimpleConsumer) Ack(ctx context.Context, ms ...*Message) error {
	leases, err := c.leasesOf(ctx, ms)
	if err != nil {
		return err
	}
	work, refused, err := c.settle(leases)
	if err != nil {
		return err
	}
	if len(work) > 0 {
		end, stale, err := c.acknowledge(work)
		if err == nil {
			err = c.b.durable(ctx, end, c.acks)
		}
		if err != nil {
			return err
		}
		refused += stale
	}
	return expired(refused, len(ms))
}

// Nack gives messages back: they come again at once, with a higher Attempt, to
// whoever asks next. Nothing slows this down: a receiver that gives back what it
// cannot handle now uses ChangeInvisible, with the time that it shall wait. New
// messages and those that come again take turns, so one that is always given
// back does not stop the others; but those of its key in an Ordered group. A
// message that was received MaxAttempts times becomes a dead letter; if that cannot
// be stored now, it is later.
//
// Messages whose receipts do not hold any more are left out as in Ack. Errors:
// ErrReceiptExpired, ErrNotAssigned, ErrClosed, that of ctx.
func (c *SimpleConsumer) Nack(ctx context.Context, ms ...*Message) error {
	leases, err := c.leasesOf(ctx, ms)
	if err != nil {
		return err
	}
	g, refused, most := c.group, 0, c.most()
	var spent []*lease
	g.mu.Lock()
	if c.closed {
		g.mu.Unlock()
		return ErrClosed
	}
	for _, l := range leases {
		if !l.holdsLocked() {
			refused++
			continue
		}
		g.retries.takeLocked(l)
		if most > 0 && l.attempt >= most {
			spent = append(spent, l)
			continue
		}
		l.comesBackLocked()
		l.cursor.scheduleLocked()
	}
	g.mu.Unlock()
	for _, l := range spent {
		g.buryGiven(ctx, l)
	}
	return expired(refused, len(ms))
}

// ChangeInvisible makes the time that a message stays invisible d from now,
// longer or shorter than it was: for a receiver that needs more time, or that
// wants the message to come again a while later. The message stays good for Ack
// and the others (RocketMQ hands out another receipt). Bounds are those of
// Receive.
//
// Errors: ErrInvalidArgument, ErrReceiptExpired, ErrNotAssigned, ErrClosed, that
// of ctx.
func (c *SimpleConsumer) ChangeInvisible(ctx context.Context, m *Message, d time.Duration) error {
	if err := validInvisible(d); err != nil {
		return err
	}
	leases, err := c.leasesOf(ctx, []*Message{m})
	if err != nil {
		return err
	}
	g, l := c.group, leases[0]
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if !l.holdsLocked() {
		return expired(1, 1)
	}
	again := g.retries.takeLocked(l)
	again.at = time.Now().Add(d)
	g.retries.addLocked(g, again)
	return nil
}

// expired is the error of a call that left out n messages of so many.
func expired(n, of int) error {
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d of %d messages", ErrReceiptExpired, n, of)
}

// leasesOf returns the receipts of messages of this group.
func (c *SimpleConsumer) leasesOf(ctx context.Context, ms []*Message) ([]*lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	leases := make([]*lease, 0, len(ms))
	for i, m := range ms {
		// By name: a group that was deleted and is there again has other receipts,
		// but it is the same to the caller.
		if m == nil || m.origin.lease == nil || m.origin.cursor.group.b != c.b || m.origin.cursor.group.name != c.groupName {
			return nil, fmt.Errorf("%w: message %d was not received by group %q", ErrNotAssigned, i, c.groupName)
		}
		leases = append(leases, m.origin.lease)
	}
	return leases, nil
}

// settlement is what one Ack acknowledges of one cursor.
type settlement struct {
	cursor  *cursor
	start   coord.Position
	held    []due // the expiries of its messages
	skipped []span
}

// settle takes the leases that hold, by cursor: from here on they do not expire.
// The others it counts.
func (c *SimpleConsumer) settle(leases []*lease) (work []*settlement, refused int, err error) {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.closed {
		return nil, 0, ErrClosed
	}
	for _, l := range leases {
		if !l.holdsLocked() {
			refused++
			continue
		}
		at := slices.IndexFunc(work, func(s *settlement) bool { return s.cursor == l.cursor })
		if at < 0 {
			at = len(work)
			work = append(work, &settlement{cursor: l.cursor, start: l.start, skipped: l.cursor.takeSkippedLocked()})
		}
		work[at].held = append(work[at].held, g.retries.takeLocked(l))
	}
	return work, refused, nil
}

// acknowledge logs what was settled. Messages whose queue was reset since are
// counted; if it fails all the others are as they were.
func (c *SimpleConsumer) acknowledge(work []*settlement) (end coord.Position, stale int, err error) {
	acks := make([]settled, len(work))
	for i, s := range work {
		acks[i] = settled{queue: s.cursor.queue, start: s.start, spans: s.spans()}
	}
	g := c.group
	end, err = g.appendAcks(acks)
	if errors.Is(err, ErrStale) {
		err = nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, s := range work {
		if acks[i].stale {
			stale += len(s.held)
		}
		switch {
		case s.start != s.cursor.start || s.cursor.retired: // what it does next is another's affair
		case err == nil:
			s.doneLocked()
		default:
			s.undoLocked()
		}
	}
	return end, stale, err
}

func (s *settlement) spans() []span {
	spans := slices.Clone(s.skipped)
	for i := range s.held {
		off := s.held[i].lease.claim.offset
		spans = append(spans, span{From: off, To: off + 1})
	}
	return joinSpans(spans)
}

// doneLocked makes room for what comes after the messages.
func (s *settlement) doneLocked() {
	bytes := int64(0)
	for i := range s.held {
		l := s.held[i].lease
		bytes += int64(l.claim.entry.Size)
		if l.lane != nil {
			s.cursor.lanes.dropFirstLocked(l.lane)
		}
	}
	s.cursor.finishedLocked(s.start, len(s.held), bytes)
}

// undoLocked lets the leases hold again, for the time that they have.
func (s *settlement) undoLocked() {
	g := s.cursor.group
	for _, d := range s.held {
		g.retries.addLocked(g, d)
	}
	for _, sp := range s.skipped {
		s.cursor.skipLocked(sp)
	}
}
