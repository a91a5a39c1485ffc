package mq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing/synctest"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/history"
	"github.com/pocketmq/mq/internal/record"
)

// powerMessage is a message that somebody tried to send. Its body begins with
// its number.
type powerMessage struct {
	number, pad int
	call        int64 // messages of one call are in one frame
	key         string
	topic       *powerTopic
	known       bool // its place is
	SendResult
	keyed   bool          // it has a DedupKey
	as      string        // which it repeats; empty: its own
	instead *powerMessage // of which it is that, in whose place it may be stored
	refused bool          // it must not be stored
	gone    bool          // it was not there when the store was opened
}

func (m *powerMessage) body() string { return fmt.Sprintf("%d %*d", m.number, m.pad, 0) }

// dedupKey is the message's DedupKey.
func (m *powerMessage) dedupKey() string {
	if m.as != "" {
		return m.as
	}
	return fmt.Sprint("key ", m.number)
}

// holder is the message that a repeat of m is a repeat of.
func (l *powerRun) holder(m *powerMessage) *powerMessage {
	if h := l.holders[m.dedupKey()]; h != nil {
		return h
	}
	return m
}

// doubtful holds a key as long as nobody knows whether a repeat was stored.
var doubtful = &powerMessage{}

func numberOf(body []byte) int {
	head, _, _ := strings.Cut(string(body[:min(len(body), 20)]), " ")
	n, err := strconv.Atoi(head)
	if err != nil {
		return -1
	}
	return n
}

// powerTopic is a topic that somebody tried to make.
type powerTopic struct {
	name       string
	label      string // in the history, where no two topics have the same
	durability Durability
	id         coord.TopicID // 0: it is not known whether it was made
	dying      bool          // it was asked to go, and nobody knows whether it did
	durable    bool          // it must survive a power cut
}

type powerGroup struct {
	name string
	acks Durability
	subs map[*powerTopic]*powerSub
}

// powerSub is what a group has done in a topic.
type powerSub struct {
	gen     int          // changes when a reset begins and when it ends
	done    map[int]bool // by number of the message: it may be acknowledged
	excused map[int]bool // need not be delivered: a reset went past them
	failing map[int]bool // failed when they were handled last
}

func (g *powerGroup) sub(t *powerTopic) *powerSub {
	if g.subs[t] == nil {
		g.subs[t] = &powerSub{done: map[int]bool{}, excused: map[int]bool{}, failing: map[int]bool{}}
	}
	return g.subs[t]
}

// topicsSynced notes that the log is synced as far as it was written.
func (l *powerRun) topicsSynced() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.topics {
		t.durable = t.durable || t.id != 0
	}
}

// looked compares a store that was opened with what must be in it:
//
//   - no damage, for the disk keeps what it has;
//   - the log has what was written, in its order, up to some frame and nothing
//     else; whole calls;
//   - what retention dropped all groups had;
//   - the topics that were made, and none that was deleted;
//   - every message under its id, and offsets without a gap;
//   - all folds as the log says (Check).
func (l *powerRun) looked() {
	synctest.Wait() // for retention, which may drop something at once
	l.trace.note("opened: %+v, log [%d, %d)", l.b.Recovery(), l.b.log.Start(), l.b.log.Written())
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.b.Recovery().Corrupt; c != nil {
		l.flawLocked("damage that is none: %v", c)
	}
	l.lookForTopics()
	l.lookForMessages(l.lookInLog())
	for _, name := range l.b.Topics() {
		for _, q := range *l.b.names.topic(name).queues.Load() {
			l.lookForGaps(q)
		}
	}
	if err := l.b.Check(context.Background()); err != nil {
		l.flawLocked("check: %v", err)
	}
}

// lookForTopics finds out what became of topics.
func (l *powerRun) lookForTopics() {
	for _, name := range slices.Sorted(maps.Keys(l.topics)) {
		t := l.topics[name]
		there := l.b.names.topic(name)
		switch {
		case there == nil && t.id != 0 && !t.dying && (t.durable || !l.lossy):
			l.flawLocked("topic %s is gone", name)
		case there == nil:
			l.forgetTopic(t)
		case t.id == 0:
			t.id = there.id // it was made
		case t.id != there.id:
			l.flawLocked("topic %s is number %d, not %d", name, there.id, t.id)
		}
		t.dying, t.durable = false, true
	}
	for _, name := range l.b.Topics() {
		if l.topics[name] == nil && !derived(name) {
			l.flawLocked("topic %s is back", name)
		}
	}
}

// forgetTopic notes that a topic is gone.
func (l *powerRun) forgetTopic(t *powerTopic) {
	delete(l.topics, t.name)
	for _, g := range l.groups {
		delete(g.subs, t)
	}
}

func (l *powerRun) alive(t *powerTopic) bool { return l.topics[t.name] == t && t.id != 0 && !t.dying }

