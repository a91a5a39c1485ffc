package mq

import (
	"context"
	"fmt"
	"time"
)

// SimpleOptions says how a simple consumer works. Nil means the defaults. The
// fields mean what they mean in PushOptions.
type SimpleOptions struct {
	// Instance names the member. One is made up if it is empty.
	Instance string

	// From is where the group starts in topics it never subscribed to before.
	// Default Earliest.
	From Whence

	// Ordered hands out messages of one ShardingKey one at a time and in order:
	// the next one when the one before it is acknowledged, whoever received it.
	// Messages without a key are in the order of their queue. Other keys go on.
	Ordered bool

	// PrefetchMessages and PrefetchBytes bound what is out of one queue: received
	// and not acknowledged, or waiting to come again. A queue with as much out
	// gives no new messages until some are acknowledged; what comes again is
	// given all the same. They belong to the group: those of the member that
	// joined first count. Default 1,000 and 100 MiB (RocketMQ's
	// pullThresholdForQueue and pullThresholdSizeForQueue).
	PrefetchMessages int
	PrefetchBytes    int64

	// MaxAttempts is how often a message is received before it becomes a dead
	// letter. Default what the group's RetryPolicy says, else 17 (RocketMQ's
	// maxReconsumeTimes of 16), in an ordered group without limit; negative for no
	// limit. That of the member that gives the message back, or would be the next to
	// receive it, counts.
	MaxAttempts int

	// AckDurability Synced makes Ack wait for the disk. Default Written: after a
	// power cut what was acknowledged within the last Options.SyncEvery may come
	// again.
	AckDurability Durability
}

func (o *SimpleOptions) withDefaults() SimpleOptions {
	var c SimpleOptions
	if o != nil {
		c = *o
	}
	setDefault(&c.PrefetchMessages, 1000)
	setDefault(&c.PrefetchBytes, 100*mib)
	return c
}

func (o *SimpleOptions) validate() error {
	switch {
	case o.PrefetchMessages < 1:
		return invalidOption("PrefetchMessages", o.PrefetchMessages)
	case o.PrefetchBytes < 1:
		return invalidOption("PrefetchBytes", o.PrefetchBytes)
	}
	return nil
}

// SimpleConsumer hands out messages for a time (RocketMQ 5's SimpleConsumer):
// what is received is invisible to others meanwhile and, unless it is
// acknowledged before the time is up, comes again with a higher Attempt. After
// SimpleOptions.MaxAttempts it becomes a dead letter. It is safe for concurrent
// use.
//
// All members of a group take from all queues of their topics; no queue is dealt
// to one of them. What one of them received another may acknowledge. When a
// member closes, what it received stays invisible until its time is up; when the
// last one closes, or the process ends, everything not acknowledged comes again
// as soon as there is a member. What was received counts as an attempt in each of
// these cases; only a reset of the group's offsets counts anew.
type SimpleConsumer struct {
	*member
	maxAttempts int // of its own, 0 if it says nothing
}

// NewSimpleConsumer returns a consumer that is a member of the group. Subscribe
// gives it something to receive. The model is Clustering.
//
// Errors: ErrInvalidName, ErrInvalidOptions, ErrGroupKind, ErrInstanceInUse,
// ErrClosed.
func (b *Broker) NewSimpleConsumer(group string, options *SimpleOptions) (*SimpleConsumer, error) {
	o := options.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	c := &SimpleConsumer{
		member:      b.newMember(group, o.Instance, groupKind{simple: true, ordered: o.Ordered}),
		maxAttempts: o.MaxAttempts,
	}
	if err := c.configure(memberOptions{instance: o.Instance, from: o.From, acks: o.AckDurability}); err != nil {
		return nil, err
	}
	c.maxOut, c.maxOutBytes = o.PrefetchMessages, o.PrefetchBytes
	b.members.Lock()
	defer b.unlockMembers()
	if err := b.join(c.member); err != nil {
		return nil, err
	}
	return c, nil
}

// Receive returns up to max messages of one queue, at least one: it waits for
// the first until ctx ends, and then returns the error of ctx. However large max
// is, it returns at most 1,024 messages and about 1 MiB at once (RocketMQ's
// proxy: 32 messages). In an Ordered group they all have different sharding
// keys.
//
// The messages are this receiver's for the time invisible, counted from the
// return of this call. It must be positive and has no other bound (RocketMQ's
// proxy: from 10 s to 12 h). Timers are exact to about a millisecond.
//
// Errors: ErrInvalidArgument, ErrClosed, that of ctx.
func (c *SimpleConsumer) Receive(ctx context.Context, max int, invisible time.Duration) ([]*Message, error) {
	if max < 1 {
		return nil, fmt.Errorf("%w: receive of %d messages", ErrInvalidArgument, max)
	}
	if err := validInvisible(invisible); err != nil {
		return nil, err
	}
	r := reception{c: c, fetcher: fetcher{b: c.b, brief: true}, max: min(max, maxPoll), invisible: invisible}
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	for woken := false; ; {
		if c.closed { // who closes it wakes the others; the pool is theirs, if there is one
			return nil, ErrClosed
		}
		if err := ctx.Err(); err != nil {
			if woken {
				c.passOnLocked()
			}
			return nil, err
		}
		cur := g.pool.takeForLocked(c.member)
		if cur == nil {
			c.passOnLocked() // it may have been woken for what another member takes
			woken = c.awaitLocked(ctx)
			continue
		}
		woken = false
		if ms := r.takeLocked(ctx, cur); len(ms) > 0 {
			return ms, nil
		}
	}
}

