package mq

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pocketmq/mq/internal/coord"
)

// What simple consumers receive is written down as it is for handlers (handout.go),
// but it counts however the process ends: a message that comes again has been
// received once more, whether its time was up, its receiver or the process gone.
//
// One that was received as often as it may becomes a dead letter. Who gives it back
// stores that, and for one whose time is up whoever asks for messages next, in its
// place: so there is no goroutine for it, and no lock is held.

// everyEnd is the epoch of a handout that counts after a clean end too. No log
// has it.
const everyEnd = 0

// Last errors of such messages.
var (
	errNotAcked  = errors.New("mq: not acknowledged while it was invisible")
	errGivenBack = errors.New("mq: given back by its receiver")
)

// most is how often the consumer's group delivers a message; 0 or less: without
// limit.
func (c *SimpleConsumer) most() int {
	return c.group.mostAttempts(c.maxAttempts, c.kind.ordered)
}

// handOutLocked hands out messages that were claimed for this: they are written
// down, and the receiver's from then on. Those without an attempt left become dead
// letters instead. group.mu is let go meanwhile.
func (r *reception) handOutLocked(ctx context.Context, cur *cursor, ms []*Message, leases []lease) []*Message {
	g, start := cur.group, cur.start
	if r.c.closed || !r.c.mayTakeLocked(cur) { // closed or unsubscribed meanwhile
		cur.giveBackLocked(leases)
		return nil
	}
	ms, leases, spent := r.withoutSpent(ms, leases)
	g.mu.Unlock()
	g.handOutLeases(cur.queue, start, leases)
	buried := g.bury(ctx, cur.queue, start, spent, errNotAcked)
	g.mu.Lock()
	if cur.retired || cur.start != start { // all was forgotten meanwhile
		cur.giveBackLocked(leases)
		cur.giveBackLocked(spent)
		return nil
	}
	cur.buriedLocked(spent, buried)
	if r.c.closed || !r.c.mayTakeLocked(cur) {
		cur.giveBackLocked(leases)
		return nil
	}
	r.lendLocked(cur, ms, leases)
	return ms
}

// withoutSpent takes out what has no attempt left.
func (r *reception) withoutSpent(ms []*Message, leases []lease) (keptMs []*Message, kept, spent []lease) {
	most := r.c.most()
	keptMs, kept = ms[:0], leases[:0]
	for i, m := range ms {
		l := leases[i]
		l.attempt = m.Attempt
		if most > 0 && l.attempt > most {
			l.claim.attempt-- // this delivery does not happen
			spent = append(spent, l)
			continue
		}
		keptMs, kept = append(keptMs, m), append(kept, l)
	}
	return keptMs, kept, spent
}

// giveBackLocked undoes the claims of messages that are handed out to nobody. Those
// from before a reset were forgotten then.
func (c *cursor) giveBackLocked(leases []lease) {
	var claims []claim
	for i := range leases {
		if ln := leases[i].lane; ln != nil {
			c.lanes.freeLocked(ln)
		} else if !c.retired && leases[i].start == c.start {
			claims = append(claims, leases[i].claim)
		}
	}
	c.redo = slices.Insert(c.redo, 0, claims...)
	c.scheduleLocked()
}

// handOutLeases writes down that messages are about to be received.
func (g *group) handOutLeases(q *queue, start coord.Position, leases []lease) {
	byAttempt := func(a, b lease) int {
		return cmp.Or(cmp.Compare(a.claim.attempt, b.claim.attempt), cmp.Compare(a.claim.offset, b.claim.offset))
	}
	if !slices.IsSortedFunc(leases, byAttempt) { // there is what comes again
		leases = slices.Clone(leases)
		slices.SortFunc(leases, byAttempt)
	}
	for from := 0; from < len(leases); {
		attempt, to := leases[from].claim.attempt, from
		var spans []span
		for ; to < len(leases) && leases[to].claim.attempt == attempt; to++ {
			spans = withOffset(spans, leases[to].claim.offset)
		}
		if !g.writeHandout(q, start, everyEnd, attempt, spans) {
			return
		}
		from = to
	}
}

// bury makes messages dead letters, and says which of them it could. Of a claim
// it wants the number of the last delivery.
func (g *group) bury(ctx context.Context, q *queue, start coord.Position, spent []lease, cause error) (done []bool) {
	for i := range spent {
		t := g.b.trialOf(q, spent[i].claim)
		r := retry{after: -1, dead: true}
		err := g.sendBack(ctx, q, start, spent[i].claim, t.attempts, r, cause)
		switch {
		case err == nil:
			g.b.counters.dead.Add(1)
			g.tell(t, r, cause)
		case errors.Is(err, ErrStale): // reset, or its topic deleted: nobody waits for it
		case !isClosed(err) && !errors.Is(err, ctx.Err()):
			g.b.opts.Logger.Error("dead letter not stored", "group", g.name, "queue", q.name(), "offset", t.offset, "err", err)
		}
		done = append(done, err == nil || errors.Is(err, ErrStale))
	}
	return done
}

// buriedLocked makes room for what comes after dead letters. What could not be
// made one is tried again later.
func (c *cursor) buriedLocked(spent []lease, done []bool) {
	for i := range spent {
		l := &spent[i]
		if done[i] {
			if l.lane != nil {
				c.lanes.dropFirstLocked(l.lane)
			}
			c.finishedLocked(l.start, 1, int64(l.claim.entry.Size))
			continue
		}
		again := due{at: time.Now().Add(sendBackAgain), cursor: c, claim: l.claim, lane: l.lane}
		again.claim.attempt++
		if l.lane != nil {
			l.lane.items[0].claim = again.claim
			l.lane.running, l.lane.waiting = false, true
		}
		c.group.retries.addLocked(c.group, again)
	}
}

// buryGiven is bury for one message that was given back.
func (g *group) buryGiven(ctx context.Context, l *lease) {
	last := []lease{*l}
	buried := g.bury(ctx, l.cursor.queue, l.start, last, errGivenBack)
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.start == l.cursor.start && !l.cursor.retired {
		l.cursor.buriedLocked(last, buried)
	}
}
