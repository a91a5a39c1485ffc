package mq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// Model says how the members of a group share a topic.
type Model uint8

const (
	// Clustering gives each message to one member.
	Clustering Model = iota

	// Broadcasting gives each message to every member. Members have offsets of
	// their own, under their instance name. As in RocketMQ a message whose
	// handler fails does not come again; failures are counted and reported.
	Broadcasting
)

// String returns the name of the constant.
func (m Model) String() string {
	if m == Broadcasting {
		return "Broadcasting"
	}
	return "Clustering"
}

// groupKind is what the living members of a group have in common.
type groupKind struct {
	pull    bool
	simple  bool
	model   Model
	ordered bool
}

func (k groupKind) String() string {
	s := k.model.String()
	if k.ordered {
		s += " ordered"
	}
	switch {
	case k.pull:
		return s + " pull"
	case k.simple:
		return s + " simple"
	}
	return s + " push"
}

// groupKey names a group, or one broadcasting member of it.
type groupKey struct{ name, instance string }

// group is a consumer group, or one broadcasting member of it: whoever has
// offsets of its own. It is the living form of a record.Group.
//
// What has been consumed is in subs and part of the fold. What is being
// consumed is in cursors and lives in memory only: it belongs to the group and
// not to its members, so that a queue can move from one member to another while
// messages of it are being handled.
type group struct {
	b              *Broker
	name, instance string
	id             coord.GroupID
	policy         atomic.Pointer[policy] // nil: none; changed under the append lock
	retried        atomic.Pointer[topic]  // the retry topic, once members were seen to subscribe to it

	// Guarded by the append lock.
	deleted bool
	at      coord.Position // newest record that describes it
	subs    map[coord.TopicID]*subscription

	// Guarded by Broker.members.
	members []*member // living, in the order they joined
	joined  int       // members ever, for their names
	idle    time.Time // since when it has had no member; of dead letters, when it was wanted last

	mu      sync.Mutex // protects everything below, and what cursors and members say it does
	topics  map[*topic]*groupTopic
	pool    *pool // of simple consumers
	retries retries
	suspect *cursor   // of which a message is out that was in hand when the process ended
	behind  []*cursor // that have one to hand out as well
}

// groupTopic is a topic that living members subscribe to.
type groupTopic struct {
	filter  Filter
	cursors []*cursor // by queue id
}

func newGroup(b *Broker, name, instance string, id coord.GroupID) *group {
	return &group{
		b: b, name: name, instance: instance, id: id,
		subs: map[coord.TopicID]*subscription{}, topics: map[*topic]*groupTopic{},
		idle: time.Now(),
	}
}

// record describes the group. The append lock is held.
func (g *group) record() *record.Group {
	r := &record.Group{ID: g.id, Name: g.name, Instance: g.instance}
	if p := g.policy.Load(); p != nil {
		r.Policy = p.kept
	}
	return r
}

// join makes m a member. Broker.members is held.
func (b *Broker) join(m *member) error {
	if err := b.alive(); err != nil {
		return err
	}
	for other := range b.consumers {
		if other.group.name != m.groupName {
			continue
		}
		if other.kind != m.kind {
			return fmt.Errorf("%w: group %q has %v consumers, this is a %v one", ErrGroupKind, m.groupName, other.kind, m.kind)
		}
		if m.instance != "" && other.instance == m.instance {
			return fmt.Errorf("%w: %q in group %q", ErrInstanceInUse, m.instance, m.groupName)
		}
	}
	g, err := b.ensureGroup(groupKey{m.groupName, m.offsetsOf()})
	if err != nil {
		return err
	}
	m.group, m.draining = g, b.draining
	g.joined++
	m.name = m.instance
	if m.name == "" {
		m.name = fmt.Sprintf("%s#%06d", g.name, g.joined) // sorts in the order of joining
	}
	g.members = append(g.members, m)
	if len(g.members) == 1 {
		g.mu.Lock()
		g.pool = nil
		if m.kind.simple {
			g.pool = newPool(m)
		}
		g.mu.Unlock()
	}
	b.consumers[m] = struct{}{}
	return nil
}

