package mq

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/journal"
	"github.com/pocketmq/mq/internal/record"
)

// A checkpoint is the fold written down: the records that would lead to it, and
// the state of every message queue. It bounds how much log is replayed and is
// never needed: the log alone rebuilds everything.
//
//	item:    | length u32 | at u64 | payload |
//	payload: a record (its first byte is a record.Kind), or
//	 header: | 0xF0 | store u64 | from u64 | to u64 | epoch u32 | keys from u64 | keys to u64 | times from u64 | times to u64 |
//	 queue:  | 0xF1 | topic u64 | queue u32 | min u64 | flushed u64 | entries × 20 |
//	 delay:  | 0xF2 | mark's time u64 | its position u64 | topics × { topic u64, waiting u64 } |
//	 window: | 0xF3 | topic u64 | sent × { hash of the key u64, position u64, stored at u64 } |
//
// It is fuzzy: captured piece by piece while senders go on. from is how far the
// log was written before the capture began, so everything below it is in; what
// lies above may be in or not, and replaying it from there changes nothing
// twice. to is how far it was written afterwards: nothing above it is in, and
// the log is synced up to it before the checkpoint is. The one thing that counts,
// and so must not be replayed twice, is how many messages wait for their time:
// that is what it was at from.
const (
	itemHeader  = 0xF0
	itemQueue   = 0xF1
	itemWaiting = 0xF2
	itemWindow  = 0xF3
	itemPrefix  = 4 + 8
	headerBytes = 1 + 3*8 + 4 + 4*8
	countBytes  = 8 + 8
	queueBytes  = 1 + 8 + 4 + 2*8
)

var errCheckpoint = errors.New("mq: malformed checkpoint")

// checkpoint writes one. The order of its steps is what makes it safe:
//
//	capture, sync the log to its end   or it would know messages that a power cut takes back
//	sync queue and key files           or it would name lengths that are not there
//	write and sync the checkpoint      the journal syncs its closing record last
//	unlink what it does not name       and never before
func (b *Broker) checkpoint(clean bool) error {
	if b.journal == nil {
		return b.tidy()
	}
	if err := b.log.Err(); err != nil {
		return err // nothing written now could be trusted
	}
	err := b.writeCheckpoint(clean)
	if (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) && b.upkeep.spendReserve() {
		err = b.writeCheckpoint(clean)
	}
	if err != nil {
		return fmt.Errorf("mq: checkpoint: %w", err)
	}
	return nil
}

// tidy is what a memory broker does instead: there is nothing to come back to,
// but what has been dropped must make room.
func (b *Broker) tidy() error {
	err := errors.Join(b.keys.Flush(b.log.Written()), b.timer.index.Flush(b.log.Written()), b.entries.Flush())
	b.capture() // notes which entries are still needed
	return errors.Join(err, b.entries.Sweep())
}

// pendingKeys is how many bytes of key hashes are kept in memory, at most,
// before they go to a file without waiting for the next checkpoint.
const pendingKeys = 16 * mib

// flushKeys bounds the key hashes and times in memory. A file made between
// checkpoints is removed again when the store is opened from the one before.
func (b *Broker) flushKeys() error {
	var errs []error
	if b.keys.Pending() >= pendingKeys {
		errs = append(errs, b.keys.Flush(b.log.Written()))
	}
	if b.timer.index.Pending() >= pendingTimes {
		errs = append(errs, b.timer.index.Flush(b.log.Written()))
	}
	return errors.Join(errs...)
}

