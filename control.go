package mq

import (
	"context"
	"errors"
	"runtime"
	"slices"
)

// What a running push consumer can be told.

// Pause makes the consumer begin no further message until Resume (RocketMQ's
// suspend). Handlers under way finish and are acknowledged; a message that a worker
// has taken and is about to call its handler with counts as one of them. The
// consumer keeps its queues, so their messages wait.
// Messages that were read ahead and not begun are given back. Errors: ErrClosed.
func (c *PushConsumer) Pause() error { return c.setPaused(true) }

// Resume ends Pause. Errors: ErrClosed.
func (c *PushConsumer) Resume() error { return c.setPaused(false) }

func (c *PushConsumer) setPaused(paused bool) error {
	g := c.group
	g.mu.Lock()
	if c.closed {
		g.mu.Unlock()
		return ErrClosed
	}
	c.paused = paused
	for _, cur := range c.owned {
		cur.paused = paused
		if paused {
			c.unreadyLocked(cur)
		} else {
			cur.scheduleLocked()
		}
	}
	g.mu.Unlock()
	c.recallBatches()
	return nil
}

// wantsLocked reports whether a message of the cursor may begin.
func (c *PushConsumer) wantsLocked(cur *cursor) bool {
	_, subscribed := c.topics[cur.queue.topic]
	return subscribed && !c.paused
}

// recallBatches takes back what workers have and must not begin any more.
func (c *PushConsumer) recallBatches() {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range c.workers {
		if b := w.batch.Load(); b != nil && !c.wantsLocked(b.cursor) {
			b.recallLocked()
		}
	}
}

// recallLocked gives back what no worker has begun. The rest of a lane comes
// after what is handled, so it has to wait for that.
func (b *batch) recallLocked() {
	begun := int(b.next.Swap(int32(len(b.items))))
	if begun >= len(b.items) {
		return
	}
	if b.lane != nil {
		b.rest = begun
		return
	}
	b.cursor.backLocked(b, b.items[begun:])
}

// SetConcurrency changes how many handlers run at once. More begin at once; of
// fewer, those under way finish. Errors: ErrInvalidOptions, ErrClosed.
func (c *PushConsumer) SetConcurrency(n int) error {
	if n < 1 || n > maxConcurrency {
		return invalidOption("Concurrency", n)
	}
	g := c.group
	g.mu.Lock()
	if c.closed {
		g.mu.Unlock()
		return ErrClosed
	}
	c.many = n
	c.hireLocked()
	c.tooMany.Store(len(c.workers) > n)
	for range min(len(c.workers)-n, len(c.parked)) {
		c.wakeOneLocked() // to leave
	}
	g.mu.Unlock()
	c.wakePulse()
	return nil
}

// hireLocked starts the workers that are missing.
func (c *PushConsumer) hireLocked() {
	c.limit = min(c.many, runtime.GOMAXPROCS(0))
	for len(c.workers) < c.many {
		w := newWorker(c)
		w.freshLocked()
		c.workers = append(c.workers, w)
		c.member.running++ // it parks by itself
		c.working.Add(1)
		go w.run()
	}
}

// retireLocked reports whether the worker leaves because there are too many. If
// it was woken for something, another comes to it.
func (w *worker) retireLocked() bool {
	c := w.c
	if len(c.workers) <= c.many {
		return false
	}
	c.workers = slices.DeleteFunc(c.workers, func(other *worker) bool { return other == w })
	c.tooMany.Store(len(c.workers) > c.many)
	if len(c.ready) > 0 || len(c.offered) > 0 {
		c.wakeOneLocked()
	}
	return true
}

// Drain closes the consumer without giving up what it does: it begins no further
// message, its queues go to other members, handlers under way may finish until
// ctx ends, and then it is Close. If ctx ends first its error is returned; Close
// cancels the handlers' context and waits for them all the same.
func (c *PushConsumer) Drain(ctx context.Context) error {
	c.b.members.Lock()
	c.draining = true
	c.group.rebalance()
	c.b.unlockMembers()
	c.hush()
	drained := c.drained(ctx)
	return errors.Join(drained, c.Close())
}
