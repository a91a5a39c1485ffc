package mq

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// A message that takes the process down must not take it down for ever. So what
// is given to handlers is written down before, one small frame a batch. After an
// unclean end the log's epoch is another one, and what was in hand under an older
// one and not acknowledged was in somebody's hands when the process ended. That
// counts as an attempt, and from then on the message is handed out alone, one such
// message of the group at a time: the one that does the harm comes to its last
// attempt, those that were only near it are consumed at their second.

// hand is messages that a handler was given.
type hand struct {
	span
	attempt int    // number of that delivery
	epoch   uint32 // of the log at that time; everyEnd
}

// errCrashed is the last error of a message that was in hand each time when the
// process ended.
var errCrashed = errors.New("mq: the process ended while the message was handled")

// take notes that messages are in hand.
func (p *progress) take(h hand) {
	if h.From = max(h.From, p.committed); h.From >= h.To {
		return
	}
	if len(p.hands) > 0 {
		p.leaveHands(h.span)
	}
	i, _ := slices.BinarySearchFunc(p.hands, h.From, func(x hand, from Offset) int { return cmp.Compare(x.From, from) })
	p.hands = slices.Insert(p.hands, i, h)
}

// leaveHands notes that messages are in hand no more: mostly those of one batch.
func (p *progress) leaveHands(s span) {
	i, _ := slices.BinarySearchFunc(p.hands, s.From+1, func(h hand, behind Offset) int { return cmp.Compare(h.To, behind) })
	for ; i < len(p.hands); i++ {
		h := p.hands[i]
		if h.From >= s.To {
			return
		}
		var rest [2]hand
		left := rest[:0]
		if h.From < s.From {
			left = append(left, hand{span{From: h.From, To: s.From}, h.attempt, h.epoch})
		}
		if s.To < h.To {
			left = append(left, hand{span{From: s.To, To: h.To}, h.attempt, h.epoch})
		}
		p.hands = slices.Replace(p.hands, i, i+1, left...)
		i += len(left) - 1
	}
}

// applyHandout folds a handout.
func (s *state) applyHandout(h *record.Handout) {
	g, t := s.groups[h.Group], s.topics[h.Topic]
	if g == nil || t == nil {
		return
	}
	sub := g.subs[h.Topic]
	if sub == nil || h.Start != sub.start {
		return
	}
	s.grow(t, int(h.Queue)+1)
	p := sub.progress(h.Queue)
	for _, r := range h.Ranges {
		p.take(hand{r, h.Attempt, h.Epoch})
	}
}

// forgetHands drops what was in hand under an epoch: when a store is opened that
// was closed cleanly, which does not raise it, handlers had returned.
func (s *state) forgetHands(epoch uint32) {
	for _, g := range s.groups {
		for _, sub := range g.subs {
			for q := range sub.queues {
				p := &sub.queues[q]
				p.hands = slices.DeleteFunc(p.hands, func(h hand) bool { return h.epoch == epoch })
			}
		}
	}
}

// handOut writes down that the batch's messages are about to be handled. If that
// fails they are handled all the same: only the count of their attempts is at
// stake.
func (w *worker) handOut(b *batch) {
	if w.c.kind.model != Clustering {
		return
	}
	for from := 0; from < len(b.items); {
		attempt, to := b.items[from].attempt, from
		spans := w.spans[:0]
		for ; to < len(b.items) && b.items[to].attempt == attempt; to++ {
			spans = withOffset(spans, b.items[to].offset)
		}
		w.spans = joinSpans(spans)
		if !w.c.group.writeHandout(b.cursor.queue, b.start, w.c.b.log.Epoch(), attempt, w.spans) {
			return
		}
		from = to
	}
}

// withOffset adds an offset to spans, to the last of them if it is the next one.
func withOffset(spans []span, off Offset) []span {
	if n := len(spans); n > 0 && spans[n-1].To == off {
		spans[n-1].To++
		return spans
	}
	return append(spans, span{From: off, To: off + 1})
}

// writeHandout appends a handout and says whether the next one may be stored.
func (g *group) writeHandout(q *queue, start coord.Position, epoch uint32, attempt int, spans []span) bool {
	err := g.appendHandout(q, start, epoch, attempt, spans)
	if err != nil && !errors.Is(err, ErrStale) && !isClosed(err) {
		g.b.opts.Logger.Error("handout not stored", "group", g.name, "queue", q.name(), "err", err)
	}
	return err == nil
}

func (g *group) appendHandout(q *queue, start coord.Position, epoch uint32, attempt int, spans []span) error {
	b := g.b
	h := record.Handout{
		Group: g.id, Start: start, Topic: q.topic.id, Queue: q.id,
		Epoch: epoch, Attempt: min(attempt, record.MaxAttempts-1), Ranges: spans,
	}
	size := h.Size()
	_, err := b.log.Append(context.Background(), commitlog.Reserved, commitlog.Layout{}.Add(size), func(f *commitlog.Frame) error {
		if g.currentStart(q.topic.id) != start {
			return ErrStale
		}
		dst, _, _ := f.Next(size, nil, emptyBody)
		h.Put(dst)
		b.state.applyHandout(&h)
		return nil
	})
	return b.noted(err)
}

// suspectLocked returns how often off was delivered, as far as that counts: before
// an unclean end that it was in hand at (then it may be what ended the process),
// or by a simple consumer. It forgets what next has passed.
func (c *cursor) suspectLocked(off Offset) (attempt int, harms bool) {
	for len(c.suspects) > 0 && c.suspects[0].To <= off {
		c.suspects = c.suspects[1:]
	}
	if len(c.suspects) > 0 && c.suspects[0].From <= off {
		return c.suspects[0].attempt, c.suspects[0].epoch != everyEnd
	}
	return 0, false
}

// aloneLocked takes the turn to hand out a message that was in hand; false: it is
// another queue's, and the cursor waits for it. In an ordered group messages have
// turns of their own, and what is asked for is handed out to who asks: nobody
// tells when a turn would be over.
func (c *cursor) aloneLocked() bool {
	g := c.group
	switch {
	case c.lanes != nil || c.owner.kind.pull || c.owner.kind.simple:
	case g.suspect != nil:
		c.waiting = true
		g.behind = append(g.behind, c)
		return false
	default:
		g.suspect = c
	}
	return true
}

// endTurnLocked lets the next message that was in hand be handed out.
func (g *group) endTurnLocked() {
	behind := g.behind
	g.suspect, g.behind = nil, nil
	for _, c := range behind {
		c.waiting = false
		c.scheduleLocked()
	}
}
