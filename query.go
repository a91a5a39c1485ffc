package mq

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/keyindex"
	"github.com/pocketmq/mq/internal/record"
)

// keyHash is a key's hash in the key index: of one topic, so that topics that
// use the same keys do not meet there.
func keyHash(t coord.TopicID, key string) uint64 {
	var d xxhash.Digest
	d.Reset()
	var id [8]byte
	binary.LittleEndian.PutUint64(id[:], uint64(t))
	_, _ = d.Write(id[:])
	_, _ = d.WriteString(key)
	return d.Sum64()
}

// addIdentity makes a message that is stored at a position found by the id that
// it was first stored under.
func (b *Broker) addIdentity(id record.Identity, at coord.Position) {
	b.keys.Add(identityHash(id), at)
	if b.keys.Pending() > pendingKeys {
		b.upkeep.wantFlush()
	}
}

// identityHash is the hash of a first id in the key index. No key meets it but
// by chance: topic 0 is none.
func identityHash(id record.Identity) uint64 {
	var raw [8 + 4 + 8]byte
	binary.LittleEndian.PutUint32(raw[8:], id.Epoch)
	binary.LittleEndian.PutUint64(raw[12:], uint64(id.Position))
	return xxhash.Sum64(raw[:])
}

// MessageByID returns the message of that id, also one that waits for its time
// (then its Offset is -1), or has waited. Errors: ErrMessageNotFound, ErrCorrupt,
// ErrClosed.
func (b *Broker) MessageByID(id MessageID) (*Message, error) {
	if err := b.alive(); err != nil {
		return nil, err
	}
	if id.store != b.log.StoreID() {
		return nil, fmt.Errorf("%w: %v is of another store", ErrMessageNotFound, id)
	}
	m, err := b.messageAt(commitlog.Ref{Position: id.position}, nil)
	if err == nil && m.ID != id {
		err = commitlog.ErrNotFound
	}
	if errors.Is(err, commitlog.ErrNotFound) {
		m, err = b.messageAgain(id)
	}
	if errors.Is(err, commitlog.ErrNotFound) {
		return nil, fmt.Errorf("%w: %v", ErrMessageNotFound, id)
	}
	return m, err
}

// messageAgain returns the message of that id if it waits, or was stored again
// since it was first stored.
func (b *Broker) messageAgain(id MessageID) (*Message, error) {
	w, unsure := b.timer.find(id)
	if unsure == nil {
		return &w.message, nil
	}
	var m *Message
	err := commitlog.ErrNotFound
	failed := b.identified(id, func(pos coord.Position) (more bool) {
		m, err = b.messageAt(commitlog.Ref{Position: pos}, func(v *record.View) bool { return v.Identity() == id.identity() })
		return errors.Is(err, commitlog.ErrNotFound)
	})
	switch {
	case err == nil:
		return m, nil
	case failed != nil:
		return nil, failed
	case !errors.Is(unsure, ErrNotWaiting):
		return nil, unsure
	}
	return nil, err
}

// messageAt reads a message that its queue still has. A position alone does not
// make a message: its topic may be gone, and another message be at its offset.
// want, which may be nil, looks at it before it is copied.
func (b *Broker) messageAt(ref commitlog.Ref, want func(*record.View) bool) (m *Message, err error) {
	f := fetcher{b: b, brief: true}
	b.log.Read([]commitlog.Ref{ref}, func(_ int, r commitlog.Record, readErr error) bool {
		if err = readErr; err != nil {
			return false
		}
		var v record.View
		if record.DecodeMessage(r.Payload, &v) != nil {
			err = commitlog.ErrNotFound // an ack, say
			return false
		}
		q := b.queueOfRecord(&v, r.Position)
		if q == nil || want != nil && !want(&v) {
			err = commitlog.ErrNotFound
			return false
		}
		m = new(Message)
		f.fill(m, q, &v, r)
		return false
	})
	return m, err
}

// queueOfRecord returns the queue that has the message at pos: its entry leads
// there, or is damaged and leads to no message at all.
func (b *Broker) queueOfRecord(v *record.View, pos coord.Position) (q *queue) {
	b.log.Exclusive(func() {
		if t := b.state.topics[v.Topic]; t != nil && int(v.Queue) < len(*t.queues.Load()) {
			q = (*t.queues.Load())[v.Queue]
		}
	})
	if q == nil {
		return nil
	}
	var e [1]consumequeue.Entry
	if n, err := q.read(v.Offset, e[:]); n == 1 && err == nil && e[0].Position == pos {
		return q
	}
	if v.Offset < q.entries.Min() || v.Offset >= q.entries.End() || q.topic.deleted.Load() {
		return nil
	}
	if _, other := b.resolves(q, v.Offset); other {
		return nil
	}
	return q
}

// MaxByKey is the most messages MessagesByKey returns (RocketMQ's maxMsgsNumBatch).
const MaxByKey = 64

// MessagesByKey returns up to max messages of the topic that have the key,
// newest first. Messages are found as soon as they are stored. Errors:
// ErrTopicNotFound, ErrInvalidArgument if max is not 1 to 64.
func (b *Broker) MessagesByKey(topicName, key string, max int) ([]*Message, error) {
	if err := b.alive(); err != nil {
		return nil, err
	}
	if max < 1 || max > MaxByKey {
		return nil, fmt.Errorf("%w: %d messages, want 1 to %d", ErrInvalidArgument, max, MaxByKey)
	}
	t, err := b.knownTopic(topicName)
	if err != nil {
		return nil, err
	}
	for damaged := coord.Position(1 << 62); ; {
		found, err := b.messagesByKey(t, key, max)
		var bad *keyindex.CorruptError
		if !errors.As(err, &bad) || bad.From >= damaged { // newest first; each file once
			return found, err
		}
		damaged = bad.From
		if err := b.rebuildKeys(bad); err != nil {
			return found, err
		}
	}
}

// messagesByKey is MessagesByKey with what the files of the index say.
func (b *Broker) messagesByKey(t *topic, key string, max int) (found []*Message, failed error) {
	has := func(v *record.View) bool { return v.Topic == t.id && hasKey(v, key) }
	seen := coord.Position(-1) // a message with the key twice is in the index twice
	err := b.keys.Lookup(keyHash(t.id, key), func(pos coord.Position) bool {
		if pos == seen {
			return true
		}
		seen = pos
		m, err := b.messageAt(commitlog.Ref{Position: pos}, has)
		switch {
		case err == nil:
			found = append(found, m)
		case !errors.Is(err, commitlog.ErrNotFound):
			failed = errors.Join(failed, err)
		}
		return len(found) < max
	})
	return found, errors.Join(err, failed)
}

func hasKey(v *record.View, key string) bool {
	for fs := v.Fields(); fs.Next(); {
		if fs.Field.Type == record.FieldKey && string(fs.Field.Value) == key {
			return true
		}
	}
	return false
}
