package mq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// TopicConfig says what a topic is like. The zero value, and nil, mean the
// defaults of the broker's Options.
type TopicConfig struct {
	// Queues is the number of message queues, at most 1,024: the most members
	// of one group that can share the topic. Zero is Options.DefaultQueues, and
	// in UpdateTopic the number there is.
	Queues int

	// Durability of the topic's messages: what Send waits for, and what must
	// have happened before a consumer sees them. Zero is Options.Durability,
	// and in UpdateTopic what it is.
	Durability Durability

	// Dedup is within what a message with the DedupKey of another is a repeat of
	// it. The zero value is no window, and in UpdateTopic the one there is.
	Dedup DedupWindow
}

func (c *TopicConfig) validate() error {
	switch {
	case c.Queues < 0 || c.Queues > maxQueues:
		return fmt.Errorf("%w: %d queues, want 1 to %d", ErrInvalidArgument, c.Queues, maxQueues)
	case c.Durability > Written:
		return fmt.Errorf("%w: %v", ErrInvalidArgument, c.Durability)
	}
	return c.Dedup.validate()
}

// TopicInfo describes a topic.
type TopicInfo struct {
	Name       string
	Queues     int
	Durability Durability
	Dedup      DedupWindow // zero: none
	Messages   int64       // stored: of all queues, end less start
	Waiting    int64       // that wait for their time, and are not among those
	Groups     []string    // that have subscribed to it, sorted
}

// topic is the living form of a record.Topic.
type topic struct {
	name   string
	id     coord.TopicID
	again  bool // holds messages of a group that were stored before: retries, and parked ones
	parked bool // the latter

	// Written under the append lock, read without.
	queues     atomic.Pointer[[]*queue]
	durability atomic.Uint32
	deleted    atomic.Bool
	window     atomic.Pointer[window] // nil: none; what is in it is the append lock's

	// Append lock.
	at      coord.Position // newest record that describes it
	waiting int64          // messages that wait for their time
}

func (t *topic) durable() Durability { return Durability(t.durability.Load()) }

// config returns the record that describes the topic as it is. The caller holds
// the append lock.
func (t *topic) config() *record.Topic {
	r := &record.Topic{ID: t.id, Name: t.name, Queues: len(*t.queues.Load()), Synced: t.durable() == Synced}
	if w := t.window.Load(); w != nil {
		r.Window = w.Window
	}
	return r
}

// CreateTopic makes a topic. It is stored before the call returns: as durable
// as the topic's messages will be.
//
// Errors: ErrInvalidName, ErrInvalidArgument, ErrTopicExists, ErrFull, ErrDiskFull,
// ErrPoisoned, ErrClosed.
func (b *Broker) CreateTopic(name string, config *TopicConfig) error {
	if err := validateTopic(name); err != nil {
		return err
	}
	var c TopicConfig
	if config != nil {
		c = *config
	}
	if err := c.validate(); err != nil {
		return err
	}
	setDefault(&c.Queues, b.opts.DefaultQueues)
	setDefault(&c.Durability, b.opts.Durability)
	return b.createTopic(context.Background(), commitlog.Wait, name, c)
}

func (b *Broker) createTopic(ctx context.Context, room commitlog.Room, name string, c TopicConfig) error {
	window, err := c.Dedup.changed(record.Window{})
	if err != nil {
		return err
	}
	end, err := b.appendState(ctx, room, func() (stateRecord, error) {
		if b.names.topic(name) != nil {
			return nil, fmt.Errorf("%w: %q", ErrTopicExists, name)
		}
		return &record.Topic{Name: name, Queues: c.Queues, Synced: c.Durability == Synced, Window: window}, nil
	})
	if err != nil {
		return err
	}
	return b.durable(ctx, end, c.Durability)
}

// topicNamed returns the topic, creating it where that is wanted.
func (b *Broker) topicNamed(ctx context.Context, name string) (*topic, error) {
	if t := b.names.topic(name); t != nil {
		return t, nil
	}
	if err := b.mayHaveTopic(name); err != nil {
		return nil, err
	}
	c := TopicConfig{Queues: b.opts.DefaultQueues, Durability: b.opts.Durability}
	if err := b.createTopic(ctx, commitlog.Wait, name, c); err != nil && !errors.Is(err, ErrTopicExists) {
		return nil, err
	}
	return b.knownTopic(name)
}

// mayHaveTopic says why topicNamed would refuse the name, if it would.
func (b *Broker) mayHaveTopic(name string) error {
	if b.names.topic(name) != nil {
		return nil
	}
	if err := validateTopic(name); err != nil {
		return err
	}
	if b.opts.NoAutoCreate {
		return fmt.Errorf("%w: %q", ErrTopicNotFound, name)
	}
	return nil
}

