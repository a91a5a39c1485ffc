package mq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
)

// member is what consumers share: membership in a group, the queues dealt to it,
// and waiting for something to be there.
type member struct {
	b         *Broker
	groupName string
	instance  string
	kind      groupKind
	strategy  Strategy
	from      Whence
	acks      Durability
	hush      func() // begin nothing more of what was handed out
	recall    func() // the same of queues that are not the member's, or paused
	stop      func() // ends the consumer's goroutines and waits for them

	// Set by join, under Broker.members.
	group *group
	name  string

	// Changed under Broker.members and group.mu, read under either.
	topics map[*topic]Filter

	// Guarded by Broker.members.
	manual   []Queue // of Assign; nil: queues are dealt
	draining bool    // gets no queues any more

	// Guarded by group.mu.
	owned   []*cursor
	pool    *pool           // set: this is the owner that a pool stands for
	ready   []*cursor       // with something to hand out, first in first out
	parked  []chan struct{} // goroutines that wait for ready, last in first out
	running int             // goroutines that do not
	limit   int             // running at once, unless they are stuck
	quiet   chan struct{}   // of drain: closed when nothing runs any more
	closed  bool
	paused  bool // nothing is taken from its queues
	halted  bool // acks cannot be stored: nothing more is handed out

	maxOut      int // messages handed out and not acknowledged, of one queue
	maxOutBytes int64

	once     sync.Once
	closeErr error
}

func (b *Broker) newMember(groupName, instance string, kind groupKind) *member {
	return &member{
		b: b, groupName: groupName, instance: instance, kind: kind,
		topics: map[*topic]Filter{}, strategy: Averagely, acks: Written,
		hush: func() {}, recall: func() {}, stop: func() {}, maxOut: math.MaxInt, maxOutBytes: math.MaxInt64, limit: math.MaxInt,
	}
}

// memberOptions are what consumers are asked alike.
type memberOptions struct {
	model    Model
	instance string
	from     Whence
	strategy Strategy
	acks     Durability
}

func (m *member) configure(o memberOptions) error {
	if err := validateGroup(m.groupName); err != nil {
		return err
	}
	if o.model > Broadcasting {
		return fmt.Errorf("%w: model %d", ErrInvalidOptions, o.model)
	}
	if o.instance != "" || o.model == Broadcasting {
		if err := validateInstance(o.instance); err != nil {
			return err
		}
	}
	if o.from.kind == whenceOffset {
		return fmt.Errorf("%w: a group cannot start %v", ErrInvalidOptions, o.from)
	}
	if o.acks > Written {
		return invalidOption("AckDurability", o.acks)
	}
	if o.strategy != nil {
		m.strategy = o.strategy
	}
	if o.acks != DefaultDurability {
		m.acks = o.acks
	}
	m.from = o.from
	return nil
}

// offsetsOf is the instance whose offsets the member uses.
func (m *member) offsetsOf() string {
	if m.kind.model == Broadcasting {
		return m.instance
	}
	return ""
}

// Subscribe makes the consumer receive the messages of a topic that the filter
// wants. Subscribing again changes nothing but the filter, and that only while
// no other member has another one. The group starts where its options say the
// first time any member subscribes to the topic; later it goes on where it was.
//
// Errors: ErrTopicNotFound, ErrInvalidName, ErrInvalidFilter,
// ErrSubscriptionMismatch, ErrClosed.
func (m *member) Subscribe(topic string, f Filter) error {
	if f.err != nil {
		return f.err
	}
	if err := parkedWants(topic, f); err != nil {
		return err
	}
	if err := m.maySubscribe(); err != nil {
		return err // before a topic is made for nothing
	}
	t, err := m.b.topicNamed(context.Background(), topic)
	if err != nil {
		return err
	}
	m.b.members.Lock()
	defer m.b.unlockMembers()
	if err := m.maySubscribeLocked(); err != nil {
		return err
	}
	if err := m.group.mismatch(m, t, f); err != nil {
		return err // before a part of it is subscribed to
	}
	// First what is parked: it comes before the rest of its keys.
	if err := m.subscribeParked(t); err != nil {
		return err
	}
	if err := m.group.subscribe(m, t, f, m.from); err != nil {
		return err
	}
	return m.subscribeRetries(m.b.names.topic(RetryTopic(m.groupName)))
}

