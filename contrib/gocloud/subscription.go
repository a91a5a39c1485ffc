package mqpubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/batcher"
	"gocloud.dev/pubsub/driver"

	"github.com/pocketmq/mq"
)

// defaultAckDeadline is that of the Go CDK's own driver in memory.
const defaultAckDeadline = time.Minute

// receiveWait is how long ReceiveBatch waits for a message: "no more than about
// one second", as driver.Subscription has it.
const receiveWait = time.Second

// SubscriptionOptions says how a Subscription receives. Nil means the defaults.
type SubscriptionOptions struct {
	// From is where the group starts if it never subscribed to the topic before.
	// Default mq.Earliest.
	From mq.Whence

	// Filter chooses messages by their tags. Default mq.All. All members of a group
	// must have the same.
	Filter mq.Filter

	// Ordered hands out messages of one sharding key one at a time and in order
	// (see TopicOptions.KeyName): the next one when the one before it is
	// acknowledged. Other keys go on.
	Ordered bool

	// AckDeadline is how long after it was received a message that is neither
	// acknowledged nor given back comes again. It includes the time that it spends
	// prefetched by the portable type. Default one minute.
	AckDeadline time.Duration

	// NackDelay is how long a message that is given back waits until it comes
	// again. Default zero: at once, so a message that is always given back is
	// tried in a hot loop until MaxAttempts ends it.
	NackDelay time.Duration

	// MaxAttempts is that of mq.SimpleOptions: how often a message is received
	// before it becomes a dead letter. Being prefetched counts, and what Shutdown
	// gives back was.
	MaxAttempts int

	// AckDurability mq.Synced makes an acknowledgement wait for the disk. Default
	// mq.Written, which survives the end of the process.
	AckDurability mq.Durability

	// ReceiveBatcherOptions and AckBatcherOptions constrain the batching of the
	// portable type. Nil is its default.
	ReceiveBatcherOptions *batcher.Options
	AckBatcherOptions     *batcher.Options

	release func() error // of a broker that belongs to an opener
}

// OpenSubscription returns a Subscription that is a member of a group and
// receives messages of one topic. If the topic is not there it is created or,
// under Options.NoAutoCreate, Receive fails with code NotFound. Shutdown leaves the
// broker open.
//
// Errors: mq.ErrInvalidName, mq.ErrInvalidOptions (a negative duration among
// them), mq.ErrInvalidFilter, mq.ErrGroupKind, mq.ErrSubscriptionMismatch,
// mq.ErrClosed.
func OpenSubscription(b *mq.Broker, group, topic string, options *SubscriptionOptions) (*pubsub.Subscription, error) {
	var o SubscriptionOptions
	if options != nil {
		o = *options
	}
	s, err := newSubscription(b, group, topic, &o)
	if err != nil {
		return nil, err
	}
	return pubsub.NewSubscription(s, o.ReceiveBatcherOptions, o.AckBatcherOptions), nil
}

// subscription implements driver.Subscription.
type subscription struct {
	failures
	broker    *mq.Broker
	consumer  *mq.SimpleConsumer
	deadline  time.Duration
	nackDelay time.Duration
	release   func() error
	missing   error // the topic was not there when the subscription was opened

	// closing is held for reading by whoever receives, so that Close knows what
	// was handed out.
	closing sync.RWMutex
	closed  bool

	outMu sync.Mutex
	out   map[mq.MessageID]*mq.Message // received and not settled
}

