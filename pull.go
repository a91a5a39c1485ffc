package mq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/pocketmq/mq/internal/coord"
)

// PullOptions says how a pull consumer works. Nil means the defaults. The
// fields mean what they mean in PushOptions.
type PullOptions struct {
	Model         Model
	Instance      string
	From          Whence
	AckDurability Durability
	Strategy      Strategy
}

// PullConsumer hands out messages when it is asked for them. It is safe for
// concurrent use. There is no auto-commit: what was polled and not committed
// comes again, to whoever has the queue next.
type PullConsumer struct {
	*member
}

// NewPullConsumer returns a consumer that is a member of the group. Subscribe
// or Assign give it queues.
//
// Errors: ErrInvalidName, ErrInvalidOptions, ErrGroupKind, ErrInstanceInUse,
// ErrClosed.
func (b *Broker) NewPullConsumer(group string, options *PullOptions) (*PullConsumer, error) {
	var o PullOptions
	if options != nil {
		o = *options
	}
	c := &PullConsumer{member: b.newMember(group, o.Instance, groupKind{pull: true, model: o.Model})}
	if err := c.configure(memberOptions{o.Model, o.Instance, o.From, o.Strategy, o.AckDurability}); err != nil {
		return nil, err
	}
	b.members.Lock()
	defer b.unlockMembers()
	if err := b.join(c.member); err != nil {
		return nil, err
	}
	return c, nil
}

// Assign gives the consumer exactly these queues, all messages of them, apart
// from what is dealt out to members that subscribe (RocketMQ's
// LitePullConsumer.assign). Calling it again replaces the list.
//
// Errors: ErrTopicNotFound, ErrQueueNotFound, ErrNotAssigned if another member
// was assigned one of them, ErrInvalidArgument after Subscribe,
// ErrSubscriptionMismatch if another member filters the messages of a topic.
func (c *PullConsumer) Assign(queues ...Queue) error {
	found := make([]*queue, 0, len(queues))
	for _, name := range queues {
		q, err := c.b.queueOf(name)
		if err != nil {
			return err
		}
		found = append(found, q)
	}
	b := c.b
	b.members.Lock()
	defer b.unlockMembers()
	if err := c.aliveLocked(); err != nil {
		return err
	}
	if c.manual == nil && len(c.topics) > 0 {
		return fmt.Errorf("%w: Assign after Subscribe", ErrInvalidArgument)
	}
	for _, other := range c.group.members {
		for _, name := range queues {
			if other != c.member && slices.Contains(other.manual, name) {
				return fmt.Errorf("%w: %v is assigned to %s", ErrNotAssigned, name, other.name)
			}
		}
	}
	for _, q := range found { // what can go wrong does so before anything is changed
		err := c.group.mismatch(c.member, q.topic, All)
		if err == nil {
			err = c.group.ensureStart(q.topic, c.from)
		}
		if err != nil {
			return err
		}
	}
	c.manual = append([]Queue{}, queues...)
	return c.subscribeAssigned(found)
}

// subscribeAssigned gives the group cursors on the assigned topics and drops
// those on topics that are assigned no more. Broker.members is held.
func (c *PullConsumer) subscribeAssigned(queues []*queue) error {
	g := c.group
	g.mu.Lock()
	before := c.topics
	c.topics = map[*topic]Filter{}
	g.mu.Unlock()
	for _, q := range queues {
		if _, ok := c.topics[q.topic]; !ok {
			if err := g.subscribe(c.member, q.topic, All, c.from); err != nil {
				return err
			}
		}
	}
	g.mu.Lock()
	for t := range before {
		g.dropUnusedLocked(t)
	}
	g.mu.Unlock()
	g.rebalance()
	return nil
}

// maxPoll and maxPollBytes bound what one Poll returns, whatever is asked for.
const (
	maxPoll      = 1024
	maxPollBytes = mib
)

// Poll returns up to max messages, at least one: it waits for the first until
// ctx ends, and then returns the error of ctx. However large max is, it returns
// at most 1,024 messages and about 1 MiB at once. RocketMQ's default is 32.
//
// Errors: ErrInvalidArgument, ErrClosed, that of ctx.
func (c *PullConsumer) Poll(ctx context.Context, max int) ([]*Message, error) {
	if max < 1 {
		return nil, fmt.Errorf("%w: poll of %d messages", ErrInvalidArgument, max)
	}
	g := c.group
	f := fetcher{b: c.b, brief: true}
	for woken := false; ; {
		g.mu.Lock()
		if err := ctx.Err(); err != nil {
			if woken {
				c.passOnLocked()
			}
			g.mu.Unlock()
			return nil, err
		}
		if c.closed {
			g.mu.Unlock()
			return nil, ErrClosed
		}
		cur := c.takeReadyLocked()
		if cur == nil {
			woken = c.awaitLocked(ctx)
			g.mu.Unlock()
			continue
		}
		ms, err := c.takeLocked(&f, cur, max)
		if len(ms) > 0 || err != nil {
			return ms, err
		}
	}
}