func (b *Broker) writeCheckpoint(clean bool) error {
	var from coord.Position
	var waiting waitingState
	b.log.Exclusive(func() { from, waiting = b.log.Written(), b.timer.capture() })
	if err := b.keys.Flush(from); err != nil {
		return err
	}
	if err := b.timer.index.Flush(from); err != nil {
		return err
	}
	if err := b.entries.Flush(); err != nil {
		return err
	}
	items := appendItem(b.capture(), 0, waiting.encode())
	to, err := b.settledEnd()
	if err != nil {
		return err
	}
	if err := b.noted(b.log.Wait(context.Background(), to)); err != nil {
		return err
	}
	if err := b.entries.Sync(); err != nil {
		return err
	}
	header := b.checkpointHeader(from, to)
	err = b.journal.Write(func(w io.Writer) error {
		if _, err := w.Write(appendItem(nil, 0, header)); err != nil {
			return err
		}
		_, err := w.Write(items)
		return err
	}, clean)
	if err != nil {
		return err
	}
	b.upkeep.checkpointed.Store(int64(from))
	b.upkeep.checkpoints.Add(1)
	return b.entries.Sweep()
}

// settledEnd returns how far the log is written, when no send is in the middle
// of its frame: index entries are there before the frame is, and the capture may
// have seen one. If its frame could not be written the log is poisoned, and what
// was captured is not in it.
func (b *Broker) settledEnd() (to coord.Position, err error) {
	b.log.Exclusive(func() { to, err = b.log.Written(), b.log.Err() })
	return to, err
}

// checkpointHeader encodes the first item of a checkpoint.
func (b *Broker) checkpointHeader(from, to coord.Position) []byte {
	keysFrom, keysTo := b.keys.Bounds()
	header := binary.LittleEndian.AppendUint64([]byte{itemHeader}, b.log.StoreID())
	header = binary.LittleEndian.AppendUint64(header, uint64(from))
	header = binary.LittleEndian.AppendUint64(header, uint64(to))
	header = binary.LittleEndian.AppendUint32(header, b.log.Epoch())
	header = binary.LittleEndian.AppendUint64(header, uint64(keysFrom))
	header = binary.LittleEndian.AppendUint64(header, uint64(keysTo))
	timesFrom, timesTo := b.timer.index.Bounds()
	header = binary.LittleEndian.AppendUint64(header, uint64(timesFrom))
	return binary.LittleEndian.AppendUint64(header, uint64(timesTo))
}

// capture encodes the fold. Only lists of what there is, and each single piece,
// are taken under the append lock, so that senders wait for microseconds.
func (b *Broker) capture() []byte {
	var topics []*topic
	var groups []*group
	b.log.Exclusive(func() {
		for _, t := range b.state.topics {
			topics = append(topics, t)
		}
		for _, g := range b.state.groups {
			groups = append(groups, g)
		}
	})
	var items []byte
	for _, t := range topics {
		items = b.captureTopic(items, t)
	}
	for _, g := range groups {
		b.log.Exclusive(func() { items = captureGroup(items, g) })
	}
	return items
}

func (b *Broker) captureTopic(items []byte, t *topic) []byte {
	gone := false
	var w *window
	b.log.Exclusive(func() {
		gone, w = t.deleted.Load(), t.window.Load()
		items = appendRecord(items, t.at, t.config())
	})
	if gone {
		return items // its deletion lies above from: the replay repeats it
	}
	if w != nil {
		items = b.captureWindow(items, t, w)
	}
	for _, q := range *t.queues.Load() {
		st := q.entries.Capture()
		if st.End == 0 {
			continue
		}
		payload := binary.LittleEndian.AppendUint64([]byte{itemQueue}, uint64(t.id))
		payload = binary.LittleEndian.AppendUint32(payload, uint32(q.id))
		payload = binary.LittleEndian.AppendUint64(payload, uint64(st.Min))
		payload = binary.LittleEndian.AppendUint64(payload, uint64(st.Flushed))
		for _, e := range st.Tail {
			payload = binary.LittleEndian.AppendUint64(payload, uint64(e.Position))
			payload = binary.LittleEndian.AppendUint32(payload, e.Size)
			payload = binary.LittleEndian.AppendUint64(payload, e.Tag)
		}
		items = appendItem(items, 0, payload)
	}
	return items
}

