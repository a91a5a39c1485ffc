package mq_test

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
)

func (m *model) aGroup() *refGroup {
	keys := slices.Sorted(maps.Keys(m.groups))
	if len(keys) == 0 {
		return nil
	}
	return m.groups[keys[m.rnd.IntN(len(keys))]]
}

// aMember returns one that lives, and its group.
func (m *model) aMember() (*refGroup, *refMember) {
	for range 4 {
		if g := m.aGroup(); g != nil && len(g.members) > 0 {
			return g, g.members[m.rnd.IntN(len(g.members))]
		}
	}
	return nil, nil
}

// join makes a member, or has one subscribe to another topic.
func (m *model) join() {
	t := m.aTopic()
	if t == nil {
		return
	}
	key := []string{"G0/", "G1/", "G2/", "B/one", "B/two"}[m.rnd.IntN(5)]
	name, instance, _ := strings.Cut(key, "/")
	g := m.groups[key]
	if g == nil {
		g = &refGroup{name: name, instance: instance, subs: map[string]*refSub{}}
		m.groups[key] = g
	}
	var member *refMember
	from := m.whence()
	if len(g.members) == 3 || instance != "" && len(g.members) == 1 {
		member = g.members[m.rnd.IntN(len(g.members))]
		from = member.from
	} else {
		o := &mq.PullOptions{Instance: instance, From: from}
		if instance != "" {
			o.Model = mq.Broadcasting
		}
		if m.rnd.IntN(4) == 0 {
			o.AckDurability = mq.Synced
		}
		if m.rnd.IntN(3) == 0 {
			o.Strategy = mq.ByCircle
		}
		c, err := m.b.NewPullConsumer(name, o)
		if m.full(err) {
			return
		}
		require.NoError(m, err)
		member = &refMember{PullConsumer: c, from: from}
		g.members = append(g.members, member)
	}
	sub := g.subs[t.name]
	filter := m.filter()
	if sub != nil {
		filter = sub.filter
	}
	offsets := m.resolve(t, from)
	require.NoError(m, member.Subscribe(t.name, filterOf(filter)))
	if sub == nil {
		sub = &refSub{topic: t, filter: filter, queues: map[mq.QueueID]*refCursor{}}
		g.subs[t.name] = sub
		for q, off := range offsets {
			sub.cursor(mq.QueueID(q)).restart(off, len(sub.topic.queues[q]))
		}
	}
	if !slices.Contains(member.topics, t.name) {
		member.topics = append(member.topics, t.name)
	}
	m.note("  %s %s subscribes %s %v %v", key, member.Name(), t.name, filter, offsets)
	m.reassign()
}

func (m *model) filter() []string {
	if m.rnd.IntN(2) == 0 {
		return nil
	}
	return []string{"a", "b"}[:1+m.rnd.IntN(2)]
}

// whence is where a group starts, or is reset to; not AtOffset.
func (m *model) whence() mq.Whence {
	switch m.rnd.IntN(4) {
	case 0:
		return mq.Latest
	case 1:
		if t := m.aTopic(); t != nil {
			if msg := m.readable(t); msg != nil {
				return mq.At(msg.StoredAt)
			}
		}
	}
	return mq.Earliest
}

// readable returns a message of the topic that can be read.
func (m *model) readable(t *refTopic) *mq.Message {
	q := t.queues[m.rnd.IntN(len(t.queues))]
	if len(q) == 0 {
		return nil
	}
	msg, err := m.b.MessageByID(q[m.rnd.IntN(len(q))].id)
	if err != nil {
		return nil // dropped, or sent one way
	}
	return msg
}

// resolve says where a Whence is, and checks that a time leads where it should.
func (m *model) resolve(t *refTopic, at mq.Whence) []mq.Offset {
	offsets := make([]mq.Offset, len(t.queues))
	for q := range t.queues {
		switch {
		case at == mq.Latest:
			offsets[q] = mq.Offset(len(t.queues[q]))
		case at != mq.Earliest:
			offsets[q] = m.offsetAt(t, mq.QueueID(q), at)
		default:
			offsets[q] = m.start(t, mq.QueueID(q))
		}
	}
	return offsets
}

func (m *model) offsetAt(t *refTopic, q mq.QueueID, at mq.Whence) mq.Offset {
	when, err := time.Parse(time.RFC3339Nano, strings.TrimPrefix(at.String(), "at "))
	require.NoError(m, err)
	off, err := m.b.OffsetAt(mq.Queue{Topic: t.name, ID: q}, when)
	require.NoError(m, err)
	for i, ref := range t.queues[q] {
		msg, err := m.b.MessageByID(ref.id)
		if err == nil {
			require.Equal(m, mq.Offset(i) >= off, !msg.StoredAt.Before(when), "offset %d of %s:%d stored %v, %d is said to be at %v", i, t.name, q, msg.StoredAt, off, when)
		}
	}
	return off
}

// start is the first offset that retention has left.
func (m *model) start(t *refTopic, q mq.QueueID) mq.Offset {
	route, err := m.b.Route(t.name)
	require.NoError(m, err)
	return route[q].Start
}

func (m *model) leave() {
	g, member := m.aMember()
	if g == nil {
		return
	}
	require.NoError(m, member.Close())
	g.members = slices.DeleteFunc(g.members, func(other *refMember) bool { return other == member })
	m.reassign()
}

func (m *model) deleteGroup() {
	g := m.aGroup()
	if g == nil || m.rnd.IntN(3) > 0 {
		return
	}
	living, known := 0, slices.Contains(m.b.Groups(), g.name)
	for _, other := range m.groups {
		if other.name == g.name {
			living += len(other.members)
		}
	}
	err := m.b.DeleteGroup(g.name)
	if !known {
		require.ErrorIs(m, err, mq.ErrGroupNotFound)
		return
	}
	if living > 0 {
		require.ErrorIs(m, err, mq.ErrGroupActive)
		return
	}
	require.NoError(m, err)
	maps.DeleteFunc(m.groups, func(_ string, other *refGroup) bool { return other.name == g.name })
}

// reassign learns who has which queue now. What changed hands goes back to what
// is committed.
func (m *model) reassign() {
	for key, g := range m.groups {
		owners := map[mq.Queue]string{}
		for _, member := range g.members {
			for _, q := range member.Assigned() {
				require.Empty(m, owners[q], "%s: %v has two owners", key, q)
				require.Contains(m, member.topics, q.Topic)
				owners[q] = member.Name()
			}
		}
		for name, sub := range g.subs {
			followed := slices.ContainsFunc(g.members, func(c *refMember) bool { return slices.Contains(c.topics, name) })
			for q := range sub.topic.queues {
				c, owner := sub.cursor(mq.QueueID(q)), owners[mq.Queue{Topic: name, ID: mq.QueueID(q)}]
				require.Equal(m, followed, owner != "", "%s: %s:%d is %q's", key, name, q, owner)
				if owner != c.owner {
					m.note("  %s %s:%d from %q to %q", key, name, q, c.owner, owner)
					m.mayHavePassed(sub, mq.QueueID(q), c)
					c.rewind()
					c.owner, c.paused = owner, false
				}
			}
		}
	}
}
