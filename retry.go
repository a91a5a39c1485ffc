package mq

import (
	"container/heap"
	"time"
)

// retries is what a group does later: messages that failed and come again,
// lanes that wait for such a message, receipts that expire, and acknowledgements
// of what was only skipped. One timer serves them all; without any of them there
// is none.
//
// Guarded by group.mu.
type retries struct {
	queue dueHeap
	timer *time.Timer
	armed time.Time // when the timer is due; zero: it is not set
	lent  int       // messages received by simple consumers: dues with a lease
}

// due is one thing to do later.
type due struct {
	at     time.Time
	cursor *cursor
	claim  claim
	lane   *lane  // set: the lane goes on
	lease  *lease // set: its receipt expires
	ack    bool   // set: skipped offsets are acknowledged
	resume bool   // set: the cursor looks at its queue again
}

// of returns the cursor that has it to do: a lane that was parked has moved to
// another one.
func (d *due) of() *cursor {
	if d.lane != nil && d.lane.blocked != nil && d.lane.blocked.cursor != nil {
		return d.lane.blocked.cursor
	}
	return d.cursor
}

// readAgainAfter is when what could not be read or stored is tried again
// (RocketMQ's pullTimeDelayMillsWhenException).
const readAgainAfter = time.Second

// addLocked does d at its time.
func (r *retries) addLocked(g *group, d due) {
	heap.Push(&r.queue, d)
	if d.lease != nil {
		r.lent++
	}
	r.armLocked(g)
}

// takeLocked takes the expiry of a receipt out again. The timer stays as it is:
// if it fires for nothing it is set to what is due then.
func (r *retries) takeLocked(l *lease) due {
	d := heap.Remove(&r.queue, l.place).(due)
	r.lent--
	if len(r.queue) == 0 {
		r.stopLocked()
	}
	return d
}

// armLocked sets the timer to what is due first, unless it fires earlier anyway:
// then that sets it.
func (r *retries) armLocked(g *group) {
	if len(r.queue) == 0 {
		r.stopLocked()
		return
	}
	first := r.queue[0].at
	if !r.armed.IsZero() && !first.Before(r.armed) {
		return
	}
	r.stopLocked()
	r.armed = first
	r.timer = time.AfterFunc(time.Until(first), g.runDue)
}

func (r *retries) stopLocked() {
	if r.timer != nil {
		r.timer.Stop() // if it fires meanwhile it finds nothing due
	}
	r.timer, r.armed = nil, time.Time{}
}

// dropLocked forgets what a retired cursor had to do later.
func (r *retries) dropLocked(g *group, c *cursor) {
	kept := r.queue[:0]
	for _, d := range r.queue {
		if d.of() == c {
			if d.lease != nil {
				d.lease.place = nowhere
				r.lent--
			}
			continue
		}
		d.placed(len(kept))
		kept = append(kept, d)
	}
	clear(r.queue[len(kept):])
	r.queue = kept
	heap.Init(&r.queue)
	r.armLocked(g)
}

// runDue does what is due. The timer calls it; a broker that closes has retired
// all cursors, so that there is nothing left to do by then.
func (g *group) runDue() {
	var quiet []*cursor
	g.mu.Lock()
	now := time.Now()
	for len(g.retries.queue) > 0 && !g.retries.queue[0].at.After(now) {
		d := heap.Pop(&g.retries.queue).(due)
		switch {
		case d.ack:
			quiet = append(quiet, d.cursor)
			continue
		case d.resume:
			d.cursor.resumeLocked()
		case d.lease != nil:
			g.retries.lent--
			d.lease.comesBackLocked()
		case d.lane != nil:
			d.cursor = d.of()
			d.cursor.lanes.resumeLocked(d.lane)
		default:
			d.cursor.redo = append(d.cursor.redo, d.claim)
		}
		d.cursor.scheduleLocked()
	}
	g.retries.armed = time.Time{}
	g.retries.armLocked(g)
	for _, c := range quiet {
		c.ackDue = false
		g.flushSkippedLocked(c)
	}
	g.mu.Unlock()
}

// dueHeap orders by time.
type dueHeap []due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].placed(i)
	h[j].placed(j)
}
func (h *dueHeap) Push(d any) {
	*h = append(*h, d.(due))
	(*h)[len(*h)-1].placed(len(*h) - 1)
}
func (h *dueHeap) Pop() any {
	old := *h
	last := len(old) - 1
	d := old[last]
	d.placed(nowhere)
	old[last] = due{}
	*h = old[:last]
	return d
}
