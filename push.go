package mq

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Handler consumes a message. Nil means it is consumed. An error or a panic
// means it comes again later, after PushOptions.Backoff, and with others going
// on meanwhile; after PushOptions.MaxAttempts it becomes a dead letter. RetryAfter
// and Discard are errors that say which. The message and all that is in it are the
// handler's for as long as it likes.
//
// The context is cancelled when the consumer closes and when the handler has taken
// longer than PushOptions.Timeout. It is good until the handler returns and not
// beyond: one context serves many messages, and what goes on with it may see it
// cancelled because of another message.
type Handler func(ctx context.Context, m *Message) error

// PushOptions says how a push consumer works. Nil means the defaults.
type PushOptions struct {
	// Model is Clustering unless set.
	Model Model

	// Instance names the member. It is required in Broadcasting, where it is
	// what its offsets are kept under, and must be unique among the group's
	// living members.
	Instance string

	// From is where the group starts in topics it never subscribed to before.
	// Default Earliest.
	From Whence

	// Concurrency is how many handlers run at once. Default 20 (RocketMQ's
	// consumeThreadMin and consumeThreadMax).
	Concurrency int

	// Ordered handles messages of one ShardingKey one at a time and in order,
	// and those without a key in the order of their queue. A message that fails
	// is tried again before the next one of its key; other keys go on.
	Ordered bool

	// Backoff is how long a failed message waits. Default what the group's
	// RetryPolicy says, else RetryDelays: 10 s, 30 s, 1 m … 2 h; in an ordered group
	// one second, always (RocketMQ's suspendCurrentQueueTimeMillis).
	Backoff Backoff

	// MaxAttempts is how often a message is delivered before it becomes a dead
	// letter. Default what the group's RetryPolicy says, else 17 (RocketMQ's maxReconsumeTimes of 16), in an ordered group
	// without limit; negative for no limit. The handler that is given a message
	// counts, whichever member of the group it belongs to.
	MaxAttempts int

	// Timeout is how long a handler may take. Then its context is cancelled, with
	// ErrTimeout as its cause, Hooks.Overdue is called, and Stats counts it in
	// Overdue until it returns. The message waits for that: what the handler returns
	// decides as always, so an error is a failure like any other and nil means that
	// it is consumed after all. Default 15 minutes (RocketMQ's consumeTimeout);
	// negative for none. It is noticed some milliseconds late, never early.
	Timeout time.Duration

	// PrefetchMessages and PrefetchBytes bound what is handed out of one queue
	// and not acknowledged, in an ordered group with those that wait to come again.
	// Default
	// 1,000 and 100 MiB (RocketMQ's pullThresholdForQueue and
	// pullThresholdSizeForQueue).
	PrefetchMessages int
	PrefetchBytes    int64

	// AckDurability Synced waits for the disk before an acknowledgement counts.
	// Default Written: after a power cut what was consumed within the last
	// Options.SyncEvery may come again.
	AckDurability Durability

	// Strategy deals queues out among members. Default Averagely.
	Strategy Strategy
}

// maxConcurrency bounds what a slip of the pen may cost.
const maxConcurrency = 1 << 16

func suspendQueue(int) time.Duration { return time.Second }

func (o *PushOptions) withDefaults() PushOptions {
	var c PushOptions
	if o != nil {
		c = *o
	}
	setDefault(&c.Concurrency, 20)
	setDefault(&c.PrefetchMessages, 1000)
	setDefault(&c.PrefetchBytes, 100*mib)
	setDefault(&c.Timeout, 15*time.Minute)
	return c
}

func (o *PushOptions) validate() error {
	switch {
	case o.Concurrency < 1 || o.Concurrency > maxConcurrency:
		return invalidOption("Concurrency", o.Concurrency)
	case o.PrefetchMessages < 1:
		return invalidOption("PrefetchMessages", o.PrefetchMessages)
	case o.PrefetchBytes < 1:
		return invalidOption("PrefetchBytes", o.PrefetchBytes)
	}
	return nil
}

