package mq

import (
	"cmp"
	"slices"

	"github.com/pocketmq/mq/consumequeue"
)

// Parked messages whose key is free are found in sweeps over the index:
//
//	.......from|###########at|...................next of the cursor
//	            taken         to come
//
// A sweep takes along the messages of all lanes that are hungry when it comes to
// them. A lane is out of it once one of its messages was passed over, or if it may
// have some before from, and has to wait for the next sweep: its order is the
// queue's. So a lane in the sweep has no messages behind it. A sweep ends when no
// lane in it is hungry, and the next one begins where the first message of those
// may be that are.

// inSweep reports whether the lane's next message is yet to come.
func (p *parked) inSweep(s *blocked) bool { return s.out != p.sweep && s.next >= p.from }

// hungryLocked notes that the lane can have messages.
func (p *parked) hungryLocked(ln *lane) {
	s := ln.blocked
	if s == nil || s.count == 0 || s.hungry {
		return
	}
	s.hungry = true
	if p.inSweep(s) {
		s.place = len(p.hungry)
		p.hungry = append(p.hungry, ln)
	} else {
		p.later = append(p.later, ln)
	}
}

// hungryLocked reports whether a lane's parked messages can be read.
func (l *lanes) hungryLocked() bool {
	return l.parked != nil && len(l.parked.hungry)+len(l.parked.later) > 0
}

// fedLocked takes a lane that is in the sweep out of the hungry ones.
func (p *parked) fedLocked(ln *lane) {
	last := len(p.hungry) - 1
	at := ln.blocked.place
	p.hungry[at] = p.hungry[last]
	p.hungry[at].blocked.place = at
	p.hungry[last] = nil
	p.hungry = p.hungry[:last]
	ln.blocked.hungry = false
}

// beginSweepLocked begins another sweep, if no lane in this one is hungry.
func (p *parked) beginSweepLocked() {
	if len(p.hungry) > 0 || len(p.later) == 0 {
		return
	}
	p.hungry, p.later = p.later, p.hungry[:0]
	p.sweep++
	p.from = p.hungry[0].blocked.next
	for i, ln := range p.hungry {
		ln.blocked.place = i
		p.from = min(p.from, ln.blocked.next)
	}
	p.at = p.from
}

// fillParkedLocked reads the next messages of hungry lanes. group.mu is let go
// meanwhile.
func (l *lanes) fillParkedLocked(f *fetcher, owner *member) {
	c := l.cursor
	if c.owner != owner || !l.hungryLocked() || c.fullLocked() {
		if l.twin == nil || !l.twin.lanes.parking { // else there is nothing to hand out before that is over
			c.scheduleLocked()
		}
		return
	}
	g, start := c.group, c.start
	gone := c.noteTrimmedLocked(c.next)
	taken, err := l.claimParkedLocked(f)
	if err != nil {
		c.unreadableLocked(err)
	}
	l.fetching = true
	g.mu.Unlock()
	var got fetched
	if len(f.claims) > 0 {
		all := Filter{} // they were wanted once
		got = f.fetch(c, start, &all, f.claims)
	}
	g.reportMissed(c.queue, append(gone, got.gone...))
	g.mu.Lock()
	l.fetching = false
	if got.err != nil && c.start == start && !c.retired {
		if !isClosed(got.err) {
			g.b.opts.Logger.Error("messages cannot be read", "queue", c.queue.name(), "err", got.err)
		}
		c.pauseLocked()
	}
	for _, ln := range taken {
		ln.running = false
		if ln.blocked != nil {
			ln.blocked.feeding = false
		}
		if got.err != nil && c.start == start {
			l.putBackLocked(ln)
		}
	}
	if c.start == start && !c.retired {
		c.passedLocked(got.lost)
		c.lostLocked(got.lost)
		l.takeFetchedLocked(taken, &got)
		g.ackSkippedLocked(c)
	}
	for _, ln := range taken {
		l.restLocked(ln)
	}
	c.scheduleLocked()
}

