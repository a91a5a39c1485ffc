package mq

import (
	"slices"

	"github.com/cespare/xxhash/v2"
)

// lanes keep the order of an ordered group's messages of one queue: one lane
// per sharding key, one for all messages without a key. A lane is with one
// worker at a time, so messages of a key are handled one after another, and
// different keys in parallel. Which member the worker belongs to does not
// matter: lanes are the group's, so a key that is being handled waits for its
// handler when the queue moves.
//
// Messages of a lane that waits for long are parked, see park.go.
//
// Guarded by group.mu.
type lanes struct {
	cursor   *cursor
	byKey    map[uint64]*lane
	ready    []*lane // with messages, free to be taken
	fetching bool    // a worker reads messages to be laned, or parks some: one at a time, in order

	keyed   bool    // there was a message with a key
	held    int     // messages in lanes that wait
	parking bool    // some of them are being parked
	later   bool    // they could not be parked: group.retries says when to try again
	twin    *cursor // where the messages of this queue are parked; of a queue of parked messages, where they come from
	parked  *parked // set: of a queue of parked messages
}

// lane is the messages of one key that were read and not yet consumed.
type lane struct {
	key     uint64
	items   []item   // in order
	blocked *blocked // set once a message has failed, or is parked
	held    int32    // of lanes.held
	running bool     // with a worker
	waiting bool     // its first message failed and comes again later
	behind  bool     // messages of its key are parked, and come first
	ready   bool     // in lanes.ready
}

func newLanes(c *cursor) *lanes { return &lanes{cursor: c, byKey: map[uint64]*lane{}} }

// laneKey is the key of a message's lane. Two sharding keys that share a hash
// share a lane, which costs parallelism and nothing else.
func laneKey(shardingKey string) uint64 { return xxhash.Sum64String(shardingKey) }

// noKey is the lane of messages without a key.
var noKey = laneKey("")

// readyLocked reports whether a lane can be taken.
func (l *lanes) readyLocked() bool { return len(l.ready) > 0 }

// addLocked puts a message behind those of its key.
func (l *lanes) addLocked(it item) {
	key := laneKey(it.message.ShardingKey)
	ln := l.byKey[key]
	if ln == nil {
		ln = l.newLaneLocked(key)
	}
	ln.items = append(ln.items, it)
	if ln.waiting || ln.behind {
		l.holdLocked(ln)
	}
	l.readyLane(ln)
}

func (l *lanes) newLaneLocked(key uint64) *lane {
	ln := &lane{key: key}
	l.byKey[key] = ln
	if l.twin != nil && l.parked == nil {
		ln.behind = l.twin.lanes.byKey[key] != nil
	}
	if !l.keyed && key != noKey {
		l.keyed = true
		if other := l.byKey[noKey]; other != nil {
			l.holdLocked(other)
		}
	}
	return ln
}

// readyLane puts the lane where workers find it, if it can be taken.
func (l *lanes) readyLane(ln *lane) {
	if ln.ready || ln.running || ln.waiting || ln.behind {
		return
	}
	if len(ln.items) > 0 {
		ln.ready = true
		l.ready = append(l.ready, ln)
	} else if l.parked != nil {
		l.parked.hungryLocked(ln)
	}
}

// takeLocked takes the lane that has waited longest.
func (l *lanes) takeLocked() *lane {
	ln := l.ready[0]
	l.ready = l.ready[:copy(l.ready, l.ready[1:])]
	ln.ready, ln.running = false, true
	return ln
}

// leaveLocked ends a worker's turn with the lane: what failed, and then what
// was not begun, is at the front again. Of a stale batch nothing is: offsets
// were reset while it ran.
func (l *lanes) leaveLocked(ln *lane, b *batch, rest []item, stale bool) {
	ln.running = false
	if !stale {
		var back []item
		for i := range b.items[:len(b.items)-len(rest)] {
			if state := b.state[i].Load(); comesAgain(state) {
				again := b.items[i]
				if state == itemFailed {
					again.attempt++
				}
				again.message = nil // the handler has had it
				back = append(back, again)
			}
		}
		ln.items = append(append(back, rest...), ln.items...)
		if l.parked != nil && ln.waiting {
			l.putBackLocked(ln)
		}
	}
	l.restLocked(ln)
}

