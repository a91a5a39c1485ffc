package mq

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
)

// cursor is a group's delivery from one queue: what is handed out, and not yet
// acknowledged, counts from here. It lives while members subscribe to the
// topic.
//
//	done             out (being handled, or waiting to come again)
//	........committed[##...#.#####]next ............ visible ... end
//
// A cursor is in one of four states, all changes under group.mu:
//
//	queued    in its owner's list of cursors with something to hand out
//	armed     at the end of what is visible: the next arrival wakes it
//	blocked   as much is out as may be: an acknowledgement schedules it again
//	idle      no owner, paused, or retired
type cursor struct {
	group *group
	queue *queue
	topic *groupTopic

	// armed is set under group.mu and taken by whoever wakes, without it. See
	// queue.arrived.
	armed atomic.Bool

	// current is start, for workers that want to know between two messages
	// whether theirs are still wanted. Changed under group.mu.
	current atomic.Int64

	// Guarded by group.mu.
	owner    *member
	start    coord.Position      // the record that offsets count from; acks name it
	next     Offset              // first offset not yet handed out
	done     []span              // acknowledged ahead of next, and not by who has the queue now
	suspects []hand              // in hand when the process ended uncleanly, or received before
	unburied map[Offset]unburied // by where they are; nil: none
	redo     []claim             // to be handed out before next: due retries, and what was given back
	sound    Offset              // holes from next up to it are real: the log was searched for their messages
	hole     bool                // next is one that was not searched for yet
	skipped  []span              // filtered out or missing, not yet in an ack
	out      int                 // messages handed out and not acknowledged
	bytes    int64               // their size in the log
	queued   bool
	paused   bool
	retired  bool
	waiting  bool   // its file could not be read: until group.retries says so
	seeking  bool   // somebody searches the log for messages from next on; waiting, too
	ackDue   bool   // skipped is in group.retries, to be acknowledged
	lanes    *lanes // of an ordered group
	turn     bool   // of new messages, see turnOfNewLocked

	// Of a pull consumer's queue, for Commit without messages.
	era     int    // rises when next is moved: what was being read is not next any more
	from    Offset // where next was moved to
	sought  bool   // by Seek
	before  []span // returned before that by a Poll, and not known to be acknowledged
	reading []span // a Poll is reading them
}

// claim is a message to be handed out.
type claim struct {
	offset  Offset
	entry   consumequeue.Entry
	attempt int
}

// missed is offsets that a cursor went past without reason of its own.
type missed struct {
	span
	err error
}

// startLocked moves next to where the cursor goes on.
func (c *cursor) startLocked(off Offset) {
	c.next, c.from, c.reading = off, off, nil
	c.sound = off // what lies between next and sound was searched, and nothing else
	c.era++
}

// wake is called by a sender that took armed.
func (c *cursor) wake() {
	g := c.group
	g.mu.Lock()
	c.scheduleLocked()
	g.mu.Unlock()
}

// scheduleLocked puts the cursor where it belongs: in its owner's list if it
// has something to hand out, else asleep.
func (c *cursor) scheduleLocked() {
	if c.queued || c.retired || c.paused || c.owner == nil {
		return
	}
	if c.readyLocked() || !c.blockedLocked() && !c.sleepLocked() {
		c.armed.Store(false)
		c.queued = true
		c.owner.readyLocked(c)
	}
}

// readyLocked reports whether there is something to hand out.
func (c *cursor) readyLocked() bool {
	if c.lanes != nil && (c.lanes.readyLocked() || c.parksLocked()) {
		return true
	}
	if c.blockedLocked() {
		return false
	}
	return len(c.redo) > 0 || !c.fullLocked() && (c.moreLocked() || c.lanes != nil && c.lanes.hungryLocked())
}

// blockedLocked reports whether the cursor waits for something that schedules
// it when it is done: the fetch of an ordered group, or acknowledgements that
// make room.
func (c *cursor) blockedLocked() bool {
	return c.waiting || c.lanes != nil && c.lanes.fetching || len(c.redo) == 0 && c.fullLocked()
}

