package mq

import (
	"context"
	"errors"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// A message may wait longer than its segment is kept. Then it is stored again
// further on, and its old record settled, in one frame.

// HeldByWaiting is what Stats.HeldBy says instead of a group when messages that
// wait for their time keep the oldest segment.
const HeldByWaiting = "(waiting messages)"

// carryMost is how many messages are looked up at once.
const carryMost = 1 << 14

// carryForward stores again what waits below end, which is about to be dropped.
func (t *timer) carryForward(ctx context.Context, end coord.Position) error {
	var from record.Due
	waits := false
	t.b.log.Exclusive(func() { from, waits = t.mark, t.waiting > 0 })
	for waits && from != endOfTime {
		var err error
		if from, err = t.carrySome(ctx, from, end); err != nil {
			return err
		}
	}
	return nil
}

// carrySome carries some that are due behind from, and returns up to where.
func (t *timer) carrySome(ctx context.Context, from record.Due, end coord.Position) (record.Due, error) {
	t.settling.Lock()
	defer t.settling.Unlock()
	due, next, err := t.scan(from, end, carryMost)
	c := newFlight() // small ones: nobody waits for it
	for err == nil && len(due) > 0 {
		c.due = append(c.due[:0], due[:min(len(due), c.most)]...)
		if err = c.read(t); err != nil {
			break
		}
		due = due[len(c.due):]
		for err == nil && c.done < len(c.due) {
			if err = c.carry(ctx, t); err == nil {
				c.done += c.taken
			} else if errors.Is(err, errChanged) {
				err = nil // again, without what was delivered meanwhile
			}
		}
	}
	return next, err
}

// carry stores the next of the messages again, in one frame.
func (f *flight) carry(ctx context.Context, t *timer) error {
	f.frame(t)
	t.b.log.Exclusive(func() { f.direct(t) })
	settled := make([]record.Settle, 0, len(f.out))
	var layout commitlog.Layout
	kept := f.out[:0]
	for _, o := range f.out {
		s, ok := t.delayAgain(&o)
		if !ok {
			continue
		}
		settled, kept = append(settled, s), append(kept, o)
		layout = layout.Add(o.headSize + len(o.message.Body)).Add(s.Size())
	}
	if f.out = kept; len(kept) == 0 {
		return nil
	}
	_, err := t.b.log.Append(ctx, commitlog.Reserved, layout, func(frame *commitlog.Frame) error {
		for i := range f.out {
			if f.out[i].topic.deleted.Load() || settled[i].Due.Compare(t.mark) <= 0 {
				return errChanged
			}
		}
		for i := range f.out {
			o := &f.out[i]
			t.b.place(frame, o)
			dst, at, _ := frame.Next(settled[i].Size(), nil, emptyBody)
			settled[i].Put(dst)
			t.settle(o.topic, settled[i].Due, at)
		}
		return nil
	})
	return err
}

// delayAgain makes a message that was read to be delivered one that waits again,
// and the settlement of the record it was read from. It is false if that has been
// delivered meanwhile.
func (t *timer) delayAgain(o *outgoing) (s record.Settle, ok bool) {
	a := o.head.Again
	s = record.Settle{Topic: o.head.Topic, Due: a.Due}
	t.b.log.Exclusive(func() { ok = s.Due.Compare(t.mark) > 0 })
	a.DeliverAt, a.Due = s.Due.At, record.Due{}
	size, err := o.head.HeadSize()
	o.headSize = size
	return s, ok && err == nil
}

// mostlyWaits reports whether what waits in a segment takes more than half of
// it: dropping it to make room would only move it.
func (t *timer) mostlyWaits(s commitlog.Segment) bool {
	var from record.Due
	var held heldSegment
	t.b.log.Exclusive(func() { from, held = t.mark, heldSegment{s.Base, t.mark, t.waiting} })
	if held.waiting == 0 {
		return false
	}
	if held == t.held {
		return true // as it did when it was looked at before
	}
	var bytes int64
	for from != endOfTime && bytes <= s.Bytes/2 {
		due, next, err := t.scan(from, s.End, carryMost)
		if err != nil {
			return false
		}
		refs := make([]commitlog.Ref, 0, len(due))
		for _, d := range due {
			if d.Position >= s.Base {
				refs = append(refs, commitlog.Ref{Position: d.Position})
			}
		}
		t.b.log.Read(refs, func(_ int, r commitlog.Record, _ error) bool {
			bytes += int64(r.Size)
			return bytes <= s.Bytes/2
		})
		from = next
	}
	if bytes <= s.Bytes/2 {
		return false
	}
	t.held = held
	return true
}

// heldSegment is a segment that mostly waits, and when that was seen.
type heldSegment struct {
	base    coord.Position
	mark    record.Due
	waiting int64
}
