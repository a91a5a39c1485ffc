package mq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/record"
)

const (
	// What one frame delivers, at most: enough that the frame costs little for
	// each, few enough that senders do not wait for it.
	deliverMost  = 256
	deliverBytes = 256 * kib

	// lookAgain is how long the system's clock is trusted not to be set: timers
	// run by another one, which stands still while the machine sleeps.
	lookAgain = time.Minute

	// loadAhead is how far off the next message must be for reading on in the
	// index meanwhile.
	loadAhead = 100 * time.Millisecond

	// deliverAgain is how long to wait after the log took nothing.
	deliverAgain = time.Second
)

// errChanged says that a message was settled, or its topic deleted, between
// reading it and storing it.
var errChanged = errors.New("mq: what waits has changed")

// start begins to deliver what is above the mark.
func (t *timer) start() {
	t.b.log.Exclusive(func() { t.near.begin(t.mark) })
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	t.done.Add(1)
	go t.runDeliveries(ctx)
}

// stop waits until a delivery under way is stored, or given up.
func (t *timer) stop() {
	t.cancel()
	t.done.Wait()
}

// runDeliveries stores what is due, as messages of their queues, until it is
// stopped. It has a timer only while something waits.
func (t *timer) runDeliveries(ctx context.Context) {
	defer t.done.Done()
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	var f flight
	for ctx.Err() == nil {
		wait, err := t.step(ctx, &f)
		switch {
		case err == nil:
		case errors.Is(err, ErrClosed) || errors.Is(err, ErrPoisoned):
			return // nothing is stored any more
		default:
			t.b.opts.Logger.Warn("delayed messages wait on", "err", err)
			wait = deliverAgain
		}
		if wait == 0 {
			continue
		}
		if alarm.Stop(); wait > 0 {
			alarm.Reset(wait)
		}
		select {
		case <-t.wake:
		case <-alarm.C:
		case <-ctx.Done():
		}
	}
}

// step does what there is to do now and says how long there is nothing: 0 if
// there may be more, -1 until something is sent.
func (t *timer) step(ctx context.Context, f *flight) (wait time.Duration, err error) {
	load := false
	t.b.log.Exclusive(func() {
		wait, load = t.next(time.Now())
		f.due = append(f.due[:0], t.near.flight...)
	})
	switch {
	case load:
		return 0, t.load()
	case len(f.due) == 0:
		return wait, nil
	}
	return 0, t.b.noted(f.deliver(ctx, t))
}

// next takes out what is due by now, or says how long nothing is, or that what
// comes next must be loaded. The append lock is held.
func (t *timer) next(now time.Time) (wait time.Duration, load bool) {
	n := &t.near
	n.wakeAt = 0
	n.launch(now.UnixMilli(), deliverMost)
	if len(n.flight) > 0 {
		return 0, false
	}
	first, ok := n.first()
	more := n.horizon != endOfTime
	switch {
	case !ok && more:
		return 0, true
	case !ok:
		t.nothingLeft()
		n.wakeAt = math.MaxInt64
		return -1, false
	}
	wait = max(1, time.UnixMilli(first.At).Sub(now))
	if more && n.len() < maxNear/4 && wait > loadAhead {
		return 0, true
	}
	n.wakeAt = first.At
	return min(wait, lookAgain), false
}

// nothingLeft corrects the counts: what damage took was never delivered, and so
// not counted down.
func (t *timer) nothingLeft() {
	if t.waiting == 0 {
		return
	}
	for _, tp := range t.b.state.topics {
		t.drop(tp)
	}
}

// load reads on in the index behind the horizon.
func (t *timer) load() error {
	var from record.Due
	below := t.b.log.Written()
	t.b.log.Exclusive(func() { from, below = t.near.loading(), t.b.log.Written() })
	due, end, err := t.scan(from, below, maxNear)
	t.b.log.Exclusive(func() { t.near.take(due, end) })
	return err
}

// flight is messages that are being delivered. There is one, used again and
// again.
type flight struct {
	due   []record.Due // of near.flight
	taken int          // the first of them: read, or lost

	refs   []commitlog.Ref
	out    []outgoing
	bodies [deliverMost]Message // of which out has the bodies only
	room   []byte               // for the bodies
	size   int                  // of all payloads
}

// deliver stores the first messages of the flight in one frame.
func (f *flight) deliver(ctx context.Context, t *timer) error {
	if err := f.read(t); err != nil {
		return err
	}
	t.b.log.Exclusive(func() { f.direct(t) })
	err := f.store(ctx, commitlog.Wait, t)
	if errors.Is(err, ErrFull) {
		// What waits is stored already, and its segments may only go when it has
		// been delivered: a store full of it could never move again.
		err = f.store(ctx, commitlog.Reserved, t)
	}
	if errors.Is(err, errChanged) {
		return nil // again, without those
	}
	if err == nil {
		t.b.arrivedAll(f.out)
	}
	return err
}