// fullLocked reports whether as much is out as may be.
func (c *cursor) fullLocked() bool {
	return c.out >= c.owner.maxOut || c.bytes >= c.owner.maxOutBytes
}

// moreLocked looks for a visible entry behind next.
func (c *cursor) moreLocked() bool {
	entries := c.queue.entries
	if c.next < entries.Min() {
		return true // to be missed
	}
	if c.next >= entries.End() {
		return false
	}
	var e [1]consumequeue.Entry
	n, err := c.queue.read(c.next, e[:])
	return err != nil || n == 1 && visible(e[0], c.group.b.mark(c.queue.topic))
}

// sleepLocked arms the cursor, so that the next arrival wakes it. It looks once
// more afterwards: what arrived in between would wake nobody. False if there
// was something.
func (c *cursor) sleepLocked() bool {
	c.armed.Store(true)
	return !c.moreLocked() || !c.armed.CompareAndSwap(true, false)
}

// maxScan is how many index entries one claim looks at: RocketMQ's
// maxFilterMessageSize of 16000 bytes is 800 entries of 20 bytes.
const maxScan = 800

// claimLocked takes up to limit messages, and about maxBytes, into claims; what
// it goes past it notes in skipped and returns in gone.
func (c *cursor) claimLocked(claims []claim, limit int, maxBytes int64) (taken []claim, gone []missed) {
	if c.turnOfNewLocked() {
		if taken, gone = c.claimNewLocked(claims, limit, maxBytes); len(taken) > 0 || len(gone) > 0 {
			return taken, gone
		}
	}
	claims, maxBytes = c.claimAgainLocked(claims, limit, maxBytes)
	return c.claimNewLocked(claims, limit, maxBytes)
}

// turnOfNewLocked reports whether what was never handed out comes before what
// comes again. For simple consumers they take turns: one who gives a message
// back for ever would get nothing else otherwise.
func (c *cursor) turnOfNewLocked() bool {
	if !c.owner.kind.simple || len(c.redo) == 0 {
		return false
	}
	c.turn = !c.turn
	return c.turn
}

// claimNewLocked is claimLocked of what was never handed out.
func (c *cursor) claimNewLocked(claims []claim, limit int, maxBytes int64) (taken []claim, gone []missed) {
	if c.fullLocked() {
		return claims, nil
	}
	// About maxOutBytes: one message may go beyond it, or a large one would
	// never be handed out.
	limit = len(claims) + min(limit-len(claims), c.owner.maxOut-c.out)
	maxBytes = min(maxBytes, c.owner.maxOutBytes-c.bytes)
	gone = c.passTrimmedLocked(gone)
	var buf [64]consumequeue.Entry
	mark := c.group.b.mark(c.queue.topic)
	for scanned := 0; scanned < maxScan && len(claims) < limit && maxBytes > 0; {
		n, err := c.queue.read(c.next, buf[:min(len(buf), limit-len(claims))])
		if err != nil && c.next >= c.queue.entries.Min() && !c.queue.topic.deleted.Load() {
			c.unreadableLocked(err) // else it was trimmed or dropped at this moment
		}
		if err != nil || n == 0 {
			break
		}
		for i := range buf[:n] {
			if !visible(buf[i], mark) {
				return claims, gone
			}
			if maxBytes <= 0 {
				break
			}
			off := c.next
			delivered, suspect := c.suspectLocked(off)
			if suspect && len(claims) > 0 {
				return claims, gone // it is handed out alone
			}
			if buf[i].Size == 0 && off >= c.sound && !c.doneLocked(off) {
				c.hole = true // what came before it first
				return claims, gone
			}
			c.next++
			scanned++
			switch {
			case c.doneLocked(off):
			case buf[i].Size == 0:
				gone = append(gone, c.missLocked(span{From: off, To: off + 1}, ErrCorrupt))
			case !c.topic.filter.matchHash(buf[i].Tag):
				c.skipLocked(span{From: off, To: off + 1})
			default:
				if suspect && !c.aloneLocked() {
					c.next--
					return claims, gone
				}
				claims = append(claims, claim{off, buf[i], delivered + 1})
				maxBytes -= int64(buf[i].Size)
				c.out++
				c.bytes += int64(buf[i].Size)
				if suspect {
					return claims, gone
				}
			}
		}
	}
	return claims, gone
}

