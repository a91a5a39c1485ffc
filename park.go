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

// A key whose message fails is blocked until that message is consumed. What
// comes behind it waits in its lane, and that is in memory and counts to what
// may be out of a queue. So that a key that is blocked for long, or many, hold up
// no others, messages of lanes that wait are parked once there are too many:
// moved, in their order, to a queue that the engine derives from group and topic,
// each frame the copies and the acknowledgement of the originals. From there they
// are delivered when their key is free (parked.go). As long as messages of a key
// are parked, later ones come behind them.

// parkPrefix begins the names of topics of parked messages.
const parkPrefix = "%PARK%"

// parkedAt stands between group and topic in them; it is in no other name.
const parkedAt = "@"

// ParkedTopic returns the name of the topic that holds the messages of a topic
// which an ordered group has moved aside because their sharding key is blocked.
// Queue by queue it belongs to that topic. Only the engine sends to it.
func ParkedTopic(group, topic string) string { return parkPrefix + group + parkedAt + topic }

// parkedFrom is the inverse of ParkedTopic, for the group's.
func parkedFrom(group, name string) (topic string, ok bool) {
	rest, ok := strings.CutPrefix(name, parkPrefix)
	if !ok {
		return "", false
	}
	of, topic, ok := strings.Cut(rest, parkedAt)
	return topic, ok && of == group
}

// entryTag is what the index says of a message besides its place: the hash of
// its tag, and of parked messages that of the key.
func (t *topic) entryTag(v *record.View) uint64 { return entryTag(v, t.parked) }

func entryTag(v *record.View, parked bool) uint64 {
	if parked {
		return laneKey(string(v.ShardingKey))
	}
	return tagHash(string(v.Tag))
}

const (
	// parkShare: messages are parked when those that wait behind failed ones take
	// one part of so many of what may be out of the queue. With the default of
	// 1,000 that leaves 750 to others, and parks 250 at once.
	parkShare = 4

	// parkMessages and parkBytes bound what one frame moves, but for one message.
	parkMessages = 256
	parkBytes    = mib
)

// holdLocked counts the messages of a lane that waits. Messages without a key
// count once there were others: who sends none wants the order of the queue, and
// there is nobody that they would hold up.
func (l *lanes) holdLocked(ln *lane) {
	now := int32(0)
	if (ln.waiting || ln.behind) && !ln.running && (l.keyed || ln.key != noKey) {
		now = int32(len(ln.items))
	}
	l.held += int(now - ln.held)
	ln.held = now
}

// parksLocked reports whether messages are to be parked.
func (c *cursor) parksLocked() bool {
	l := c.lanes
	if l == nil || l.held == 0 || l.fetching || l.later || c.waiting || !c.mayParkLocked() {
		return false
	}
	if l.held*parkShare >= c.owner.maxOut {
		return true
	}
	return c.bytes >= c.owner.maxOutBytes && l.heldBytesLocked()*parkShare >= c.owner.maxOutBytes
}

// mayParkLocked: simple consumers have in hand what their lanes wait for, and
// what is in a topic that the engine derives has left its order already.
func (c *cursor) mayParkLocked() bool {
	return c.owner.retries() && !c.owner.kind.simple && !derived(c.queue.topic.name)
}

func (l *lanes) heldBytesLocked() (bytes int64) {
	for _, ln := range l.byKey {
		for i := range ln.items[:ln.held] {
			bytes += int64(ln.items[i].entry.Size)
		}
	}
	return bytes
}

