package mq

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// DefaultDedupCount is how many messages a DedupWindow reaches back that says
// for how long and not for how many. In memory they take 8 MB at most.
const DefaultDedupCount = 100_000

// MaxDedupCount is the largest DedupWindow.Count.
const MaxDedupCount = record.MaxWindowCount

// DedupWindow is how far back a topic knows the DedupKeys that were sent to it: a
// message whose key was sent less than For ago, and is among the last Count
// messages with a key, is not stored again. Messages without a key do not
// count. What retention drops leaves the window.
//
// Each message with a key takes at most 80 bytes of memory while it is in the
// window, whatever the length of its key, and 24 bytes of each checkpoint.
type DedupWindow struct {
	// For counts from when the first message was stored, in milliseconds, rounded
	// up. A repeat does not prolong it; setting the system's clock back while the
	// store is closed does. Zero is no window, and in UpdateTopic what there is;
	// -1 is none.
	For time.Duration

	// Count of messages, at most MaxDedupCount. Zero is DefaultDedupCount, and in
	// UpdateTopic what there is.
	Count int
}

func (d DedupWindow) validate() error {
	switch {
	case d.For < -1:
		return fmt.Errorf("%w: Dedup.For is %v", ErrInvalidArgument, d.For)
	case d.Count < 0 || d.Count > MaxDedupCount:
		return fmt.Errorf("%w: Dedup.Count is %d, want 1 to %d", ErrInvalidArgument, d.Count, MaxDedupCount)
	}
	return nil
}

// longestWindow is the longest time in milliseconds that a Duration can tell. It
// is far below record.MaxWindowFor.
const longestWindow = math.MaxInt64 / int64(time.Millisecond)

// changed returns the window that d makes of w.
func (d DedupWindow) changed(w record.Window) (record.Window, error) {
	switch {
	case d.For < 0:
		return record.Window{}, nil
	case d.For > 0:
		w.For = min((d.For-1).Milliseconds()+1, longestWindow) // rounded up
	case w.For == 0 && d.Count > 0:
		return w, fmt.Errorf("%w: Dedup.Count is %d and Dedup.For is zero", ErrInvalidArgument, d.Count)
	}
	if d.Count > 0 {
		w.Count = d.Count
	}
	if w.For > 0 && w.Count == 0 {
		w.Count = DefaultDedupCount
	}
	return w, nil
}

// window is the fold of the messages with a DedupKey of one topic: where those
// lie that a repeat may be of. It knows hashes; the keys are in the log. The
// append lock guards it.
//
// Messages are numbered in the order of the log, and those in the window are
// first <= n < next. Their positions and times ascend, so a message that is
// replayed is known by its position, and what is too old is at the front. What
// retention drops stays until then: who looks for it in the log finds nothing.
type window struct {
	record.Window
	ring        []sentKey // number n at n % len
	first, next int
	newest      map[uint64]int // of each hash the newest
}

// sentKey is a message with a DedupKey.
type sentKey struct {
	hash   uint64
	at     coord.Position
	stored int64 // Unix ms
}

const sentKeyBytes = 8 + 8 + 8

// expireMost is how many a send takes out of the window that are too old: all of
// them at once would have other senders wait.
const expireMost = 64

func newWindow(config record.Window) *window {
	return &window{Window: config, newest: map[uint64]int{}}
}

// configure makes the topic's window what config says. The append lock is held.
func (t *topic) configure(config record.Window) {
	switch w := t.window.Load(); {
	case config == record.Window{}:
		t.window.Store(nil)
	case w == nil:
		t.window.Store(newWindow(config))
	case config != w.Window:
		w.Window = config
		w.drop(max(0, w.len()-w.Count))
		w.resize(w.len())
	}
}

func (w *window) len() int { return w.next - w.first }

// sent is the message of number n.
func (w *window) sent(n int) *sentKey { return &w.ring[n%len(w.ring)] }

// resize gives the ring room for n messages.
func (w *window) resize(n int) {
	ring := make([]sentKey, n)
	for i := w.first; i < w.next; i++ {
		ring[i%n] = *w.sent(i)
	}
	w.ring = ring
}