// read makes messages of the delayed ones, as many as go into one frame.
func (f *flight) read(t *timer) (err error) {
	clear(f.out)
	f.out, f.room, f.refs = f.out[:0], f.room[:0], f.refs[:0]
	f.taken, f.size = 0, 0
	for _, d := range f.due {
		f.refs = append(f.refs, commitlog.Ref{Position: d.Position})
	}
	t.b.log.Read(f.refs, func(i int, r commitlog.Record, readErr error) bool {
		if readErr != nil && fatal(readErr) {
			err = readErr
			return false
		}
		if readErr == nil && f.size > 0 && f.size+len(r.Payload) > deliverBytes {
			return false
		}
		f.taken = i + 1
		if readErr == nil {
			readErr = f.add(f.due[i], r)
		}
		if readErr != nil {
			t.b.opts.Logger.Warn("delayed message lost", "position", r.Position, "err", readErr)
		}
		return true
	})
	return err
}

// add makes a message of a delayed one.
func (f *flight) add(due record.Due, r commitlog.Record) error {
	var v record.View
	if err := record.DecodeDelayed(r.Payload, &v); err != nil {
		return err
	}
	if v.DeliverAt() != due.At {
		return fmt.Errorf("%w: is due at another time", ErrCorrupt)
	}
	f.size += len(r.Payload)
	m := &f.bodies[len(f.out)]
	m.Body = f.own(v.Body)
	o := outgoing{message: m, bodyHash: commitlog.BodyHash(m.Body)}
	again(&o.head, &v, r)
	o.head.Again.Due = due
	o.head.Again.DeliverAt = 0
	o.tagHash = tagHash(o.head.Tag)
	size, err := o.head.HeadSize()
	o.headSize = size
	if err == nil {
		f.out = append(f.out, o)
	}
	return err
}

// own copies a body.
func (f *flight) own(body []byte) []byte {
	if len(body) > deliverBytes {
		return append([]byte(nil), body...)
	}
	if f.room == nil {
		f.room = make([]byte, 0, deliverBytes)
	}
	n := len(f.room)
	f.room = append(f.room, body...) // within its capacity: all payloads together are
	return f.room[n:len(f.room):len(f.room)]
}

// again fills head with what a delayed message says, to be stored again. It
// stays what it was: it keeps its id and the time it was made.
func again(head *record.Message, v *record.View, r commitlog.Record) {
	v.Unpack(string(v.Text()), head)
	head.BornAt = v.BornAt()
	if head.Again.Identity == (record.Identity{}) {
		head.Again.Identity = record.Identity{Epoch: r.Epoch, Position: r.Position}
	}
}

// direct finds the queues, and drops the messages of topics that are gone. The
// append lock is held.
func (f *flight) direct(t *timer) {
	kept := f.out[:0]
	for i := range f.out {
		o := f.out[i]
		if o.topic = t.b.state.topics[o.head.Topic]; o.topic == nil {
			continue
		}
		t.b.state.grow(o.topic, int(o.head.Queue)+1)
		o.queue = (*o.topic.queues.Load())[o.head.Queue]
		kept = append(kept, o)
	}
	f.out = kept
}

// store appends the messages and moves the mark, in one frame.
func (f *flight) store(ctx context.Context, room commitlog.Room, t *timer) error {
	if len(f.out) == 0 {
		t.b.log.Exclusive(func() { t.near.landed(f.taken) })
		return nil
	}
	end, err := t.b.log.Append(ctx, room, layoutOf(f.out), func(frame *commitlog.Frame) error {
		if t.b.sealed {
			return ErrClosed
		}
		for i := range f.out {
			o := &f.out[i]
			if _, settled := t.near.settled[o.head.Again.Due.Position]; settled || o.topic.deleted.Load() {
				return errChanged
			}
		}
		for i := range f.out {
			t.b.place(frame, &f.out[i])
			t.deliver(f.out[i].topic, f.out[i].head.Again.Due)
		}
		t.near.landed(f.taken)
		t.delivered += int64(len(f.out))
		return nil
	})
	for i := range f.out {
		f.out[i].end = end
	}
	return err
}

// arrivedAll wakes the consumers of messages that are stored: at once, or when
// they are synced.
func (b *Broker) arrivedAll(out []outgoing) {
	arrivedWritten(out)
	var synced []outgoing // one of each queue will do
	for i := range out {
		if out[i].durability != Synced {
			continue
		}
		known := false
		for j := range synced {
			known = known || synced[j].queue == out[i].queue
		}
		if !known {
			synced = append(synced, out[i])
		}
	}
	if len(synced) > 0 {
		b.callback.force(synced, nil)
	}
}
