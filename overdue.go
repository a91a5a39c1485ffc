package mq

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// A handler that takes longer than PushOptions.Timeout is told so by its context
// and by Hooks.Overdue, and nothing else happens: its message comes again, or
// becomes a dead letter, when the handler has returned and by what it returned.
// So there are never two handlers at one message (RocketMQ's consumeTimeout sends
// the message back while its handler runs on).
//
// All of this is the affair of the pulse. A message that is handled between two
// beats costs no more than a look at watch.on: no clock, no timer, no context of
// its own.

// watch is what the pulse knows of the handler that a worker is in. The pulse sets
// on when the worker has not moved on from one beat to the next; from then until
// its next batch the worker says when a handler begins and when it has returned.
type watch struct {
	on atomic.Bool // changed under group.mu

	ctx    context.Context         // of the worker's handlers; the worker's own
	cancel context.CancelCauseFunc // guarded by group.mu

	// Guarded by group.mu.
	running bool      // in a handler
	at      int       // the item
	since   time.Time // the first beat that saw it there; zero: none has
	overdue bool      // it was told
}

// overdue is a handler past its time-out that was not told yet.
type overdue struct {
	cancel context.CancelCauseFunc
	queue  *queue
	claim  claim
}

// freshLocked gives the worker's next handlers a context that is not cancelled.
func (w *worker) freshLocked() {
	w.watch.ctx, w.watch.cancel = context.WithCancelCause(w.c.ctx)
}

// stuckLocked reports whether the worker, which is at b, is at the same item as
// at the last beat, and sees to it that the worker tells what follows.
//
// The worker takes its next item and then looks at on; here it is the other way
// round. So one of them sees the other: either the item is the same after on was
// set, and the worker will say when it begins another one, or it is not, and
// the worker is not stuck.
func (w *worker) stuckLocked(b *batch, next int32, now time.Time) bool {
	if b != w.seenBatch || next != w.seenNext {
		return false
	}
	if w.watch.on.Load() {
		return true
	}
	w.watch.on.Store(true)
	if b.next.Load() != next {
		w.watch.on.Store(false)
		return false
	}
	at := int(next) - 1
	w.watch.running, w.watch.at, w.watch.since = at >= 0 && at < len(b.items), at, now
	return true
}

// lateLocked reports that the worker's handler is past its time-out, once.
func (w *worker) lateLocked(b *batch, now time.Time) (late overdue, ok bool) {
	s := &w.watch
	if w.c.timeout <= 0 || !s.on.Load() || !s.running || s.overdue {
		return late, false
	}
	if s.since.IsZero() {
		s.since = now
	}
	if now.Sub(s.since) < w.c.timeout {
		return late, false
	}
	s.overdue = true
	w.c.b.counters.overdue.Add(1)
	return overdue{s.cancel, b.cursor.queue, b.items[s.at].claim}, true
}

// tellOverdue cancels the handler's context and calls the hook.
func (c *PushConsumer) tellOverdue(late []overdue) {
	for _, o := range late {
		o.cancel(ErrTimeout)
		hook := c.b.opts.Hooks.Overdue
		if hook == nil {
			continue
		}
		t := c.b.trialOf(o.queue, o.claim)
		hook(OverdueInfo{
			Group: c.groupName, Member: c.name, ID: t.id, Queue: t.queue, Offset: t.offset,
			Attempt: t.attempts, Timeout: c.timeout,
		})
	}
}

// begins says to the pulse that a handler begins with item i.
func (w *worker) begins(i int) {
	g := w.c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	w.watch.running, w.watch.at, w.watch.since = true, i, time.Time{}
}

// returned says to the pulse that no handler runs any more, and adds to its error
// that it took too long.
func (w *worker) returned(err error) error {
	g, s := w.c.group, &w.watch
	g.mu.Lock()
	defer g.mu.Unlock()
	s.on.Store(true) // until the worker says that another one begins
	s.running = false
	if !s.overdue {
		return err
	}
	s.overdue = false
	w.c.b.counters.overdue.Add(-1)
	w.freshLocked()
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w of %v: %w", ErrTimeout, w.c.timeout, err)
}