// add folds a message with a key. One that is known already changes nothing.
func (w *window) add(k sentKey) {
	if w.len() > 0 {
		last := w.sent(w.next - 1)
		if k.at <= last.at {
			return
		}
		k.stored = max(k.stored, last.stored) // the system's clock may have been set back
	}
	w.expire(k.stored)
	if w.len() == w.Count {
		w.drop(1)
	}
	if w.len() == len(w.ring) {
		w.resize(min(w.Count, max(16, 2*len(w.ring))))
	}
	w.newest[k.hash] = w.next
	*w.sent(w.next) = k
	w.next++
}

// expire takes out some of what is too old.
func (w *window) expire(now int64) {
	n := 0
	for n < min(expireMost, w.len()) && now-w.sent(w.first+n).stored >= w.For {
		n++
	}
	w.drop(n)
}

// from returns the first number whose message lies at a position or behind it.
func (w *window) from(at coord.Position) int {
	return w.first + sort.Search(w.len(), func(i int) bool { return w.sent(w.first+i).at >= at })
}

// drop takes out the n oldest.
func (w *window) drop(n int) {
	for ; n > 0; n-- {
		if hash := w.sent(w.first).hash; w.newest[hash] == w.first {
			delete(w.newest, hash)
		}
		w.first++
	}
}

// find returns where the newest message of the hash lies that is not too old and
// not among those that are known to have another key; 0 if there is none.
func (w *window) find(hash uint64, now int64, differ []coord.Position) coord.Position {
	n, ok := w.newest[hash]
	if !ok {
		return 0
	}
	for ; n >= w.first; n-- {
		k := w.sent(n)
		if now-k.stored >= w.For {
			break
		}
		if k.hash == hash && !slices.Contains(differ, k.at) {
			return k.at
		}
	}
	return 0
}

// captured is how many messages of a window go into one item of a checkpoint, so
// that the append lock is held for microseconds.
const captured = 4096

// captureWindow appends the items of a topic's window; see itemWindow.
func (b *Broker) captureWindow(items []byte, t *topic, w *window) []byte {
	some := make([]sentKey, 0, captured)
	for behind := coord.Position(0); ; behind = some[len(some)-1].at + 1 {
		b.log.Exclusive(func() {
			some = some[:0]
			for n := w.from(behind); n < w.next && len(some) < captured; n++ {
				some = append(some, *w.sent(n))
			}
		})
		if len(some) == 0 {
			return items
		}
		item := binary.LittleEndian.AppendUint64([]byte{itemWindow}, uint64(t.id))
		for _, k := range some {
			item = binary.LittleEndian.AppendUint64(item, k.hash)
			item = binary.LittleEndian.AppendUint64(item, uint64(k.at))
			item = binary.LittleEndian.AppendUint64(item, uint64(k.stored))
		}
		items = appendItem(items, 0, item)
	}
}

// restoreWindow folds an item of captureWindow.
func (b *Broker) restoreWindow(item []byte) error {
	const fixed = 1 + 8
	if len(item) < fixed || (len(item)-fixed)%sentKeyBytes != 0 {
		return errCheckpoint
	}
	t := b.state.topics[coord.TopicID(binary.LittleEndian.Uint64(item[1:]))]
	if t == nil || t.window.Load() == nil {
		return errCheckpoint
	}
	w := t.window.Load()
	for rest := item[fixed:]; len(rest) > 0; rest = rest[sentKeyBytes:] {
		w.add(sentKey{
			hash:   binary.LittleEndian.Uint64(rest),
			at:     coord.Position(binary.LittleEndian.Uint64(rest[8:])),
			stored: int64(binary.LittleEndian.Uint64(rest[16:])),
		})
	}
	return nil
}

// keyed folds the DedupKey of a message that is in the log. One that was stored
// again was sent when it was stored first.
func (s *state) keyed(t *topic, v *record.View, at coord.Position) {
	if w := t.window.Load(); w != nil && v.Identity() == (record.Identity{}) {
		w.add(sentKey{xxhash.Sum64(v.DedupKey) & s.b.dedupBits, at, v.StoredAt})
	}
}

// repeat is what is known of a message with a DedupKey while it is sent.
type repeat struct {
	hash    uint64
	twin    int              // in its batch: the index, from 1, of the first with that key
	suspect coord.Position   // has the hash, and has to be looked at
	differ  []coord.Position // have the hash, and another key
	of      coord.Position   // has the key: this is a repeat
}

// errSuspect says that a message may be a repeat: which one, the log knows.
var errSuspect = errors.New("mq: may be a repeat")