// Unsubscribe ends Subscribe: the consumer gets nothing more of the topic. When
// it returns no handler begins with a message of it; handlers under way finish
// and are acknowledged, and what was handed out and not begun goes to other
// members. The group keeps its progress. If no other member subscribes to the
// topic, messages that wait to come again wait on, until the group's last member
// closes; and so does the time of those that a simple consumer received, which
// it may still acknowledge. What was sent back to the group's RetryTopic comes
// from there as long as the consumer subscribes to any topic.
//
// Errors: ErrTopicNotFound, ErrNotAssigned if the consumer does not subscribe to
// the topic, ErrClosed.
func (m *member) Unsubscribe(topic string) error {
	t, err := m.b.knownTopic(topic)
	if err != nil {
		return err
	}
	m.b.members.Lock()
	defer m.b.unlockMembers()
	if err := m.aliveLocked(); err != nil {
		return err
	}
	if _, ok := m.topics[t]; !ok || m.manual != nil {
		return fmt.Errorf("%w: not subscribed to topic %q", ErrNotAssigned, topic)
	}
	m.group.unsubscribe(m, t)
	if parked := m.b.names.topic(ParkedTopic(m.groupName, topic)); parked != nil {
		if _, ok := m.topics[parked]; ok {
			m.group.unsubscribe(m, parked)
		}
	}
	retries := m.b.names.topic(RetryTopic(m.groupName))
	if _, ok := m.topics[retries]; ok && len(m.topics) == 1 {
		m.group.unsubscribe(m, retries)
	}
	return nil
}

func (m *member) maySubscribe() error {
	m.b.members.Lock()
	defer m.b.members.Unlock()
	return m.maySubscribeLocked()
}

// maySubscribeLocked says why the member cannot, if so. Broker.members is held.
func (m *member) maySubscribeLocked() error {
	if err := m.aliveLocked(); err != nil {
		return err
	}
	if m.manual != nil {
		return fmt.Errorf("%w: Subscribe after Assign", ErrInvalidArgument)
	}
	return nil
}

// Group returns the name of the consumer's group.
func (m *member) Group() string { return m.groupName }

// Name returns the consumer's name in its group: its Instance, or one made up.
func (m *member) Name() string { return m.name }

// Assigned returns the queues that are dealt to this consumer now, sorted; those
// of all its topics if it is a simple one.
func (m *member) Assigned() []Queue {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	return m.queuesLocked()
}

// Close leaves the group. Calls that wait return ErrClosed; the context of
// handlers under way is cancelled and their return waited for; messages handed
// out and not begun go to other members. It may be called more than once, but
// not from a handler.
//
// Errors: ErrDiskFull, if what handlers are done with could not be acknowledged for
// want of room, and no other member takes it on: those messages come again.
func (m *member) Close() error {
	m.close()
	return m.closeErr
}

// close gives the member's queues to the others at once and leaves the group
// when its handlers have returned: until then what they handle is known to the
// group, so that a member that joins meanwhile does not get it again.
func (m *member) close() {
	m.once.Do(func() {
		m.b.members.Lock()
		m.draining = true
		m.group.mu.Lock()
		m.closed = true
		m.wakeAllLocked()
		m.group.mu.Unlock()
		m.group.rebalance()
		m.b.unlockMembers()
		m.stop()
		m.b.members.Lock()
		m.b.leave(m)
		m.b.unlockMembers()
	})
}