// parkLocked parks what waits, a frame's worth after the other. group.mu is let
// go meanwhile; other workers handle what does not wait.
func (w *worker) parkLocked(cur *cursor) {
	l, g := cur.lanes, cur.group
	l.fetching = true
	cur.scheduleLocked()
	var err error
	if l.twin == nil {
		g.mu.Unlock()
		err = g.parkTopic(w.c.ctx, cur.queue)
		g.mu.Lock()
	}
	for err == nil && l.held > 0 && l.twin != nil && !cur.retired {
		if !l.knowParkedLocked() {
			err = errNotKnown
			break
		}
		p := parking{cursor: cur, start: cur.start, twin: l.twin}
		p.chooseLocked()
		l.parking = true
		g.mu.Unlock()
		err = p.move(w.c.ctx)
		g.mu.Lock()
		l.parking = false
		p.doneLocked(err == nil)
	}
	l.fetching = false
	if err != nil && !errors.Is(err, ErrStale) {
		if err != errNotKnown && !isClosed(err) && !errors.Is(err, context.Canceled) {
			g.b.opts.Logger.Error("messages not parked", "group", g.name, "queue", cur.queue.name(), "err", err)
		}
		l.later = true
		g.retries.addLocked(g, due{at: time.Now().Add(readAgainAfter), cursor: cur, resume: true})
	}
	cur.scheduleLocked()
}

// errNotKnown: which messages are parked already cannot be told just now.
var errNotKnown = errors.New("mq: parked messages are not known")

// parking is messages on their way to where they are parked.
type parking struct {
	cursor, twin *cursor
	start        coord.Position
	chosen       []chosenLane
	gone         []missed // cannot be read any more
}

// chosenLane is the first messages of a lane.
type chosenLane struct {
	*lane
	items []item
	cause error
}

// chooseLocked takes messages of lanes that wait. Until doneLocked the lanes are
// with the caller, as they would be with a worker.
func (p *parking) chooseLocked() {
	l := p.cursor.lanes
	n, bytes := 0, int64(0)
	for _, ln := range l.byKey {
		if n >= parkMessages || bytes >= parkBytes {
			return
		}
		if ln.held == 0 {
			continue
		}
		ch := chosenLane{lane: ln}
		for i := 0; i < len(ln.items) && n < parkMessages && bytes < parkBytes; i++ {
			n++
			bytes += int64(ln.items[i].entry.Size)
			ch.items = ln.items[:i+1]
		}
		if ln.blocked != nil && !ln.behind {
			ch.cause = ln.blocked.cause
		}
		ln.running = true
		l.holdLocked(ln)
		p.chosen = append(p.chosen, ch)
	}
}

// move stores the copies, and acknowledges the originals, in one frame.
func (p *parking) move(ctx context.Context) error {
	g, q := p.cursor.group, p.cursor.queue
	v := &moved{group: g, from: settled{queue: q, start: p.start}}
	for _, ch := range p.chosen {
		for i := range ch.items {
			it := &ch.items[i]
			origin := record.Origin{Attempts: it.attempt - 1}
			if it.attempt > 1 {
				origin.LastError = errorText(ch.cause)
			}
			v.out = append(v.out, outgoing{})
			o := &v.out[len(v.out)-1]
			err := g.b.copyOf(o, q, it.claim, origin)
			if err == nil {
				err = o.address(p.twin.queue, 0)
				o.tagHash = ch.key
			} else if !fatal(err) {
				// It was read when it came into its lane. It is lost to its key, and no
				// reason to keep the others.
				p.gone = append(p.gone, missed{span{From: it.offset, To: it.offset + 1}, err})
				v.out, err = v.out[:len(v.out)-1], nil
			}
			if err != nil {
				return err
			}
			v.from.spans = append(v.from.spans, span{From: it.offset, To: it.offset + 1})
		}
	}
	v.from.spans = joinSpans(v.from.spans)
	if err := g.b.appendMoved(ctx, v); err != nil {
		return err
	}
	g.reportMissed(q, p.gone)
	return nil
}

