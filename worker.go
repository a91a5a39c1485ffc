package mq

import (
	"runtime/debug"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/pocketmq/mq/internal/coord"
)

// maxBatch is how many messages a worker takes at once: enough that what is
// done once per batch (locks, an ack frame, allocations) costs a few
// nanoseconds a message, few enough that they stay in the processor's cache; and
// as many as the allocator has room for in 16 KiB, besides a word of its own.
const maxBatch = (16*kib - 8) / int(unsafe.Sizeof(Message{}))

// batch is messages of one queue that are being handled: by the worker that
// took them and, when that is stuck in a handler, by others.
type batch struct {
	cursor *cursor
	start  coord.Position
	lane   *lane // of an ordered group
	alone  bool  // of a message that was in hand when the process ended
	rest   int   // of a lane: items from here on were not begun when it was recalled

	items []item
	next  atomic.Int32            // the first item nobody has begun
	state [maxBatch]atomic.Uint32 // by item: what came of it

	// Guarded by group.mu.
	workers int  // at it; the last one settles it
	offered bool // in PushConsumer.offered
}

// item is a message to be handled, and what must be known of it afterwards: the
// message itself is the handler's, who may change it.
type item struct {
	claim
	message *Message // nil: to be read again
}

// What came of an item.
const (
	itemOpen     = iota
	itemConsumed // or passed over
	itemFailed   // comes again
	itemUntried  // too, and this delivery does not count
	itemAcked
)

// worker is a goroutine that handles messages.
type worker struct {
	c       *PushConsumer
	fetcher fetcher
	wake    chan struct{} // 1 deep, see member.parkLocked
	spans   []span        // reused

	batch atomic.Pointer[batch] // that it is at; set and cleared under group.mu
	watch watch

	// Of the pulse, at its last beat.
	seenBatch *batch
	seenNext  int32
}

func newWorker(c *PushConsumer) *worker {
	return &worker{c: c, fetcher: fetcher{b: c.b}, wake: make(chan struct{}, 1)}
}

func (w *worker) run() {
	defer w.c.working.Done()
	defer func() { w.watch.cancel(nil) }()
	for b := w.take(); b != nil; b = w.take() {
		if b.next.Load() == 0 {
			w.handOut(b)
		}
		w.handle(b)
		w.leave(b)
	}
}

// take waits for something to do: a batch of a worker that is stuck, or
// messages of a queue. Nil: the consumer is closed.
func (w *worker) take() *batch {
	c, g := w.c, w.c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	for !c.closed && !w.retireLocked() {
		if b := c.helpLocked(); b != nil {
			w.beginLocked(b)
			return b
		}
		if cur := c.takeReadyLocked(); cur == nil {
			c.parkLocked(w.wake)
			c.wakePulse()
		} else if b := w.takeFromLocked(cur); b != nil {
			w.beginLocked(b)
			return b
		}
	}
	c.restLocked()
	return nil
}

func (w *worker) beginLocked(b *batch) {
	b.workers++
	w.watch.on.Store(b.offered) // of who helps the pulse cannot see by b.next where it is
	w.watch.running = false
	w.batch.Store(b)
}

// takeFromLocked makes a batch of the cursor's next messages; nil if none of
// them is to be handled now. group.mu is let go while they are read.
func (w *worker) takeFromLocked(cur *cursor) *batch {
	if cur.lanes != nil {
		return w.takeLaneLocked(cur)
	}
	got := w.fetcher.takeLocked(w.c.member, cur, maxBatch, slabBytes)
	claims := w.fetcher.claims
	alone := len(claims) == 1 && claims[0].attempt > 1 && cur.group.suspect == cur
	if len(got.messages) == 0 {
		if alone {
			cur.group.endTurnLocked()
		}
		return nil
	}
	b := w.c.newBatchLocked(cur, got.start)
	b.alone = alone
	for i := range got.messages {
		b.items = append(b.items, item{got.claims[i], &got.messages[i]})
	}
	if !w.c.wantsLocked(cur) { // any more
		cur.backLocked(b, b.items)
		if b.alone {
			cur.group.endTurnLocked()
		}
		w.c.freeLocked(b)
		return nil
	}
	return b
}

