package mq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// Topics that the engine derives from a group (RocketMQ's MixAll): one queue
// each, made when the first message goes there. Those of park.go are derived from
// a topic, too, and have its number of queues.
const (
	retryPrefix = "%RETRY%" // what failed and comes again
	deadPrefix  = "%DLQ%"   // what does not
)

// RetryTopic and DeadLetterTopic return the names of the topics that hold a
// group's retries and dead letters. They can be subscribed to and looked at like
// others; only the engine sends to them.
func RetryTopic(group string) string { return retryPrefix + group }

// DeadLetterTopic: see RetryTopic.
func DeadLetterTopic(group string) string { return deadPrefix + group }

// derived reports whether only the engine sends to a topic of that name.
func derived(name string) bool {
	return strings.HasPrefix(name, retryPrefix) || strings.HasPrefix(name, deadPrefix) || strings.HasPrefix(name, parkPrefix)
}

// derivedTopic returns a topic derived from a group, making it if need be. A
// Written one is enough: a frame that moves a message there is lost in a power
// cut together with the acknowledgement of what it moves.
func (b *Broker) derivedTopic(ctx context.Context, name string, queues int) (*topic, error) {
	if t := b.names.topic(name); t != nil {
		return t, nil
	}
	// Reserved: what is to be moved there may be what keeps the store full.
	err := b.createTopic(ctx, commitlog.Reserved, name, TopicConfig{Queues: queues, Durability: Written})
	if err != nil && !errors.Is(err, ErrTopicExists) {
		return nil, err
	}
	return b.knownTopic(name)
}

// retryTopic returns the group's retry topic, which its push consumers subscribe
// to before anything is sent there: it may be there and they not, when one was
// refused at first.
func (g *group) retryTopic(ctx context.Context) (*topic, error) {
	b := g.b
	if t := b.names.topic(RetryTopic(g.name)); t != nil && t == g.retried.Load() {
		return t, nil
	}
	t, err := b.derivedTopic(ctx, RetryTopic(g.name), 1)
	if err != nil {
		return nil, err
	}
	b.members.Lock()
	defer b.unlockMembers()
	for _, m := range g.members {
		if err := m.subscribeRetries(t); err != nil {
			return nil, err
		}
	}
	g.retried.Store(t)
	return t, nil
}

// subscribeRetries subscribes a push consumer, if it subscribes to anything, to
// the messages that come again. Broker.members is held.
func (m *member) subscribeRetries(t *topic) error {
	if t == nil || !m.retries() || len(m.topics) == 0 {
		return nil
	}
	if _, ok := m.topics[t]; ok {
		return nil
	}
	return m.group.subscribe(m, t, m.group.derivedFilter(t), Earliest)
}

// derivedFilter is what the group wants of what was moved to a topic that is
// derived from it. That is not filtered, for it was wanted once, unless somebody has
// said so: then its members agree, as they do in other topics. Broker.members is held.
func (g *group) derivedFilter(t *topic) Filter {
	for _, m := range g.members {
		if f, ok := m.topics[t]; ok {
			return f
		}
	}
	return All
}

// retries reports whether the member's failures come again through the retry
// topic.
func (m *member) retries() bool { return !m.kind.pull && m.kind.model == Clustering }

// deadTopic returns the group's dead letter topic and the group, without members
// ever, that its messages wait for: as long as they were neither sent again nor
// purged, they are unconsumed and held like others.
func (g *group) deadTopic(ctx context.Context) (*topic, error) {
	name := DeadLetterTopic(g.name)
	t, err := g.b.derivedTopic(ctx, name, 1)
	if err != nil {
		return nil, err
	}
	keeper, err := g.b.ensureGroup(groupKey{name: name})
	if err != nil {
		return nil, err
	}
	keeper.wanted()
	return t, keeper.ensureStart(t, Earliest)
}

// wanted notes that somebody is interested in dead letters, for their keeper: it has
// no members who would be.
func (g *group) wanted() {
	g.b.members.Lock()
	defer g.b.members.Unlock()
	g.idle = time.Now()
}

// moved is messages on their way from one queue to another, for a group: the
// copies and the acknowledgement of the originals are one frame.
type moved struct {
	group *group
	from  settled
	out   []outgoing // to one queue
}

// moveOne begins to move one message.
func moveOne(g *group, q *queue, start coord.Position, off Offset) *moved {
	return &moved{group: g, from: settled{queue: q, start: start, spans: []span{{From: off, To: off + 1}}}, out: make([]outgoing, 1)}
}

// appendMoved stores the copies and acknowledges the originals. ErrStale: those
// are no longer the group's to settle, because of a reset or because somebody did
// so meanwhile, and nothing was stored.
func (b *Broker) appendMoved(ctx context.Context, v *moved) error {
	ack := record.Ack{Group: v.group.id, Start: v.from.start, Topic: v.from.queue.topic.id, Queue: v.from.queue.id, Ranges: v.from.spans}
	layout := layoutOf(v.out).Add(ack.Size())
	place := func(f *commitlog.Frame) error {
		switch {
		case v.group.currentStart(ack.Topic) != ack.Start || v.group.hasDone(&ack):
			return ErrStale
		case len(v.out) > 0 && v.out[0].topic.deleted.Load():
			return fmt.Errorf("%w: %q", ErrTopicNotFound, v.out[0].topic.name)
		}
		for i := range v.out {
			b.place(f, &v.out[i])
		}
		dst, _, _ := f.Next(ack.Size(), nil, emptyBody)
		ack.Put(dst)
		b.state.applyAck(&ack)
		return nil
	}
	end, err := b.log.Append(ctx, commitlog.Wait, layout, place)
	if errors.Is(err, ErrFull) {
		// It is stored already, and its segment may only go when it has moved: one
		// message that always fails would keep the store full for ever.
		end, err = b.log.Append(ctx, commitlog.Reserved, layout, place)
	}
	if err != nil {
		return b.noted(err)
	}
	for i := range v.out {
		v.out[i].end = end
	}
	b.arrivedAll(v.out)
	return nil
}

// hasDone reports whether the group was done with what an ack begins with before.
// The append lock is held, and the ack counts from the group's start.
func (g *group) hasDone(a *record.Ack) bool {
	return len(a.Ranges) > 0 && g.subs[a.Topic].progress(a.Queue).contains(a.Ranges[0].From)
}
