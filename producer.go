package mq

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/record"
)

// Selector chooses the message queue of a message, from 0 to queues-1. It is
// called before the message is stored, on the sender's goroutine, and must not
// change it.
type Selector func(m *Message, queues int) QueueID

// Random chooses any queue (RocketMQ's SelectMessageQueueByRandom).
func Random(_ *Message, queues int) QueueID { return QueueID(rand.IntN(queues)) }

// ByShardingKey chooses by the hash of Message.ShardingKey, so that messages of
// one key lie in one queue, in the order they were sent (RocketMQ's
// SelectMessageQueueByHash). A message without a key goes to queue 0.
func ByShardingKey(m *Message, queues int) QueueID {
	if m.ShardingKey == "" {
		return 0
	}
	return QueueID(xxhash.Sum64String(m.ShardingKey) % uint64(queues))
}

// ProducerOptions says how a producer sends. Nil means the defaults.
type ProducerOptions struct {
	// Group is the producer's name, for people. May be empty.
	Group string

	// Selector chooses message queues. By default a message with a ShardingKey
	// goes to the queue of its key and others go round robin.
	Selector Selector
}

// Producer sends messages. It is safe for concurrent use; one is enough for a
// program, though goroutines that send millions of messages a second do better
// with one each.
type Producer struct {
	b      *Broker
	group  string
	choose Selector
	closed atomic.Bool
	last   atomic.Pointer[topic] // of the send before

	_    [64]byte // turn is written by every send: keep it off the line of what they read
	turn atomic.Uint32
}

// NewProducer returns a producer. Errors: ErrInvalidName, ErrClosed.
func (b *Broker) NewProducer(options *ProducerOptions) (*Producer, error) {
	if err := b.alive(); err != nil {
		return nil, err
	}
	var o ProducerOptions
	if options != nil {
		o = *options
	}
	if o.Group != "" {
		if err := validateGroup(o.Group); err != nil {
			return nil, err
		}
	}
	p := &Producer{b: b, group: o.Group, choose: o.Selector}
	p.turn.Store(rand.Uint32()) // RocketMQ's producers begin at a random queue, too
	return p, nil
}

// Group returns the producer's name.
func (p *Producer) Group() string { return p.group }

// Close makes later sends return ErrClosed. Sends under way are not affected,
// nor are callbacks that are due. It may be called more than once.
func (p *Producer) Close() error {
	p.closed.Store(true)
	return nil
}

// Send stores m and returns when it is as durable as its topic asks for: in a
// Synced topic after an fdatasync, shared with the sends that came meanwhile.
// Where the log has no room yet it waits for it, until ctx ends. A Send that
// returns the error of ctx may still have stored its message.
//
// A repeat (Message.DedupKey) stores nothing: the result is that of the first
// message, as durable as its topic asks for, with Duplicate set.
//
// Errors: ErrInvalidName, ErrInvalidMessage, ErrTooLarge, ErrTopicNotFound,
// ErrNoDedupWindow, ErrFull, ErrDiskFull, ErrPoisoned, ErrClosed.
func (p *Producer) Send(ctx context.Context, m *Message) (SendResult, error) {
	var one [1]outgoing
	if err := p.prepare(ctx, m, &one[0]); err != nil {
		return SendResult{}, err
	}
	end, err := p.b.appendMessages(ctx, commitlog.Wait, one[:])
	if err != nil {
		return SendResult{}, err
	}
	if one[0].durability == Synced {
		if err := p.b.await(ctx, end, one[:]); err != nil {
			return SendResult{}, err
		}
	}
	one[0].queue.arrived()
	return one[0].result, nil
}

