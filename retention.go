package mq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
)

// allow is asked by the log of so many bytes before it makes a segment of more:
// also while it is being opened, when b.log is not known yet.
func (b *Broker) allow(bytes, more int64) error {
	limit := b.opts.Retention.MaxBytes
	if limit <= 0 {
		return nil
	}
	if err := b.upkeep.ask(bytes, more, limit); err != nil {
		return fmt.Errorf("%w: %d bytes and %d more, Retention.MaxBytes is %d", err, bytes, more, limit)
	}
	return nil
}

// allocated is what segments take of Retention.MaxBytes.
func allocated(segments []commitlog.Segment) (bytes int64) {
	for _, s := range segments {
		bytes += s.Bytes
	}
	return bytes
}

// retain drops the segments that are too old or too much, oldest first.
//
// What is still in force in them goes first: topics, groups and starts whose
// newest record lies there, and messages that wait for their time, are appended
// again. Then the log writes down its new
// start, synced, and unlinks. So a crash at any step leaves a log that folds to
// the same: either the old records are still there, or the new ones are.
func (b *Broker) retain(ctx context.Context) error {
	end, bytes, segments := b.condemn()
	if segments == 0 {
		return nil
	}
	err := b.carryState(ctx, end)
	if err == nil {
		err = b.timer.carryForward(ctx, end)
	}
	if err != nil {
		return err
	}
	if err := b.log.DropBefore(ctx, end); err != nil {
		return b.noted(err)
	}
	if err := errors.Join(b.keys.DropBefore(end), b.timer.index.DropBefore(end)); err != nil {
		return err
	}
	b.upkeep.dropped.Add(int64(segments))
	b.log.Poke()
	b.opts.Logger.Info("dropped segments", "segments", segments, "bytes", bytes, "start", end)
	if hook := b.opts.Hooks.Dropped; hook != nil {
		b.callback.call(func() { hook(DroppedInfo{Segments: segments, Bytes: bytes}) })
	}
	return nil
}

// condemn chooses the segments that go, and ends their queues' claim to them at
// once: a group that subscribes or is reset while they are being dropped starts
// behind them, or it would miss what it was just promised.
func (b *Broker) condemn() (end coord.Position, bytes int64, segments int) {
	b.members.Lock()
	defer b.members.Unlock()
	end, bytes, segments = b.disposable()
	if segments > 0 {
		b.trimQueues(end)
	}
	return end, bytes, segments
}

// disposable says up to where segments may go, how much that is, and notes who
// holds the first that may not. Positions advance by capacity, so a segment
// reaches to the base of the next one, and not to the end of its last frame.
func (b *Broker) disposable() (end coord.Position, bytes int64, segments int) {
	all := b.log.Segments()
	total, room := allocated(all), b.roomFor(all[len(all)-1])
	heldBy, held := "", int64(0)
	for i, s := range all[:len(all)-1] {
		if !s.Sealed || !b.tooOld(s) && !b.tooMuch(total, room) {
			break
		}
		if b.journal != nil && int64(s.End) > b.upkeep.checkpointed.Load() {
			break
		}
		if heldBy == "" && !b.opts.Retention.DropUnconsumed {
			heldBy = b.holder(s.End)
		}
		if heldBy == "" && !b.tooOld(s) && b.timer.mostlyWaits(s) {
			heldBy = HeldByWaiting
		}
		if heldBy != "" {
			held += s.Bytes
			continue
		}
		end, bytes, segments = all[i+1].Base, bytes+s.Bytes, segments+1
		total -= s.Bytes
	}
	b.upkeep.setHeld(heldBy, held)
	return end, bytes, segments
}

func (b *Broker) tooOld(s commitlog.Segment) bool {
	age := b.opts.Retention.Age
	return age >= 0 && time.Since(s.LastStored) >= age
}

// tooMuch reports whether the log leaves no room.
func (b *Broker) tooMuch(total, room int64) bool {
	limit := b.opts.Retention.MaxBytes
	return limit > 0 && total+room > limit
}

// roomFor returns what retention has to leave room for: another segment of the
// size it would take, or the larger one that a large frame waits for. Where that
// has no place beside the active segment, nothing is dropped for it.
func (b *Broker) roomFor(active commitlog.Segment) int64 {
	if more := b.upkeep.asked().more; more > b.opts.SegmentBytes && !b.tooMuch(active.Bytes, more) {
		return more
	}
	return b.opts.SegmentBytes
}

