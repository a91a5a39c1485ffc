package pocketmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pocketmq/mq"
)

// SubscriberOptions says how a subscriber works. Nil means the defaults.
type SubscriberOptions struct {
	// Group names who consumes together: each message goes to one subscription of
	// the group, and what was acked is not delivered to it again. Empty: every
	// subscription is alone, gets all messages that From says, and is forgotten
	// when it ends.
	Group string

	// Instance makes the group broadcast: each instance gets every message, and
	// goes on where it was when it comes back under the same name. It is a group
	// of its own, called Group|Instance.
	Instance string

	// From is where a group starts in a topic it never subscribed to before, and
	// a subscription without a group always. Default mq.Earliest.
	From mq.Whence

	// Filter chooses messages by tag. Default mq.All. All subscriptions of a
	// group to one topic have the same.
	Filter mq.Filter

	// Ordered delivers messages of one sharding key one at a time and in order:
	// the next one when the one before it is acked, to whichever subscription of
	// the group. Messages without a key are in the order of their message queue.
	Ordered bool

	// Concurrency is how many messages of a subscription are out at once, that is
	// delivered and neither acked nor nacked. Default 1, as Watermill says: the
	// next message comes after the Ack. With Ordered they are of different keys.
	Concurrency int

	// Backoff is how long a nacked message waits before it comes again; others
	// go on meanwhile. Default mq.Fixed(10 * time.Millisecond). There is no limit
	// to attempts: Watermill's middleware.PoisonQueue sets one. A longer delay
	// that the handler put into the metadata (middleware.DelayOnError) counts.
	Backoff mq.Backoff

	// CloseTimeout is how long the end of a subscription waits for messages that
	// are out to be acked. Default 0: they come again, to another subscription of
	// the group or to the next one.
	CloseTimeout time.Duration

	// AckDurability mq.Synced waits for the disk with every Ack. Default
	// mq.Written: after a power cut what was acked within the last
	// mq.Options.SyncEvery may come again; after the end of the process never.
	AckDurability mq.Durability

	// Marshaler makes the messages that are delivered. Default DefaultMarshaler.
	Marshaler Marshaler

	// TopicName is PublisherOptions.TopicName, for Group and Instance, too.
	TopicName func(topic string) string

	// Logger is told what goes wrong behind the channels. Nil discards it.
	Logger watermill.LoggerAdapter
}

// ephemeral is what the names of groups begin with that end with their
// subscription.
const ephemeral = "watermill|"

func (o *SubscriberOptions) withDefaults() (SubscriberOptions, error) {
	var c SubscriberOptions
	if o != nil {
		c = *o
	}
	c.Concurrency = cmp.Or(c.Concurrency, 1)
	if c.Backoff == nil {
		c.Backoff = mq.Fixed(10 * time.Millisecond)
	}
	if c.Marshaler == nil {
		c.Marshaler = DefaultMarshaler{}
	}
	if c.TopicName == nil {
		c.TopicName = EscapeName
	}
	if c.Logger == nil {
		c.Logger = watermill.NopLogger{}
	}
	switch {
	case c.Concurrency < 0:
		return c, fmt.Errorf("%w: Concurrency is %d", mq.ErrInvalidOptions, c.Concurrency)
	case c.CloseTimeout < 0:
		return c, fmt.Errorf("%w: CloseTimeout is %v", mq.ErrInvalidOptions, c.CloseTimeout)
	case c.Instance != "" && c.Group == "":
		return c, fmt.Errorf("%w: Instance is %q and there is no Group", mq.ErrInvalidOptions, c.Instance)
	case strings.HasPrefix(c.Group, ephemeral):
		return c, fmt.Errorf("%w: Group is %q, and %s begins groups that are deleted", mq.ErrInvalidOptions, c.Group, ephemeral)
	}
	return c, nil
}

// group is the name of the group of a new subscription.
func (o *SubscriberOptions) group() string {
	switch {
	case o.Group == "":
		return ephemeral + watermill.NewShortUUID()
	case o.Instance != "":
		return o.TopicName(o.Group) + "|" + o.TopicName(o.Instance)
	default:
		return o.TopicName(o.Group)
	}
}