// SendBatch stores ms, of any mix of topics, all or nothing: in one frame of
// the log. It waits for the strongest durability among their topics; each
// message becomes visible by that of its own. Of messages with the same DedupKey
// the first is stored, if it is no repeat. The results are in the order of ms. The frame is at most 16 MiB (ErrTooLarge). See Send for errors.
func (p *Producer) SendBatch(ctx context.Context, ms []*Message) ([]SendResult, error) {
	if len(ms) == 0 {
		return nil, nil
	}
	batch, err := p.prepareBatch(ctx, ms)
	if err != nil {
		return nil, err
	}
	end, err := p.b.appendMessages(ctx, commitlog.Wait, batch)
	if err != nil {
		return nil, err
	}
	if strongest(batch) == Synced {
		arrivedWritten(batch) // before the sync: their topics do not wait for it
		if err := p.b.await(ctx, end, batch); err != nil {
			return nil, err
		}
	}
	results := make([]SendResult, len(batch))
	for i := range batch {
		batch[i].queue.arrived()
		if results[i] = batch[i].result; batch[i].repeat.twin > 0 {
			results[i] = results[batch[i].repeat.twin-1]
			results[i].Duplicate = true
		}
	}
	return results, nil
}

// SendAsync stores m and calls callback, which may be nil, exactly once: when m
// is as durable as its topic asks for, or with the error. In a Written topic
// that is before SendAsync returns, on the caller's goroutine; in a Synced one
// callbacks are run one after another by one goroutine of the broker, so a
// callback that blocks holds up the others: one that calls SendAsync itself should
// use a context that ends, for it may wait for a place that only another callback's
// return sets free. When SendAsync returns an error, nothing was stored and callback
// is not called.
//
// It never waits for the disk, only for room in the log or for one of 65,536
// callbacks (RocketMQ's limit of asynchronous sends), until ctx ends. The first
// message of a topic that is not there yet waits until that is made. See Send for
// errors.
func (p *Producer) SendAsync(ctx context.Context, m *Message, callback func(SendResult, error)) error {
	var one [1]outgoing
	if err := p.prepare(ctx, m, &one[0]); err != nil {
		return err
	}
	if one[0].topic.durable() == Synced {
		if err := p.b.callback.acquire(ctx); err != nil {
			return err
		}
		return p.sendLater(ctx, commitlog.Wait, one[:], callback)
	}
	if _, err := p.b.appendMessages(ctx, commitlog.Wait, one[:]); err != nil {
		return err
	}
	if one[0].durability == Synced { // it became so meanwhile
		p.b.callback.force(one[:], callback)
		return nil
	}
	one[0].queue.arrived()
	if callback != nil {
		callback(one[0].result, nil)
	}
	return nil
}

// SendOneWay stores m and forgets about it: nobody is told when it is durable.
// It never waits: ErrBackpressure says that the log has no room prepared, or
// that 65,536 asynchronous sends are under way. Only the first message of a topic
// that is not there yet waits until that is made. See Send for other errors.
func (p *Producer) SendOneWay(m *Message) error {
	ctx := context.Background()
	var one [1]outgoing
	if err := p.prepare(ctx, m, &one[0]); err != nil {
		return err
	}
	if one[0].topic.durable() == Synced {
		if !p.b.callback.tryAcquire() {
			return ErrBackpressure
		}
		return p.sendLater(ctx, commitlog.Try, one[:], nil)
	}
	if _, err := p.b.appendMessages(ctx, commitlog.Try, one[:]); err != nil {
		return err
	}
	if one[0].durability == Synced {
		p.b.callback.force(one[:], nil)
		return nil
	}
	one[0].queue.arrived()
	return nil
}

// sendLater appends a message whose place among the callbacks is taken.
func (p *Producer) sendLater(ctx context.Context, room commitlog.Room, one []outgoing, callback func(SendResult, error)) error {
	if _, err := p.b.appendMessages(ctx, room, one); err != nil {
		p.b.callback.release(1)
		return err
	}
	p.b.callback.add(one, callback)
	return nil
}

// prepare does what needs no lock: validation, sizes, hashes.
func (p *Producer) prepare(ctx context.Context, m *Message, o *outgoing) error {
	if err := p.check(m, o); err != nil {
		return err
	}
	return p.direct(ctx, o)
}