// takeLocked claims messages of the cursor for its owner and reads them; group.mu
// is let go meanwhile. What is not to be handed out is settled here: filtered
// out, damaged, or not to be read at all.
func (f *fetcher) takeLocked(owner *member, cur *cursor, limit int, maxBytes int64) fetched {
	f.claims = f.claims[:0]
	if cur.fillHolesLocked(); cur.owner != owner {
		return fetched{}
	}
	g, filter, start := cur.group, cur.topic.filter, cur.start
	claims, gone := cur.claimLocked(f.claims[:0], limit, maxBytes)
	f.claims = claims
	if cur.lanes == nil {
		cur.scheduleLocked() // others may take what follows while this is read
	}
	g.mu.Unlock()
	var got fetched
	if len(claims) > 0 {
		got = f.fetch(cur, start, &filter, claims)
	}
	got.start = start
	g.reportMissed(cur.queue, append(gone, got.gone...))
	g.mu.Lock()
	if cur.retired || cur.start != start {
		return fetched{} // deleted or reset meanwhile
	}
	if got.err != nil {
		if !isClosed(got.err) {
			g.b.opts.Logger.Error("messages cannot be read", "queue", cur.queue.name(), "err", got.err)
		}
		cur.againLocked(claims)
		return fetched{}
	}
	cur.passedLocked(got.lost)
	cur.passedLocked(got.unwanted)
	g.ackSkippedLocked(cur) // lets group.mu go
	if cur.retired || cur.start != start {
		return fetched{}
	}
	return got
}

// passedLocked notes that claims are done without having been handled.
func (c *cursor) passedLocked(claims []claim) {
	if len(claims) == 0 {
		return
	}
	bytes := int64(0)
	for i := range claims {
		c.skipLocked(span{From: claims[i].offset, To: claims[i].offset + 1})
		bytes += int64(claims[i].entry.Size)
	}
	c.finishedLocked(c.start, len(claims), bytes)
}

// handle calls the handler for the batch's items until none is left or wanted.
// Several workers may be at it; each item is begun once.
func (w *worker) handle(b *batch) {
	for !w.c.halt.Load() && !w.c.tooMany.Load() && b.cursor.current.Load() == int64(b.start) {
		i := int(b.next.Add(1)) - 1
		if i >= len(b.items) {
			return
		}
		if !w.handleItem(b, i) && b.lane != nil {
			return // nothing overtakes the one that failed
		}
	}
}

// handleItem reports whether the item is consumed.
func (w *worker) handleItem(b *batch, i int) bool {
	it := &b.items[i]
	if it.message == nil {
		_ = w.returned(nil) // not in a handler yet
		switch lost, err := w.readAgain(b, it); {
		case err != nil:
			b.state[i].Store(w.c.again(b, it, readAgainAfter, itemUntried))
			return false
		case lost:
			b.state[i].Store(itemConsumed) // reported, and passed over
			return true
		}
	}
	if it.attempt > 1 {
		if most := w.c.most(); most > 0 && it.message.Attempt > most {
			state := w.c.crashed(b, it)
			b.state[i].Store(state)
			return !comesAgain(state)
		}
	}
	if w.watch.on.Load() {
		w.begins(i)
	}
	err := w.call(it.message)
	if err != nil || w.watch.on.Load() {
		err = w.returned(err)
	}
	if err == nil {
		b.state[i].Store(itemConsumed)
		return true
	}
	state := w.c.failed(b, it, err)
	b.state[i].Store(state)
	return !comesAgain(state)
}

func comesAgain(state uint32) bool { return state == itemFailed || state == itemUntried }

// call runs the handler. A panic is an error like any other, and so is an error
// that panics when it is asked for its text, as a nil pointer may: nobody behind
// this would bear it.
func (w *worker) call(m *Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	if err = w.c.handler(w.watch.ctx, m); err != nil {
		_ = err.Error()
	}
	return err
}