// knownTopic returns the topic if it exists.
func (b *Broker) knownTopic(name string) (*topic, error) {
	if t := b.names.topic(name); t != nil {
		return t, nil
	}
	if err := validateName("topic", name, 2*maxTopicName); err != nil && !derived(name) {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %q", ErrTopicNotFound, name)
}

// UpdateTopic changes a topic. The number of queues can only grow; which queue
// a sharding key goes to changes with it, so that the order of a key is not
// kept across that moment (as in RocketMQ). A change of the durability syncs
// what is stored so far first.
//
// Errors: ErrTopicNotFound, ErrInvalidArgument.
func (b *Broker) UpdateTopic(name string, config TopicConfig) error {
	t, err := b.knownTopic(name)
	if err != nil {
		return err
	}
	if err := config.validate(); err != nil {
		return err
	}
	// Messages that were visible as Written must not vanish because the topic
	// now asks for Synced.
	ctx := context.Background()
	if err := b.Sync(ctx); err != nil {
		return err
	}
	b.members.Lock()
	defer b.unlockMembers()
	// Reserved: the room that others wait for may have to be made by retention,
	// which needs members.
	end, err := b.appendState(ctx, commitlog.Reserved, func() (stateRecord, error) {
		if t.deleted.Load() {
			return nil, fmt.Errorf("%w: %q", ErrTopicNotFound, name)
		}
		return t.changed(config)
	})
	if err != nil {
		return err
	}
	b.topicGrew(t)
	if err := b.durable(ctx, end, Synced); err != nil {
		return err
	}
	// What was sent as Written between the two syncs woke consumers when it was
	// not to be seen yet.
	for _, q := range *t.queues.Load() {
		q.arrived()
	}
	return nil
}

// changed returns the record that makes the topic what config says. The caller
// holds the append lock.
func (t *topic) changed(config TopicConfig) (*record.Topic, error) {
	r := t.config()
	if config.Queues != 0 && config.Queues < r.Queues {
		return nil, fmt.Errorf("%w: topic %q has %d queues and cannot shrink to %d", ErrInvalidArgument, t.name, r.Queues, config.Queues)
	}
	r.Queues = max(r.Queues, config.Queues)
	if config.Durability != DefaultDurability {
		r.Synced = config.Durability == Synced
	}
	var err error
	r.Window, err = config.Dedup.changed(r.Window)
	return r, err
}

// DeleteTopic removes a topic with its messages, those that are parked too, and
// what groups had got to in it. Deliveries under way are finished; their acknowledgements mean nothing. A
// topic created later under that name is another topic.
//
// Errors: ErrTopicNotFound.
func (b *Broker) DeleteTopic(name string) error {
	t, err := b.knownTopic(name)
	if err != nil {
		return err
	}
	b.members.Lock()
	defer b.unlockMembers()
	return b.deleteTopics(append([]*topic{t}, b.parkedTopics("", name)...))
}

// deleteTopics removes topics, in one frame, or none. Broker.members is held.
func (b *Broker) deleteTopics(ts []*topic) error {
	ctx := context.Background()
	var layout commitlog.Layout
	gone := make([]record.TopicDelete, len(ts))
	for i, t := range ts {
		gone[i].ID = t.id
		layout = layout.Add(gone[i].Size())
	}
	end, err := b.log.Append(ctx, commitlog.Reserved, layout, func(f *commitlog.Frame) error {
		for _, t := range ts {
			if t.deleted.Load() {
				return fmt.Errorf("%w: %q", ErrTopicNotFound, t.name)
			}
		}
		for i := range gone {
			dst, at, _ := f.Next(gone[i].Size(), nil, emptyBody)
			gone[i].Put(dst)
			if err := b.state.applyState(dst, at); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return b.noted(err)
	}
	for _, t := range ts {
		b.topicGone(t)
	}
	return b.durable(ctx, end, Synced)
}

// Topics lists the names of all topics, sorted.
func (b *Broker) Topics() []string {
	return b.names.topicNames()
}

// Topic describes a topic. Errors: ErrTopicNotFound.
func (b *Broker) Topic(name string) (TopicInfo, error) {
	t, err := b.knownTopic(name)
	if err != nil {
		return TopicInfo{}, err
	}
	queues := *t.queues.Load()
	info := TopicInfo{Name: name, Queues: len(queues), Durability: t.durable()}
	for _, q := range queues {
		info.Messages += q.stored()
	}
	b.log.Exclusive(func() {
		info.Waiting = t.waiting
		if w := t.window.Load(); w != nil {
			info.Dedup = DedupWindow{For: time.Duration(w.For) * time.Millisecond, Count: w.Count}
		}
		for _, g := range b.state.groups {
			if g.subs[t.id] != nil {
				info.Groups = append(info.Groups, g.name)
			}
		}
	})
	slices.Sort(info.Groups)
	info.Groups = slices.Compact(info.Groups)
	return info, nil
}

// QueueInfo describes a message queue: its messages have the offsets
// Start <= o < End.
type QueueInfo struct {
	Queue      Queue
	Start, End Offset
}

// Route answers what a RocketMQ name server would: the message queues of a
// topic, and where they start and end. End counts messages that are stored but
// not yet as durable as the topic asks for.
//
// Errors: ErrTopicNotFound.
func (b *Broker) Route(name string) ([]QueueInfo, error) {
	t, err := b.knownTopic(name)
	if err != nil {
		return nil, err
	}
	var infos []QueueInfo
	for _, q := range *t.queues.Load() {
		infos = append(infos, QueueInfo{Queue: q.name(), Start: q.entries.Min(), End: q.entries.End()})
	}
	return infos, nil
}
