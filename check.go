package mq

import (
	"context"
	"errors"
	"fmt"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// maxFlaws is how many flaws Check lists before it stops looking: of a store
// that is badly damaged nobody reads more.
const maxFlaws = 20

// errEnough ends a scan that found maxFlaws.
var errEnough = errors.New("mq: check: too many flaws")

// Check reads the whole store and compares its parts with each other:
//
//   - every entry of every message queue leads to a whole message of that
//     topic, queue, offset and tag;
//   - every message in the log has its entry, so that offsets are dense. Offsets
//     that no message in the log has (it was lost to damage) are no flaw;
//   - keys lead to the messages that have them (of large stores, a sample);
//   - what groups have consumed lies within their queues;
//   - the windows of topics have the last messages with a DedupKey, and no others;
//   - as many messages wait for their time as are counted, and they are found by
//     it (of many, a sample).
//
// Nil means that all of this holds. What is damaged comes back joined, at most
// 20 flaws, each of which is an ErrCorrupt. Senders and consumers may go on
// meanwhile: what they add after the call began is not looked at. It reads as
// much as is stored, which takes a second per few hundred megabytes.
//
// Errors: ErrCorrupt, ErrClosed, that of ctx.
func (b *Broker) Check(ctx context.Context) error {
	if err := b.alive(); err != nil {
		return err
	}
	c := checker{b: b, ctx: ctx}
	c.begin()
	err := c.allEntries()
	if err == nil {
		err = b.log.Scan(b.log.Start(), c.written, c.record)
	}
	if err == nil {
		c.counts()
		for _, w := range c.dedup {
			c.notSent(w, c.written)
		}
	}
	switch {
	case errors.Is(err, errEnough) || err == nil:
	case errors.Is(err, ErrCorrupt) || errors.Is(err, commitlog.ErrNotFound):
		c.flaws = append(c.flaws, err)
	default:
		return err
	}
	return errors.Join(c.flaws...)
}

// checker is one run of Check.
type checker struct {
	b       *Broker
	ctx     context.Context // of the one call
	written coord.Position  // nothing behind it is looked at
	queues  []checkedQueue
	flaws   []error

	keyed  int // messages with keys so far
	stride int // of them, every so many are looked up

	start   coord.Position // of the log when the check began
	waiting waitingState   // what is counted
	found   map[coord.TopicID]int64
	delayed int // found so far
	dedup   map[coord.TopicID]*checkedWindow
}

// checkedQueue is a queue and where it ended when the check began.
type checkedQueue struct {
	*queue
	end Offset
}

// begin notes what there is at one moment, and checks what needs no reading.
func (c *checker) begin() {
	c.stride = 1
	s := &c.b.state
	c.b.log.Exclusive(func() {
		c.written, c.start = c.b.log.Written(), c.b.log.Start()
		c.waiting, c.found = c.b.timer.capture(), map[coord.TopicID]int64{}
		c.dedup = map[coord.TopicID]*checkedWindow{}
		for _, t := range s.topics {
			c.windows(t)
			for _, q := range *t.queues.Load() {
				c.queues = append(c.queues, checkedQueue{q, q.entries.End()})
			}
		}
		for _, g := range s.groups {
			for id, sub := range g.subs {
				if t := s.topics[id]; t == nil {
					c.flaw("group %q has progress in a topic that does not exist (%d)", g.name, id)
				} else {
					c.progress(g, t, sub)
				}
			}
		}
	})
}

// flaw notes one.
func (c *checker) flaw(format string, args ...any) {
	c.flaws = append(c.flaws, fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...)))
}

// enough says why to stop, if there is a reason.
func (c *checker) enough() error {
	if len(c.flaws) >= maxFlaws {
		return errEnough
	}
	return c.ctx.Err()
}

// progress checks what a group has got to in a topic. The append lock is held.
func (c *checker) progress(g *group, t *topic, sub *subscription) {
	queues := *t.queues.Load()
	if len(sub.queues) > len(queues) {
		c.flaw("group %q has progress in %d queues of %q, which has %d", g.name, len(sub.queues), t.name, len(queues))
		return
	}
	for id := range sub.queues {
		p, end := &sub.queues[id], queues[id].entries.End()
		at := p.committed
		if at < 0 || at > end {
			c.flaw("group %q has consumed up to %d of %v, which ends at %d", g.name, at, queues[id].name(), end)
		}
		for i, s := range p.ahead {
			// Spans that touch would have been joined.
			if s.From <= at || s.To <= s.From || s.To > end {
				c.flaw("group %q: span %d of %v is [%d,%d), behind %d, end %d", g.name, i, queues[id].name(), s.From, s.To, at, end)
			}
			at = s.To
		}
	}
}

func (c *checker) allEntries() error {
	for _, q := range c.queues {
		if err := c.entries(q); err != nil {
			return err
		}
	}
	return nil
}

// entries checks that the entries of a queue lead to its messages.
func (c *checker) entries(q checkedQueue) error {
	var buf [64]consumequeue.Entry
	var refs [len(buf)]commitlog.Ref
	var offsets [len(buf)]Offset
	for off := q.entries.Min(); off < q.end; {
		if err := c.enough(); err != nil {
			return err
		}
		n, err := q.entries.Read(off, buf[:min(Offset(len(buf)), q.end-off)])
		if errors.Is(err, consumequeue.ErrTrimmed) {
			off = q.entries.Min() // retention goes on meanwhile
			continue
		}
		if errors.Is(err, consumequeue.ErrDropped) {
			return nil
		}
		if err != nil {
			c.flaw("%v offset %d: %v", q.name(), off, err)
			return nil
		}
		used := 0
		for i := range buf[:n] {
			if !buf[i].Hole() {
				refs[used] = commitlog.Ref{Position: buf[i].Position, Size: buf[i].Size}
				offsets[used], buf[used] = off+Offset(i), buf[i]
				used++
			}
		}
		c.resolve(q, offsets[:used], refs[:used], buf[:used])
		off += Offset(n)
	}
	return nil
}