// claimParkedLocked goes on with the sweep for a while. What it claims is in
// f.claims; the lanes, which are with the caller now, are returned.
func (l *lanes) claimParkedLocked(f *fetcher) (taken []*lane, err error) {
	c, p := l.cursor, l.parked
	p.beginSweepLocked()
	p.at = max(p.at, c.queue.entries.Min())
	f.claims = f.claims[:0]
	bytes := min(int64(slabBytes), c.owner.maxOutBytes-c.bytes)
	limit := min(maxBatch, c.owner.maxOut-c.out)
	var buf [64]consumequeue.Entry
	for scanned := 0; scanned < maxScan && p.at < c.next; {
		n, readErr := c.queue.read(p.at, buf[:min(len(buf), int(c.next-p.at))])
		if readErr != nil && p.at >= c.queue.entries.Min() {
			err = readErr // else it was trimmed at this moment
		}
		if readErr != nil || n == 0 {
			return taken, err
		}
		for _, e := range buf[:n] {
			if len(f.claims) >= limit || bytes <= 0 {
				return taken, nil
			}
			if ln := l.byKey[e.Tag]; e.Size > 0 && ln != nil && !c.doneAt(p.at) && l.claimForLocked(ln, e) {
				if len(ln.items) == 1 {
					taken = append(taken, ln)
				}
				f.claims = append(f.claims, ln.items[len(ln.items)-1].claim)
				bytes -= int64(e.Size)
			}
			p.at++
		}
		scanned += n
	}
	if p.at >= c.next {
		l.loseLocked()
	}
	return taken, nil
}

// claimForLocked claims the message that the sweep is at for its lane, if it is
// the lane's next one. If the lane cannot have it, it is passed over.
func (l *lanes) claimForLocked(ln *lane, e consumequeue.Entry) bool {
	p, s := l.parked, ln.blocked
	if s == nil || s.count == 0 || p.at < s.next || !p.inSweep(s) {
		return false
	}
	if !s.hungry && !s.feeding {
		s.next, s.out = p.at, p.sweep
		return false
	}
	if s.hungry {
		p.fedLocked(ln)
		ln.running, s.feeding = true, true
	}
	attempt := 1 + l.cursor.suspectAt(p.at)
	if s.attempts > 0 && s.head == p.at {
		attempt = s.attempts
	}
	ln.items = append(ln.items, item{claim{p.at, e, attempt}, nil})
	s.next = p.at + 1
	s.count--
	l.cursor.out++
	l.cursor.bytes += int64(e.Size)
	return true
}

// takeFetchedLocked gives the lanes the messages that were read for them, and
// forgets those that are lost.
func (l *lanes) takeFetchedLocked(taken []*lane, got *fetched) {
	for _, ln := range taken {
		ln.items = slices.DeleteFunc(ln.items, func(it item) bool {
			return slices.ContainsFunc(got.lost, func(cl claim) bool { return cl.offset == it.offset })
		})
		for i := range ln.items {
			at, ok := slices.BinarySearchFunc(got.claims, ln.items[i].offset, func(cl claim, off Offset) int { return cmp.Compare(cl.offset, off) })
			if ok {
				ln.items[i].message = &got.messages[at]
			}
		}
	}
}

// lostLocked has sweeps go past messages that cannot be read: when what is before
// them has failed, its lane's messages are claimed once more.
func (c *cursor) lostLocked(claims []claim) {
	for i := range claims {
		c.done = append(c.done, span{From: claims[i].offset, To: claims[i].offset + 1})
	}
	if len(claims) > 0 {
		c.done = joinSpans(c.done)
	}
}

// loseLocked: the sweep has come to the end, and lanes in it that are still
// hungry have found nothing of what they had. Retention has dropped it, or
// damage; it was reported then.
func (l *lanes) loseLocked() {
	for p := l.parked; len(p.hungry) > 0; {
		ln := p.hungry[0]
		p.fedLocked(ln)
		ln.blocked.count = 0
		l.restLocked(ln)
	}
}

// putBackLocked forgets the messages of a lane that are in memory: they are in
// the queue, and read again when it is their turn. So a key that is blocked holds
// none, however long.
func (l *lanes) putBackLocked(ln *lane) {
	if len(ln.items) == 0 {
		return
	}
	s, bytes := ln.blockedState(), int64(0)
	for i := range ln.items {
		bytes += int64(ln.items[i].entry.Size)
	}
	first := ln.items[0].claim
	s.next, s.head, s.attempts = first.offset, first.offset, first.attempt
	s.out = l.parked.sweep
	s.count += len(ln.items)
	n := len(ln.items)
	ln.items = nil
	l.cursor.finishedLocked(l.cursor.start, n, bytes)
}

// doneAt is doneLocked for offsets in any order: sweeps come back to what next
// has passed, and what was not counted for a lane must not be claimed for it.
func (c *cursor) doneAt(off Offset) bool {
	i, _ := slices.BinarySearchFunc(c.done, off, func(s span, off Offset) int {
		if s.To <= off {
			return -1
		}
		return 1
	})
	return i < len(c.done) && c.done[i].From <= off
}

// suspectAt is suspectLocked for offsets in any order.
func (c *cursor) suspectAt(off Offset) int {
	i, _ := slices.BinarySearchFunc(c.suspects, off, func(h hand, off Offset) int {
		if h.To <= off {
			return -1
		}
		return 1
	})
	if i < len(c.suspects) && c.suspects[i].From <= off {
		return c.suspects[i].attempt
	}
	return 0
}