// restLocked says what becomes of a lane, unless it is with a worker.
func (l *lanes) restLocked(ln *lane) {
	if ln.running {
		return
	}
	l.holdLocked(ln)
	if len(ln.items) == 0 && ln.parkedCount() == 0 {
		l.endLocked(ln)
		return
	}
	l.readyLane(ln)
}

// endLocked forgets a lane without messages. If what was in it was parked, what
// came behind that is next.
func (l *lanes) endLocked(ln *lane) {
	if l.byKey[ln.key] != ln {
		return
	}
	delete(l.byKey, ln.key)
	if l.parked == nil || l.twin == nil {
		return
	}
	if next := l.twin.lanes.byKey[ln.key]; next != nil && next.behind {
		next.behind = false
		l.twin.lanes.restLocked(next)
		l.twin.scheduleLocked()
	}
}

// resumeLocked ends the wait of a lane whose first message failed.
func (l *lanes) resumeLocked(ln *lane) {
	ln.waiting = false
	l.restLocked(ln)
}

// dropFirstLocked ends the wait for the lane's first message: it is consumed, or
// passed over.
func (l *lanes) dropFirstLocked(ln *lane) {
	ln.items = slices.Delete(ln.items, 0, 1)
	l.freeLocked(ln)
}

// freeLocked has the lane's first message handed out, now or again.
func (l *lanes) freeLocked(ln *lane) {
	ln.running, ln.waiting = false, false
	l.restLocked(ln)
}

// emptyLocked forgets the messages: offsets were reset. Lanes that are with a
// worker stay, so that their key waits for it.
func (l *lanes) emptyLocked() {
	l.ready, l.held, l.later = nil, 0, false
	for key, ln := range l.byKey {
		ln.items, ln.blocked, ln.held = nil, nil, 0
		ln.ready, ln.waiting, ln.behind = false, false, false
		if !ln.running {
			delete(l.byKey, key)
		}
	}
	if l.parked != nil {
		*l.parked = parked{}
		if l.twin != nil {
			l.twin.lanes.releaseLocked()
		}
	}
}

// laneTurn is how many messages of a lane a worker handles before other lanes
// have their turn.
const laneTurn = 32

// fillLocked reads the queue's next messages into lanes. Only one goroutine does
// so at a time, or messages of a key could be laned out of order.
func (l *lanes) fillLocked(f *fetcher, owner *member, cur *cursor) {
	if !l.knowParkedLocked() || l.fetching {
		return
	}
	if l.parked != nil {
		l.fillParkedLocked(f, owner)
		return
	}
	l.fetching = true
	got := f.takeLocked(owner, cur, maxBatch, slabBytes)
	l.fetching = false
	if cur.retired {
		return
	}
	for i := range got.messages {
		l.addLocked(item{got.claims[i], &got.messages[i]})
	}
	cur.scheduleLocked()
}

// takeLaneLocked makes a batch of a lane's messages, if one is ready; else there
// may be one the next time.
func (w *worker) takeLaneLocked(cur *cursor) *batch {
	l := cur.lanes
	if cur.parksLocked() {
		w.parkLocked(cur)
		return nil
	}
	if !l.readyLocked() {
		l.fillLocked(&w.fetcher, w.c.member, cur)
		return nil
	}
	ln := l.takeLocked()
	b := w.c.newBatchLocked(cur, cur.start)
	b.lane = ln
	n := min(laneTurn, len(ln.items))
	b.items = append(b.items, ln.items[:n]...)
	ln.items = ln.items[:copy(ln.items, ln.items[n:])]
	cur.scheduleLocked()
	return b
}
