package mq

import (
	"slices"

	"github.com/pocketmq/mq/consumequeue"
)

// parked is what lanes know besides when their queue holds parked messages (see
// park.go): the messages of a key are not read in the order of the queue, but
// when the key is free. In memory there is one lane per key, with the offset
// that its messages begin at and their number; which of the queue's messages are
// a key's is in the index, where a parked message has the key's hash in place of
// its tag's.
//
// The cursor's next is how far the queue was looked through for that. A lane is
// with a worker, waits for its first message to come again, has messages in
// memory, or is hungry; in that order.
//
// Messages are found in sweeps over the index (sweep.go).
//
// Guarded by group.mu.
type parked struct {
	hungry []*lane // in the sweep
	later  []*lane // hungry too, and not in the sweep
	sweep  int     // its number
	from   Offset
	at     Offset
}

// blocked is what is known of a lane whose first message has failed, or whose
// messages are parked.
type blocked struct {
	cause error // of the last failure

	cursor   *cursor // of the queue that the lane's messages were parked in; nil: they are not
	count    int     // messages there and not in memory
	next     Offset  // none of them is before
	head     Offset  // the first of them, once it has failed since it was parked,
	attempts int     // and the number of its next delivery since then
	out      int     // the sweep that the lane is out of
	hungry   bool    // in one of parked's lists
	feeding  bool    // not any more: messages are being claimed and read for it
	place    int     // in parked.hungry
}

// blockedState returns the lane's, making it if need be.
func (ln *lane) blockedState() *blocked {
	if ln.blocked == nil {
		ln.blocked = &blocked{}
	}
	return ln.blocked
}

func (ln *lane) parkedCount() int {
	if ln.blocked == nil {
		return 0
	}
	return ln.blocked.count
}

// knowParkedLocked sees to it that all parked messages of this queue are known
// to their lanes: those that were there when the cursor began, and those that
// came since. Before that nobody may add messages to a lane, for others might
// come before them. That messages cannot be read just now is no reason to wait: to
// know of them takes their entries only. False: it cannot be done now. group.mu may
// be let go meanwhile.
func (l *lanes) knowParkedLocked() bool {
	c := l.twin
	if l.parked != nil {
		c = l.cursor
	}
	if c == nil || c.next >= c.queue.entries.End() || c.lanes.twin != nil && c.lanes.twin.lanes.parking {
		return true // who parks looks at them himself
	}
	var err error
	for more := true; more && err == nil && c.next < c.queue.entries.End() && !c.retired; {
		if c.seeking {
			return false // who looks for its messages goes on here
		}
		more, err = c.lookThroughLocked()
	}
	if err != nil {
		l.cursor.unreadableLocked(err)
	}
	if twin := c.lanes.twin; twin != nil {
		twin.scheduleLocked() // it may have waited for this
	}
	c.scheduleLocked()
	return err == nil
}

// lookThroughLocked notes which lanes the next parked messages belong to, and
// reports whether there may be more. group.mu is let go afterwards, so that others
// have their turn. All that is parked was as durable as its topic asks for: it is
// read as soon as it is written.
func (c *cursor) lookThroughLocked() (more bool, err error) {
	g := c.group
	seen := c.next
	gone := c.passTrimmedLocked(nil)
	gone = append(gone, c.noteTrimmedLocked(seen)...)
	if c.next > seen {
		c.from = c.next // what lies between is in gone
	}
	var buf [256]consumequeue.Entry
	n, err := c.queue.read(c.next, buf[:])
	if err != nil && c.next >= c.queue.entries.Min() {
		return false, err // else it was trimmed at this moment
	}
	mark, more := g.b.log.Written(), true
	for _, e := range buf[:n] {
		off := c.next
		if more = visible(e, mark); !more {
			break
		}
		if e.Size == 0 && off >= c.sound && !c.doneAt(off) {
			c.hole = true
			break
		}
		c.next++
		switch {
		case c.doneAt(off):
		case e.Size == 0:
			gone = append(gone, c.missLocked(span{From: off, To: off + 1}, ErrCorrupt))
		default:
			c.lanes.countLocked(e.Tag, off)
		}
	}
	err = c.searchHolesLocked()
	g.mu.Unlock()
	g.reportMissed(c.queue, gone)
	g.mu.Lock()
	if len(gone) > 0 && c.owner != nil {
		g.ackSkippedLocked(c)
	}
	return more, err
}

// countLocked notes one more parked message of a key.
func (l *lanes) countLocked(key uint64, off Offset) {
	ln := l.byKey[key]
	if ln == nil {
		ln = l.newLaneLocked(key)
	}
	s := ln.blockedState()
	s.cursor = l.cursor
	if s.count == 0 {
		s.next = off
	}
	s.count++
	l.readyLane(ln)
	if l.twin == nil {
		return
	}
	if later := l.twin.lanes.byKey[key]; later != nil && !later.behind {
		l.twin.lanes.waitBehindLocked(later)
	}
}

// waitBehindLocked has a lane wait for the parked messages of its key.
func (l *lanes) waitBehindLocked(ln *lane) {
	ln.behind = true
	if ln.ready {
		ln.ready = false
		l.ready = slices.DeleteFunc(l.ready, func(other *lane) bool { return other == ln })
	}
	l.holdLocked(ln)
}

// noteTrimmedLocked returns what retention has dropped of the parked messages below
// seen since they were looked through.
func (c *cursor) noteTrimmedLocked(seen Offset) (gone []missed) {
	from, to := c.from, min(c.queue.entries.Min(), seen)
	if from >= to {
		return nil
	}
	c.from = to
	var left []span
	c.group.b.log.Exclusive(func() {
		if sub := c.group.subs[c.queue.topic.id]; sub != nil {
			left = sub.progress(c.queue.id).open(from, to)
		}
	})
	for _, s := range left {
		gone = append(gone, c.missLocked(s, nil))
	}
	return gone
}

// resumeLocked lets the cursor go on after a pause.
func (c *cursor) resumeLocked() {
	c.waiting = false
	if c.lanes != nil {
		c.lanes.later = false
	}
}

// twinLocked connects the group's cursor on a queue with the one on the queue
// that its messages are parked in, or come from.
func (g *group) twinLocked(c *cursor) {
	t, id := c.queue.topic, int(c.queue.id)
	other := ParkedTopic(g.name, t.name)
	if t.parked {
		from, ok := parkedFrom(g.name, t.name)
		if !ok {
			return // another group's: a topic like others
		}
		c.lanes.parked, other = &parked{}, from
	}
	for ot, gt := range g.topics {
		if ot.name == other && !ot.deleted.Load() && id < len(gt.cursors) && gt.cursors[id].lanes != nil {
			twin := gt.cursors[id]
			c.lanes.twin, twin.lanes.twin = twin, c
		}
	}
}

// partLocked undoes twinLocked: what waited for parked messages waits no more.
func (l *lanes) partLocked() {
	if l.twin == nil {
		return
	}
	other := l.twin.lanes
	l.twin, other.twin = nil, nil
	for _, from := range []*lanes{l, other} {
		from.releaseLocked()
	}
}

// releaseLocked ends the wait for parked messages.
func (l *lanes) releaseLocked() {
	for _, ln := range l.byKey {
		if ln.behind {
			ln.behind = false
			l.restLocked(ln)
		}
	}
	l.cursor.scheduleLocked()
}
