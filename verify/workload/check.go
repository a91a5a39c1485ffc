package workload

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/internal/history"
)

// Fault is what has happened to the store, and with that what may be missing.
type Fault int

const (
	// Killed: the process ended, the operating system did not. Everything
	// acknowledged holds.
	Killed Fault = iota

	// PowerCut: what was not synced may be gone, from some place on: the log is
	// a prefix of what was written.
	PowerCut
)

// Check opens the store after a fault, looks up what was sent since the last
// check, and closes it again. What it finds is in the ledger; an error means that
// it could not look.
func (l *Ledger) Check(ctx context.Context, dir string, fault Fault) error {
	return l.visit(ctx, dir, fault, nil)
}

// Finish is Check, and then every group consumes what is left: each message is
// there, each was delivered to each group, nothing acknowledged comes again.
func (l *Ledger) Finish(ctx context.Context, dir string, fault Fault) error {
	return l.visit(ctx, dir, fault, l.consumeAll)
}

func (l *Ledger) visit(ctx context.Context, dir string, fault Fault, then func(context.Context, *mq.Broker) error) (err error) {
	defer l.tally()
	l.ended(fault)
	if l.TakeRefusal() {
		return nil
	}
	c := Config{Dir: dir}
	b, err := mq.Open(dir, c.Options())
	if err != nil {
		l.Refused++
		l.problem("the store does not open: %v", err)
		return nil
	}
	defer func() {
		if cerr := b.Close(); cerr != nil {
			l.problem("the store does not close: %v", cerr)
		}
		l.life.closed = true
	}()
	l.checkRecovery(b.Recovery())
	l.checkTopics(b, fault)
	l.readSent(b)
	if fault == PowerCut {
		l.askProgress(b)
	}
	l.opened()
	if err := b.Check(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		l.problem("the store does not agree with itself: %v", err)
	}
	if then != nil {
		return then(ctx, b)
	}
	return nil
}

// TakeRefusal counts a store that did not open to the process itself.
func (l *Ledger) TakeRefusal() bool {
	if l.life.Refusal == "" {
		return false
	}
	l.Refused++
	l.problem("the store did not open: %s", l.life.Refusal)
	l.life.Refusal = ""
	return true
}

// DoubtClose says that calls failed below the store: it may have been closed as
// far as it knows, and still have to recover.
func (l *Ledger) DoubtClose() { l.life.closed, l.life.closeFailed = false, true }

// ForgetRefusal is for a store that did not open because what it stands on was
// broken at that time.
func (l *Ledger) ForgetRefusal() { l.life.Refusal = "" }

func (l *Ledger) checkRecovery(r mq.Recovery) {
	if r.Clean && l.life.opened && !l.life.closed && !l.life.closeFailed {
		l.problem("a store that was not closed opens as if it had been")
	}
	if !r.Clean && l.life.closed {
		l.problem("a store that was closed opens as if it had not been: %+v", r)
	}
	for _, c := range r.Corrupt {
		l.problem("opening found damage below the synced mark: %v", c)
	}
}

// checkTopics: a topic is as durable as its messages will be.
func (l *Ledger) checkTopics(b *mq.Broker, fault Fault) {
	for name := range l.topics {
		if fault == PowerCut && durability(name) != mq.Synced {
			continue
		}
		if _, err := b.Topic(name); err != nil {
			l.lost++
			l.problem("topic %s: %v", name, err)
		}
	}
}

// readSent looks up everything acknowledged since the last check: by its id, at
// its place. What a power cut may have taken, the history knows.
func (l *Ledger) readSent(b *mq.Broker) {
	for _, m := range l.sent {
		op := opAt(history.OpRead, "", m.place)
		got, err := b.MessageByID(m.id)
		switch {
		case errors.Is(err, mq.ErrMessageNotFound):
		case err != nil:
			l.problem("%v, message %x: %v", m.place, m.number, err)
		default:
			op = opAt(history.OpRead, "", placeOf(got))
			number, whole := readBody(got.Body)
			op.ID, op.Hash = l.name(number), hashOf(uint64(len(got.Body)), whole)
			if number != m.number {
				l.problem("%v, message %x: under its id lies %x", m.place, m.number, number)
			}
		}
		l.judge.Add(op)
	}
	l.sent = l.sent[:0]
}

