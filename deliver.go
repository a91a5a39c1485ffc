package mq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/record"
)

const (
	// What one frame delivers, at most: enough that the frame costs little for
	// each, few enough that senders do not wait for it.
	deliverMost  = 256
	deliverBytes = 256 * kib

	// What is read at once, at most. Messages that are due together may lie
	// anywhere in the log; of many, several lie in each block that is read.
	flightMost  = maxNear
	flightBytes = 16 * mib

	// launchMost is how many are taken out under the lock at once.
	launchMost = 1 << 12

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
	if t.resting {
		return
	}
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
	f := newFlight()
	for ctx.Err() == nil {
		wait, err := t.step(ctx, f)
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
	for now, n := time.Now(), -1; n < len(f.due) && len(f.due) < f.most || n < 0; {
		n = len(f.due)
		t.b.log.Exclusive(func() {
			wait, load = t.next(now, f.most)
			f.due = append(f.due[:0], t.near.flight...)
		})
	}
	switch {
	case load:
		return 0, t.load()
	case len(f.due) == 0:
		return wait, nil
	}
	err = f.deliver(ctx, t)
	f.clear()
	return 0, t.b.noted(err)
}

// next takes out what is due by now, or says how long nothing is, or that what
// comes next must be loaded. The append lock is held.
func (t *timer) next(now time.Time, most int) (wait time.Duration, load bool) {
	n := &t.near
	n.wakeAt = 0
	n.launch(now.UnixMilli(), min(most, len(n.flight)+launchMost))
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

// flight is messages that are being delivered, or carried forward. What it has
// allocated is used again.
type flight struct {
	due  []record.Due
	most int // due at once: as many as are thought to be flightBytes

	refs     []commitlog.Ref
	order    []int     // of due, by position
	payloads []payload // of due
	room     []byte    // of theirs, what is left
	size     int       // of all of them
	done     int       // the first of due: stored, lost or gone

	// One frame.
	taken  int // of due, behind done
	out    []outgoing
	bodies [deliverMost]Message // of which out has the bodies only
}

// payload is a record that was read.
type payload struct {
	bytes []byte // nil: lost
	epoch uint32
}

func newFlight() *flight { return &flight{most: deliverMost} }

// deliver stores the messages of the flight, one frame after another.
func (f *flight) deliver(ctx context.Context, t *timer) error {
	if err := f.read(t); err != nil {
		return err
	}
	for f.done < len(f.due) {
		f.frame(t)
		t.b.log.Exclusive(func() { f.direct(t) })
		err := f.store(ctx, commitlog.Wait, t)
		if errors.Is(err, ErrFull) {
			// What waits is stored already, and its segments may only go when it has
			// been delivered: a store full of it could never move again.
			err = f.store(ctx, commitlog.Reserved, t)
		}
		if errors.Is(err, errChanged) {
			continue // again, without those
		}
		if err != nil {
			return err
		}
		t.b.arrivedAll(f.out)
		f.done += f.taken
	}
	return nil
}

// read copies the records of the flight, in the order in which they lie in the
// log. If they are more than thought, it keeps to the first.
func (f *flight) read(t *timer) error {
	f.done = 0
	for {
		full, err := f.readAll(t)
		if err != nil {
			return err
		}
		if !full {
			f.most = min(2*f.most, flightMost)
			return nil
		}
		f.most = max(1, len(f.due)/8)
		f.due = f.due[:f.most]
	}
}

// readAll is read for all or, if there is not enough room, none of them.
func (f *flight) readAll(t *timer) (full bool, err error) {
	f.refs, f.order, f.size = f.refs[:0], f.order[:0], 0
	clear(f.payloads)
	f.payloads = append(f.payloads[:0], make([]payload, len(f.due))...)
	for i := range f.due {
		f.order = append(f.order, i)
	}
	slices.SortFunc(f.order, func(i, j int) int { return cmp.Compare(f.due[i].Position, f.due[j].Position) })
	for _, i := range f.order {
		f.refs = append(f.refs, commitlog.Ref{Position: f.due[i].Position})
	}
	t.b.log.Read(f.refs, func(k int, r commitlog.Record, readErr error) bool {
		switch i := f.order[k]; {
		case readErr != nil && fatal(readErr):
			err = readErr
		case readErr != nil:
			f.lost(t, i, readErr)
		case len(f.due) > 1 && f.size+len(r.Payload) > flightBytes:
			full = true
		default:
			f.size += len(r.Payload)
			f.payloads[i] = payload{f.keep(r.Payload), r.Epoch}
		}
		return err == nil && !full
	})
	return full, err
}

func (f *flight) lost(t *timer, i int, why error) {
	t.b.opts.Logger.Warn("delayed message lost", "position", f.due[i].Position, "err", why)
}

// keep copies a payload.
func (f *flight) keep(b []byte) []byte {
	if len(b) > len(f.room) {
		if len(b) > deliverBytes/8 {
			return append([]byte(nil), b...)
		}
		f.room = make([]byte, deliverBytes)
	}
	own := f.room[:len(b):len(b)]
	f.room = f.room[len(b):]
	copy(own, b)
	return own
}

// clear lets go of the messages.
func (f *flight) clear() {
	clear(f.payloads)
	clear(f.out)
	clear(f.bodies[:])
	f.due = f.due[:0]
}

// frame makes messages of the next records, as many as go into one frame.
func (f *flight) frame(t *timer) {
	clear(f.out)
	f.out, f.taken = f.out[:0], 0
	size := 0
	for i := f.done; i < len(f.due) && len(f.out) < deliverMost; i++ {
		p := f.payloads[i]
		if size > 0 && size+len(p.bytes) > deliverBytes {
			break
		}
		size += len(p.bytes)
		f.taken++
		if p.bytes == nil {
			continue
		}
		if err := f.add(f.due[i], p); err != nil {
			f.lost(t, i, err)
		}
	}
}

// add makes a message of a delayed one.
func (f *flight) add(due record.Due, p payload) error {
	var v record.View
	if err := record.DecodeDelayed(p.bytes, &v); err != nil {
		return err
	}
	if v.DeliverAt() != due.At {
		return fmt.Errorf("%w: is due at another time", ErrCorrupt)
	}
	m := &f.bodies[len(f.out)]
	m.Body = v.Body
	o := outgoing{message: m, bodyHash: commitlog.BodyHash(m.Body)}
	// It stays what it was: it keeps its id and the time it was made.
	v.Unpack(string(v.Text()), &o.head)
	o.head.BornAt = v.BornAt()
	a := o.head.Again
	if a.Identity == (record.Identity{}) {
		a.Identity = record.Identity{Epoch: p.epoch, Position: due.Position}
	}
	a.Due, a.DeliverAt = due, 0
	o.tagHash = tagHash(o.head.Tag)
	size, err := o.head.HeadSize()
	o.headSize = size
	if err == nil {
		f.out = append(f.out, o)
	}
	return err
}

// direct finds the queues, and drops what was settled meanwhile or is of a topic
// that is gone. The append lock is held.
func (f *flight) direct(t *timer) {
	kept := f.out[:0]
	for i := range f.out {
		o := f.out[i]
		o.topic = t.b.state.topics[o.head.Topic]
		if _, settled := t.near.settled[o.head.Again.Due.Position]; settled || o.topic == nil {
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