// doneLocked gives the lanes back. Those that were moved are the other queue's
// now, with what they wait for; what is left of them comes behind.
func (p *parking) doneLocked(stored bool) {
	l, c := p.cursor.lanes, p.cursor
	whole := stored && c.start == p.start && !c.retired && l.twin == p.twin
	n, bytes := 0, int64(0)
	for _, ch := range p.chosen {
		ln := ch.lane
		ln.running = false
		if !whole {
			l.restLocked(ln)
			continue
		}
		n += len(ch.items)
		for i := range ch.items {
			bytes += int64(ch.items[i].entry.Size)
		}
		rest := ln.items[len(ch.items):]
		if !ln.behind && p.twin.lanes.byKey[ch.key] == nil {
			p.twin.lanes.adoptLocked(ln)
			if ln = nil; len(rest) > 0 {
				ln = l.newLaneLocked(ch.key)
			}
		}
		if ln != nil {
			ln.items, ln.behind = rest, true
			l.restLocked(ln)
		}
	}
	if !whole {
		return
	}
	c.finishedLocked(p.start, n, bytes)
	if l.knowParkedLocked() && l.twin == p.twin {
		for _, ch := range p.chosen {
			if p.twin.lanes.byKey[ch.key] == ch.lane && !ch.waiting {
				p.twin.lanes.restLocked(ch.lane) // all of it may have been lost
			}
		}
	}
}

// adoptLocked takes a lane over whose messages were parked. They are found like
// all others.
func (l *lanes) adoptLocked(ln *lane) {
	from := l.twin.lanes
	delete(from.byKey, ln.key)
	ln.items = nil
	from.holdLocked(ln)
	l.byKey[ln.key] = ln
	cause := ln.blockedState().cause
	*ln.blocked = blocked{cursor: l.cursor, cause: cause}
}

// parkTopic makes the topic that messages of q are parked in, and sees to it that
// it has a queue for it and that those members consume it that consume q. It has
// as many queues as q's topic, so that they are dealt out in the same way: when
// its keys are free the work is shared as it was.
func (g *group) parkTopic(ctx context.Context, q *queue) error {
	b, queues := g.b, len(*q.topic.queues.Load())
	t, err := b.derivedTopic(ctx, ParkedTopic(g.name, q.topic.name), queues)
	if err != nil {
		return err
	}
	b.members.Lock()
	defer b.unlockMembers()
	if q.topic.deleted.Load() {
		if b.names.topic(q.topic.name) == nil {
			err = b.deleteTopics([]*topic{t})
		}
		return errors.Join(ErrStale, err)
	}
	if len(*t.queues.Load()) < queues {
		if err := b.growTopic(ctx, t, queues); err != nil {
			return err
		}
	}
	for _, m := range g.members {
		if _, ok := m.topics[q.topic]; ok {
			if err := m.subscribeParked(q.topic); err != nil {
				return err
			}
		}
	}
	return nil
}

// growTopic is UpdateTopic for the number of queues. Broker.members is held.
func (b *Broker) growTopic(ctx context.Context, t *topic, queues int) error {
	_, err := b.appendState(ctx, commitlog.Reserved, func() (stateRecord, error) {
		if t.deleted.Load() {
			return nil, fmt.Errorf("%w: %q", ErrTopicNotFound, t.name)
		}
		return t.changed(TopicConfig{Queues: queues})
	})
	if err == nil {
		b.topicGrew(t)
	}
	return err
}

// parkedWants refuses filters that the index of parked messages has no tags for.
func parkedWants(topic string, f Filter) error {
	if strings.HasPrefix(topic, parkPrefix) && len(f.tags) > 0 {
		return fmt.Errorf("%w: %v: topic %q is not filtered by tags", ErrInvalidFilter, f, topic)
	}
	return nil
}

// subscribeParked subscribes a member to a topic's parked messages, if there ever
// were any. Broker.members is held.
func (m *member) subscribeParked(from *topic) error {
	t := m.b.names.topic(ParkedTopic(m.groupName, from.name))
	if t == nil || !m.retries() {
		return nil
	}
	if _, ok := m.topics[t]; ok {
		return nil
	}
	return m.group.subscribe(m, t, m.group.derivedFilter(t), Earliest)
}

// parkedTopics returns the topics of parked messages of a group, or of a topic;
// an empty name means any.
func (b *Broker) parkedTopics(group, from string) (found []*topic) {
	for _, name := range b.names.topicNames() {
		rest, ok := strings.CutPrefix(name, parkPrefix)
		if !ok {
			continue
		}
		g, t, _ := strings.Cut(rest, parkedAt)
		if parked := b.names.topic(name); parked != nil && (group == "" || group == g) && (from == "" || from == t) {
			found = append(found, parked)
		}
	}
	return found
}