// lookInLog reads the whole log, tells the judge of it, and returns which messages
// it has.
//
// Copies of parked messages count apart: retention may drop what they were made
// of before them.
func (l *powerRun) lookInLog() (found, copies map[*powerMessage]bool) {
	found, copies = map[*powerMessage]bool{}, map[*powerMessage]bool{}
	last := 0
	scan := l.beginLocked(history.Op{Kind: history.OpScan})
	err := l.b.log.Scan(l.b.log.Start(), l.b.log.Written(), func(r commitlog.Record) error {
		if record.KindOf(r.Payload) != record.KindMessage {
			return nil
		}
		var v record.View
		if err := record.DecodeMessage(r.Payload, &v); err != nil {
			return err
		}
		m := l.numbers[numberOf(v.Body)]
		if from := v.Origin(); from != nil { // which may have been dropped
			l.stats.parked++
			l.judge.Add(l.seen(history.OpRead, m, v.Body, from.Queue, from.Offset))
			copies[m] = true
			return nil
		}
		l.judge.Add(l.seen(history.OpRead, m, v.Body, v.Queue, v.Offset))
		if m == nil {
			return nil
		}
		if m.number <= last {
			l.flawLocked("message %d at %d lies behind %d", m.number, r.Position, last)
		}
		last = m.number
		found[m] = true
		id := MessageID{store: l.b.log.StoreID(), epoch: r.Epoch, position: r.Position}
		l.placed(m, SendResult{ID: id, Topic: m.topic.name, Queue: v.Queue, Offset: v.Offset})
		return nil
	})
	if err != nil {
		l.flawLocked("scan: %v", err)
	}
	l.tellDropped()
	l.judge.Add(history.Op{Kind: history.OpScanDone, Call: scan})
	// Recovery has synced what it found.
	l.judge.Add(history.Op{Kind: history.OpSyncDone, Call: l.beginLocked(history.Op{Kind: history.OpSync})})
	return found, copies
}

// placed notes, or compares, where a message is.
func (l *powerRun) placed(m *powerMessage, at SendResult) {
	if m.known && m.SendResult != at {
		l.flawLocked("message %d is at %+v, and was at %+v", m.number, at, m.SendResult)
	}
	if !m.known && l.ids[at.ID] {
		l.flawLocked("message %d has id %v, which another one has", m.number, at.ID)
	}
	m.known, m.SendResult = true, at
	l.ids[at.ID] = true
}

// lookForMessages compares what is there with what must be.
func (l *powerRun) lookForMessages(found, copies map[*powerMessage]bool) {
	start := l.b.log.Start()
	whole := map[int64]bool{} // calls, by number
	end := 0
	for i, m := range l.messages {
		if found[m] {
			end = i
		}
	}
	var kept []*powerMessage
	for i, m := range l.messages {
		dropped := m.known && m.ID.position < start
		if first, ok := whole[m.call]; !ok {
			whole[m.call] = found[m]
		} else if first != found[m] && !dropped {
			l.flawLocked("of call %d only a part is there: message %d is %v", m.call, m.number, found[m])
		}
		if found[m] {
			if m.topic.id != 0 && l.alive(m.topic) && !l.condemned(m) {
				l.lookUp(m)
			}
			kept = append(kept, m)
			continue
		}
		m.gone = !copies[m]
		switch {
		case dropped:
			l.mayHaveGone(m, copies[m])
		case m.known && i < end:
			l.flawLocked("message %d at %+v is not there, and later ones are", m.number, m.SendResult)
		}
	}
	for _, m := range l.numbers {
		switch {
		case m.instead == nil:
		case found[m] && found[m.instead]:
			l.flawLocked("message %d at %+v is there again, as %d at %+v", m.instead.number, m.instead.SendResult, m.number, m.SendResult)
		case found[m.instead]:
			l.holders[m.as] = m.instead
		case found[m] || l.holders[m.as] == doubtful:
			l.holders[m.as] = m
		}
	}
	l.messages, l.lossy = kept, false
}

// condemned tells whether retention had chosen a message to go when the broker
// closed: its queue begins behind it, and its segment goes with the next ones.
func (l *powerRun) condemned(m *powerMessage) bool {
	t := l.b.names.topic(m.topic.name)
	return t != nil && m.Offset < (*t.queues.Load())[m.Queue].entries.Min()
}

func (l *powerRun) lookUp(m *powerMessage) {
	got, err := l.b.MessageByID(m.ID)
	if err != nil || string(got.Body) != m.body() || got.Topic != m.topic.name || got.Queue != m.Queue || got.Offset != m.Offset {
		l.flawLocked("message %d at %+v is not under its id: %v", m.number, m.SendResult, err)
	}
}

// mayHaveGone checks that retention dropped nothing that a group had yet to get.
func (l *powerRun) mayHaveGone(m *powerMessage, parked bool) {
	l.stats.dropped++
	if l.opts.Retention.MaxBytes == 0 {
		l.flawLocked("message %d was dropped, and nothing is to be", m.number)
	}
	if l.opts.Retention.DropUnconsumed || !l.alive(m.topic) {
		return
	}
	for _, g := range l.groups {
		if parked && g.name == "P" {
			continue
		}
		if sub := g.subs[m.topic]; sub != nil && !sub.done[m.number] && !sub.excused[m.number] {
			l.flawLocked("message %d at %+v was dropped, and group %s never acknowledged it", m.number, m.SendResult, g.name)
		}
	}
}