// captureGroup encodes a group and its progress. The append lock is held.
func captureGroup(items []byte, g *group) []byte {
	if g.deleted {
		return items
	}
	items = appendRecord(items, g.at, g.record())
	for topic, sub := range g.subs {
		items = appendRecord(items, sub.at, sub.record(g.id, topic))
		for q := range sub.queues {
			if ahead := sub.queues[q].ahead; len(ahead) > 0 {
				items = appendRecord(items, 0, &record.Ack{
					Group: g.id, Start: sub.start, Topic: topic, Queue: QueueID(q), Ranges: ahead,
				})
			}
			for _, h := range sub.queues[q].hands {
				items = appendRecord(items, 0, &record.Handout{
					Group: g.id, Start: sub.start, Topic: topic, Queue: QueueID(q),
					Epoch: h.epoch, Attempt: h.attempt, Ranges: []span{h.span},
				})
			}
		}
	}
	return items
}

// record returns the start record that stands for the committed offsets now.
func (sub *subscription) record(g coord.GroupID, t coord.TopicID) *record.Start {
	r := &record.Start{ID: sub.start, Group: g, Topic: t, Subscription: sub.filter}
	for q := range sub.queues {
		r.Offsets = append(r.Offsets, sub.queues[q].committed)
	}
	return r
}

func appendRecord(items []byte, at coord.Position, r stateRecord) []byte {
	payload := make([]byte, r.Size())
	r.Put(payload)
	return appendItem(items, at, payload)
}

func appendItem(items []byte, at coord.Position, payload []byte) []byte {
	items = binary.LittleEndian.AppendUint32(items, uint32(len(payload)))
	items = binary.LittleEndian.AppendUint64(items, uint64(at))
	return append(items, payload...)
}

// restore folds the last checkpoint, if there is one, and says where the log is
// to be replayed from. An error says that the checkpoint is of no use; the
// Synced of the result may still be trusted.
func (b *Broker) restore() (commitlog.Start, error) {
	var start commitlog.Start
	if b.journal == nil {
		return start, nil
	}
	last := b.journal.Last()
	if last == nil {
		return start, b.journal.Discarded()
	}
	return b.restoreFrom(last)
}

// restoreFrom is restore from a checkpoint.
func (b *Broker) restoreFrom(last *journal.Checkpoint) (commitlog.Start, error) {
	var start commitlog.Start
	err := eachItem(last.Body, func(payload []byte, at coord.Position) error {
		return b.restoreItem(payload, at, &start)
	})
	if err != nil {
		return start, err
	}
	start.Clean = last.Clean
	b.timer.restore()
	b.upkeep.checkpointed.Store(int64(start.From))
	return start, nil
}

