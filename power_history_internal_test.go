package mq

import (
	"maps"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/pocketmq/mq/internal/history"
)

// What TestPowerCuts tells the judge of histories, package history. Functions
// that end in Locked, and those that make operations, are called with l.mu.

// tell adds to the history.
func (l *powerRun) tell(ops ...history.Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.judge.Add(ops...)
}

// begin adds operations of one new call.
func (l *powerRun) begin(ops ...history.Op) (call int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.beginLocked(ops...)
}

func (l *powerRun) beginLocked(ops ...history.Op) (call int64) {
	l.calls++
	for _, op := range ops {
		op.Call = l.calls
		l.judge.Add(op)
	}
	return l.calls
}

// hearJudge makes flaws of what the judge has found. l.mu is held.
func (l *powerRun) hearJudge() *history.Report {
	r := l.judge.Report()
	for _, a := range r.Anomalies[l.judged:] {
		l.flawLocked("%s", r.Proof(a))
	}
	l.judged = len(r.Anomalies)
	return r
}

func (d Durability) inHistory() history.Durability {
	if d == Synced {
		return history.Synced
	}
	return history.Written
}

func (m *powerMessage) id() string { return strconv.Itoa(m.number) }

// send, sent and ended are operations of the message's sending.
func (m *powerMessage) send() history.Op {
	return history.Op{
		Kind: history.OpSend, ID: m.id(), Topic: m.topic.label, Hash: xxhash.Sum64String(m.body()), Durability: m.topic.durability.inHistory(),
	}
}

func (m *powerMessage) sent() history.Op {
	return history.Op{Kind: history.OpSent, ID: m.id(), Queue: int(m.Queue), Offset: int64(m.Offset)}
}

func (m *powerMessage) ended(kind history.Kind) history.Op { return history.Op{Kind: kind, ID: m.id()} }

// ack is the operation by which a group acknowledges the message.
func (m *powerMessage) ack(g *powerGroup) history.Op {
	return history.Op{
		Kind: history.OpAck, Group: g.name, Topic: m.topic.label, Queue: int(m.Queue), Offset: int64(m.Offset), Durability: g.acks.inHistory(),
	}
}

// seen is an operation that shows bytes at a place; m is what they begin like, nil
// if nobody sent that.
func (l *powerRun) seen(kind history.Kind, m *powerMessage, body []byte, queue QueueID, off Offset) history.Op {
	op := history.Op{Kind: kind, ID: strconv.Itoa(numberOf(body)), Hash: xxhash.Sum64(body), Queue: int(queue), Offset: int64(off)}
	if m != nil {
		op.Topic = m.topic.label
	}
	return op
}

// handledLocked notes that a handler is done with a message. It is acknowledged a
// moment later, which only Close waits for.
func (l *powerRun) handledLocked(m *powerMessage, g *powerGroup) {
	op := m.ack(g)
	op.Durability = history.Volatile
	op.Call = l.beginLocked(op)
	l.judge.Add(history.Op{Kind: history.OpAcked, Call: op.Call})
	l.handled[op.Call] = op
}

// handledForGood says that what handlers were done with is acknowledged.
func (l *powerRun) handledForGood() (ops []history.Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, op := range l.handled {
		l.calls++
		op.Call, op.Durability = l.calls, history.Synced
		ops = append(ops, op, history.Op{Kind: history.OpAcked, Call: op.Call})
	}
	return ops
}

// crashed notes that a life has ended, with all that was under way.
func (l *powerRun) crashed(how history.Kind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.judge.Add(history.Op{Kind: how})
	clear(l.handled)
	clear(l.dropped)
}

// moved ends a reset. What a handler was done with and is not yet acknowledged was
// handed out under the start before, in whatever queue.
func (l *powerRun) moved(g *powerGroup, topic string, call int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.judge.Add(history.Op{Kind: history.OpResetDone, Call: call, Error: text(err)})
	maps.DeleteFunc(l.handled, func(_ int64, op history.Op) bool { return op.Group == g.name && op.Topic == l.topics[topic].label })
}

// moving is the operation that begins a reset.
func (l *powerRun) moving(g *powerGroup, topic string, to Whence) history.Op {
	l.mu.Lock()
	defer l.mu.Unlock()
	op := history.Op{Kind: history.OpReset, Group: g.name, Topic: l.topics[topic].label}
	switch to.kind {
	case whenceEarliest:
		op.Kind = history.OpRewind
	case whenceOffset:
		op.Kind, op.Queue, op.Offset = history.OpResetQueue, int(to.queue.ID), int64(to.offset)
	}
	return op
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// powerQueue is a queue of a topic that may be gone.
type powerQueue struct {
	topic *powerTopic
	id    QueueID
}

// tellDropped says what retention has dropped, or chosen to. l.mu is held.
func (l *powerRun) tellDropped() {
	starts := map[powerQueue]Offset{}
	for _, t := range l.topics {
		if there := l.b.names.topic(t.name); there != nil && there.id == t.id {
			for _, q := range *there.queues.Load() {
				starts[powerQueue{t, q.id}] = q.entries.Min()
			}
		}
	}
	for _, m := range l.messages {
		if m.known && m.ID.position < l.b.log.Start() {
			q := powerQueue{m.topic, m.Queue}
			starts[q] = max(starts[q], m.Offset+1)
		}
	}
	for q, start := range starts {
		if start > l.dropped[q] {
			l.dropped[q] = start
			l.judge.Add(history.Op{Kind: history.OpDropped, Topic: q.topic.label, Queue: int(q.id), Offset: int64(start)})
		}
	}
}
