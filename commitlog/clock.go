package commitlog

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// clockTick is how coarse the clock is. Reading the real one takes 44 ns,
	// half of what a whole append may take.
	clockTick = 2 * time.Millisecond

	// clockIdleTicks is how many ticks without a question stop the clock:
	// 100 ms. An idle log has no timer.
	clockIdleTicks = 50
)

// clock is a coarse clock that runs only while somebody asks it.
type clock struct {
	now   atomic.Int64  // Unix ms, never decreases
	start chan struct{} // wakes runClock; one slot, for one wake-up is enough

	mu      *sync.Mutex // the append lock; protects everything below
	running bool
	asked   bool // since the last tick
}

// nowLocked returns the time. The first question after a pause reads the real
// clock and starts the ticking.
func (c *clock) nowLocked() int64 {
	c.asked = true
	if !c.running {
		c.running = true
		c.advance()
		signal(c.start)
	}
	return c.now.Load()
}

// advance reads the real clock. Setting that back does not set this one back.
func (c *clock) advance() {
	now := time.Now().UnixMilli()
	for {
		old := c.now.Load()
		if now <= old || c.now.CompareAndSwap(old, now) {
			return
		}
	}
}

// runClock ticks while the clock is asked, until the log is closed.
func (l *Log) runClock() {
	for {
		select {
		case <-l.stopC:
			return
		case <-l.clock.start:
		}
		if !l.clock.tickUntilIdle(l.stopC) {
			return
		}
	}
}

// tickUntilIdle returns false when stop was closed.
func (c *clock) tickUntilIdle(stop <-chan struct{}) bool {
	ticker := time.NewTicker(clockTick)
	defer ticker.Stop()
	for idle := 0; ; {
		select {
		case <-stop:
			return false
		case <-ticker.C:
		}
		c.advance()
		if idle++; c.wasAsked() {
			idle = 0
		}
		if idle >= clockIdleTicks && c.rest() {
			return true
		}
	}
}

// wasAsked tells whether there was a question since the last call.
func (c *clock) wasAsked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.asked
	c.asked = false
	return asked
}

// rest stops the clock unless there was a question in the very last moment. A
// question that comes later sees running false and starts it again.
func (c *clock) rest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = c.asked
	return !c.asked
}

// signal wakes the one goroutine that reads c; a wake-up that is pending already
// is enough.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
