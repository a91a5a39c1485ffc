package mq

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/keyindex"
	"github.com/pocketmq/mq/internal/record"
)

// timer is the part of the broker that knows which messages wait for their
// time. A delayed message is a record of its own kind; when its time has come it
// is stored once more, as an ordinary message of its queue (deliver.go).
//
// They are delivered in one order, by time and where times are the same by
// position, so that one place in it, the mark, says what is done: everything not
// above it. A delivered message names the delayed one that it is the delivery
// of, and the newest of them is the mark: the message and the progress are one
// record. A delayed message gets its time under the append lock, at the
// earliest what has been taken out to be delivered, so none is ever stored below
// the mark.
type timer struct {
	b *Broker

	// index has the pairs (time, position of a delayed message), and
	// (settledKey of its position, position of its settlement).
	index *keyindex.Index

	// Guarded by the append lock.
	mark    record.Due
	near    near
	waiting int64 // delayed messages above the mark that are not settled; topics count their own

	// settling is held over looking up whether a message is settled and
	// settling it. Lock order: settling, then the append lock.
	settling sync.Mutex

	restored waitingState // of the checkpoint that the log was replayed from

	delivered int64       // since opening; the append lock
	held      heldSegment // the upkeep's
	resting   bool        // nothing is delivered; set before start
	wake      chan struct{}
	cancel    context.CancelFunc // of deliveries under way
	done      sync.WaitGroup
}

// pendingTimes is how many bytes of the timer index are kept in memory, at
// most, before they go to a file without waiting for the next checkpoint.
const pendingTimes = 2 * mib

// settledBit tells the two kinds of pairs apart; no time reaches it.
const settledBit = 1 << 63

func settledKey(delayed coord.Position) uint64 { return settledBit | uint64(delayed) }

func (t *timer) init(b *Broker) {
	t.b = b
	t.wake = make(chan struct{}, 1)
}

// add notes a delayed message of tp, appended or replayed.
func (t *timer) add(tp *topic, due record.Due) {
	tp.waiting++
	t.waiting++
	t.index.Add(uint64(due.At), due.Position)
	t.pending()
	if t.near.add(due) {
		poke(t.wake)
	}
}

func (t *timer) pending() {
	if t.index.Pending() > pendingTimes {
		t.b.upkeep.wantFlush()
	}
}

// settle notes that a delayed message is never to be delivered, which the record
// at pos says. tp is nil if its topic is gone.
func (t *timer) settle(tp *topic, due record.Due, pos coord.Position) {
	t.uncount(tp)
	t.index.Add(settledKey(due.Position), pos)
	t.pending()
	t.near.settle(due)
}

// deliver notes that the delayed message has been stored as a message.
func (t *timer) deliver(tp *topic, due record.Due) {
	if due.Compare(t.mark) > 0 {
		t.mark = due
	}
	t.uncount(tp)
}

// uncount: what damage took from the log was not counted, and must not be
// counted down.
func (t *timer) uncount(tp *topic) {
	if tp != nil && tp.waiting > 0 {
		tp.waiting--
		t.waiting--
	}
}

// drop forgets what waits in a topic that is gone. Its messages stay in the
// index until their time.
func (t *timer) drop(tp *topic) {
	t.waiting -= tp.waiting
	tp.waiting = 0
}

// scan returns up to most delayed messages behind from that are not settled,
// stored below a position, and up to where that is all there are.
func (t *timer) scan(from record.Due, below coord.Position, most int) (due []record.Due, end record.Due, err error) {
	err = t.mended(func() error {
		due = nil
		start := t.b.log.Start()
		r := keyindex.Range{From: uint64(from.At), Pos: from.Position + 1, To: settledBit, Below: below}
		return t.index.Ascend(r, func(at uint64, pos coord.Position) bool {
			if pos >= start {
				due = append(due, record.Due{At: int64(at), Position: pos})
			}
			return len(due) < most
		})
	})
	if err != nil {
		return nil, from, err
	}
	end = endOfTime
	if len(due) == most {
		end = due[most-1]
	}
	due, err = t.unsettled(due)
	return due, end, err
}

