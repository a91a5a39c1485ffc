package mq

import (
	"context"
	"sync"

	"github.com/pocketmq/mq/internal/coord"
)

// maxCallbacks is how many asynchronous sends may be under way (RocketMQ's
// NettySystemConfig: clientAsyncSemaphoreValue 65535).
const maxCallbacks = 1 << 16

// completion is an asynchronous send that waits for its sync.
type completion struct {
	end      coord.Position
	queue    *queue // nil: nothing was sent, see call
	result   SendResult
	callback func(SendResult, error) // may be nil
	counted  bool                    // holds one of maxCallbacks
}

// completions runs the callbacks of asynchronous sends: one goroutine waits for
// the syncs that commitlog's syncer makes, wakes consumers, and calls back. So
// callbacks run one after another, never under a lock
// and never on a goroutine that others wait for to sync.
type completions struct {
	b *Broker

	mu      sync.Mutex
	pending []completion // in the order they were added
	free    int          // of maxCallbacks
	stopped bool         // run has ended: who adds completes by itself
	room    chan struct{}
	wake    chan struct{} // 1 deep: there is something in pending
	quit    chan struct{}
	done    sync.WaitGroup
}

func (c *completions) init(b *Broker) {
	c.b = b
	c.free = maxCallbacks
	c.room = make(chan struct{}, 1)
	c.wake = make(chan struct{}, 1)
	c.quit = make(chan struct{})
}

func (c *completions) start() {
	c.done.Add(1)
	go c.run()
}

// stop answers what is pending and waits. Everything is synced or the log is
// poisoned by now, so that no answer waits for anything.
func (c *completions) stop() {
	close(c.quit)
	c.done.Wait()
}

func (c *completions) tryAcquire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.free == 0 {
		return false
	}
	c.free--
	if c.free > 0 {
		poke(c.room) // for the next waiter, if there is one
	}
	return true
}

// acquire waits for one of maxCallbacks.
func (c *completions) acquire(ctx context.Context) error {
	for !c.tryAcquire() {
		select {
		case <-c.room:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.b.closing:
			return ErrClosed
		}
	}
	return nil
}

// release gives n places back. One waiter is told, and it tells the next.
func (c *completions) release(n int) {
	c.mu.Lock()
	c.free += n
	c.mu.Unlock()
	poke(c.room)
}

// add queues sends whose place is taken; force queues without one, for the few
// whose durability turned out only after they were stored.
func (c *completions) add(out []outgoing, callback func(SendResult, error)) {
	c.queue(out, callback, true)
}

func (c *completions) force(out []outgoing, callback func(SendResult, error)) {
	c.queue(out, callback, false)
}

// call runs hook among the callbacks: what it sends may wait for room, and so for
// the upkeep.
func (c *completions) call(hook func()) {
	c.force(make([]outgoing, 1), func(SendResult, error) { hook() })
}

func (c *completions) queue(out []outgoing, callback func(SendResult, error), counted bool) {
	c.mu.Lock()
	for i := range out {
		c.pending = append(c.pending, completion{out[i].end, out[i].queue, out[i].result, callback, counted})
	}
	var late []completion
	if c.stopped { // stored before Close ended the log, and synced by it
		late, c.pending = c.pending, nil
	}
	c.mu.Unlock()
	if late != nil {
		c.complete(late)
		return
	}
	poke(c.wake)
}

func (c *completions) run() {
	defer c.done.Done()
	var batch []completion
	for {
		c.mu.Lock()
		batch, c.pending = c.pending, batch[:0]
		c.mu.Unlock()
		if len(batch) > 0 {
			c.complete(batch)
			clear(batch)
			continue
		}
		select {
		case <-c.wake:
		case <-c.quit:
			if c.end() {
				return
			}
		}
	}
}

// underWay counts what is pending.
func (c *completions) underWay() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maxCallbacks - c.free
}

// end reports whether nothing is pending, and closes the list if so.
func (c *completions) end() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = len(c.pending) == 0
	return c.stopped
}

// complete waits for the newest of the batch, so that one sync answers for all.
func (c *completions) complete(batch []completion) {
	var end coord.Position
	for i := range batch {
		end = max(end, batch[i].end)
	}
	err := c.b.noted(c.b.log.Follow(context.Background(), end))
	places := 0
	for i := range batch {
		p := &batch[i]
		result := p.result
		switch {
		case err != nil:
			result = SendResult{}
		case p.queue != nil:
			p.queue.arrived()
		}
		if p.callback != nil {
			p.callback(result, err)
		}
		if p.counted {
			places++
		}
	}
	c.release(places)
}

// poke leaves a signal in a channel of depth 1.
func poke(signal chan struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}
