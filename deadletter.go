package mq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// graveyard is the dead letters of a group: the messages of its dead letter
// topic that its keeper, a group without members, has not consumed. To send one
// again or to purge it is to acknowledge it for the keeper.
type graveyard struct {
	b      *Broker
	group  *group // whose they are
	keeper *group
	queue  *queue
}

// graveyardOf returns the dead letters of a group; without a queue if it never
// had any.
func (b *Broker) graveyardOf(groupName string) (y graveyard, err error) {
	if err := b.alive(); err != nil {
		return y, err
	}
	y.b, y.group = b, b.names.group(groupKey{name: groupName})
	if y.group == nil || derived(groupName) {
		return y, fmt.Errorf("%w: %q", ErrGroupNotFound, groupName)
	}
	name := DeadLetterTopic(groupName)
	y.keeper = b.names.group(groupKey{name: name})
	if t := b.names.topic(name); t != nil && y.keeper != nil {
		y.queue = (*t.queues.Load())[0]
		y.keeper.wanted()
	}
	return y, nil
}

// left returns the record the keeper's offsets count from and what it has not
// consumed.
func (y graveyard) left() (start coord.Position, spans []span) {
	if y.queue == nil {
		return 0, nil
	}
	y.b.log.Exclusive(func() {
		sub := y.keeper.subs[y.queue.topic.id]
		if sub == nil {
			return
		}
		start = sub.start
		spans = sub.progress(y.queue.id).open(y.queue.entries.Min(), y.queue.entries.End())
	})
	return start, spans
}

// each reads the dead letters, oldest first. What is damaged comes as an error.
func (y graveyard) each(yield func(m *Message, cl claim, err error) bool) {
	start, spans := y.left()
	f, all := fetcher{b: y.b}, Filter{}
	cur := &cursor{group: y.keeper, queue: y.queue}
	for _, s := range spans {
		for s.From < s.To {
			var buf [maxBatch]consumequeue.Entry
			n, err := y.queue.read(s.From, buf[:min(len(buf), int(s.To-s.From))])
			if err != nil && s.From < y.queue.entries.Min() {
				s.From = y.queue.entries.Min() // dropped meanwhile
				continue
			}
			if err != nil || n == 0 {
				if err != nil {
					yield(nil, claim{}, err)
				}
				return
			}
			claims := make([]claim, n)
			for i := range claims {
				claims[i] = claim{s.From + Offset(i), buf[i], 1}
			}
			s.From += Offset(n)
			got := f.fetch(cur, start, &all, claims)
			if got.err != nil {
				yield(nil, claim{}, got.err)
				return
			}
			for i := range got.messages {
				if !yield(&got.messages[i], got.claims[i], nil) {
					return
				}
			}
			for i, gone := range got.gone {
				if gone.err != nil && !yield(nil, got.lost[i], gone.err) {
					return
				}
			}
		}
	}
}

// DeadLetters returns the messages that a group gave up, oldest first. Their
// ID, topic, queue, offset, tag, keys, properties and body are those of the
// message that failed; Origin says how often it was tried and why it failed
// last. They stay until they are sent again, purged, or nobody looked at them
// and no others came for Retention.GroupExpiry and retention drops them.
//
// The sequence yields an error for what cannot be read and goes on, and one of
// ErrGroupNotFound and ErrClosed alone.
func (b *Broker) DeadLetters(groupName string) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		y, err := b.graveyardOf(groupName)
		if err != nil {
			yield(nil, err)
			return
		}
		y.each(func(m *Message, _ claim, err error) bool { return yield(m, err) })
	}
}

// ResendDeadLetters sends dead letters of a group again, to that group alone,
// and counts their attempts anew: those of the given ids, or all. Each leaves
// the dead letters in the frame that sends it. It returns how many were sent.
//
// Errors: ErrGroupNotFound, ErrMessageNotFound if an id is not among the dead
// letters (the others are sent), and those of Producer.Send.
func (b *Broker) ResendDeadLetters(ctx context.Context, groupName string, ids ...MessageID) (sent int, err error) {
	y, err := b.graveyardOf(groupName)
	if err != nil {
		return 0, err
	}
	return y.pick(ids, func(m *Message, cl claim, start coord.Position) error {
		t, err := y.group.retryTopic(ctx)
		if err != nil {
			return err
		}
		// Without members nobody subscribes to it: retention shall wait for the group.
		if err := y.group.ensureStart(t, Earliest); err != nil {
			return err
		}
		v := moveOne(y.keeper, y.queue, start, cl.offset)
		if err := b.copyOf(&v.out[0], y.queue, cl, record.Origin{LastError: m.Origin.LastError}); err != nil {
			return err
		}
		if err := v.out[0].address((*t.queues.Load())[0], 0); err != nil {
			return err
		}
		return b.appendMoved(ctx, v)
	})
}

// PurgeDeadLetters forgets dead letters of a group: those of the given ids, or
// all. It returns how many. Errors: ErrGroupNotFound, ErrMessageNotFound if an
// id is not among the dead letters (the others are purged), ErrPoisoned,
// ErrClosed.
func (b *Broker) PurgeDeadLetters(groupName string, ids ...MessageID) (purged int, err error) {
	y, err := b.graveyardOf(groupName)
	if err != nil {
		return 0, err
	}
	if len(ids) == 0 {
		start, spans := y.left()
		if len(spans) == 0 {
			return 0, nil
		}
		if _, err := y.keeper.appendAcks([]settled{{queue: y.queue, start: start, spans: spans}}); err != nil {
			return 0, err
		}
		for _, s := range spans {
			purged += int(s.To - s.From)
		}
		return purged, nil
	}
	return y.pick(ids, func(_ *Message, cl claim, start coord.Position) error {
		_, err := y.keeper.appendAcks([]settled{{queue: y.queue, start: start, spans: []span{{From: cl.offset, To: cl.offset + 1}}}})
		return err
	})
}

// pick calls do for the dead letters with the given ids, or for all if there are
// none, until it fails. ErrStale says that one was sent again or purged meanwhile.
func (y graveyard) pick(ids []MessageID, do func(*Message, claim, coord.Position) error) (n int, err error) {
	missing := slices.Clone(ids)
	start, _ := y.left()
	y.each(func(m *Message, cl claim, readErr error) bool {
		if readErr != nil {
			if len(ids) == 0 {
				err = errors.Join(err, readErr)
			}
			return true
		}
		if len(ids) > 0 && !slices.Contains(ids, m.ID) {
			return true
		}
		doErr := do(m, cl, start)
		if errors.Is(doErr, ErrStale) {
			return true
		}
		if doErr != nil {
			err = errors.Join(err, doErr)
			return false
		}
		// A message that came again after a reset may be dead twice.
		missing = slices.DeleteFunc(missing, func(id MessageID) bool { return id == m.ID })
		n++
		return true
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: %v is no dead letter of group %q", ErrMessageNotFound, missing[0], y.group.name)
	}
	return n, err
}
