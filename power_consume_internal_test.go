package mq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/pocketmq/mq/internal/history"
)

// powerPull is a member of a group that polls, with what it has not committed.
type powerPull struct {
	*PullConsumer
	group *powerGroup
	out   []*Message
}

func (l *powerRun) joinPull(g *powerGroup) bool {
	c, err := l.b.NewPullConsumer(g.name, &PullOptions{AckDurability: g.acks})
	if err != nil {
		return l.goesOn("join", err)
	}
	l.pulls = append(l.pulls, &powerPull{PullConsumer: c, group: g})
	l.tell(history.Op{Kind: history.OpJoin, Group: g.name, Member: c.name})
	return l.subscribe(g, c.Subscribe, l.names()...)
}

func (l *powerRun) subscribe(g *powerGroup, subscribe func(string, Filter) error, names ...string) bool {
	for _, name := range names {
		l.mu.Lock()
		t := l.topics[name]
		g.sub(t) // also if nobody knows
		l.mu.Unlock()
		if err := subscribe(name, All); err != nil {
			return l.goesOn("subscribe", err)
		}
	}
	return true
}

// pushBefore is a push consumer with what was handed to it before a reset. Its
// handler may be told only when others have handled the same message after it.
const pushBefore = "push, before a reset"

func (l *powerRun) joinPush(g *powerGroup) bool {
	rnd := rand.New(rand.NewPCG(l.rnd.Uint64(), 1)) // handlers run one at a time, under mu
	ordered := l.rnd.IntN(3) > 0
	poison := fmt.Sprint(l.rnd.IntN(8)) // a key that always fails, or none
	handler := func(_ context.Context, m *Message) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		member := "push"
		if int64(m.origin.start) != m.origin.cursor.current.Load() {
			member = pushBefore
		}
		pm, sub := l.deliveredLocked(g, member, true, m) // handlers run side by side
		if pm == nil {
			return nil
		}
		l.trace.note("  %s handles %s, attempt %d", g.name, described([]*Message{m}), m.Attempt)
		gen := sub.gen
		current := func() bool { return sub.gen == gen && int64(m.origin.start) == m.origin.cursor.current.Load() }
		if ordered && gen%2 == 0 && current() && l.alive(pm.topic) && !l.fs.Off() {
			l.inOrderLocked(sub, pm)
		}
		if nap := rnd.IntN(4); nap > 1 {
			l.mu.Unlock()
			time.Sleep(time.Duration(nap) * time.Millisecond)
			l.mu.Lock()
		}
		// What fails without an order is stored again, under another position: the
		// histories do not follow that yet (delay_power_internal_test.go does).
		failed := ordered && (rnd.IntN(6) == 0 || m.ShardingKey == poison)
		sub.done[pm.number] = true
		switch {
		case failed:
			sub.failing[pm.number] = sub.failing[pm.number] || current()
		case !current(): // it was handed out before a reset, which may have failed
			l.beginLocked(pm.ack(g))
		default:
			delete(sub.failing, pm.number)
			l.stats.acked++
			l.handledLocked(pm, g)
		}
		if failed {
			return errors.New("not this time")
		}
		return nil
	}
	backoff := func(int) time.Duration { return 5 * time.Millisecond }
	var err error
	o := &PushOptions{Concurrency: 1 + l.rnd.IntN(3), Backoff: backoff, Ordered: ordered, MaxAttempts: -1}
	if ordered {
		o.PrefetchMessages = 1 + l.rnd.IntN(12)
	}
	l.push, err = l.b.NewPushConsumer(g.name, handler, o)
	if err != nil {
		return l.goesOn("join", err)
	}
	return l.subscribe(g, l.push.Subscribe, l.names()...)
}

func (l *powerRun) aPull() *powerPull {
	if len(l.pulls) == 0 {
		return nil
	}
	return l.pulls[l.rnd.IntN(len(l.pulls))]
}

func (l *powerRun) consume() bool {
	c := l.aPull()
	if c == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	l.tell(history.Op{Kind: history.OpPolling, Group: c.group.name, Member: c.name})
	ms, err := c.Poll(ctx, 1+l.rnd.IntN(20))
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	if err != nil {
		return l.goesOn("poll", err)
	}
	l.trace.note("%s polled %s", c.name, described(ms))
	l.mu.Lock()
	l.tellDropped()
	for _, m := range ms {
		l.deliveredLocked(c.group, c.name, false, m)
	}
	l.mu.Unlock()
	l.rnd.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
	n := l.rnd.IntN(len(ms) + 1)
	c.out = append(c.out, ms[n:]...)
	return l.commit(c, ms[:n])
}

// described lists messages by number and place.
func described(ms []*Message) string {
	var b strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&b, " %d=%s:%d@%d", numberOf(m.Body), m.Topic, m.Queue, m.Offset)
	}
	return b.String()
}