// checkDedup looks at the key of a message before anything is made for it.
func (b *Broker) checkDedup(m *Message, r *repeat) error {
	t := b.names.topic(m.Topic)
	if t == nil {
		if err := b.mayHaveTopic(m.Topic); err != nil {
			return err
		}
	}
	if t == nil || t.window.Load() == nil {
		return fmt.Errorf("%w: topic %q, DedupKey %.60q", ErrNoDedupWindow, m.Topic, m.DedupKey)
	}
	r.hash = xxhash.Sum64String(m.DedupKey) & b.dedupBits
	return nil
}

// markTwins finds the repeats inside a batch.
func markTwins(batch []outgoing) {
	type key struct{ topic, key string }
	var first map[key]int
	for i := range batch {
		m := batch[i].message
		if m.DedupKey == "" {
			continue
		}
		if first == nil {
			first = map[key]int{}
		}
		k := key{m.Topic, m.DedupKey}
		if n, ok := first[k]; ok {
			batch[i].repeat.twin = n + 1
		} else {
			first[k] = i
		}
	}
}

// suspected reports whether a message has to be compared with one in the log
// before it may be stored. The append lock is held.
func (o *outgoing) suspected(now int64) (bool, error) {
	w := o.topic.window.Load()
	if w == nil {
		return false, fmt.Errorf("%w: topic %q, DedupKey %.60q", ErrNoDedupWindow, o.topic.name, o.message.DedupKey)
	}
	if o.repeats() {
		return false, nil
	}
	r := &o.repeat
	r.suspect = w.find(r.hash, now, r.differ)
	return r.suspect != 0, nil
}

// repeats reports whether a message is not to be stored.
func (o *outgoing) repeats() bool { return o.repeat.twin != 0 || o.repeat.of != 0 }

// appendNew is appendMessages when some of the messages may be repeats. They are
// compared with what is in the log outside the lock; whatever comes meanwhile is
// compared too. What is left of them is one frame.
func (b *Broker) appendNew(ctx context.Context, room commitlog.Room, out []outgoing) (end coord.Position, err error) {
	for {
		left := 0
		for i := range out {
			o := &out[i]
			if o.repeat.suspect != 0 {
				if err := b.compare(o); err != nil {
					return 0, b.noted(err)
				}
			}
			if !o.repeats() {
				left++
			}
		}
		if left > 0 {
			end, err = b.log.Append(ctx, room, layoutOf(out), func(f *commitlog.Frame) error { return b.placeAll(f, out) })
			if err == errSuspect {
				continue
			}
			if err != nil {
				return 0, b.noted(err)
			}
		}
		last := end
		for i := range out {
			if out[i].repeat.of == 0 {
				out[i].end = end
			}
			last = max(last, out[i].end)
		}
		return last, nil
	}
}

// compare reads the message that o may be a repeat of. One that cannot be read,
// because retention dropped it or it is damaged, is none.
func (b *Broker) compare(o *outgoing) (err error) {
	r := &o.repeat
	at := r.suspect
	r.suspect = 0
	ref := [1]commitlog.Ref{{Position: at}}
	b.log.Read(ref[:], func(_ int, rec commitlog.Record, readErr error) bool {
		var v record.View
		switch {
		case readErr != nil && fatal(readErr):
			err = readErr
		case readErr != nil || decodeSent(rec.Payload, &v) != nil || v.Topic != o.topic.id || string(v.DedupKey) != o.message.DedupKey:
			r.differ = append(r.differ, at)
		case o.topic.deleted.Load():
			err = fmt.Errorf("%w: %q", ErrTopicNotFound, o.topic.name)
		default:
			r.of, o.end, o.durability = at, rec.End, o.topic.durable()
			o.result = SendResult{
				ID:    b.idOf(record.Identity{}, rec.Epoch, at),
				Topic: o.topic.name, Queue: v.Queue, Offset: v.Offset,
				Duplicate: true,
			}
			if at := v.DeliverAt(); at != 0 {
				o.result.Offset, o.result.deliverAt = -1, at
			}
		}
		return false
	})
	return err
}

// decodeSent decodes a message that may be a delayed one.
func decodeSent(payload []byte, v *record.View) error {
	if record.KindOf(payload) == record.KindDelayed {
		return record.DecodeDelayed(payload, v)
	}
	return record.DecodeMessage(payload, v)
}