func validInvisible(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%w: invisible time of %v", ErrInvalidArgument, d)
	}
	return nil
}

// reception is one Receive.
type reception struct {
	c         *SimpleConsumer
	fetcher   fetcher
	max       int
	invisible time.Duration
}

// takeLocked hands out the cursor's next messages; none if there are none to be
// had now. group.mu is let go while they are read.
func (r *reception) takeLocked(ctx context.Context, cur *cursor) []*Message {
	owner := r.c.group.pool.member
	if cur.lanes != nil {
		return r.takeLanesLocked(ctx, owner, cur)
	}
	got := r.fetcher.takeLocked(owner, cur, r.max, maxPollBytes)
	if len(got.messages) == 0 {
		return nil
	}
	ms := make([]*Message, len(got.messages))
	leases := make([]lease, len(got.messages))
	for i := range leases {
		ms[i] = &got.messages[i]
		leases[i] = lease{cursor: cur, start: got.start, claim: got.claims[i]}
	}
	return r.handOutLocked(ctx, cur, ms, leases)
}

// lendLocked begins the invisible time of messages of the cursor.
func (r *reception) lendLocked(cur *cursor, ms []*Message, leases []lease) {
	until := time.Now().Add(r.invisible)
	for i, m := range ms {
		l := &leases[i]
		if l.lane != nil {
			l.lane.running, l.lane.waiting = false, true
			l.lane.items[0].message = nil // the receiver's from here on
		}
		m.origin.lease = l
		cur.group.retries.addLocked(cur.group, due{at: until, cursor: cur, lease: l})
	}
}

// takeLanesLocked hands out the first message of each lane that is ready: the
// lane waits until it is acknowledged or comes again. When no lane is ready the
// queue's next messages are read into lanes first.
func (r *reception) takeLanesLocked(ctx context.Context, owner *member, cur *cursor) []*Message {
	if !cur.lanes.readyLocked() {
		cur.lanes.fillLocked(&r.fetcher, owner, cur)
		return nil
	}
	var taken []*lane
	for len(taken) < r.max && cur.lanes.readyLocked() {
		taken = append(taken, cur.lanes.takeLocked())
	}
	cur.scheduleLocked() // others may take other lanes
	start := cur.start
	lost, err := r.readAgainLocked(cur, taken)
	if r.c.closed || !r.c.mayTakeLocked(cur) || cur.retired || cur.start != start {
		for _, ln := range taken {
			cur.lanes.freeLocked(ln)
		}
		cur.scheduleLocked()
		return nil // the consumer wants nothing of it, or all was forgotten
	}
	var ms []*Message
	var leases []lease
	for _, ln := range taken {
		first := &ln.items[0]
		switch {
		case first.message != nil:
			ms = append(ms, first.message)
			leases = append(leases, lease{cursor: cur, start: start, claim: first.claim, lane: ln})
		case err != nil:
			ln.running, ln.waiting = false, true
			cur.group.retries.addLocked(cur.group, due{at: time.Now().Add(readAgainAfter), cursor: cur, lane: ln})
		default:
			cur.lanes.dropFirstLocked(ln)
		}
	}
	cur.passedLocked(lost)
	ms = r.handOutLocked(ctx, cur, ms, leases)
	cur.scheduleLocked()
	return ms
}

// readAgainLocked reads the first messages of lanes whose receivers have them
// already. group.mu is let go meanwhile. What is lost is reported here.
func (r *reception) readAgainLocked(cur *cursor, lanes []*lane) (lost []claim, err error) {
	var claims []claim
	for _, ln := range lanes {
		if ln.items[0].message == nil {
			claims = append(claims, ln.items[0].claim)
		}
	}
	if len(claims) == 0 {
		return nil, nil
	}
	g, start := cur.group, cur.start
	g.mu.Unlock()
	all := Filter{} // they were wanted once
	got := r.fetcher.fetch(cur, start, &all, claims)
	g.reportMissed(cur.queue, got.gone)
	g.mu.Lock()
	if cur.start != start {
		return nil, nil
	}
	if got.err != nil && !isClosed(got.err) {
		g.b.opts.Logger.Error("messages cannot be read", "queue", cur.queue.name(), "err", got.err)
	}
	for i := range got.messages {
		for _, ln := range lanes {
			if ln.items[0].offset == got.claims[i].offset {
				ln.items[0].message = &got.messages[i]
			}
		}
	}
	return got.lost, got.err
}