// readAgain reads an item whose message the handler has had already. It may be
// lost; an error says that it cannot be read now.
func (w *worker) readAgain(b *batch, it *item) (lost bool, err error) {
	all := Filter{} // it was wanted once
	got := w.fetcher.fetch(b.cursor, b.start, &all, []claim{it.claim})
	if len(got.messages) == 0 {
		b.cursor.group.reportMissed(b.cursor.queue, got.gone)
		return got.err == nil, got.err
	}
	it.message = &got.messages[0]
	return false, nil
}

// leave ends this worker's part in the batch. The last one acknowledges what
// was consumed, with what was skipped on the way, in one frame.
func (w *worker) leave(b *batch) {
	c, g := w.c, w.c.group
	g.mu.Lock()
	w.batch.Store(nil)
	b.workers--
	if b.workers > 0 {
		g.mu.Unlock()
		return
	}
	c.withdrawLocked(b)
	rest := b.restLocked()
	spans := w.spans[:0]
	if b.start == b.cursor.start {
		spans = append(spans, b.cursor.takeSkippedLocked()...)
	}
	g.mu.Unlock()
	var n int
	var bytes int64
	spans, n, bytes = b.consumed(spans)
	w.spans = spans
	_ = g.ack(c.member, b.cursor, b.start, spans) // stored later
	g.mu.Lock()
	b.cursor.finishedLocked(b.start, n, bytes)
	b.cursor.backLocked(b, rest)
	if b.alone {
		g.endTurnLocked()
	}
	c.freeLocked(b)
	g.mu.Unlock()
}

// restLocked returns the items that nobody has begun.
func (b *batch) restLocked() []item {
	begun := min(int(b.next.Load()), len(b.items), b.rest)
	return b.items[begun:]
}

// backLocked gives items that nobody has begun back, and frees the lane.
func (c *cursor) backLocked(b *batch, rest []item) {
	stale := b.start != c.start // reset: all of them were forgotten
	if b.lane != nil {
		c.lanes.leaveLocked(b.lane, b, rest, stale)
		c.scheduleLocked()
		return
	}
	if len(rest) == 0 || stale || c.retired {
		return
	}
	claims := make([]claim, 0, len(rest))
	for _, it := range rest {
		claims = append(claims, it.claim)
	}
	c.redo = slices.Insert(c.redo, 0, claims...)
	c.scheduleLocked()
}

// consumed adds the offsets of items consumed and not acknowledged yet to
// spans, marks them acknowledged, and returns spans sorted and joined.
func (b *batch) consumed(spans []span) (joined []span, n int, bytes int64) {
	for i := range b.items {
		if !b.state[i].CompareAndSwap(itemConsumed, itemAcked) {
			continue
		}
		n++
		bytes += int64(b.items[i].entry.Size)
		off := b.items[i].offset
		if last := len(spans) - 1; last >= 0 && spans[last].To == off {
			spans[last].To++
			continue
		}
		spans = append(spans, span{From: off, To: off + 1})
	}
	return joinSpans(spans), n, bytes
}

// joinSpans sorts spans and joins those that touch.
func joinSpans(spans []span) []span {
	if len(spans) < 2 {
		return spans
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.From - b.From) })
	joined := spans[:1]
	for _, s := range spans[1:] {
		last := &joined[len(joined)-1]
		if s.From <= last.To {
			last.To = max(last.To, s.To)
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

// newBatchLocked returns an empty batch, one of those settled before if any.
func (c *PushConsumer) newBatchLocked(cur *cursor, start coord.Position) *batch {
	var b *batch
	if n := len(c.free); n > 0 {
		b = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		b = &batch{items: make([]item, 0, maxBatch)}
	}
	b.cursor, b.start, b.rest = cur, start, maxBatch
	return b
}

// freeLocked keeps a settled batch for later, without what it held.
func (c *PushConsumer) freeLocked(b *batch) {
	b.state = [maxBatch]atomic.Uint32{} // nobody is at it any more
	clear(b.items)
	b.items = b.items[:0]
	b.next.Store(0)
	b.cursor, b.lane, b.alone = nil, nil, false
	c.free = append(c.free, b)
}