// unsettled returns those of due that are not settled.
func (t *timer) unsettled(due []record.Due) ([]record.Due, error) {
	keys := make([]uint64, 0, len(due))
	for _, d := range due {
		keys = append(keys, settledKey(d.Position))
	}
	slices.Sort(keys)
	settled := map[coord.Position]bool{}
	err := t.mended(func() error {
		return t.index.Among(keys, func(i int, _ coord.Position) { settled[coord.Position(keys[i]&^settledBit)] = true })
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(due, func(d record.Due) bool { return settled[d.Position] }), nil
}

// counts tells whether a message that waits, or waited, is in the index. It is not
// if damage took it from the log.
func (t *timer) counts(due record.Due) (found bool, err error) {
	err = t.mended(func() error {
		r := keyindex.Range{From: uint64(due.At), Pos: due.Position, To: uint64(due.At) + 1, Below: due.Position + 1}
		return t.index.Ascend(r, func(_ uint64, pos coord.Position) bool {
			found = pos == due.Position
			return false
		})
	})
	return found, err
}

// mended calls look until no file of the index is in its way: one that is
// damaged or missing is made again from the log, once.
func (t *timer) mended(look func() error) error {
	seen := map[coord.Position]bool{}
	for {
		err := look()
		var bad *keyindex.CorruptError
		if !errors.As(err, &bad) || seen[bad.From] {
			return err
		}
		seen[bad.From] = true
		if err := t.rebuild(bad); err != nil {
			return err
		}
	}
}

// rebuild makes a file of the index from the part of the log that it covers.
func (t *timer) rebuild(bad *keyindex.CorruptError) error {
	return t.b.rebuildIndex(t.index, bad, func(payload []byte, pos coord.Position, add func(uint64, coord.Position)) {
		switch record.KindOf(payload) {
		case record.KindDelayed:
			var v record.View
			if record.DecodeDelayed(payload, &v) == nil {
				add(uint64(v.DeliverAt()), pos)
			}
		case record.KindSettle:
			if s, err := record.DecodeSettle(payload); err == nil {
				add(settledKey(s.Due.Position), pos)
			}
		}
	})
}

// waitingState is what a checkpoint says of a timer.
type waitingState struct {
	mark   record.Due
	counts map[coord.TopicID]int64
}

// capture notes what waits. The append lock is held.
func (t *timer) capture() waitingState {
	w := waitingState{mark: t.mark, counts: map[coord.TopicID]int64{}}
	for id, tp := range t.b.state.topics {
		if tp.waiting > 0 {
			w.counts[id] = tp.waiting
		}
	}
	return w
}

// restore brings back what was noted when the replay begins: it counts, and so
// it must begin from there each time.
func (t *timer) restore() {
	t.mark, t.waiting = t.restored.mark, 0
	for id, tp := range t.b.state.topics {
		tp.waiting = t.restored.counts[id]
		t.waiting += tp.waiting
	}
}

// encode makes the item of a checkpoint: see itemWaiting.
func (w waitingState) encode() []byte {
	item := binary.LittleEndian.AppendUint64([]byte{itemWaiting}, uint64(w.mark.At))
	item = binary.LittleEndian.AppendUint64(item, uint64(w.mark.Position))
	for id, n := range w.counts {
		item = binary.LittleEndian.AppendUint64(item, uint64(id))
		item = binary.LittleEndian.AppendUint64(item, uint64(n))
	}
	return item
}

func (w *waitingState) decode(item []byte) error {
	const fixed = 1 + 2*8
	if len(item) < fixed || (len(item)-fixed)%countBytes != 0 {
		return errCheckpoint
	}
	w.mark.At = int64(binary.LittleEndian.Uint64(item[1:]))
	w.mark.Position = coord.Position(binary.LittleEndian.Uint64(item[9:]))
	w.counts = map[coord.TopicID]int64{}
	for rest := item[fixed:]; len(rest) > 0; rest = rest[countBytes:] {
		w.counts[coord.TopicID(binary.LittleEndian.Uint64(rest))] = int64(binary.LittleEndian.Uint64(rest[8:]))
	}
	return nil
}