// PushConsumer calls a handler for every message of its queues.
//
// There is no dispatcher: its workers take batches from the queues themselves,
// read them and call the handler, so that between a send and its handler there
// is one wake-up, and none while messages flow.
type PushConsumer struct {
	*member
	handler Handler
	backoff Backoff // of its own, nil if it has none
	ordered bool

	maxAttempts int           // of its own, 0 if it says nothing
	timeout     time.Duration // of handlers; 0 or less: none

	ctx     context.Context // of the handlers; not of a call
	cancel  context.CancelFunc
	pulse   pulse
	halt    atomic.Bool // closing: begin no further message
	tooMany atomic.Bool // more workers than wanted: leave, to see who is one too many
	working sync.WaitGroup
	beating sync.WaitGroup

	// Guarded by group.mu.
	workers []*worker
	many    int      // workers wanted
	offered []*batch // of workers that are stuck: others help
	free    []*batch // to be used again
}

// NewPushConsumer returns a consumer that is a member of the group and, once it
// subscribes to a topic, calls the handler for its messages, on as many as
// PushOptions.Concurrency goroutines.
//
// Errors: ErrInvalidName, ErrInvalidOptions, ErrGroupKind, ErrInstanceInUse,
// ErrClosed.
func (b *Broker) NewPushConsumer(group string, handler Handler, options *PushOptions) (*PushConsumer, error) {
	o := options.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if handler == nil {
		return nil, fmt.Errorf("%w: handler is nil", ErrInvalidArgument)
	}
	c := &PushConsumer{
		member:  b.newMember(group, o.Instance, groupKind{model: o.Model, ordered: o.Ordered}),
		handler: handler, backoff: o.Backoff, maxAttempts: o.MaxAttempts, timeout: o.Timeout, ordered: o.Ordered,
	}
	if err := c.configure(memberOptions{o.Model, o.Instance, o.From, o.Strategy, o.AckDurability}); err != nil {
		return nil, err
	}
	c.maxOut, c.maxOutBytes = o.PrefetchMessages, o.PrefetchBytes
	c.limit = min(o.Concurrency, runtime.GOMAXPROCS(0))
	c.member.hush, c.member.recall, c.member.stop = c.haltWorkers, c.recallBatches, c.stopWorkers
	b.members.Lock()
	defer b.unlockMembers()
	if err := b.join(c.member); err != nil {
		return nil, err
	}
	c.start(o.Concurrency)
	return c, nil
}

func (c *PushConsumer) start(workers int) {
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.pulse.init()
	c.group.mu.Lock()
	c.many = workers
	c.hireLocked()
	c.group.mu.Unlock()
	c.beating.Add(1)
	go c.runPulse()
	c.wakePulse() // the first messages may be there before any worker has parked
}

// stopWorkers is called once the member is closed and has no queues any more.
// As long as a handler does not return, the pulse goes on acknowledging what is
// finished.
func (c *PushConsumer) stopWorkers() {
	c.cancel()
	c.haltWorkers()
	c.working.Wait()
	close(c.pulse.quit)
	c.beating.Wait()
}

// haltWorkers begins nothing more, and lets other members have what no worker
// has begun, without waiting for handlers. The rest of a lane has to: it comes
// after what is handled.
func (c *PushConsumer) haltWorkers() {
	c.halt.Store(true)
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range c.workers {
		if b := w.batch.Load(); b != nil {
			b.recallLocked()
		}
	}
}

// again has an item come again later, unless nobody waits for it any more. It is
// in the state that it returns: an untried one comes with the same attempt.
func (c *PushConsumer) again(b *batch, it *item, delay time.Duration, state uint32) uint32 {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if b.cursor.retired || b.start != b.cursor.start {
		return state
	}
	d := due{at: time.Now().Add(delay), cursor: b.cursor, lane: b.lane, claim: it.claim}
	if state == itemFailed {
		d.claim.attempt++
	}
	if b.lane != nil {
		b.lane.waiting = true
	}
	g.retries.addLocked(g, d)
	return state
}
