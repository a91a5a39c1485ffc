package commitlog

import "time"

const (
	// windowTime is how far ahead of the tail pages are made present, measured
	// in time at the present rate: twice what a busy machine may take to run the
	// populator, and what it then has to do. At 500,000 frames of 200 bytes a
	// second that is 1 MiB.
	windowTime = 10 * time.Millisecond

	// maxWindow bounds it; leastWindow is below what is worth a wake-up. Pages
	// made present are dirty: a lone sender that syncs every frame would write
	// an unused window with each (153 µs without, 280 µs with 1 MiB), so slow
	// senders have none and populate 64 KiB themselves now and then.
	maxWindow   = 4 << 20
	leastWindow = 128 << 10
)

// pace measures how fast the log grows.
type pace struct {
	at  time.Time
	pos Position
}

// window notes where the log is and returns the bytes to have present ahead of
// the tail, at the rate since the last call.
func (p *pace) window(now time.Time, pos Position) int64 {
	took, grown := now.Sub(p.at), int64(pos-p.pos)
	first := p.at.IsZero()
	p.at, p.pos = now, pos
	if first || grown <= 0 {
		return 0
	}
	// In floats: a rate of positions may be large where segments were left half
	// empty, and the result is bounded anyway.
	n := float64(grown) * float64(windowTime) / float64(max(took, time.Microsecond))
	if n < leastWindow {
		return 0
	}
	return int64(min(n, maxWindow))
}

// runPopulator keeps pages present ahead of the tail, until the log is closed.
func (l *Log) runPopulator() {
	var p pace
	for {
		select {
		case <-l.stopC:
			return
		case <-l.populateC:
		}
		l.populateAhead(p.window(time.Now(), l.Written()))
	}
}

// populateAhead makes a window of pages present, in steps small enough for a
// sender to wait for one.
func (l *Log) populateAhead(window int64) {
	s := l.find(l.Written())
	if s == nil || !s.retain() {
		return // rolled on, which woke us again
	}
	defer l.releaseMapping(s)
	if s.view == nil {
		return // nothing to populate, and nobody asks again
	}
	for {
		off := int64(l.Written() - s.base())
		done := s.populated.Load()
		if done >= off+window || !s.populateTo(min(done+populateStep, roundUp(off+window, pageBytes))) {
			break
		}
	}
	// The next wake-up comes when half of the window is used. A sender that
	// populates for itself wakes us with the first frame behind it, and so lets
	// us measure the rate.
	s.kickAt.Store(s.populated.Load() - window/2)
}

// releaseMapping gives a reference back and notes what cannot be returned.
func (l *Log) releaseMapping(s *segment) {
	if err := s.release(); err != nil {
		l.opts.Logger.Warn("commit log: unmap segment", "error", err)
	}
}