// takeLocked hands out the cursor's next messages and lets group.mu go.
func (c *PullConsumer) takeLocked(f *fetcher, cur *cursor, max int) ([]*Message, error) {
	if cur.fillHolesLocked(); cur.owner != c.member {
		c.group.mu.Unlock()
		return nil, nil
	}
	g, filter, start := c.group, cur.topic.filter, cur.start
	claims, gone := cur.claimLocked(nil, min(max, maxPoll), maxPollBytes)
	reading, era := offsetsOf(claims), cur.era
	cur.reading = append(cur.reading, reading...)
	cur.scheduleLocked()
	g.mu.Unlock()
	var got fetched
	if len(claims) > 0 {
		got = f.fetch(cur, start, &filter, claims)
	}
	g.reportMissed(cur.queue, append(gone, got.gone...))
	g.mu.Lock()
	defer g.mu.Unlock()
	if cur.era != era {
		return nil, nil // these are not what is next any more
	}
	for _, s := range reading {
		at := slices.Index(cur.reading, s)
		cur.reading = slices.Delete(cur.reading, at, at+1)
	}
	if got.err != nil {
		cur.redo = slices.Insert(cur.redo, 0, claims...)
		cur.scheduleLocked()
		return nil, got.err
	}
	cur.passedLocked(got.lost)
	cur.passedLocked(got.unwanted)
	g.ackSkippedLocked(cur)
	ms := make([]*Message, len(got.messages))
	for i := range got.messages {
		ms[i] = &got.messages[i]
	}
	return ms, nil
}

// Commit acknowledges messages; without any, everything Poll has returned so
// far of the queues the consumer has now. When it returns, none of them comes
// again after the process ends, and with AckDurability Synced after a power cut.
//
// Messages of before a reset are left out, and ErrStale says so. Errors:
// ErrNotAssigned, ErrStale, ErrPoisoned, ErrClosed.
func (c *PullConsumer) Commit(ctx context.Context, ms ...*Message) error {
	if err := c.b.alive(); err != nil {
		return err
	}
	take := c.polled
	if len(ms) > 0 {
		take = func() ([]settled, []passed, error) { return c.delivered(ms) }
	}
	acks, skipped, err := take()
	if err != nil || len(acks) == 0 {
		return err
	}
	end, err := c.group.appendAcks(acks)
	if err != nil && !errors.Is(err, ErrStale) {
		c.group.skipAgain(skipped)
		return err
	}
	c.group.acknowledged(acks)
	if failed := c.b.durable(ctx, end, c.acks); failed != nil {
		return failed
	}
	return err
}

// acknowledged has cursors pass over what was acknowledged ahead of them, by a
// member that had the queue before. Who went back by Seek wants it again.
func (g *group) acknowledged(acks []settled) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range acks {
		gt := g.topics[a.queue.topic]
		if gt == nil || int(a.queue.id) >= len(gt.cursors) {
			continue // nobody subscribes any more
		}
		c := gt.cursors[a.queue.id]
		if last := len(a.spans) - 1; c.start == a.start && !c.sought && last >= 0 && a.spans[last].To > c.next {
			c.done = joinSpans(append(slices.Clone(c.done), a.spans...))
		}
	}
}

// passed is what a cursor skipped, on its way into an acknowledgement.
type passed struct {
	cursor *cursor
	start  coord.Position
	spans  []span
}

// skipAgain gives back what was not acknowledged after all: it goes with the next
// acknowledgement.
func (g *group) skipAgain(skipped []passed) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range skipped {
		if c := p.cursor; p.start == c.start && !c.retired && len(p.spans) > 0 {
			c.skipped = append(c.skipped, p.spans...)
			g.ackLaterLocked(c, readAgainAfter)
		}
	}
}

// polled is everything that Poll has returned of the consumer's queues.
func (c *PullConsumer) polled() (acks []settled, skipped []passed, err error) {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.closed {
		return nil, nil, ErrClosed
	}
	for _, cur := range c.owned {
		// Poll went past them: they are in.
		skipped = append(skipped, passed{cur, cur.start, cur.takeSkippedLocked()})
		if spans := cur.polledLocked(); len(spans) > 0 {
			acks = append(acks, settled{queue: cur.queue, start: cur.start, spans: spans})
		}
	}
	return acks, skipped, nil
}

