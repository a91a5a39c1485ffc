package mq

import (
	"errors"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/keyindex"
	"github.com/pocketmq/mq/internal/record"
)

// Queue files can be damaged like any others, and are not synced with the log.
// An entry that does not lead to its message, or is a hole, is looked for in
// the log, between its neighbours. Only what is not there is lost.

// restore reads a message whose index entry does not lead to it: nil if the
// filter does not want it. An error says that it could not be looked for just now.
func (f *fetcher) restore(q *queue, cl claim, filter *Filter) (m *Message, found bool, err error) {
	// Where a damaged entry leads says nothing: retention trims the queue before
	// it drops the log.
	if cl.offset < q.entries.Min() {
		return m, false, nil
	}
	if at := cl.offset; f.searchedIn != q || at < f.searched.From || at >= f.searched.To {
		to := f.b.endOfDamage(q, at)
		if err := f.b.restoreEntries(q, at, to); err != nil {
			return m, false, err
		}
		f.searchedIn, f.searched = q, span{From: at, To: to}
	}
	var e [1]consumequeue.Entry
	if n, err := q.read(cl.offset, e[:]); n == 0 || err != nil || e[0].Size == 0 {
		return m, false, nil
	}
	ref := [1]commitlog.Ref{{Position: e[0].Position, Size: e[0].Size}}
	f.b.log.Read(ref[:], func(_ int, r commitlog.Record, readErr error) bool {
		var v record.View
		switch {
		case readErr != nil && fatal(readErr):
			err = readErr
		case readErr == nil && decodeAs(q, cl.offset, r, &v) == nil:
			if filter.wants(&v, &f.sql) {
				m = new(Message)
				f.fill(m, q, &v, r)
			}
			found = true
		}
		return false
	})
	return m, found, err
}

// restoreEntries looks for the messages of offsets from <= o < to and puts the
// entries of those it finds right. After an error those it has not found may be
// there.
func (b *Broker) restoreEntries(q *queue, from, to Offset) error {
	begin, end := b.log.Start(), b.log.Written()
	if at, ok := b.neighbour(q, from-1, -1); ok {
		begin = at
	}
	if at, ok := b.neighbour(q, to, 1); ok {
		end = at
	}
	left := int64(to - from)
	err := b.log.Scan(begin, end, func(r commitlog.Record) error {
		var v record.View
		if record.KindOf(r.Payload) != record.KindMessage || record.DecodeMessage(r.Payload, &v) != nil ||
			v.Topic != q.topic.id || v.Queue != q.id || v.Offset < from || v.Offset >= to {
			return nil
		}
		e := consumequeue.Entry{Position: r.Position, Size: r.Size, Tag: q.topic.entryTag(&v)}
		if err := q.entries.Patch(v.Offset, e); err != nil {
			b.opts.Logger.Warn("queue entry not restored", "queue", q.name(), "offset", v.Offset, "err", err)
		}
		if left--; left == 0 {
			return errStopScan
		}
		return nil
	})
	if err == nil || errors.Is(err, errStopScan) {
		return nil
	}
	b.opts.Logger.Warn("scan for queue entries", "queue", q.name(), "from", from, "to", to, "err", err)
	if fatal(err) {
		return err
	}
	return nil
}

var errStopScan = errors.New("mq: scan ended")

// maxNeighbours is how many entries are tried for one that tells where to look.
const maxNeighbours = 64

// neighbour returns the position of the message at off, or of the next one in
// the direction of step that its entry leads to: what is damaged in one place
// may be so beside it.
func (b *Broker) neighbour(q *queue, off, step Offset) (at coord.Position, ok bool) {
	for range maxNeighbours {
		if off < q.entries.Min() || off >= q.entries.End() {
			return 0, false
		}
		if at, ok = b.resolves(q, off); ok {
			return at, true
		}
		off += step
	}
	return 0, false
}

