package mq

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// Queue names a message queue.
type Queue struct {
	Topic string
	ID    QueueID
}

// String returns the topic and the number of the queue: "OrderTopic:2".
func (q Queue) String() string { return fmt.Sprintf("%s:%d", q.Topic, q.ID) }

// queue is the living form of a message queue.
type queue struct {
	topic   *topic
	id      QueueID
	entries *consumequeue.Queue

	// Entries below filed were in files when the store was opened, which may be
	// damaged; all they can point at lies below logged.
	filed  Offset
	logged coord.Position

	// readers are the groups' cursors on this queue, so that a send can wake
	// who waits for it. An immutable slice, replaced under Broker.members.
	readers atomic.Pointer[[]*cursor]
}

func (q *queue) name() Queue { return Queue{Topic: q.topic.name, ID: q.id} }

// arrived wakes the groups that wait for this queue. It is called when a
// message has become visible, and costs two loads when nobody waits.
//
// No wake-up is lost: a cursor arms itself and then looks at the queue once
// more (cursor.sleepLocked); a sender publishes its message and then looks at
// armed. Whatever the order, one of the two sees the other.
func (q *queue) arrived() {
	for _, c := range *q.readers.Load() {
		if c.armed.Load() && c.armed.CompareAndSwap(true, false) {
			c.wake()
		}
	}
}

// read is entries.Read, with a hole for every entry that cannot be true: beyond
// the mark it would look like a message that is yet to come.
func (q *queue) read(from Offset, dst []consumequeue.Entry) (int, error) {
	n, err := q.entries.Read(from, dst)
	for i := range dst[:min(n, int(max(q.filed-from, 0)))] {
		if e := &dst[i]; e.Position < 0 || e.Position > q.logged-coord.Position(e.Size) {
			*e = consumequeue.Entry{}
		}
	}
	return n, err
}

// stored is how many messages there are. The start comes first: later it may have
// passed an end that was read before it.
func (q *queue) stored() int64 {
	start := q.entries.Min()
	return int64(q.entries.End() - start)
}

// addReader and removeReader change who is woken. Broker.members is held.
func (q *queue) addReader(c *cursor) {
	readers := append([]*cursor(nil), *q.readers.Load()...)
	readers = append(readers, c)
	q.readers.Store(&readers)
}

func (q *queue) removeReader(c *cursor) {
	var readers []*cursor
	for _, r := range *q.readers.Load() {
		if r != c {
			readers = append(readers, r)
		}
	}
	q.readers.Store(&readers)
}

// mark is how far the log must reach past a message for consumers to see it.
func (b *Broker) mark(t *topic) coord.Position {
	if t.durable() == Written {
		return b.log.Written()
	}
	return b.log.Synced()
}

// visible reports whether the entry's record lies wholly before the mark. Marks
// are ends of frames, so a record of a batch is visible when its frame is.
func visible(e consumequeue.Entry, mark coord.Position) bool {
	return e.Position+coord.Position(e.Size) <= mark
}

// queueOf finds a queue by name.
func (b *Broker) queueOf(name Queue) (*queue, error) {
	t, err := b.knownTopic(name.Topic)
	if err != nil {
		return nil, err
	}
	queues := *t.queues.Load()
	if name.ID < 0 || int(name.ID) >= len(queues) {
		return nil, fmt.Errorf("%w: %v, topic has %d", ErrQueueNotFound, name, len(queues))
	}
	return queues[name.ID], nil
}

// OffsetAt returns the offset of the first message of the queue that was stored
// at t or later; the end of the queue if there is none. Errors:
// ErrTopicNotFound, ErrQueueNotFound.
func (b *Broker) OffsetAt(name Queue, t time.Time) (Offset, error) {
	if err := b.alive(); err != nil {
		return 0, err
	}
	q, err := b.queueOf(name)
	if err != nil {
		return 0, err
	}
	return b.offsetAt(q, t)
}

// StoredAt returns when the message at an offset of the queue was stored: of a
// group's Committed offset, since when its oldest message waits. It reads that one
// message. Errors: ErrTopicNotFound, ErrQueueNotFound, ErrOffsetOutOfRange,
// ErrMessageNotFound (it is dropped or damaged, or to come, at the queue's end),
// ErrClosed.
func (b *Broker) StoredAt(name Queue, off Offset) (time.Time, error) {
	if err := b.alive(); err != nil {
		return time.Time{}, err
	}
	q, err := b.queueOf(name)
	if err != nil {
		return time.Time{}, err
	}
	if end := q.entries.End(); off < 0 || off > end {
		return time.Time{}, fmt.Errorf("%w: %v offset %d, the queue ends at %d", ErrOffsetOutOfRange, name, off, end)
	}
	ms, ok, err := b.storedAt(q, off)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %v offset %d", ErrMessageNotFound, name, off)
	}
	if err != nil {
		return time.Time{}, err
	}
	return time.UnixMilli(ms), nil
}

// offsetAt searches by halves: StoredAt never decreases along a queue, unless the
// system's clock was set back while the store was closed. A message that is gone
// (lost, damaged, or dropped meanwhile) is as old as the one before it. One that
// could not be read just now ends the search, or a group would be moved past all
// that is there.
func (b *Broker) offsetAt(q *queue, t time.Time) (Offset, error) {
	ms := ceilMilli(t) // stored times have whole milliseconds
	low, high := q.entries.Min(), q.entries.End()
	for low < high {
		mid := low + (high-low)/2
		at, stored, ok, err := b.storedUpTo(q, low, mid)
		if err != nil {
			return 0, err
		}
		if !ok || stored < ms {
			low = mid + 1
		} else {
			high = at
		}
	}
	return low, nil
}

// storedUpTo returns the last offset from low up to off that can be read, and
// when it was stored; false if there is none.
func (b *Broker) storedUpTo(q *queue, low, off Offset) (at Offset, ms int64, ok bool, err error) {
	for at = off; at >= low && !ok && err == nil; at-- {
		ms, ok, err = b.storedAt(q, at)
	}
	return at + 1, ms, ok, err
}

// storedAt returns when the message at off was stored, false if it is gone. An
// error says that it could not be read just now.
func (b *Broker) storedAt(q *queue, off Offset) (ms int64, ok bool, err error) {
	var entry [1]consumequeue.Entry
	n, err := q.read(off, entry[:])
	switch {
	case err != nil && b.isClosed.Load():
		return 0, false, ErrClosed
	case err != nil && off >= q.entries.Min() && !q.topic.deleted.Load():
		return 0, false, err
	case n == 0 || err != nil || entry[0].Size == 0:
		return 0, false, nil
	}
	ref := [1]commitlog.Ref{{Position: entry[0].Position, Size: entry[0].Size}}
	b.log.Read(ref[:], func(_ int, r commitlog.Record, readErr error) bool {
		var v record.View
		if readErr == nil && record.DecodeMessage(r.Payload, &v) == nil {
			ms, ok = v.StoredAt, true
		} else if readErr != nil && b.log.Err() == nil && fatal(readErr) {
			err = readErr
		}
		return false
	})
	return ms, ok, err
}