// leave ends m's membership and deals its queues out to the others.
// Broker.members is held.
func (b *Broker) leave(m *member) {
	g := m.group
	for t, gt := range g.topics { // changed under Broker.members too
		if !g.wants(t, m) {
			m.closeErr = errors.Join(m.closeErr, g.ackSkippedOf(m, gt))
		}
	}
	delete(b.consumers, m)
	g.members = slices.DeleteFunc(g.members, func(other *member) bool { return other == m })
	g.mu.Lock()
	for t := range g.topics {
		if _, ok := m.topics[t]; ok || len(g.members) == 0 {
			g.dropUnusedLocked(t)
		}
	}
	g.mu.Unlock()
	if len(g.members) == 0 {
		g.idle = time.Now()
	}
	g.rebalance()
}

// wants reports whether members subscribe to t, besides one. Broker.members is held.
func (g *group) wants(t *topic, besides *member) bool {
	return slices.ContainsFunc(g.members, func(m *member) bool {
		_, ok := m.topics[t]
		return ok && m != besides
	})
}

// ackSkippedOf acknowledges what the group's cursors skipped, before they go.
func (g *group) ackSkippedOf(m *member, gt *groupTopic) (err error) {
	for _, c := range gt.cursors {
		g.mu.Lock()
		spans, start := joinSpans(c.takeSkippedLocked()), c.start
		g.mu.Unlock()
		err = errors.Join(err, g.ack(m, c, start, spans))
	}
	return err
}

// ensureGroup returns the group, creating it if need be. Some who call it hold
// Broker.members, so it must not wait for room that retention makes; others do not:
// under the append lock it turns out who creates the group.
func (b *Broker) ensureGroup(key groupKey) (*group, error) {
	for {
		if g := b.names.group(key); g != nil {
			return g, nil
		}
		_, err := b.appendState(context.Background(), commitlog.Reserved, func() (stateRecord, error) {
			if b.names.group(key) != nil {
				return nil, errGroupThere
			}
			return &record.Group{Name: key.name, Instance: key.instance}, nil
		})
		if err != nil && !errors.Is(err, errGroupThere) {
			return nil, err
		}
	}
}

// errGroupThere: somebody else has created the group meanwhile.
var errGroupThere = errors.New("mq: the group is there")

// subscribe makes the group consume t for m. Broker.members is held.
func (g *group) subscribe(m *member, t *topic, f Filter, from Whence) error {
	if err := g.mismatch(m, t, f); err != nil {
		return err
	}
	if err := g.ensureStart(t, from); err != nil {
		return err
	}
	g.mu.Lock()
	m.topics[t] = f
	gt := g.topics[t]
	if gt == nil {
		gt = &groupTopic{}
		g.topics[t] = gt
	}
	gt.filter = f
	g.addCursorsLocked(t, gt)
	g.mu.Unlock()
	g.noteFilter(t, &f)
	g.rebalance()
	return nil
}

// named reports whether g has the name of another group: is it, or was it.
func (g *group) named(other *group) bool {
	return g.b == other.b && g.name == other.name && g.instance == other.instance
}

// mismatch says if another member wants something else of t. Broker.members is
// held.
func (g *group) mismatch(m *member, t *topic, f Filter) error {
	for _, other := range g.members {
		if had, ok := other.topics[t]; ok && other != m && !had.equal(f) {
			return fmt.Errorf("%w: group %q, topic %q: %q, the group has %q", ErrSubscriptionMismatch, g.name, t.name, f, had)
		}
	}
	return nil
}

