package mq

import (
	"sync/atomic"
	"time"
)

// pulse watches over the workers of a push consumer while there is work. Fast
// handlers never meet it. A worker whose message has not moved on between two
// beats is stuck in its handler; then the pulse
//
//   - offers the rest of its batch to other workers, and wakes them, so that a
//     slow message holds up nothing behind it;
//   - acknowledges what is finished of its batch, so that it need not wait for
//     the slow one;
//   - once the handler is past its time-out, says so (overdue.go).
//
// It stops when there has been nothing to watch for a while: an idle consumer
// has no timer.
type pulse struct {
	on   atomic.Bool
	wake chan struct{} // 1 deep
	quit chan struct{}
}

const (
	// beat is how long a message may hold up the acknowledgement of those
	// handled before it, and the start of those behind it.
	beat = time.Millisecond

	// restAfter is how many beats without work make the pulse stop: it is not
	// worth a timer to stop between two messages.
	restAfter = 10
)

func (p *pulse) init() {
	p.wake = make(chan struct{}, 1)
	p.quit = make(chan struct{})
}

// wakePulse is called by a worker that has been woken.
func (c *PushConsumer) wakePulse() {
	if !c.pulse.on.Load() && c.pulse.on.CompareAndSwap(false, true) {
		poke(c.pulse.wake)
	}
}

func (c *PushConsumer) runPulse() {
	defer c.beating.Done()
	for {
		select {
		case <-c.pulse.wake:
		case <-c.pulse.quit:
			return
		}
		if !c.watch() {
			return
		}
	}
}

// watch beats until there has been nothing to do for a while; false: quit.
func (c *PushConsumer) watch() bool {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for idle := 0; idle < restAfter; {
		var now time.Time
		select {
		case now = <-ticker.C:
		case <-c.pulse.quit:
			return false
		}
		if c.beat(now) {
			idle = 0
		} else {
			idle++
		}
	}
	c.pulse.on.Store(false)
	// A worker woken before that store relied on this pulse.
	c.group.mu.Lock()
	busy := c.member.running > 0
	c.group.mu.Unlock()
	if busy {
		c.wakePulse()
	}
	return true
}

// beat looks at every worker once and reports whether any is at work.
func (c *PushConsumer) beat(now time.Time) bool {
	g := c.group
	g.mu.Lock()
	if c.member.running == 0 {
		g.mu.Unlock()
		return false
	}
	var stuck []*batch
	var late []overdue
	waiting := len(c.ready)
	for _, w := range c.workers {
		b := w.batch.Load()
		if b == nil {
			w.seenBatch = nil
			continue
		}
		next := b.next.Load()
		if w.stuckLocked(b, next, now) {
			c.offerLocked(b)
			b.workers++ // until its acknowledgement below: it must not be settled meanwhile
			stuck = append(stuck, b)
		}
		if o, ok := w.lateLocked(b, now); ok {
			late = append(late, o)
		}
		w.seenBatch, w.seenNext = b, next
	}
	for _, b := range c.offered {
		waiting += max(0, len(b.items)-int(b.next.Load()))
	}
	// A worker for each one that is stuck, and twice as many once all are: slow
	// handlers soon run Concurrency at once, while one that only waits for a
	// processor does not set twenty others on it.
	if len(stuck) > 0 {
		want := len(stuck) + max(len(stuck), c.limit) - c.member.running
		for n := min(want, waiting, len(c.parked)); n > 0; n-- {
			c.wakeOneLocked()
		}
	}
	g.mu.Unlock()
	for _, b := range stuck {
		c.ackEarly(b)
	}
	c.tellOverdue(late)
	return true
}

// ackEarly acknowledges what is finished of a batch that goes on.
func (c *PushConsumer) ackEarly(b *batch) {
	spans, n, bytes := b.consumed(nil)
	g := c.group
	_ = g.ack(c.member, b.cursor, b.start, spans) // stored later
	g.mu.Lock()
	b.cursor.finishedLocked(b.start, n, bytes)
	g.mu.Unlock()
	w := worker{c: c}
	w.leave(b)
}

// offerLocked lets other workers take items of b. The messages of a lane come
// one after another: there is nothing to share.
func (c *PushConsumer) offerLocked(b *batch) {
	if !b.offered && b.lane == nil && b.start == b.cursor.start && int(b.next.Load()) < len(b.items) {
		b.offered = true
		c.offered = append(c.offered, b)
	}
}

// helpLocked returns an offered batch with items left that are still wanted.
// After a reset nobody begins them, and who is given them would come back for
// more at once, again and again.
func (c *PushConsumer) helpLocked() *batch {
	for len(c.offered) > 0 {
		b := c.offered[0]
		if b.start == b.cursor.start && int(b.next.Load()) < len(b.items) {
			return b
		}
		c.withdrawLocked(b)
	}
	return nil
}

func (c *PushConsumer) withdrawLocked(b *batch) {
	if !b.offered {
		return
	}
	b.offered = false
	for i := range c.offered {
		if c.offered[i] == b {
			c.offered = append(c.offered[:i], c.offered[i+1:]...)
			return
		}
	}
}