// resolves returns the position of the message at off, if its entry leads to it.
func (b *Broker) resolves(q *queue, off Offset) (at coord.Position, ok bool) {
	var e [1]consumequeue.Entry
	if n, err := q.read(off, e[:]); n == 0 || err != nil || e[0].Hole() {
		return 0, false
	}
	ref := [1]commitlog.Ref{{Position: e[0].Position, Size: e[0].Size}}
	b.log.Read(ref[:], func(_ int, r commitlog.Record, err error) bool {
		var v record.View
		ok = err == nil && decodeAs(q, off, r, &v) == nil
		return false
	})
	return e[0].Position, ok
}

// maxHoles is how many holes in a row one scan of the log is made for.
const maxHoles = 1 << 16

// fillHolesLocked looks for the messages of the holes that the cursor stands
// before. group.mu is let go meanwhile; the cursor waits. Holes that stay are
// passed over as missed.
func (c *cursor) fillHolesLocked() {
	if err := c.searchHolesLocked(); err != nil {
		c.unreadableLocked(err) // and then it looks again: nothing is lost yet
	}
}

// searchHolesLocked is fillHolesLocked for who waits in a way of its own after an
// error.
func (c *cursor) searchHolesLocked() error {
	if !c.hole {
		return nil
	}
	g, from := c.group, c.next
	c.hole, c.waiting, c.seeking = false, true, true
	g.mu.Unlock()
	to := endOfHoles(c.queue, from)
	err := g.b.restoreEntries(c.queue, from, to)
	g.mu.Lock()
	c.waiting, c.seeking = false, false
	if err != nil {
		return err
	}
	if c.next == from { // else it was moved meanwhile
		c.sound = to
	}
	c.scheduleLocked() // arrivals meanwhile, or another owner
	return nil
}

// endOfDamage returns the first offset behind off whose entry leads to its
// message. A stretch of damage is searched once, and not for each message in it.
func (b *Broker) endOfDamage(q *queue, off Offset) Offset {
	limit := min(off+maxHoles, q.entries.End())
	for off++; off < limit; off++ {
		if _, ok := b.resolves(q, off); ok {
			break
		}
	}
	return off
}

// endOfHoles returns the offset behind the run of holes that begins at off.
func endOfHoles(q *queue, off Offset) Offset {
	var buf [256]consumequeue.Entry
	for limit := off + maxHoles; off < limit; {
		n, err := q.read(off, buf[:])
		if err != nil || n == 0 {
			return off + 1
		}
		for i := range buf[:n] {
			if buf[i].Size != 0 {
				return off + Offset(i)
			}
		}
		off += Offset(n)
	}
	return off
}

// rebuildKeys makes a file of the key index, which is damaged or missing, from
// the part of the log that it covers.
func (b *Broker) rebuildKeys(bad *keyindex.CorruptError) error {
	return b.rebuildIndex(b.keys, bad, func(payload []byte, pos coord.Position, add func(uint64, coord.Position)) {
		var v record.View
		switch record.KindOf(payload) {
		case record.KindMessage:
			if record.DecodeMessage(payload, &v) != nil {
				return
			}
			for fs := v.Fields(); fs.Next(); {
				if fs.Field.Type == record.FieldKey {
					add(keyHash(v.Topic, string(fs.Field.Value)), pos)
				}
			}
		case record.KindDelayed:
			if record.DecodeDelayed(payload, &v) != nil {
				return
			}
		default:
			return
		}
		if id := v.Identity(); id != (record.Identity{}) {
			add(identityHash(id), pos)
		}
	})
}

// rebuildIndex makes a file of an index again. pairs adds those of a record.
func (b *Broker) rebuildIndex(x *keyindex.Index, bad *keyindex.CorruptError, pairs func([]byte, coord.Position, func(uint64, coord.Position))) error {
	b.opts.Logger.Warn("index file: made again from the log", "file", bad.File, "err", bad.Err)
	return x.Rebuild(bad.From, bad.To, func(add func(uint64, coord.Position)) error {
		err := b.log.Scan(max(bad.From, b.log.Start()), bad.To, func(r commitlog.Record) error {
			pairs(r.Payload, r.Position, add)
			return nil
		})
		if errors.Is(err, ErrCorrupt) {
			return nil // what is damaged has no pairs
		}
		return err
	})
}