// resolve checks that the refs, which the entries of these offsets name, are the
// queue's messages.
func (c *checker) resolve(q checkedQueue, offsets []Offset, refs []commitlog.Ref, entries []consumequeue.Entry) {
	c.b.log.Read(refs, func(i int, r commitlog.Record, err error) bool {
		var v record.View
		if err == nil {
			err = decodeAs(q.queue, offsets[i], r, &v)
		}
		switch {
		case refs[i].Position < c.b.log.Start() || offsets[i] < q.entries.Min() || q.topic.deleted.Load():
			return true // dropped meanwhile
		case err != nil:
			c.flaw("%v offset %d, position %d: %v", q.name(), offsets[i], refs[i].Position, err)
		case entries[i].Tag != q.topic.entryTag(&v) || entries[i].Size != r.Size:
			c.flaw("%v offset %d: the entry's tag or size is not the message's", q.name(), offsets[i])
		}
		return c.enough() == nil
	})
}

// record checks a record of the log.
func (c *checker) record(r commitlog.Record) error {
	if err := c.enough(); err != nil {
		return err
	}
	var v record.View
	var err error
	switch record.KindOf(r.Payload) {
	case record.KindMessage:
		err = record.DecodeMessage(r.Payload, &v)
	case record.KindDelayed:
		if err = record.DecodeDelayed(r.Payload, &v); err == nil {
			c.sentOnce(&v, r.Position)
			c.waits(&v, r.Position)
			return nil
		}
	case record.KindSettle:
		var s record.Settle
		if s, err = record.DecodeSettle(r.Payload); err == nil {
			c.settled(s)
			return nil
		}
	default:
		return nil
	}
	if err != nil {
		c.flaw("position %d: %v", r.Position, err)
		return nil
	}
	c.sentOnce(&v, r.Position)
	c.message(&v, r.Position)
	return nil
}

// waits checks a message that waits, or has waited.
func (c *checker) waits(v *record.View, at coord.Position) {
	due := record.Due{At: v.DeliverAt(), Position: at}
	if due.Compare(c.waiting.mark) <= 0 {
		return
	}
	c.found[v.Topic]++
	c.delayed++
	if c.delayed > keysPerStride && c.delayed%keysPerStride != 0 {
		return
	}
	found, err := c.b.timer.counts(due)
	gone := false
	c.b.log.Exclusive(func() { gone = c.b.state.topics[v.Topic] == nil })
	if (err != nil || !found) && !gone && at >= c.b.log.Start() {
		c.flaw("position %d: a message that waits until %d is not found by its time (%v)", at, due.At, err)
	}
}

// settled counts down what is settled of that.
func (c *checker) settled(s record.Settle) {
	if s.Due.Compare(c.waiting.mark) <= 0 || s.Due.Position < c.start {
		return
	}
	if counted, err := c.b.timer.counts(s.Due); err == nil && !counted {
		return // damage took the message
	}
	c.found[s.Topic]--
}

// counts compares how many messages wait with how many are counted.
func (c *checker) counts() {
	if c.b.log.Start() != c.start {
		return // some were carried forward meanwhile
	}
	c.b.log.Exclusive(func() {
		for id, t := range c.b.state.topics {
			if c.found[id] != c.waiting.counts[id] {
				c.flaw("topic %q: %d messages wait for their time, and %d are counted", t.name, c.found[id], c.waiting.counts[id])
			}
		}
	})
}

// message checks that a message of the log has its place in the indexes.
func (c *checker) message(v *record.View, at coord.Position) {
	var q *queue
	c.b.log.Exclusive(func() {
		if t := c.b.state.topics[v.Topic]; t != nil && int(v.Queue) < len(*t.queues.Load()) {
			q = (*t.queues.Load())[v.Queue]
		}
	})
	if q == nil || v.Offset < q.entries.Min() {
		return // of a deleted topic, or dropped
	}
	var e [1]consumequeue.Entry
	n, err := q.entries.Read(v.Offset, e[:])
	if n == 1 && err == nil && e[0].Position == at {
		c.keys(q, v, at)
		return
	}
	if v.Offset < q.entries.Min() || q.topic.deleted.Load() {
		return
	}
	c.flaw("%v offset %d: the message at position %d has no entry, but %+v (%v)", q.name(), v.Offset, at, e[0], err)
}

// keysPerStride is after how many lookups only every second further one is made:
// a lookup reads all of the index that is in memory.
const keysPerStride = 128

// keys checks that a message is found under its keys.
func (c *checker) keys(q *queue, v *record.View, pos coord.Position) {
	if v.Keys() == 0 {
		return
	}
	c.keyed++
	if c.keyed%c.stride != 0 {
		return
	}
	if c.keyed >= c.stride*keysPerStride {
		c.stride *= 2
	}
	for fs := v.Fields(); fs.Next(); {
		if fs.Field.Type != record.FieldKey {
			continue
		}
		found := false
		err := c.b.keys.Lookup(keyHash(q.topic.id, string(fs.Field.Value)), func(at coord.Position) bool {
			found = at == pos
			return !found && at > pos // newest first
		})
		if err == nil && !found && pos >= c.b.log.Start() {
			err = errors.New("not in the key index")
		}
		if err != nil {
			c.flaw("%v offset %d: key %.40q: %v", q.name(), v.Offset, fs.Field.Value, err)
		}
	}
}