func (l *powerRun) lookForGaps(q *queue) {
	next := q.entries.Min()
	for _, m := range l.messages {
		if m.topic.id != q.topic.id || m.Queue != q.id || m.Offset < q.entries.Min() {
			continue // another's, or condemned
		}
		if m.Offset != next {
			l.flawLocked("message %d is at %v offset %d, the one before was at %d", m.number, q.name(), m.Offset, next-1)
		}
		next = m.Offset + 1
	}
	// Offsets that were acknowledged are not given out again, even if their
	// messages are gone.
	if end := q.entries.End(); end < next {
		l.flawLocked("%v ends at %d, and has offset %d", q.name(), end, next-1)
	}
}

// deliveredLocked tells the judge what a member of a group got.
func (l *powerRun) deliveredLocked(g *powerGroup, member string, unordered bool, got *Message) (m *powerMessage, sub *powerSub) {
	l.stats.delivered++
	m = l.numbers[numberOf(got.Body)]
	op := l.seen(history.OpPoll, m, got.Body, got.Queue, got.Offset)
	op.Group, op.Member, op.Unordered = g.name, member, unordered
	l.judge.Add(op)
	if m == nil {
		return nil, nil
	}
	l.placed(m, SendResult{ID: got.ID, Topic: got.Topic, Queue: got.Queue, Offset: got.Offset})
	return m, g.sub(m.topic)
}

// inOrderLocked checks that nothing of a key is handed out before what comes
// before it is consumed.
func (l *powerRun) inOrderLocked(sub *powerSub, m *powerMessage) {
	entries := (*l.b.names.topic(m.topic.name).queues.Load())[m.Queue].entries
	for _, before := range l.messages {
		if before.topic != m.topic || !before.known || before.Queue != m.Queue || before.key != m.key || before.Offset >= m.Offset || before.Offset < entries.Min() {
			continue
		}
		if n := before.number; sub.failing[n] || !sub.done[n] && !sub.excused[n] {
			l.flawLocked("message %d of key %q at offset %d is handled before %d at %d", m.number, m.key, m.Offset, n, before.Offset)
		}
	}
}

// drain has every group take what there is, and says so: the judge knows whether
// that is all it had yet to get.
func (l *powerRun) drain() {
	must(l.push.Close())
	for _, name := range []string{"G", "H", "P"} {
		g := l.groups[name]
		if !l.takeAll(g) {
			return
		}
		l.mu.Lock()
		l.tellDropped()
		for t := range g.subs {
			if l.alive(t) {
				l.judge.Add(history.Op{Kind: history.OpDrained, Group: g.name, Topic: t.label})
			}
		}
		l.mu.Unlock()
	}
}

// takeAll polls until nothing comes any more.
func (l *powerRun) takeAll(g *powerGroup) bool {
	l.tell(history.Op{Kind: history.OpJoin, Group: g.name})
	for _, p := range l.pulls {
		if p.group == g {
			must(p.Close())
		}
	}
	c, err := l.b.NewPullConsumer(g.name, nil)
	for _, name := range l.names() {
		if err == nil {
			err = c.Subscribe(name, All)
		}
		if parked := ParkedTopic(g.name, name); err == nil && l.b.names.topic(parked) != nil {
			err = c.Subscribe(parked, All)
		}
	}
	if err != nil {
		l.flaw("drain %s: %v", g.name, err)
		return false
	}
	last := map[Queue]Offset{}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		ms, err := c.Poll(ctx, 1000)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			l.noteCursors(c.group)
			must(c.Close())
			return true
		}
		if err != nil {
			l.flaw("poll: %v", err)
			return false
		}
		l.mu.Lock()
		l.tellDropped()
		for _, m := range ms {
			// What is parked is acknowledged where it was, and has a queue of its own.
			l.deliveredLocked(g, c.name, g.name == "P", m)
			q, off := m.origin.cursor.queue.name(), m.origin.offset
			if before, ok := last[q]; ok && off <= before {
				l.flawLocked("group %s got %v offset %d after %d", g.name, q, off, before)
			}
			last[q] = off
		}
		l.mu.Unlock()
		// What was in hand when a process ended is handed out alone, and what is
		// behind it after that.
		if err := c.Commit(context.Background(), ms...); err != nil {
			l.flaw("commit: %v", err)
			return false
		}
	}
}

// noteCursors writes down where a group stands, for who looks at a failure.
func (l *powerRun) noteCursors(g *group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, gt := range g.topics {
		for _, c := range gt.cursors {
			l.trace.note("%s %v: next %d of %d, done %v, suspects %v, again %d, out %d, queued %v, waiting %v, owned %v",
				g.name, c.queue.name(), c.next, c.queue.entries.End(), c.done, c.suspects, len(c.redo), c.out, c.queued, c.waiting, c.owner != nil)
		}
	}
}
