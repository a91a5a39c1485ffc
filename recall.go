package mq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/keyindex"
	"github.com/pocketmq/mq/internal/record"
)

// Recall takes back a message that waits for its time: when it returns nil, the
// message is never delivered, and that is as durable as the message's topic asks
// for. Of a recall and the delivery at the same moment one wins; ErrNotWaiting
// says that it was the delivery. A Recall that returns the error of ctx may
// still have taken the message back.
//
// Errors: ErrNotWaiting, ErrDiskFull, ErrPoisoned, ErrClosed.
func (p *Producer) Recall(ctx context.Context, h RecallHandle) error {
	if p.closed.Load() {
		return ErrClosed
	}
	b := p.b
	if err := b.alive(); err != nil {
		return err
	}
	end, d, err := b.timer.recall(ctx, h)
	if err != nil {
		return b.noted(err)
	}
	return b.durable(ctx, end, d)
}

// recall settles the message of a handle and returns what must be synced for it
// to be as durable as its topic asks for.
func (t *timer) recall(ctx context.Context, h RecallHandle) (end coord.Position, d Durability, err error) {
	t.settling.Lock()
	defer t.settling.Unlock()
	w, err := t.find(h.id)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %v", err, h.id)
	}
	end, err = t.b.appendState(ctx, commitlog.Reserved, func() (stateRecord, error) {
		// Nobody else settles meanwhile, but it may have been delivered.
		if w.due.Compare(t.mark) <= 0 || w.topic.deleted.Load() {
			return nil, fmt.Errorf("%w: %v", ErrNotWaiting, h.id)
		}
		return &record.Settle{Topic: w.topic.id, Due: w.due}, nil
	})
	return end, w.topic.durable(), err
}

// waiting is a message that waits for its time.
type waiting struct {
	due     record.Due
	topic   *topic
	message Message
}

// find returns the message that was first stored under id, if it waits: in its
// own record or, carried forward by retention, in one that names it.
func (t *timer) find(id MessageID) (waiting, error) {
	if id.store != t.b.log.StoreID() || id.position <= 0 {
		return waiting{}, ErrNotWaiting
	}
	w, err := t.waitsAt(id.position, id)
	if !errors.Is(err, ErrNotWaiting) {
		return w, err
	}
	failed := t.b.identified(id, func(pos coord.Position) (more bool) {
		w, err = t.waitsAt(pos, id)
		return errors.Is(err, ErrNotWaiting)
	})
	if err == nil {
		return w, nil
	}
	if failed != nil && errors.Is(err, ErrNotWaiting) {
		err = nil // it may be where nobody can look just now
	}
	return w, errors.Join(err, failed)
}

// waitsAt returns the message of that id that waits in the record at pos.
func (t *timer) waitsAt(pos coord.Position, id MessageID) (w waiting, err error) {
	err = ErrNotWaiting
	t.b.log.Read([]commitlog.Ref{{Position: pos}}, func(_ int, r commitlog.Record, readErr error) bool {
		switch {
		case errors.Is(readErr, commitlog.ErrNotFound):
		case readErr != nil:
			err = readErr
		default:
			if t.read(&w, r) && w.message.ID == id {
				err = nil
			}
		}
		return false
	})
	if err != nil {
		return w, err
	}
	return w, t.stillWaits(w.due)
}

// read makes a message of a record; false if it is not a delayed message of a
// topic that exists.
func (t *timer) read(w *waiting, r commitlog.Record) bool {
	var v record.View
	if record.DecodeDelayed(r.Payload, &v) != nil {
		return false
	}
	t.b.log.Exclusive(func() { w.topic = t.b.state.topics[v.Topic] })
	if w.topic == nil {
		return false
	}
	w.due = record.Due{At: v.DeliverAt(), Position: r.Position}
	f := fetcher{b: t.b, brief: true}
	f.fill(&w.message, &queue{topic: w.topic, id: v.Queue}, &v, r)
	return true
}

// stillWaits returns ErrNotWaiting for a message that was delivered or settled.
func (t *timer) stillWaits(due record.Due) error {
	done := false
	t.b.log.Exclusive(func() { done = due.Compare(t.mark) <= 0 })
	if done {
		return ErrNotWaiting
	}
	left, err := t.unsettled([]record.Due{due})
	if err == nil && len(left) == 0 {
		err = ErrNotWaiting
	}
	return err
}

// identified visits where messages are stored again that were first stored under
// id, the newest first, until visit returns false. They may be others: who visits
// looks at the id.
func (b *Broker) identified(id MessageID, visit func(coord.Position) bool) error {
	for damaged := coord.Position(1 << 62); ; {
		err := b.keys.Lookup(identityHash(id.identity()), visit)
		var bad *keyindex.CorruptError
		if !errors.As(err, &bad) || bad.From >= damaged {
			return err
		}
		damaged = bad.From
		if err := b.rebuildKeys(bad); err != nil {
			return err
		}
	}
}

// browseMost is how many messages a browse finds at once.
const browseMost = 1024

// BrowseWaiting returns the messages of a topic that wait for their time, those
// due at from or later and before to, in the order in which they will be
// delivered. A zero from is the beginning, a zero to the end. What is sent,
// delivered or recalled meanwhile may be among them or not.
//
// It passes over the waiting messages of all topics in that time, and reads
// them. Errors: ErrTopicNotFound, ErrCorrupt (a message that is damaged; the next
// ones follow), ErrClosed.
func (b *Broker) BrowseWaiting(topicName string, from, to time.Time) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		if err := b.alive(); err != nil {
			yield(nil, err)
			return
		}
		tp, err := b.knownTopic(topicName)
		if err != nil {
			yield(nil, err)
			return
		}
		end := endOfTime
		if !to.IsZero() {
			end = record.Due{At: ceilMilli(to)}
		}
		at := record.Due{}
		if !from.IsZero() {
			at.At = max(1, ceilMilli(from)) - 1
			at.Position = endOfTime.Position - 1
		}
		b.timer.browse(tp, at, end, yield)
	}
}

// browse yields the messages of tp that wait behind from and before end.
func (t *timer) browse(tp *topic, from, end record.Due, yield func(*Message, error) bool) {
	for from.Compare(end) < 0 {
		t.b.log.Exclusive(func() {
			if from.Compare(t.mark) < 0 {
				from = t.mark
			}
		})
		due, next, err := t.scan(from, t.b.log.Written(), browseMost)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, d := range due {
			if d.Compare(end) >= 0 || !t.browseOne(tp, d, yield) {
				return
			}
		}
		from = next
	}
}

// browseOne yields the message that is due, if it is of tp; false: enough.
func (t *timer) browseOne(tp *topic, due record.Due, yield func(*Message, error) bool) bool {
	var m *Message
	var err error
	t.b.log.Read([]commitlog.Ref{{Position: due.Position}}, func(_ int, r commitlog.Record, readErr error) bool {
		var w waiting
		if readErr == nil && t.read(&w, r) && w.topic == tp {
			m = &w.message
		}
		err = readErr
		return false
	})
	switch {
	case errors.Is(err, commitlog.ErrNotFound):
		return true // dropped meanwhile
	case err != nil:
		return yield(nil, err) && !isClosed(err)
	case m == nil:
		return true
	}
	return yield(m, nil)
}