// holder returns the name of a group that has yet to consume a message stored
// before end; empty if there is none. Broker.members is held.
func (b *Broker) holder(end coord.Position) string {
	for _, g := range b.names.groupsNamed("") {
		if !g.expired(b.opts.Retention.GroupExpiry) && b.firstUnconsumed(g) < end {
			return g.name
		}
	}
	return ""
}

// positionOf returns where the first message of the queue at off or behind it
// lies; false: there is none. An error says that it could not be read just now.
func positionOf(q *queue, off Offset) (at coord.Position, ok bool, err error) {
	var e [1]consumequeue.Entry
	for off = max(off, q.entries.Min()); off < q.entries.End(); off++ {
		n, err := q.read(off, e[:])
		if err != nil || n == 0 {
			return 0, false, err
		}
		if e[0].Size != 0 {
			return e[0].Position, true, nil
		}
	}
	return 0, false, nil
}

// carryState appends again what is in force by records below end, but for
// messages that wait.
func (b *Broker) carryState(ctx context.Context, end coord.Position) error {
	var topics []*topic
	var groups []*group
	b.log.Exclusive(func() {
		for _, t := range b.state.topics {
			if t.at < end {
				topics = append(topics, t)
			}
		}
		for _, g := range b.state.groups {
			groups = append(groups, g)
		}
	})
	for _, t := range topics {
		if err := b.carry(ctx, func() stateRecord { return t.carried() }); err != nil {
			return err
		}
	}
	for _, g := range groups {
		if err := b.carryGroup(ctx, g, end); err != nil {
			return err
		}
	}
	return nil
}

// carried returns the record that stands for the topic when the segments that
// made it what it is are gone: with the ends of its queues. The append lock is
// held.
func (t *topic) carried() stateRecord {
	if t.deleted.Load() {
		return nil
	}
	r := t.config()
	for _, q := range *t.queues.Load() {
		r.Ends = append(r.Ends, q.entries.End())
	}
	return r
}

// carryGroup carries the group and each of its starts, with the offsets it has
// got to by now. What it acknowledged ahead of them needs no carrying: those
// acks lie behind their messages in the log, and those are not dropped.
func (b *Broker) carryGroup(ctx context.Context, g *group, end coord.Position) error {
	var starts []coord.TopicID
	old := false
	b.log.Exclusive(func() {
		old = g.at < end
		for id, sub := range g.subs {
			if sub.at < end {
				starts = append(starts, id)
			}
		}
	})
	if old {
		err := b.carry(ctx, func() stateRecord {
			if g.deleted {
				return nil
			}
			return g.record()
		})
		if err != nil {
			return err
		}
	}
	for _, id := range starts {
		err := b.carry(ctx, func() stateRecord {
			if sub := g.subs[id]; sub != nil && !g.deleted {
				return sub.record(g.id, id)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// carry appends a state record, unless what it stands for is gone meanwhile.
func (b *Broker) carry(ctx context.Context, build func() stateRecord) error {
	_, err := b.appendState(ctx, commitlog.Reserved, func() (stateRecord, error) {
		if r := build(); r != nil {
			return r, nil
		}
		return nil, errGone
	})
	if err == errGone {
		return nil
	}
	return err
}

var errGone = fmt.Errorf("mq: nothing to carry")

// trimQueues moves the starts of queues up to the first message at start or
// behind it.
func (b *Broker) trimQueues(start coord.Position) {
	if start == 0 {
		return
	}
	var queues []*queue
	b.log.Exclusive(func() {
		for _, t := range b.state.topics {
			queues = append(queues, *t.queues.Load()...)
		}
	})
	for _, q := range queues {
		if off := firstFrom(q, start); off > q.entries.Min() {
			q.entries.Trim(off)
		}
	}
}

// firstFrom returns the first offset of the queue whose message lies at start
// or behind it. Positions ascend along a queue; a hole is as far as the message
// behind it. An entry that is damaged may have led the search past messages that
// are there: then it stopped right behind that entry, and those before it tell.
func firstFrom(q *queue, start coord.Position) Offset {
	low, high := q.entries.Min(), q.entries.End()
	for {
		n := sort.Search(int(high-low), func(i int) bool {
			at, ok, err := positionOf(q, low+Offset(i))
			return err != nil || !ok || at >= start
		})
		found := low + Offset(n)
		var before [maxNeighbours]consumequeue.Entry
		from := max(low, found-maxNeighbours)
		read, _ := q.read(from, before[:found-from]) // what cannot be read tells nothing
		passed := slices.IndexFunc(before[:read], func(e consumequeue.Entry) bool { return !e.Hole() && e.Position >= start })
		if passed < 0 {
			return found
		}
		high = from + Offset(passed)
	}
}
