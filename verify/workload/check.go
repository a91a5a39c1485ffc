package workload

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pocketmq/mq"
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

// Check opens the store after a fault, compares it with what was promised, and
// closes it again. What it finds is in the ledger; an error means that it could
// not look.
func (l *Ledger) Check(ctx context.Context, dir string, fault Fault) error {
	return l.visit(ctx, dir, fault, nil)
}

// Finish is Check, and then every group consumes what is left: each message is
// there, each was delivered to each group, nothing acknowledged comes again.
func (l *Ledger) Finish(ctx context.Context, dir string, fault Fault) error {
	return l.visit(ctx, dir, fault, l.consumeAll)
}

func (l *Ledger) visit(ctx context.Context, dir string, fault Fault, then func(context.Context, *mq.Broker) error) (err error) {
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
	if fault == PowerCut {
		l.forgive(b)
	}
	l.checkMessages(b)
	l.checkProgress(b)
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
			l.Lost++
			l.problem("topic %s: %v", name, err)
		}
	}
}

// ends returns where the queues end.
func (l *Ledger) ends(b *mq.Broker) map[mq.Queue]mq.Offset {
	ends := map[mq.Queue]mq.Offset{}
	for _, name := range b.Topics() {
		route, err := b.Route(name)
		if err != nil {
			l.problem("topic %s: %v", name, err)
		}
		for _, q := range route {
			ends[q.Queue] = q.End
			if q.Start != 0 {
				l.problem("%v begins at %d", q.Queue, q.Start)
			}
		}
	}
	return ends
}

// forgive takes from the ledger what a power cut may take: messages that were
// not promised and lie at or behind the end of their queue, and acknowledgements
// that were not promised.
func (l *Ledger) forgive(b *mq.Broker) {
	ends := l.ends(b)
	for _, q := range l.queueNames() {
		log, end := l.queues[q], ends[q]
		for i := int(end); i < len(log.messages); i++ {
			switch m := log.messages[i]; {
			case m.promised:
				l.Lost++
				l.problem("%v, message %x, was synced and is gone; the queue ends at %d", place{q, mq.Offset(i)}, m.number, end)
			case m.sent:
				l.Gone++
			}
		}
		log.messages = log.messages[:min(len(log.messages), int(end))]
		for name, g := range log.groups {
			l.forgiveAcks(b, name, q, g, end)
		}
	}
	kept := l.unverified[:0]
	for _, p := range l.unverified {
		if p.offset < ends[p.queue] {
			kept = append(kept, p)
		}
	}
	l.unverified = kept
}