// unsubscribe ends m's part in t. Cursors without a subscriber stay, without an
// owner, as long as the group has members: what is being handled is known to
// them, so that it does not come twice to who subscribes again.
// Broker.members is held.
func (g *group) unsubscribe(m *member, t *topic) {
	g.mu.Lock()
	delete(m.topics, t)
	gt := g.topics[t]
	g.mu.Unlock()
	if !g.wants(t, m) {
		_ = g.ackSkippedOf(m, gt) // the next owner does
	}
	g.rebalance()
	m.recall()
}

// addCursorsLocked gives the group a cursor on each queue of t.
func (g *group) addCursorsLocked(t *topic, gt *groupTopic) {
	queues := *t.queues.Load()
	for id := len(gt.cursors); id < len(queues); id++ {
		c := &cursor{group: g, queue: queues[id], topic: gt}
		if len(g.members) > 0 && g.members[0].kind.ordered {
			c.lanes = newLanes(c)
			g.twinLocked(c)
		}
		g.rewindLocked(c)
		gt.cursors = append(gt.cursors, c)
		queues[id].addReader(c)
	}
}

// dropUnusedLocked forgets t's cursors when no member subscribes to it.
func (g *group) dropUnusedLocked(t *topic) {
	gt := g.topics[t]
	if gt == nil || g.wants(t, nil) {
		return
	}
	for _, c := range gt.cursors {
		c.retireLocked()
	}
	delete(g.topics, t)
}

// rewindLocked puts the cursor at what the group has got to. What is out is
// forgotten: it is finished under the start it was handed out under, or comes
// again.
func (g *group) rewindLocked(c *cursor) {
	g.b.log.Exclusive(func() {
		c.start, c.done, c.suspects, c.unburied = 0, nil, nil, nil
		c.startLocked(0)
		if sub := g.subs[c.queue.topic.id]; sub != nil {
			p := sub.progress(c.queue.id)
			c.start, c.done, c.suspects = sub.start, slices.Clone(p.ahead), slices.Clone(p.hands)
			c.suspects = slices.DeleteFunc(c.suspects, func(h hand) bool { return h.epoch == g.b.log.Epoch() })
			c.startLocked(p.committed)
		}
	})
	c.current.Store(int64(c.start))
	c.redo, c.skipped, c.before, c.sought = nil, nil, nil, false
	c.out, c.bytes = 0, 0
	g.retries.dropLocked(g, c)
	c.ackDue, c.waiting = false, false
	if c.lanes != nil {
		c.lanes.emptyLocked()
	}
}

// rebalance deals the queues out among the members. It is an event, not a
// timer: it runs at once when a member joins, subscribes or leaves, and when a
// topic grows. Broker.members is held.
func (g *group) rebalance() {
	g.mu.Lock()
	if g.pool != nil {
		g.pool.shareLocked(g.members)
	}
	for t, gt := range g.topics {
		g.rebalanceTopicLocked(t, gt)
	}
	info := g.dealtLocked()
	g.mu.Unlock()
	if len(g.members) > 0 && g.b.opts.Hooks.Rebalanced != nil {
		g.b.rebalanced = append(g.b.rebalanced, info)
	}
}

// unlockMembers lets go of Broker.members and then calls the hooks that were
// due under it.
func (b *Broker) unlockMembers() {
	due := b.rebalanced
	b.rebalanced = nil
	b.members.Unlock()
	for _, info := range due {
		b.opts.Hooks.Rebalanced(info)
	}
}

func (g *group) rebalanceTopicLocked(t *topic, gt *groupTopic) {
	var sharing []*member
	owners := make(map[QueueID]*member, len(gt.cursors))
	for _, m := range g.members {
		if m.draining {
			continue
		}
		for _, q := range m.manual {
			if q.Topic == t.name {
				owners[q.ID] = m
			}
		}
		if _, ok := m.topics[t]; ok && m.manual == nil {
			sharing = append(sharing, m)
		}
	}
	if len(sharing) > 0 && sharing[0].kind.simple {
		for id := range gt.cursors {
			owners[QueueID(id)] = g.pool.member
		}
	} else if len(sharing) > 0 {
		deal(t.name, len(gt.cursors), sharing, owners)
		g.dealDerived(t, len(gt.cursors), sharing, owners)
	}
	for id, c := range gt.cursors {
		g.giveLocked(c, owners[QueueID(id)])
	}
}