func placeOf(m *mq.Message) place { return place{mq.Queue{Topic: m.Topic, ID: m.Queue}, m.Offset} }

// askProgress asks how far push groups were acknowledged: they were told so
// without a promise, and what of that is left holds from now on.
func (l *Ledger) askProgress(b *mq.Broker) {
	for key, had := range l.done {
		l.done[key] = min(had, committed(b, key.group, key.queue))
		l.acknowledged(key, l.firm[key], l.done[key])
	}
}

func committed(b *mq.Broker, group string, q mq.Queue) mq.Offset {
	offsets, _ := b.Offsets(group, q.Topic) // an unknown group has consumed nothing
	for _, o := range offsets {
		if o.Queue == q {
			return o.Committed
		}
	}
	return 0
}

// opened notes that opening has synced what is there.
func (l *Ledger) opened() {
	const opening = "at opening"
	l.hearSync(opening)
	l.hearSynced(opening)
}

// consumeAll drains every group, and a new one that sees everything.
func (l *Ledger) consumeAll(ctx context.Context, b *mq.Broker) error {
	var total int64
	for _, name := range b.Topics() {
		route, err := b.Route(name)
		if err != nil {
			l.problem("topic %s: %v", name, err)
		}
		for _, q := range route {
			total += int64(q.End)
			if q.Start != 0 {
				l.problem("%v begins at %d", q.Queue, q.Start)
			}
		}
	}
	for group := range l.groups {
		if _, err := l.drain(ctx, b, group); err != nil {
			return err
		}
	}
	audit := auditGroup + strconv.Itoa(l.life.Config.Life)
	n, err := l.drain(ctx, b, audit)
	if err != nil {
		return err
	}
	if delete(l.groups, audit); n != total {
		l.lost += max(total-n, 0)
		l.problem("the queues have %d messages, and a new group got %d", total, n)
	}
	return b.DeleteGroup(audit)
}

// drain polls until the group has everything, and returns how much that was.
func (l *Ledger) drain(ctx context.Context, b *mq.Broker, group string) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c, err := b.NewPullConsumer(group, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for _, name := range b.Topics() {
		if err := c.Subscribe(name, mq.All); err != nil {
			return n, err
		}
	}
	for {
		lag, _, err := b.Lag(group)
		if err != nil {
			return n, err
		}
		if lag == 0 {
			break
		}
		ms, err := c.Poll(ctx, 512)
		if errors.Is(err, context.DeadlineExceeded) {
			l.problem("%s: %d messages are not delivered", group, lag)
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n += int64(len(ms))
		if err := l.take(ctx, c, group, ms); err != nil {
			return n, err
		}
	}
	for _, name := range b.Topics() {
		l.judge.Add(history.Op{Kind: history.OpDrained, Group: group, Topic: name})
	}
	return n, nil
}

// take enters what was polled, and commits it.
func (l *Ledger) take(ctx context.Context, c *mq.PullConsumer, group string, ms []*mq.Message) error {
	l.call++
	call := l.call
	for _, m := range ms {
		number, whole := readBody(m.Body)
		l.hearDelivery(group, placeOf(m), number, uint64(len(m.Body)), whole)
		if id, sent := l.ids[number]; sent && id != m.ID {
			l.lost++
			l.problem("%s: message %x has id %v, acknowledged was %v", group, number, m.ID, id)
		}
		op := opAt(history.OpAck, group, placeOf(m))
		op.Call, op.Durability = call, history.Written
		l.judge.Add(op)
	}
	if err := c.Commit(ctx); err != nil {
		return err
	}
	l.judge.Add(history.Op{Kind: history.OpAcked, Call: call})
	return nil
}
