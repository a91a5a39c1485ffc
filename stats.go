package mq

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// counters are counted outside the append lock, once per batch or rarer.
type counters struct {
	failed  atomic.Int64
	overdue atomic.Int64 // at this moment
	dead    atomic.Int64
	missed  atomic.Int64
}

// Stats is what a broker counts and measures, at one moment. Counters count
// from opening the store.
type Stats struct {
	Topics    int // that exist
	Queues    int // of all topics
	Groups    int // that ever subscribed, broadcasting members one by one
	Consumers int // living

	Sent      int64 // messages stored
	SentBytes int64 // their bodies
	Acked     int64 // messages acknowledged or passed over, over all groups
	Failed    int64 // handlers that failed
	Overdue   int64 // handlers that run now and are past PushOptions.Timeout
	Dead      int64 // messages that became dead letters
	Missed    int64 // messages that groups went past: dropped or damaged
	Invisible int64 // messages received by simple consumers whose time is not up

	Delivered int64 // delayed messages whose time came
	Waiting   int64 // delayed messages whose time is to come, now
	Parked    int64 // messages that ordered groups have moved aside and not consumed, now

	Messages    int64 // stored now, in all queues
	LogBytes    int64 // of the log, preallocated space included
	Segments    int
	Written     int64 // position: how far the log is written
	Synced      int64 // position: how far it is safe from a power cut
	Syncs       int64 // fdatasyncs of the log
	Checkpoints int64
	Dropped     int64 // segments removed by retention

	PendingCallbacks int    // asynchronous sends that wait for their sync
	Poisoned         error  // why nothing can be stored any more; nil: it can
	HeldBy           string // the group whose unconsumed messages keep the oldest segment from being dropped; empty if none does; HeldByWaiting
	HeldBytes        int64  // of segments that would have been dropped but for groups
}

// Stats returns a consistent picture of counters that change together, and
// otherwise values of about the same moment.
func (b *Broker) Stats() Stats {
	log := b.log.Stats()
	s := Stats{
		Failed: b.counters.failed.Load(), Overdue: b.counters.overdue.Load(), Dead: b.counters.dead.Load(), Missed: b.counters.missed.Load(),
		Written: int64(log.Written), Synced: int64(log.Synced), Syncs: log.Syncs,
		LogBytes: log.Bytes, Segments: log.Segments, Poisoned: b.log.Err(),
		Checkpoints: b.upkeep.checkpoints.Load(), Dropped: b.upkeep.dropped.Load(),
	}
	var queues []*queue
	b.log.Exclusive(func() {
		s.Sent, s.SentBytes, s.Acked = b.state.messages, b.state.bodyBytes, b.state.acked
		s.Delivered, s.Waiting = b.timer.delivered, b.timer.waiting
		s.Topics, s.Groups = len(b.state.topics), len(b.state.groups)
		for _, t := range b.state.topics {
			queues = append(queues, *t.queues.Load()...)
		}
		for _, g := range b.state.groups {
			s.Parked += g.parked()
		}
	})
	s.Queues = len(queues)
	for _, q := range queues {
		s.Messages += q.stored()
	}
	b.members.Lock()
	s.Consumers = len(b.consumers)
	for _, g := range b.active() {
		s.Invisible += g.invisible()
	}
	b.members.Unlock()
	s.PendingCallbacks = b.callback.underWay()
	s.HeldBy, s.HeldBytes = b.upkeep.held()
	return s
}

// GroupInfo describes a group.
type GroupInfo struct {
	Name    string
	Members []MemberInfo // living, sorted by name
	Topics  []string     // ever subscribed to, sorted
	Retry   RetryPolicy  // as UpdateGroup set it

	// Invisible counts the messages that simple consumers received, did not
	// acknowledge, and whose time is not up.
	Invisible int64

	// Parked counts the messages of an ordered group that were moved aside because
	// their sharding key is blocked, or was, and that are not consumed. Lag counts
	// them as well, in the topics named by ParkedTopic.
	Parked int64
}

// MemberInfo describes a living member of a group.
type MemberInfo struct {
	Name   string
	Model  Model
	Pull   bool
	Simple bool
	Queues []Queue // dealt to it, sorted; of a simple consumer all of its topics
}

// Groups lists the names of all groups that ever subscribed, sorted.
func (b *Broker) Groups() []string {
	var names []string
	for _, g := range b.names.groupsNamed("") {
		if !derived(g.name) { // the keeper of dead letters is the engine's own
			names = append(names, g.name)
		}
	}
	return slices.Compact(names)
}

// Group describes a group. Errors: ErrGroupNotFound.
func (b *Broker) Group(name string) (GroupInfo, error) {
	groups, err := b.knownGroup(name)
	if err != nil {
		return GroupInfo{}, err
	}
	info := GroupInfo{Name: name}
	b.members.Lock()
	for _, g := range groups {
		if g.instance == "" {
			info.Retry = g.policy.Load().config()
		}
		info.Invisible += g.invisible()
		for _, m := range g.members {
			info.Members = append(info.Members, MemberInfo{m.name, m.kind.model, m.kind.pull, m.kind.simple, m.Assigned()})
		}
	}
	b.members.Unlock()
	b.log.Exclusive(func() {
		for _, g := range groups {
			info.Parked += g.parked()
			for id := range g.subs {
				if t := b.state.topics[id]; t != nil {
					info.Topics = append(info.Topics, t.name)
				}
			}
		}
	})
	slices.SortFunc(info.Members, func(a, b MemberInfo) int { return cmp.Compare(a.Name, b.Name) })
	slices.Sort(info.Topics)
	info.Topics = slices.Compact(info.Topics)
	return info, nil
}