// claimAgainLocked takes what comes again. It is counted in out already.
func (c *cursor) claimAgainLocked(claims []claim, limit int, maxBytes int64) ([]claim, int64) {
	n := 0
	for n < len(c.redo) && len(claims) < limit && maxBytes > 0 {
		claims = append(claims, c.redo[n])
		maxBytes -= int64(c.redo[n].entry.Size)
		n++
	}
	c.redo = slices.Delete(c.redo, 0, n)
	return claims, maxBytes
}

// passTrimmedLocked goes past what retention has dropped. What the group had
// acknowledged of it is not missed.
func (c *cursor) passTrimmedLocked(gone []missed) []missed {
	start := c.queue.entries.Min()
	if c.next >= start {
		return gone
	}
	from := c.next
	c.next = start
	for _, s := range c.done {
		if s.From >= start {
			break
		}
		if from < s.From {
			gone = append(gone, c.missLocked(span{From: from, To: s.From}, nil))
		}
		from = max(from, s.To)
	}
	if from < start {
		gone = append(gone, c.missLocked(span{From: from, To: start}, nil))
	}
	return gone
}

// unreadableLocked waits a little before it looks at the queue's file again. It
// never goes past what it cannot read: the messages are in the log.
func (c *cursor) unreadableLocked(err error) {
	c.group.b.opts.Logger.Error("queue entries cannot be read", "queue", c.queue.name(), "offset", c.next, "err", err)
	c.pauseLocked()
}

// againLocked takes claims back whose messages could not be read, and waits a
// little: nothing overtakes them meanwhile.
func (c *cursor) againLocked(claims []claim) {
	c.redo = slices.Insert(c.redo, 0, claims...)
	c.pauseLocked()
}

func (c *cursor) pauseLocked() {
	c.waiting = true
	c.group.retries.addLocked(c.group, due{at: time.Now().Add(readAgainAfter), cursor: c, resume: true})
}

// missLocked notes that the group goes past s although it wanted it.
func (c *cursor) missLocked(s span, err error) missed {
	c.skipLocked(s)
	return missed{s, err}
}

// skipLocked notes that the group is done with s without an acknowledgement: it
// travels with the next one.
func (c *cursor) skipLocked(s span) {
	if n := len(c.skipped); n > 0 && c.skipped[n-1].To == s.From {
		c.skipped[n-1].To = s.To
		return
	}
	c.skipped = append(c.skipped, s)
}

// doneLocked reports whether off was acknowledged before the cursor began, and
// forgets the spans that next has passed.
func (c *cursor) doneLocked(off Offset) bool {
	for len(c.done) > 0 && c.done[0].To <= off {
		c.done = c.done[1:]
	}
	return len(c.done) > 0 && c.done[0].From <= off
}

// takeSkippedLocked hands over what was skipped, to be acknowledged.
func (c *cursor) takeSkippedLocked() []span {
	s := c.skipped
	c.skipped = nil
	return s
}

// skippedCountLocked counts the offsets skipped and not acknowledged.
func (c *cursor) skippedCountLocked() (n int64) {
	for _, s := range c.skipped {
		n += int64(s.To - s.From)
	}
	return n
}

// finishedLocked notes that n messages of so many bytes, handed out under
// start, are acknowledged. After a reset they were counted by another start.
func (c *cursor) finishedLocked(start coord.Position, n int, bytes int64) {
	if start != c.start {
		return
	}
	c.out -= n
	c.bytes -= bytes
	c.scheduleLocked()
}

// retireLocked ends the cursor: what is out is finished, and its
// acknowledgements still count unless its start has been superseded.
func (c *cursor) retireLocked() {
	if c.owner != nil {
		c.owner.disownLocked(c)
		c.owner = nil
	}
	c.retired = true
	c.armed.Store(false)
	c.group.retries.dropLocked(c.group, c)
	if c.lanes != nil {
		c.lanes.partLocked()
	}
	c.queue.removeReader(c)
}