// drained waits until the member, which gets no queues any more, has finished
// what was handed out to it. What a pull consumer polled, or a simple one
// received, is its caller's affair.
func (m *member) drained(ctx context.Context) error {
	m.group.mu.Lock()
	if m.kind.pull || m.kind.simple || m.running == 0 {
		m.group.mu.Unlock()
		return nil
	}
	if m.quiet == nil {
		m.quiet = make(chan struct{})
	}
	quiet := m.quiet
	m.group.mu.Unlock()
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// aliveLocked says whether the member is open. Broker.members is held.
func (m *member) aliveLocked() error {
	if m.closed { // written under both locks
		return ErrClosed
	}
	return m.b.alive()
}

// readyLocked queues a cursor that has something to hand out, and wakes who
// waits for it. While as many goroutines run as there are processors, one of
// them will come to it; more would only take turns.
func (m *member) readyLocked(c *cursor) {
	m.ready = append(m.ready, c)
	if m.pool != nil {
		m.pool.wakeLocked(c)
	} else if m.running < m.limit {
		m.wakeOneLocked()
	}
}

// takeReadyLocked takes the cursor that has waited longest, nil if none.
func (m *member) takeReadyLocked() *cursor {
	if len(m.ready) == 0 || m.halted {
		return nil
	}
	c := m.ready[0]
	m.ready = m.ready[:copy(m.ready, m.ready[1:])]
	c.queued = false
	return c
}

// parkLocked waits, with group.mu let go meanwhile, until it is woken. The
// signal is a channel of depth 1 of the goroutine's own.
func (m *member) parkLocked(wake chan struct{}) {
	m.parked = append(m.parked, wake)
	m.restLocked()
	m.group.mu.Unlock()
	<-wake
	m.group.mu.Lock()
}

// awaitLocked waits, with group.mu let go meanwhile, until it is woken, which it
// reports, or ctx ends. Who was woken and does not look for messages calls
// passOnLocked, so that the wake-up is not lost.
func (m *member) awaitLocked(ctx context.Context) (woken bool) {
	wake := make(chan struct{}, 1)
	m.parked = append(m.parked, wake)
	m.group.mu.Unlock()
	select {
	case <-wake:
	case <-ctx.Done():
	}
	m.group.mu.Lock()
	if at := slices.Index(m.parked, wake); at >= 0 {
		m.parked = slices.Delete(m.parked, at, at+1)
		return false
	}
	m.running--
	return true
}

// passOnLocked wakes another goroutine for what is ready.
func (m *member) passOnLocked() {
	if m.kind.simple {
		m.group.pool.wakeMoreLocked()
	} else if len(m.ready) > 0 {
		m.wakeOneLocked()
	}
}

// restLocked notes that a goroutine has nothing to do, and tells who waits until
// none has.
func (m *member) restLocked() {
	m.running--
	if m.running == 0 && m.quiet != nil {
		close(m.quiet)
		m.quiet = nil
	}
}

func (m *member) wakeOneLocked() {
	if n := len(m.parked); n > 0 {
		wake := m.parked[n-1]
		m.parked = m.parked[:n-1]
		m.running++
		wake <- struct{}{} // 1 deep, and its owner is parked: never blocks
	}
}

func (m *member) wakeAllLocked() {
	for len(m.parked) > 0 {
		m.wakeOneLocked()
	}
}

// disownLocked takes c from the member's lists.
func (m *member) disownLocked(c *cursor) {
	m.owned = slices.DeleteFunc(m.owned, func(other *cursor) bool { return other == c })
	m.unreadyLocked(c)
}

func (m *member) unreadyLocked(c *cursor) {
	m.ready = slices.DeleteFunc(m.ready, func(other *cursor) bool { return other == c })
	c.queued = false
	c.armed.Store(false)
}

// deal asks the member's strategy, which gets copies. One that panics must not
// take the broker's locks with it: then queues are dealt averagely.
func (m *member) deal(names []string, free []Queue) (dealt map[string][]Queue) {
	defer func() {
		if v := recover(); v != nil {
			m.b.opts.Logger.Error("strategy panicked", "group", m.groupName, "value", v)
			dealt = Averagely(names, free)
		}
	}()
	return m.strategy(slices.Clone(names), slices.Clone(free))
}

// reachLocked returns the cursors that the member may take from. The pool is that of
// the living.
func (m *member) reachLocked() []*cursor {
	if m.closed {
		return nil
	}
	if m.kind.simple {
		return m.group.pool.reachLocked(m)
	}
	return m.owned
}

func (m *member) queuesLocked() []Queue {
	queues := []Queue{}
	for _, c := range m.reachLocked() {
		queues = append(queues, c.queue.name())
	}
	slices.SortFunc(queues, compareQueues)
	return queues
}

// reportMissed counts and tells of messages that the group went past.
func (g *group) reportMissed(q *queue, gone []missed) {
	for _, miss := range gone {
		g.b.counters.missed.Add(int64(miss.To - miss.From))
		if hook := g.b.opts.Hooks.Missed; hook != nil {
			hook(MissedInfo{Group: g.name, Queue: q.name(), From: miss.From, To: miss.To, Err: miss.err})
		}
	}
}

// PanicError is the error of a handler that panicked.
type PanicError struct {
	Value any    // what it panicked with
	Stack []byte // of the goroutine
}

// Error says what the handler panicked with.
func (e *PanicError) Error() string { return fmt.Sprintf("mq: handler panicked: %v", e.Value) }

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	var err error
	if v, ok := e.Value.(error); ok {
		err = v
	}
	return err
}

func isClosed(err error) bool { return errors.Is(err, ErrClosed) }