// invisible counts the messages that are with receivers.
func (g *group) invisible() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int64(g.retries.lent)
}

// parked counts the messages that are parked for the group. The append lock is
// held.
func (g *group) parked() (n int64) {
	for id := range g.subs {
		t := g.b.state.topics[id]
		if t == nil || !t.parked {
			continue
		}
		if _, ok := parkedFrom(g.name, t.name); ok {
			for _, o := range g.offsets(nil, t) {
				n += o.Lag()
			}
		}
	}
	return n
}

// knownGroup returns the groups of that name. The keeper of dead letters is the
// engine's own: who has it reset, or deleted, would lose them.
func (b *Broker) knownGroup(name string) ([]*group, error) {
	if name != "" && !derived(name) {
		if groups := b.names.groupsNamed(name); len(groups) > 0 {
			return groups, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrGroupNotFound, name)
}

// QueueOffset says how far a group has got in a queue.
type QueueOffset struct {
	Instance  string // of a broadcasting member; empty in clustering
	Queue     Queue
	Start     Offset // oldest message stored
	Committed Offset // first message not consumed
	Ahead     int64  // messages behind Committed that are consumed, and stored
	End       Offset // behind the newest message
}

// Lag is how many messages of the queue the group has yet to consume.
func (o QueueOffset) Lag() int64 {
	return int64(o.End-max(o.Committed, o.Start)) - o.Ahead
}

// Offsets says how far a group has got in a topic, queue by queue; a
// broadcasting group one instance after another. Errors: ErrGroupNotFound,
// ErrTopicNotFound.
func (b *Broker) Offsets(groupName, topicName string) ([]QueueOffset, error) {
	groups, err := b.knownGroup(groupName)
	if err != nil {
		return nil, err
	}
	t, err := b.knownTopic(topicName)
	if err != nil {
		return nil, err
	}
	var offsets []QueueOffset
	b.log.Exclusive(func() {
		for _, g := range groups {
			offsets = g.offsets(offsets, t)
		}
	})
	return offsets, nil
}

// offsets appends the group's offsets in t. The append lock is held.
func (g *group) offsets(to []QueueOffset, t *topic) []QueueOffset {
	sub := g.subs[t.id]
	if sub == nil {
		return to
	}
	for _, q := range *t.queues.Load() {
		p, start := sub.progress(q.id), q.entries.Min()
		to = append(to, QueueOffset{
			Instance: g.instance, Queue: q.name(),
			Start: start, Committed: p.committed,
			Ahead: p.aheadFrom(start), End: q.entries.End(),
		})
	}
	return to
}

// Lag says how far a group is behind in all topics it ever subscribed to, and
// the sum of that. Messages that its filter does not want count until the
// group has passed them. Errors: ErrGroupNotFound.
func (b *Broker) Lag(groupName string) (total int64, queues []QueueOffset, err error) {
	groups, err := b.knownGroup(groupName)
	if err != nil {
		return 0, nil, err
	}
	b.log.Exclusive(func() {
		for _, g := range groups {
			for id := range g.subs {
				if t := b.state.topics[id]; t != nil {
					queues = g.offsets(queues, t)
				}
			}
		}
	})
	for _, q := range queues {
		total += q.Lag()
	}
	slices.SortFunc(queues, func(a, b QueueOffset) int {
		return cmp.Or(cmp.Compare(a.Instance, b.Instance), compareQueues(a.Queue, b.Queue))
	})
	return total, queues, nil
}

// DeleteGroup forgets a group with its progress, all instances of a
// broadcasting one, its retries and what is parked. Its dead letters stay until they are
// purged, and are those of the next group of that name. Errors: ErrGroupNotFound, ErrGroupActive.
func (b *Broker) DeleteGroup(name string) error {
	b.members.Lock()
	defer b.unlockMembers()
	groups, err := b.knownGroup(name)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if len(g.members) > 0 {
			return fmt.Errorf("%w: %q has %d", ErrGroupActive, name, len(g.members))
		}
	}
	// First what is derived from it: left behind it would be another group's.
	own := b.parkedTopics(name, "")
	if t := b.names.topic(RetryTopic(name)); t != nil {
		own = append(own, t)
	}
	if len(own) > 0 {
		if err := b.deleteTopics(own); err != nil {
			return err
		}
	}
	for _, g := range groups {
		if err := b.deleteGroup(g); err != nil {
			return err
		}
	}
	return nil
}

// Resubscribe changes the filter of a topic for all living members of a group,
// which no single one of them can. Errors: ErrGroupNotFound, ErrTopicNotFound,
// ErrInvalidFilter, ErrClosed.
func (b *Broker) Resubscribe(groupName, topicName string, f Filter) error {
	if err := b.alive(); err != nil {
		return err
	}
	if f.err != nil {
		return f.err
	}
	if err := parkedWants(topicName, f); err != nil {
		return err
	}
	t, err := b.knownTopic(topicName)
	if err != nil {
		return err
	}
	b.members.Lock()
	defer b.unlockMembers()
	groups, err := b.knownGroup(groupName)
	if err != nil {
		return err
	}
	for _, g := range groups {
		g.mu.Lock()
		for _, m := range g.members {
			if _, ok := m.topics[t]; ok {
				m.topics[t] = f
			}
		}
		gt := g.topics[t]
		if gt != nil {
			gt.filter = f
		}
		g.mu.Unlock()
		if gt != nil {
			g.noteFilter(t, &f)
		}
	}
	return nil
}

func compareGroups(a, b *group) int {
	return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.instance, b.instance))
}

// expired reports whether a group without members no longer holds its messages.
// Broker.members is held.
func (g *group) expired(after time.Duration) bool {
	return after >= 0 && len(g.members) == 0 && time.Since(g.idle) >= after
}