// eachItem takes the body of a checkpoint apart.
func eachItem(body []byte, visit func(payload []byte, at coord.Position) error) error {
	for len(body) > 0 {
		if len(body) < itemPrefix {
			return errCheckpoint
		}
		n := int(binary.LittleEndian.Uint32(body))
		at := coord.Position(binary.LittleEndian.Uint64(body[4:]))
		body = body[itemPrefix:]
		if n == 0 || n > len(body) {
			return errCheckpoint
		}
		if err := visit(body[:n:n], at); err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

func (b *Broker) restoreItem(payload []byte, at coord.Position, start *commitlog.Start) error {
	switch payload[0] {
	case itemHeader:
		h, err := decodeItemHeader(payload)
		if err != nil {
			return err
		}
		b.storeID = h.store
		start.From, start.Synced, start.Epoch = h.from, h.to, h.epoch
		if err := b.keys.Limit(start.From); err != nil {
			return err
		}
		b.keys.Expect(h.keysFrom, h.keysTo)
		if err := b.timer.index.Limit(start.From); err != nil {
			return err
		}
		b.timer.index.Expect(h.timerFrom, h.timerTo)
		return nil
	case itemQueue:
		return b.restoreQueue(payload, start.Synced)
	case itemWaiting:
		return b.timer.restored.decode(payload)
	case itemWindow:
		return b.restoreWindow(payload)
	}
	return b.restoreRecord(payload, at)
}

// restoreRecord folds an item that is a record.
func (b *Broker) restoreRecord(payload []byte, at coord.Position) error {
	switch record.KindOf(payload) {
	case record.KindAck:
		if err := record.DecodeAck(payload, &b.state.ack); err != nil {
			return err
		}
		b.state.applyAck(&b.state.ack)
		return nil
	case record.KindHandout:
		if err := record.DecodeHandout(payload, &b.state.hand); err != nil {
			return err
		}
		b.state.applyHandout(&b.state.hand)
		return nil
	}
	return b.state.applyState(payload, at)
}

// itemHead is the first item of a checkpoint.
type itemHead struct {
	store            uint64
	from, to         coord.Position
	epoch            uint32
	keysFrom, keysTo coord.Position

	timerFrom, timerTo coord.Position
}

func decodeItemHeader(payload []byte) (itemHead, error) {
	if len(payload) != headerBytes {
		return itemHead{}, errCheckpoint
	}
	return itemHead{
		store:    binary.LittleEndian.Uint64(payload[1:]),
		from:     coord.Position(binary.LittleEndian.Uint64(payload[9:])),
		to:       coord.Position(binary.LittleEndian.Uint64(payload[17:])),
		epoch:    binary.LittleEndian.Uint32(payload[25:]),
		keysFrom: coord.Position(binary.LittleEndian.Uint64(payload[29:])),
		keysTo:   coord.Position(binary.LittleEndian.Uint64(payload[37:])),

		timerFrom: coord.Position(binary.LittleEndian.Uint64(payload[45:])),
		timerTo:   coord.Position(binary.LittleEndian.Uint64(payload[53:])),
	}, nil
}

// decodeItemQueue decodes the item of a queue.
func decodeItemQueue(payload []byte) (t coord.TopicID, id QueueID, st consumequeue.State, err error) {
	if len(payload) < queueBytes || (len(payload)-queueBytes)%consumequeue.EntrySize != 0 {
		return 0, 0, st, errCheckpoint
	}
	t = coord.TopicID(binary.LittleEndian.Uint64(payload[1:]))
	n := binary.LittleEndian.Uint32(payload[9:])
	st.Min = Offset(binary.LittleEndian.Uint64(payload[13:]))
	st.Flushed = Offset(binary.LittleEndian.Uint64(payload[21:]))
	if n >= maxQueues {
		return 0, 0, st, errCheckpoint
	}
	rest := payload[queueBytes:]
	st.Tail = make([]consumequeue.Entry, 0, len(rest)/consumequeue.EntrySize)
	for ; len(rest) > 0; rest = rest[consumequeue.EntrySize:] {
		st.Tail = append(st.Tail, consumequeue.Entry{
			Position: coord.Position(binary.LittleEndian.Uint64(rest)),
			Size:     binary.LittleEndian.Uint32(rest[8:]),
			Tag:      binary.LittleEndian.Uint64(rest[12:]),
		})
	}
	st.End = st.Flushed + Offset(len(st.Tail))
	return t, QueueID(n), st, nil
}

// restoreQueue brings back a queue of a checkpoint that knows nothing of what
// lies at to or behind it.
func (b *Broker) restoreQueue(payload []byte, to coord.Position) error {
	topicID, id, st, err := decodeItemQueue(payload)
	if err != nil {
		return err
	}
	t := b.state.topics[topicID]
	if t == nil {
		return errCheckpoint
	}
	b.state.grow(t, int(id)+1)
	q := (*t.queues.Load())[id]
	q.filed, q.logged = st.Flushed, to
	return q.entries.Restore(st)
}