// prepareBatch prepares all messages or none: as long as one of them may be
// refused, no topic is made for another.
func (p *Producer) prepareBatch(ctx context.Context, ms []*Message) ([]outgoing, error) {
	batch := make([]outgoing, len(ms))
	for i, m := range ms {
		err := p.check(m, &batch[i])
		if err == nil {
			err = mayBeSentTo(m.Topic)
		}
		if err == nil {
			err = p.b.mayHaveTopic(m.Topic)
		}
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
	}
	markTwins(batch)
	layout := layoutOf(batch)
	if size := layout.Size(); size > commitlog.MaxFrameBytes {
		return nil, fmt.Errorf("%w: batch of %d bytes, at most %d", ErrTooLarge, size, commitlog.MaxFrameBytes)
	}
	for i := range batch {
		if err := p.direct(ctx, &batch[i]); err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
	}
	return batch, nil
}

// check looks at the message alone.
func (p *Producer) check(m *Message, o *outgoing) error {
	if p.closed.Load() {
		return ErrClosed
	}
	if err := p.b.alive(); err != nil {
		return err
	}
	if m == nil {
		return fmt.Errorf("%w: nil", ErrInvalidMessage)
	}
	if len(m.Body) > p.b.opts.MaxBodyBytes {
		return fmt.Errorf("%w: body of %d bytes, at most %d", ErrTooLarge, len(m.Body), p.b.opts.MaxBodyBytes)
	}
	o.message = m
	o.head.Tag = m.Tag
	o.head.ShardingKey = m.ShardingKey
	o.head.Keys = m.Keys
	o.head.Properties = m.Properties
	if m.Delay != 0 || m.DelayLevel != 0 || !m.DeliverAt.IsZero() {
		at, err := deliverAt(m)
		if err != nil {
			return err
		}
		if at != 0 {
			o.head.Again = &record.Again{DeliverAt: at}
		}
	}
	o.head.DedupKey = m.DedupKey
	size, err := o.head.HeadSize()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidMessage, err)
	}
	o.headSize = size
	if m.DedupKey != "" {
		return p.b.checkDedup(m, &o.repeat)
	}
	return nil
}

// direct finds the topic, making it if that is wanted, and the queue that a
// checked message goes to.
func (p *Producer) direct(ctx context.Context, o *outgoing) error {
	m := o.message
	t, err := p.topicOf(ctx, m.Topic)
	if err != nil {
		return err
	}
	queues := *t.queues.Load()
	id := p.queueFor(m, len(queues))
	if id < 0 || int(id) >= len(queues) {
		return fmt.Errorf("%w: the selector chose %v", ErrQueueNotFound, Queue{m.Topic, id})
	}
	o.topic, o.queue = t, queues[id]
	o.head.Topic, o.head.Queue = t.id, id
	o.bodyHash = commitlog.BodyHash(m.Body)
	o.tagHash = tagHash(m.Tag)
	return nil
}

// topicOf looks at the topic of the send before first: most producers have one.
func (p *Producer) topicOf(ctx context.Context, name string) (*topic, error) {
	if t := p.last.Load(); t != nil && t.name == name && !t.deleted.Load() {
		return t, nil
	}
	if err := mayBeSentTo(name); err != nil {
		return nil, err
	}
	t, err := p.b.topicNamed(ctx, name)
	if err == nil {
		p.last.Store(t)
	}
	return t, err
}

func mayBeSentTo(name string) error {
	if derived(name) {
		return fmt.Errorf("%w: only the engine sends to topic %q", ErrInvalidName, name)
	}
	return nil
}

func (p *Producer) queueFor(m *Message, queues int) QueueID {
	switch {
	case p.choose != nil:
		return p.choose(m, queues)
	case m.ShardingKey != "":
		return ByShardingKey(m, queues)
	}
	return QueueID(p.turn.Add(1) % uint32(queues))
}