// polledLocked returns what Poll went past: returned, or passed over. It is the
// offsets from where Poll began, without those that a Poll is still reading or
// could not read, and with those from before a Seek.
func (c *cursor) polledLocked() []span {
	open := append(offsetsOf(c.redo), c.reading...)
	slices.SortFunc(open, func(a, b span) int { return cmp.Compare(a.From, b.From) })
	spans := slices.Clone(c.before)
	from := c.from
	for _, s := range open {
		if from < s.From {
			spans = append(spans, span{From: from, To: s.From})
		}
		from = max(from, s.To)
	}
	if from < c.next {
		spans = append(spans, span{From: from, To: c.next})
	}
	return joinSpans(spans)
}

// offsetsOf joins the offsets of claims.
func offsetsOf(claims []claim) (spans []span) {
	for i := range claims {
		off := claims[i].offset
		if last := len(spans) - 1; last >= 0 && spans[last].To == off {
			spans[last].To++
			continue
		}
		spans = append(spans, span{From: off, To: off + 1})
	}
	return spans
}

// delivered is the offsets of ms, by queue and start, with what was skipped.
func (c *PullConsumer) delivered(ms []*Message) (acks []settled, skipped []passed, err error) {
	type from struct {
		cursor *cursor
		start  coord.Position
	}
	spans := map[from][]span{}
	for i, m := range ms {
		switch {
		case m == nil || m.origin.cursor == nil || !m.origin.cursor.group.named(c.group):
			return nil, nil, fmt.Errorf("%w: message %d was not delivered to group %q", ErrNotAssigned, i, c.groupName)
		case m.origin.cursor.group != c.group: // it was deleted, and made again
			return nil, nil, fmt.Errorf("%w: group %q", ErrStale, c.groupName)
		}
		key, off := from{m.origin.cursor, m.origin.start}, m.origin.offset
		spans[key] = append(spans[key], span{From: off, To: off + 1})
	}
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.closed {
		return nil, nil, ErrClosed
	}
	for key, s := range spans {
		if key.start == key.cursor.start {
			taken := passed{key.cursor, key.start, key.cursor.takeSkippedLocked()}
			s, skipped = append(s, taken.spans...), append(skipped, taken)
		}
		acks = append(acks, settled{queue: key.cursor.queue, start: key.start, spans: joinSpans(s)})
	}
	return acks, skipped, nil
}

// Seek makes off the next offset that Poll hands out of q. It is not stored:
// ResetOffset is. Errors: ErrNotAssigned, ErrOffsetOutOfRange.
func (c *PullConsumer) Seek(q Queue, off Offset) error {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	cur, err := c.ownedLocked(q)
	if err != nil {
		return err
	}
	if off < 0 || off > cur.queue.entries.End() {
		return fmt.Errorf("%w: %v offset %d, the queue ends at %d", ErrOffsetOutOfRange, q, off, cur.queue.entries.End())
	}
	cur.before = cur.polledLocked()
	cur.sought = true
	cur.startLocked(off)
	cur.redo, cur.done = nil, nil
	cur.scheduleLocked()
	return nil
}

// Pause makes Poll pass over these queues until Resume. Errors: ErrNotAssigned.
func (c *PullConsumer) Pause(queues ...Queue) error { return c.setPaused(queues, true) }

// Resume ends Pause. Errors: ErrNotAssigned.
func (c *PullConsumer) Resume(queues ...Queue) error { return c.setPaused(queues, false) }

func (c *PullConsumer) setPaused(queues []Queue, paused bool) error {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	cursors := make([]*cursor, 0, len(queues))
	for _, q := range queues {
		cur, err := c.ownedLocked(q)
		if err != nil {
			return err
		}
		cursors = append(cursors, cur)
	}
	for _, cur := range cursors {
		cur.paused = paused
		if paused {
			cur.owner.unreadyLocked(cur)
		} else {
			cur.scheduleLocked()
		}
	}
	return nil
}

func (c *PullConsumer) ownedLocked(q Queue) (*cursor, error) {
	if c.closed {
		return nil, ErrClosed
	}
	for _, cur := range c.owned {
		if cur.queue.name() == q {
			return cur, nil
		}
	}
	return nil, fmt.Errorf("%w: %v", ErrNotAssigned, q)
}

// Messages is Poll as an iterator: it yields messages as they come, until ctx
// ends or the consumer is closed, and that as its last error. A loop that
// breaks leaves messages polled and not committed behind, as Poll does.
func (c *PullConsumer) Messages(ctx context.Context) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		for {
			ms, err := c.Poll(ctx, 32)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, m := range ms {
				if !yield(m, nil) {
					return
				}
			}
		}
	}
}