// deal asks the strategy of the member that joined first, and notes the owners
// of the queues that have none yet.
func deal(topicName string, queues int, sharing []*member, owners map[QueueID]*member) {
	byName := make(map[string]*member, len(sharing))
	var names []string
	for _, m := range sharing {
		byName[m.name] = m
		names = append(names, m.name)
	}
	slices.Sort(names)
	var free []Queue
	for id := range queues {
		if owners[QueueID(id)] == nil {
			free = append(free, Queue{topicName, QueueID(id)})
		}
	}
	dealt := sharing[0].deal(names, free)
	for _, name := range names { // in order, so that a queue dealt twice has one owner
		for _, q := range dealt[name] {
			if q.Topic == topicName && q.ID >= 0 && int(q.ID) < queues && owners[q.ID] == nil {
				owners[q.ID] = byName[name]
			}
		}
	}
}

// dealDerived finds owners for queues of the group's parked messages and retries
// that the strategy, which need not know of them, has given to nobody: the owners of
// the queues that they were parked from, and for the retries the first member.
func (g *group) dealDerived(t *topic, queues int, sharing []*member, owners map[QueueID]*member) {
	for id := range queues {
		if owners[QueueID(id)] != nil {
			continue
		}
		if from, ok := parkedFrom(g.name, t.name); ok {
			deal(from, queues, sharing, owners)
			return
		}
		if t.name == RetryTopic(g.name) {
			owners[QueueID(id)] = sharing[0]
		}
	}
}

// giveLocked makes m, which may be nil, the owner of c.
//
// A push consumer's queue moves at once: messages being handled stay with their
// handler, and the new owner goes on behind them. What a pull consumer polled
// and did not commit comes again, so its cursor goes back.
func (g *group) giveLocked(c *cursor, m *member) {
	if c.owner == m {
		return
	}
	if c.owner != nil {
		c.owner.disownLocked(c)
		if c.owner.kind.pull {
			g.rewindLocked(c)
		}
	}
	c.owner, c.paused = m, m != nil && m.paused // pausing is the member's affair
	if m != nil {
		m.owned = append(m.owned, c)
		c.scheduleLocked()
		if len(c.skipped) > 0 { // it may have been time while there was no owner
			g.ackLaterLocked(c, g.b.opts.SyncEvery)
		}
	}
}

func (g *group) dealtLocked() RebalancedInfo {
	info := RebalancedInfo{Group: g.name, Instance: g.instance, Queues: map[string][]Queue{}}
	for _, m := range g.members {
		info.Queues[m.name] = m.queuesLocked()
	}
	return info
}

// topicGrew gives the groups of t cursors on its new queues. Broker.members is
// held.
func (b *Broker) topicGrew(t *topic) {
	for _, g := range b.active() {
		g.mu.Lock()
		if gt := g.topics[t]; gt != nil {
			g.addCursorsLocked(t, gt)
		}
		g.mu.Unlock()
		g.rebalance()
	}
}

// topicGone takes t from all groups. Broker.members is held.
func (b *Broker) topicGone(t *topic) {
	for _, g := range b.active() {
		g.mu.Lock()
		for _, m := range g.members {
			delete(m.topics, t)
			m.manual = slices.DeleteFunc(m.manual, func(q Queue) bool { return q.Topic == t.name })
		}
		g.dropUnusedLocked(t)
		g.mu.Unlock()
		g.rebalance()
	}
}

// active returns the groups that have members. Broker.members is held.
func (b *Broker) active() []*group {
	var groups []*group
	for m := range b.consumers {
		if !slices.Contains(groups, m.group) {
			groups = append(groups, m.group)
		}
	}
	return groups
}
