package mq

import (
	"context"
	"fmt"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// outgoing is a message on its way into the log. Send keeps it on its stack:
// nothing of it may escape.
type outgoing struct {
	message  *Message
	topic    *topic
	queue    *queue
	head     record.Message
	headSize int
	bodyHash uint64
	tagHash  uint64
	repeat   repeat // of a message with a DedupKey

	// Filled under the append lock.
	result     SendResult
	end        coord.Position
	durability Durability
}

// appendMessages puts the messages into one frame and returns where it ends.
func (b *Broker) appendMessages(ctx context.Context, room commitlog.Room, out []outgoing) (coord.Position, error) {
	end, err := b.log.Append(ctx, room, layoutOf(out), func(f *commitlog.Frame) error { return b.placeAll(f, out) })
	if err == errSuspect {
		return b.appendNew(ctx, room, out)
	}
	if err != nil {
		return 0, b.noted(err)
	}
	for i := range out {
		out[i].end = end
	}
	return end, nil
}

// placeAll fills a frame with those messages that are no repeats: all or none.
func (b *Broker) placeAll(f *commitlog.Frame, out []outgoing) error {
	suspects := false
	for i := range out {
		o := &out[i]
		if o.topic.deleted.Load() {
			return fmt.Errorf("%w: %q", ErrTopicNotFound, o.topic.name)
		}
		if o.message.DedupKey != "" {
			is, err := o.suspected(f.Now())
			if err != nil {
				return err
			}
			suspects = suspects || is
		}
	}
	if suspects {
		return errSuspect
	}
	for i := range out {
		o := &out[i]
		if o.repeats() {
			continue
		}
		at := f.Position()
		b.place(f, o)
		if o.message.DedupKey != "" { // with the time that the record has: the clock goes on
			o.topic.window.Load().add(sentKey{o.repeat.hash, at, o.head.StoredAt})
		}
		b.state.messages++
		b.state.bodyBytes += int64(len(o.message.Body))
	}
	return nil
}

func layoutOf(out []outgoing) (layout commitlog.Layout) {
	for i := range out {
		layout = layout.Add(out[i].headSize + len(out[i].message.Body))
	}
	return layout
}

// place writes one message into the frame and folds it. The append lock is
// held: this is the critical section of every send.
func (b *Broker) place(f *commitlog.Frame, o *outgoing) {
	if o.head.Again != nil && o.head.Again.DeliverAt != 0 {
		b.placeDelayed(f, o)
		return
	}
	entries := o.queue.entries
	o.head.Offset = entries.End()
	o.head.StoredAt = f.Now()
	dst, at, size := f.Next(o.headSize, o.message.Body, o.bodyHash)
	o.head.PutHead(dst)
	entries.Append(consumequeue.Entry{Position: at, Size: size, Tag: o.tagHash})
	if len(o.head.Keys) > 0 || o.head.Again != nil {
		b.placeKeys(o, at)
	}
	o.durability = o.topic.durable()
	o.result = SendResult{
		ID:     MessageID{store: b.log.StoreID(), epoch: f.Epoch(), position: at},
		Topic:  o.topic.name,
		Queue:  o.queue.id,
		Offset: o.head.Offset,
	}
}

// placeDelayed is place for a message that waits. Its time is not before what
// has been taken out to be delivered, or it would never be looked at.
func (b *Broker) placeDelayed(f *commitlog.Frame, o *outgoing) {
	a := o.head.Again
	a.DeliverAt = max(a.DeliverAt, b.timer.near.floor)
	o.head.StoredAt = f.Now()
	dst, at, _ := f.Next(o.headSize, o.message.Body, o.bodyHash)
	o.head.PutHead(dst)
	b.timer.add(o.topic, record.Due{At: a.DeliverAt, Position: at})
	if a.Identity != (record.Identity{}) {
		b.addIdentity(a.Identity, at)
	}
	o.durability = o.topic.durable()
	o.result = SendResult{
		ID:     b.idOf(a.Identity, f.Epoch(), at),
		Topic:  o.topic.name,
		Queue:  o.queue.id,
		Offset: -1, deliverAt: a.DeliverAt,
	}
}

// placeKeys indexes the keys of a message, and the id it was first stored under.
// The append lock is held.
func (b *Broker) placeKeys(o *outgoing, at coord.Position) {
	for _, key := range o.head.Keys {
		b.keys.Add(keyHash(o.topic.id, key), at)
	}
	if a := o.head.Again; a != nil && a.Identity != (record.Identity{}) {
		b.addIdentity(a.Identity, at)
	}
	if b.keys.Pending() > pendingKeys {
		b.upkeep.wantFlush()
	}
}

// await waits for the sync of what ends at end. Where ctx ends first, the
// completions wake the consumers when it has come.
func (b *Broker) await(ctx context.Context, end coord.Position, out []outgoing) error {
	err := b.log.Wait(ctx, end)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		b.callback.force(out, nil)
	}
	return b.noted(err)
}

func strongest(out []outgoing) Durability {
	for i := range out {
		if out[i].durability == Synced {
			return Synced
		}
	}
	return Written
}

// arrivedWritten wakes the consumers of messages that are visible already.
func arrivedWritten(out []outgoing) {
	for i := range out {
		if out[i].durability == Written {
			out[i].queue.arrived()
		}
	}
}