func (l *powerRun) commitLater() bool {
	c := l.aPull()
	if c == nil {
		return true
	}
	n := l.rnd.IntN(len(c.out) + 1)
	ms := c.out[:n]
	c.out = c.out[n:]
	return l.commit(c, ms)
}

func (l *powerRun) commit(c *powerPull, ms []*Message) bool {
	if len(ms) == 0 {
		return true
	}
	call := l.committing(c.group, ms)
	err := c.Commit(context.Background(), ms...)
	l.trace.note("%s of %s commits %s: %v", c.name, c.group.name, described(ms), err)
	if err != nil { // nobody knows which of them
		l.tell(history.Op{Kind: history.OpUnacked, Call: call})
		return errors.Is(err, ErrStale) || l.goesOn("commit", err)
	}
	l.committed(c.group, ms, call)
	if c.group.acks == Synced {
		l.topicsSynced()
	}
	return true
}

// committed notes that a group is done with messages.
func (l *powerRun) committed(g *powerGroup, ms []*Message, call int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.acked += int64(len(ms))
	l.judge.Add(history.Op{Kind: history.OpAcked, Call: call})
	if g.acks == Synced { // and with it everything before
		l.judge.Add(history.Op{Kind: history.OpSyncDone, Call: call})
	}
}

// committing notes that a group may be done with messages.
func (l *powerRun) committing(g *powerGroup, ms []*Message) (call int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	call = l.beginLocked(history.Op{Kind: history.OpSync})
	for _, m := range ms {
		pm := l.numbers[numberOf(m.Body)]
		if pm == nil {
			continue
		}
		if l.alive(pm.topic) {
			g.sub(pm.topic).done[pm.number] = true
		}
		op := pm.ack(g)
		op.Call = call
		l.judge.Add(op)
	}
	return call
}

func (l *powerRun) another() bool {
	if len(l.pulls) > 5 {
		return true
	}
	return l.joinPull(l.groups[[]string{"G", "H"}[l.rnd.IntN(2)]])
}

func (l *powerRun) leave() bool {
	if len(l.pulls) == 0 {
		return true
	}
	i := l.rnd.IntN(len(l.pulls))
	c := l.pulls[i]
	l.pulls = slices.Delete(l.pulls, i, i+1)
	l.tell(history.Op{Kind: history.OpLeave, Group: c.group.name, Member: c.name})
	return l.goesOn("leave", c.Close())
}

// reset moves a group. What it has done since it began to be moved, and before
// that ended, counts for nothing.
func (l *powerRun) reset() bool {
	names := l.names()
	if len(names) == 0 {
		return true
	}
	name := names[l.rnd.IntN(len(names))]
	g := l.groups[[]string{"G", "H", "P"}[l.rnd.IntN(3)]]
	route, err := l.b.Route(name)
	if err != nil {
		return l.goesOn("route", err)
	}
	q := route[l.rnd.IntN(len(route))]
	off := q.Start + Offset(l.rnd.Int64N(int64(q.End-q.Start)+1))
	to := []Whence{Earliest, Latest, AtOffset(q.Queue, off)}[l.rnd.IntN(3)]
	l.trace.note("reset %s in %s to %v", g.name, name, to)
	begun, had := l.movedTo(g, name, to, false)
	l.tell(history.Op{Kind: history.OpPolling, Group: g.name, Member: pushBefore})
	call := l.begin(l.moving(g, name, to))
	err = l.b.ResetOffset(g.name, name, to)
	l.moved(g, name, call, err)
	l.movedTo(g, name, to, true)
	l.mu.Lock()
	if err == nil && to.kind == whenceEarliest {
		clear(begun.excused)
		l.excuseDropped(begun, name)
	}
	for _, n := range had {
		if err != nil { // it may not have been moved
			begun.done[n] = true
		}
	}
	l.mu.Unlock()
	return l.goesOn("reset", err)
}

// excuseDropped notes what of a topic retention has dropped already.
func (l *powerRun) excuseDropped(sub *powerSub, name string) {
	t := l.b.names.topic(name)
	if t == nil {
		return
	}
	queues := *t.queues.Load()
	for _, m := range l.messages {
		if m.topic.id == t.id && m.known && m.Offset < queues[m.Queue].entries.Min() {
			sub.excused[m.number] = true
		}
	}
}

// movedTo is called before a reset and after it. What a handler has done in
// between may count or not.
func (l *powerRun) movedTo(g *powerGroup, name string, to Whence, over bool) (sub *powerSub, had []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[name]
	sub = g.sub(t)
	sub.gen++
	clear(sub.failing)
	for _, m := range l.messages {
		if m.topic != t {
			continue
		}
		if to.kind == whenceOffset && m.known && m.Queue != to.queue.ID {
			continue // acknowledged it stays
		}
		if to.kind == whenceLatest || to.kind == whenceOffset && (!m.known || m.Offset < to.offset) {
			sub.excused[m.number] = true
		}
		if !over && sub.done[m.number] {
			delete(sub.done, m.number)
			had = append(had, m.number)
		}
	}
	return sub, had
}