// Subscriber delivers messages of a broker. It is safe for concurrent use.
type Subscriber struct {
	b    *mq.Broker
	opts SubscriberOptions

	quit    chan struct{}  // closed by Close
	running sync.WaitGroup // subscriptions
	swept   sync.Once

	mu     sync.Mutex // guards closed, and Add against Wait of running
	closed bool
}

var (
	_ message.Subscriber           = (*Subscriber)(nil)
	_ message.SubscribeInitializer = (*Subscriber)(nil)
)

// NewSubscriber returns a subscriber on b, which stays the caller's to close.
// Errors: mq.ErrInvalidOptions.
func NewSubscriber(b *mq.Broker, options *SubscriberOptions) (*Subscriber, error) {
	o, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Subscriber{b: b, opts: o, quit: make(chan struct{})}, nil
}

// Subscribe returns a channel of the messages of a topic, which is created if it
// is not there. A message is consumed when its Ack is called, and comes again
// when its Nack is called, or when the subscription ends before either. Its
// context is cancelled after either and at the end; FromContext finds the
// PocketMQ message by it.
//
// The channel is closed when ctx ends, the subscriber or the broker is closed, or
// the store takes no more acks (mq.ErrPoisoned).
//
// Errors: mq.ErrClosed, mq.ErrInvalidName, mq.ErrTopicNotFound (with
// mq.Options.NoAutoCreate), mq.ErrGroupKind, mq.ErrSubscriptionMismatch,
// mq.ErrInvalidFilter.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !s.begin() {
		return nil, fmt.Errorf("subscribe to %s: %w", topic, mq.ErrClosed)
	}
	sub, err := s.join(topic)
	if err != nil {
		s.running.Done()
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	go sub.run(ctx)
	return sub.out, nil
}

// begin counts a subscription, unless the subscriber is closed.
func (s *Subscriber) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}

// SubscribeInitialize makes the topic and the group, so that the group starts
// there and now. That matters with a From other than mq.Earliest only. Errors:
// as Subscribe.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	if !s.begin() {
		return fmt.Errorf("initialize %s: %w", topic, mq.ErrClosed)
	}
	defer s.running.Done()
	sub, err := s.join(topic)
	if err != nil {
		return fmt.Errorf("initialize %s: %w", topic, err)
	}
	return sub.leave()
}

// join makes a member of the group that subscribes to the topic.
func (s *Subscriber) join(topic string) (*subscription, error) {
	if s.opts.Group == "" {
		s.swept.Do(s.sweep)
	}
	group := s.opts.group()
	c, err := s.b.NewSimpleConsumer(group, &mq.SimpleOptions{
		From: s.opts.From, Ordered: s.opts.Ordered, AckDurability: s.opts.AckDurability,
		MaxAttempts: -1, // the poison queue of Watermill sets a limit
	})
	if err != nil {
		return nil, err
	}
	sub := &subscription{s: s, group: group, consumer: c, out: make(chan *message.Message)}
	sub.fields = watermill.LogFields{"topic": topic, "group": group}
	if err := c.Subscribe(s.opts.TopicName(topic), s.opts.Filter); err != nil {
		return nil, errors.Join(err, sub.leave())
	}
	return sub, nil
}

// sweep deletes groups of subscriptions that did not end but with their process:
// they would hold messages for mq.Retention.GroupExpiry. Those that live have a
// member, and stay.
func (s *Subscriber) sweep() {
	for _, name := range s.b.Groups() {
		if !strings.HasPrefix(name, ephemeral) {
			continue
		}
		err := s.b.DeleteGroup(name)
		if err != nil && !errors.Is(err, mq.ErrGroupActive) && !errors.Is(err, mq.ErrGroupNotFound) {
			s.opts.Logger.Error("group of an earlier run not deleted", err, watermill.LogFields{"group": name})
		}
	}
}

// Close ends all subscriptions, waits at most SubscriberOptions.CloseTimeout for
// acks of messages that are out, and closes the channels. It may be called more
// than once, and while nobody reads the channels. The broker stays open.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.quit)
	}
	s.mu.Unlock()
	s.running.Wait()
	return nil
}