func newSubscription(b *mq.Broker, group, topic string, o *SubscriptionOptions) (*subscription, error) {
	if o.AckDeadline < 0 {
		return nil, fmt.Errorf("%w: AckDeadline is %v", mq.ErrInvalidOptions, o.AckDeadline)
	}
	if o.NackDelay < 0 {
		return nil, fmt.Errorf("%w: NackDelay is %v", mq.ErrInvalidOptions, o.NackDelay)
	}
	c, err := b.NewSimpleConsumer(group, &mq.SimpleOptions{From: o.From, Ordered: o.Ordered, AckDurability: o.AckDurability, MaxAttempts: o.MaxAttempts})
	if err != nil {
		return nil, err
	}
	s := &subscription{
		broker: b, consumer: c, deadline: o.AckDeadline, nackDelay: o.NackDelay, release: o.release,
		out: map[mq.MessageID]*mq.Message{},
	}
	if s.deadline == 0 {
		s.deadline = defaultAckDeadline
	}
	// At once, so that the group starts here and its messages are kept for it. The
	// portable type wants that only receiving fails where there is no topic.
	err = c.Subscribe(topic, o.Filter)
	if errors.Is(err, mq.ErrTopicNotFound) {
		s.missing, err = err, nil
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

// ReceiveBatch implements driver.Subscription.
func (s *subscription) ReceiveBatch(ctx context.Context, maxMessages int) ([]*driver.Message, error) {
	if s.missing != nil {
		return nil, s.missing
	}
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return nil, mq.ErrClosed
	}
	wait, cancel := context.WithTimeout(ctx, receiveWait)
	defer cancel()
	ms, err := s.consumer.Receive(wait, maxMessages, s.deadline)
	if err != nil {
		if ctx.Err() == nil && wait.Err() != nil {
			return nil, nil // nothing came
		}
		return nil, err
	}
	dms := make([]*driver.Message, len(ms))
	s.outMu.Lock()
	defer s.outMu.Unlock()
	for i, m := range ms {
		s.out[m.ID] = m
		dms[i] = &driver.Message{LoggableID: m.ID.String(), Body: m.Body, Metadata: m.Properties, AckID: m, AsFunc: as(m)}
	}
	return dms, nil
}

// SendAcks implements driver.Subscription.
func (s *subscription) SendAcks(ctx context.Context, ids []driver.AckID) error {
	ms := received(ids)
	err := late(s.consumer.Ack(ctx, ms...))
	s.settled(ms, err)
	return err
}

// CanNack implements driver.Subscription.
func (s *subscription) CanNack() bool { return true }

// SendNacks implements driver.Subscription.
func (s *subscription) SendNacks(ctx context.Context, ids []driver.AckID) error {
	ms := received(ids)
	err := s.giveBack(ctx, ms)
	s.settled(ms, err)
	return err
}

func (s *subscription) giveBack(ctx context.Context, ms []*mq.Message) error {
	if s.nackDelay == 0 {
		return late(s.consumer.Nack(ctx, ms...))
	}
	var errs []error
	for _, m := range ms {
		errs = append(errs, late(s.consumer.ChangeInvisible(ctx, m, s.nackDelay)))
	}
	return errors.Join(errs...)
}

func received(ids []driver.AckID) []*mq.Message {
	ms := make([]*mq.Message, len(ids))
	for i, id := range ids {
		ms[i] = id.(*mq.Message)
	}
	return ms
}

// settled takes messages off the list of what is out, unless settling them
// failed.
func (s *subscription) settled(ms []*mq.Message, err error) {
	if err != nil {
		return
	}
	s.outMu.Lock()
	defer s.outMu.Unlock()
	for _, m := range ms {
		if s.out[m.ID] == m { // else it has come again since
			delete(s.out, m.ID)
		}
	}
}

// late is err without what says that a message was settled before, or that its
// deadline was over and it comes again: an error would end the Subscription.
func late(err error) error {
	if errors.Is(err, mq.ErrReceiptExpired) {
		return nil
	}
	return err
}

// As implements driver.Subscription.
func (s *subscription) As(i any) bool { return as(s.broker)(i) || as(s.consumer)(i) }

// Close implements driver.Subscription. What was received and is not settled
// goes to other members at once: nobody can settle it any more.
func (s *subscription) Close() error {
	s.closing.Lock() // waits for who receives: a second, and not at all once their context has ended
	s.closed = true
	s.closing.Unlock()
	s.outMu.Lock()
	rest := make([]*mq.Message, 0, len(s.out))
	for _, m := range s.out {
		rest = append(rest, m)
	}
	clear(s.out)
	s.outMu.Unlock()
	err := late(s.consumer.Nack(context.Background(), rest...))
	if errors.Is(err, mq.ErrClosed) {
		err = nil // the broker is closed, and all comes again when it is opened
	}
	err = errors.Join(err, s.consumer.Close())
	if s.release != nil {
		err = errors.Join(err, s.release())
	}
	return err
}