func (l *Ledger) forgiveAcks(b *mq.Broker, group string, q mq.Queue, g *progress, end mq.Offset) {
	for i := range g.marks {
		switch m := g.marks[i]; {
		case m&ackPromised != 0 && mq.Offset(i) >= end:
			l.problem("%s: %v had a synced acknowledgement and is gone", group, place{q, mq.Offset(i)})
		case m&acked != 0 && m&ackPromised == 0:
			g.marks[i] = m&^acked | mayRepeat
		}
	}
	g.marks = g.marks[:min(len(g.marks), int(end))]
	// How far a push group was done was told without a promise.
	if g.done > 0 {
		had := g.done
		g.done = committed(b, group, q)
		for off := g.done; off < min(had, end); off++ {
			g.at(off, mayRepeat)
		}
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

// checkMessages looks up everything acknowledged since the last check. What is
// there has been synced by opening the store.
func (l *Ledger) checkMessages(b *mq.Broker) {
	for _, p := range l.unverified {
		m := l.message(p)
		if !m.sent {
			continue
		}
		got, err := b.MessageByID(m.id)
		if err == nil {
			err = m.differs(p, got)
		}
		if err != nil {
			l.Lost++
			l.problem("%v, message %x: %v", p, m.number, err)
		}
		m.promised = true
	}
	l.unverified = l.unverified[:0]
	l.volatile = l.volatile[:0]
}

// differs says in what a stored message differs from the acknowledged one.
func (m *message) differs(p place, got *mq.Message) error {
	number, whole := readBody(got.Body)
	switch at := (place{mq.Queue{Topic: got.Topic, ID: got.Queue}, got.Offset}); {
	case at != p:
		return fmt.Errorf("is at %v", at)
	case got.ID != m.id && m.sent:
		return fmt.Errorf("has id %v, not %v", got.ID, m.id)
	case !whole:
		return errors.New("has a body that nobody sent")
	case number != m.number || len(got.Body) != m.size:
		return fmt.Errorf("is message %x of %d bytes", number, len(got.Body))
	}
	return nil
}

// checkProgress counts: of every queue at least as many messages are
// acknowledged as somebody was told.
func (l *Ledger) checkProgress(b *mq.Broker) {
	for group := range l.groups {
		for _, q := range l.queueNames() {
			g := l.queues[q].groups[group]
			if g == nil {
				continue
			}
			promised := int64(g.done)
			for i, m := range g.marks {
				if m&acked != 0 && mq.Offset(i) >= g.done {
					promised++
				}
				if m&acked != 0 {
					g.marks[i] |= ackPromised // opening has synced what is there
				}
			}
			if promised == 0 {
				continue
			}
			if has := l.acknowledged(b, group, q); has < promised {
				l.Again += promised - has
				l.problem("%s: %v has %d acknowledged messages, promised were %d", group, q, has, promised)
			}
		}
	}
}

func (l *Ledger) acknowledged(b *mq.Broker, group string, q mq.Queue) int64 {
	offsets, err := b.Offsets(group, q.Topic)
	if err != nil {
		l.problem("%s: %v", group, err)
	}
	for _, o := range offsets {
		if o.Queue == q {
			return int64(o.Committed) + o.Ahead
		}
	}
	return 0
}

// consumeAll drains every group, and a new one that sees everything.
func (l *Ledger) consumeAll(ctx context.Context, b *mq.Broker) error {
	ends := l.ends(b)
	audit := auditGroup + strconv.Itoa(l.life.Config.Life)
	l.groups[audit] = true
	for group := range l.groups {
		if err := l.drain(ctx, b, group); err != nil {
			return err
		}
		for q, end := range ends {
			g := l.progress(group, q)
			for off := range end {
				if g.get(off)&delivered == 0 {
					l.Lost++
					l.problem("%s: %v was never delivered", group, place{q, off})
				}
			}
		}
	}
	delete(l.groups, audit)
	for _, log := range l.queues {
		delete(log.groups, audit)
	}
	return b.DeleteGroup(audit)
}

// drain polls until the group has everything.
func (l *Ledger) drain(ctx context.Context, b *mq.Broker, group string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c, err := b.NewPullConsumer(group, nil)
	if err != nil {
		return err
	}
	for _, name := range b.Topics() {
		if err := c.Subscribe(name, mq.All); err != nil {
			return errors.Join(err, c.Close())
		}
	}
	for {
		lag, _, err := b.Lag(group)
		if err != nil || lag == 0 {
			return errors.Join(err, c.Close())
		}
		ms, err := c.Poll(ctx, 512)
		if errors.Is(err, context.DeadlineExceeded) {
			l.problem("%s: %d messages are not delivered", group, lag)
			return c.Close()
		}
		if err != nil {
			return errors.Join(err, c.Close())
		}
		for _, m := range ms {
			number, whole := readBody(m.Body)
			p := place{mq.Queue{Topic: m.Topic, ID: m.Queue}, m.Offset}
			l.hearDelivery(group, p, number, len(m.Body), whole)
			if known := l.message(p); known.sent && known.id != m.ID {
				l.Lost++
				l.problem("%s: %v has id %v, acknowledged was %v", group, p, m.ID, known.id)
			}
		}
		if err := c.Commit(ctx); err != nil {
			return errors.Join(err, c.Close())
		}
		l.ackDrained(group, ms)
	}
}

func (l *Ledger) ackDrained(group string, ms []*mq.Message) {
	for _, m := range ms {
		l.progress(group, mq.Queue{Topic: m.Topic, ID: m.Queue}).at(m.Offset, acked|ackPromised)
	}
}
