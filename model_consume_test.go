package mq_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// deliverable returns an offset that Poll owes the member, if there is one, and
// whether there are others that it may hand out.
func (m *model) deliverable(g *refGroup, member *refMember) (owed bool, maybe bool) {
	for _, sub := range g.subs {
		for q, c := range sub.queues {
			if c.owner != member.Name() || c.paused {
				continue
			}
			start := m.start(sub.topic, q)
			for off := c.next; int(off) < len(sub.topic.queues[q]); off++ {
				switch stateOf(c.passed, off) {
				case refOpen:
					if sub.wants(sub.topic.queues[q][off]) {
						owed = owed || off >= start
						maybe = maybe || off < start
					}
				case refMaybe:
					maybe = true
				}
			}
		}
	}
	return owed, maybe
}

func (m *model) poll() {
	if g, member := m.aMember(); g != nil {
		m.pollAs(g, member)
	}
}

// pollAs polls as a member and checks that it got what it had to get. It reports
// whether there was something.
func (m *model) pollAs(g *refGroup, member *refMember) bool {
	owed, maybe := m.deliverable(g, member)
	wait := 20 * time.Second
	if !owed {
		wait = time.Millisecond // nothing is what must come
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	ms, err := member.Poll(ctx, 1+m.rnd.IntN(40))
	if !owed && errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	require.NoError(m, err, "owed: %v", owed)
	require.True(m, owed || maybe, "%s got %v:%d %d, which it is not owed", g.name, ms[0].Topic, ms[0].Queue, ms[0].Offset)
	for _, msg := range ms {
		m.delivered(g, member, msg)
	}
	return true
}

// delivered checks one message that was polled against the next that was due.
func (m *model) delivered(g *refGroup, member *refMember, msg *mq.Message) {
	sub := g.subs[msg.Topic]
	require.NotNil(m, sub, "%s got a message of %s", g.name, msg.Topic)
	c := sub.cursor(msg.Queue)
	require.Equal(m, member.Name(), c.owner)
	require.False(m, c.paused)
	require.GreaterOrEqual(m, msg.Offset, c.next, "%s: %s:%d goes back", g.name, msg.Topic, msg.Queue)
	start := m.start(sub.topic, msg.Queue)
	for off := c.next; off < msg.Offset; off++ {
		if off >= start && stateOf(c.passed, off) == refOpen && sub.wants(sub.topic.queues[msg.Queue][off]) {
			// Retention removes segments first, and then moves the start.
			mqtest.Eventually(m, func() bool { return m.start(sub.topic, msg.Queue) > off },
				"%s: %s:%d went past %d to %d", g.name, msg.Topic, msg.Queue, off, msg.Offset)
		}
		c.maybe(off)
		c.went(off)
	}
	require.NotEqual(m, byte(refDone), stateOf(c.passed, msg.Offset), "%s: %s:%d: %d was committed and comes again", g.name, msg.Topic, msg.Queue, msg.Offset)
	require.Less(m, int(msg.Offset), len(sub.topic.queues[msg.Queue]))
	ref := sub.topic.queues[msg.Queue][msg.Offset]
	require.True(m, sub.wants(ref), "%s got tag %q", g.name, msg.Tag)
	m.same(ref, msg)
	require.Equal(m, 1, msg.Attempt)
	m.note("  %s/%s %s:%d %d", g.name, member.Name(), msg.Topic, msg.Queue, msg.Offset)
	c.next = msg.Offset + 1
	c.went(msg.Offset)
	g.out = append(g.out, refOut{msg, sub, sub.gen})
}

// same compares a delivered message with what was sent.
func (m *model) same(ref *refMessage, got *mq.Message) {
	if ref.id.IsZero() { // of a one-way send
		ref.id = got.ID
		require.False(m, m.ids[ref.id])
		m.ids[ref.id] = true
	}
	require.Equal(m, ref.id, got.ID)
	sent := ref.sent
	require.True(m, bytes.Equal(sent.Body, got.Body), "body of %v", got.ID)
	require.Equal(m, []any{sent.Topic, sent.Tag, sent.ShardingKey}, []any{got.Topic, got.Tag, got.ShardingKey})
	require.True(m, slices.Equal(sent.Keys, got.Keys) && maps.Equal(sent.Properties, got.Properties), "names of %v", got.ID)
}

func (m *model) commitSome() {
	g, member := m.aMember()
	if g == nil || len(g.out) == 0 {
		return
	}
	m.rnd.Shuffle(len(g.out), func(i, j int) { g.out[i], g.out[j] = g.out[j], g.out[i] })
	n := 1 + m.rnd.IntN(min(len(g.out), 30))
	var ms []*mq.Message
	stale := false
	for _, o := range g.out[:n] {
		ms = append(ms, o.m)
		if o.gen != o.sub.gen || g.subs[o.m.Topic] != o.sub {
			stale = true
			continue
		}
		c := o.sub.cursor(o.m.Queue)
		c.set(o.m.Offset, refDone)
		c.late(o.m.Offset)
		m.note("  %s %s:%d %d", g.name, o.m.Topic, o.m.Queue, o.m.Offset)
	}
	g.out = g.out[n:]
	err := member.Commit(context.Background(), ms...)
	if stale {
		require.ErrorIs(m, err, mq.ErrStale)
		return
	}
	require.NoError(m, err)
}

func (m *model) commitAll() {
	if g, member := m.aMember(); g != nil {
		m.commitAllAs(g, member)
	}
}

func (m *model) commitAllAs(g *refGroup, member *refMember) {
	require.NoError(m, member.Commit(context.Background()))
	for _, sub := range g.subs {
		for q, c := range sub.queues {
			if c.owner != member.Name() {
				continue
			}
			for off, polled := range c.polled {
				if polled {
					c.set(mq.Offset(off), refDone)
				}
			}
			m.note("  %s %s:%d up to %d", g.name, sub.topic.name, q, c.next)
			m.mayHavePassed(sub, q, c)
		}
	}
}

// mayHavePassed notes what the cursor may have skipped without handing out
// anything: what is acknowledged or not wanted, right behind what it handed out.
func (m *model) mayHavePassed(sub *refSub, q mq.QueueID, c *refCursor) {
	start := m.start(sub.topic, q)
	for off := c.next; int(off) < len(sub.topic.queues[q]); off++ {
		if off >= start && stateOf(c.passed, off) == refOpen && sub.wants(sub.topic.queues[q][off]) {
			return
		}
		c.maybe(off)
		for int(off) >= len(c.passed) {
			c.passed = append(c.passed, refOpen)
		}
		if c.passed[off] == refOpen {
			c.passed[off] = refMaybe
		}
	}
}

func (m *model) seek() {
	g, member := m.aMember()
	if g == nil {
		return
	}
	queues := member.Assigned()
	if len(queues) == 0 {
		return
	}
	q := queues[m.rnd.IntN(len(queues))]
	sub := g.subs[q.Topic]
	end := len(sub.topic.queues[q.ID])
	to := mq.Offset(m.rnd.IntN(end + 1))
	require.ErrorIs(m, member.Seek(q, mq.Offset(end+1)), mq.ErrOffsetOutOfRange)
	require.NoError(m, member.Seek(q, to))
	c := sub.cursor(q.ID)
	m.mayHavePassed(sub, q.ID, c)
	m.note("  %s %v to %d", g.name, q, to)
	c.next, c.passed, c.sought = to, nil, true
}

func (m *model) pause() {
	g, member := m.aMember()
	if g == nil {
		return
	}
	for _, q := range member.Assigned() {
		c := g.subs[q.Topic].cursor(q.ID)
		if c.paused {
			require.NoError(m, member.Resume(q))
			c.paused = false
		} else if m.rnd.IntN(4) == 0 {
			require.NoError(m, member.Pause(q))
			c.paused = true
		}
	}
}

func (m *model) reset() {
	g := m.aGroup()
	if g == nil || len(g.subs) == 0 || g.instance != "" {
		return
	}
	names := slices.Sorted(maps.Keys(g.subs))
	sub := g.subs[names[m.rnd.IntN(len(names))]]
	if m.rnd.IntN(3) == 0 {
		q := mq.QueueID(m.rnd.IntN(len(sub.topic.queues)))
		off := mq.Offset(m.rnd.IntN(len(sub.topic.queues[q]) + 1))
		require.NoError(m, m.b.ResetOffset(g.name, sub.topic.name, mq.AtOffset(mq.Queue{Topic: sub.topic.name, ID: q}, off)))
		sub.gen++
		for id, c := range sub.queues {
			m.mayHavePassed(sub, id, c)
			c.rewind()
		}
		sub.cursor(q).restart(off, len(sub.topic.queues[q]))
		m.note("  %s %s:%d to %d", g.name, sub.topic.name, q, off)
		return
	}
	to := m.whence()
	offsets := m.resolve(sub.topic, to)
	require.NoError(m, m.b.ResetOffset(g.name, sub.topic.name, to))
	sub.gen++
	m.note("  %s %s %v %v", g.name, sub.topic.name, to, offsets)
	for q, off := range offsets {
		sub.cursor(mq.QueueID(q)).restart(off, len(sub.topic.queues[q]))
	}
}

func (m *model) resubscribe() {
	g := m.aGroup()
	if g == nil || len(g.subs) == 0 || g.instance != "" {
		return
	}
	names := slices.Sorted(maps.Keys(g.subs))
	sub := g.subs[names[m.rnd.IntN(len(names))]]
	for q, c := range sub.queues {
		m.mayHavePassed(sub, q, c)
	}
	sub.filter = m.filter()
	m.note("  %s %s %v", g.name, sub.topic.name, sub.filter)
	require.NoError(m, m.b.Resubscribe(g.name, sub.topic.name, sub.mqFilter()))
}

// drain has every group consume and commit all it is owed.
func (m *model) drain() {
	m.note("drain")
	for _, key := range slices.Sorted(maps.Keys(m.groups)) {
		g := m.groups[key]
		for _, member := range g.members {
			require.NoError(m, member.Resume(member.Assigned()...))
			for _, q := range member.Assigned() {
				g.subs[q.Topic].cursor(q.ID).paused = false
			}
		}
		for _, member := range g.members {
			for m.pollAs(g, member) {
			}
			m.commitAllAs(g, member)
		}
	}
}

// makeRoom has everything consumed, so that retention may drop it, and moves
// groups without members past what they hold.
func (m *model) makeRoom() {
	m.isFull = false
	m.drain()
	for _, g := range m.groups {
		for _, sub := range g.subs {
			unowned := false
			for _, c := range sub.queues {
				unowned = unowned || c.owner == ""
			}
			if unowned && g.instance == "" {
				require.NoError(m, m.b.ResetOffset(g.name, sub.topic.name, mq.Latest))
				sub.gen++
				for q, off := range m.resolve(sub.topic, mq.Latest) {
					sub.cursor(mq.QueueID(q)).restart(off, len(sub.topic.queues[q]))
				}
			}
		}
	}
}

// compare checks that the broker holds what the reference says.
func (m *model) compare() {
	m.compareWaiting()
	m.note("compare")
	require.NoError(m, m.b.Check(context.Background()))
	require.ElementsMatch(m, slices.Sorted(maps.Keys(m.topics)), m.b.Topics())
	for _, t := range m.topics {
		m.compareTopic(t)
	}
	for _, g := range m.groups {
		for _, sub := range g.subs {
			m.compareProgress(g, sub)
		}
	}
}

func (m *model) compareTopic(t *refTopic) {
	info, err := m.b.Topic(t.name)
	require.NoError(m, err)
	require.Equal(m, t.durability, info.Durability)
	route, err := m.b.Route(t.name)
	require.NoError(m, err)
	require.Len(m, route, len(t.queues))
	for q, ref := range t.queues {
		require.Equal(m, len(ref), int(route[q].End), "end of %s:%d", t.name, q)
		if m.opts.Retention.MaxBytes <= 0 {
			require.Zero(m, route[q].Start, "start of %s:%d", t.name, q)
		}
		for off := route[q].Start; off < route[q].End; off++ {
			if ref[off].id.IsZero() {
				continue
			}
			got, err := m.b.MessageByID(ref[off].id)
			if errors.Is(err, mq.ErrMessageNotFound) && off < m.start(t, mq.QueueID(q)) {
				continue // dropped a moment ago
			}
			require.NoError(m, err, "%s:%d offset %d", t.name, q, off)
			m.same(ref[off], got)
		}
	}
}

func (m *model) compareProgress(g *refGroup, sub *refSub) {
	all, err := m.b.Offsets(g.name, sub.topic.name)
	require.NoError(m, err)
	for _, o := range all {
		if o.Instance != g.instance {
			continue
		}
		c, end := sub.cursor(o.Queue.ID), mq.Offset(len(sub.topic.queues[o.Queue.ID]))
		require.Equal(m, end, o.End)
		low := mq.Offset(0)
		for low < end && c.get(low) == refDone {
			low++
		}
		high := low
		for high < end && (c.get(high) != refOpen || !sub.wants(sub.topic.queues[o.Queue.ID][high]) || high < o.Start) {
			high++
		}
		require.True(m, low <= o.Committed && o.Committed <= high, "%s in %v: committed %d, want %d to %d", g.name, o.Queue, o.Committed, low, high)
		// Nothing that is wanted and held may have been dropped. (A group that goes
		// back may come too late for what retention has just decided to drop.)
		for off := c.held; off < o.Start && off < end; off++ {
			require.False(m, c.get(off) == refOpen && sub.wants(sub.topic.queues[o.Queue.ID][off]), "%s in %v: %d was dropped and not consumed", g.name, o.Queue, off)
		}
	}
}
