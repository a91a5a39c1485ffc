package mq

import (
	"errors"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// slabBytes is how much of names and bodies is copied into one allocation. It
// stays in the processor's cache, and a body that is kept pins no more than it.
const slabBytes = 16 * kib

// fetcher reads claimed messages out of the log. Each goroutine that delivers
// has its own: what it reuses makes a fetch cost two allocations, the messages
// and their bytes, whatever their number.
type fetcher struct {
	b      *Broker
	claims []claim // of takeLocked
	refs   []commitlog.Ref
	kept   []claim // of fetched.claims
	passed []claim // of fetched.unwanted
	slab   []byte  // free part of the current allocation
	sql    sqlScratch

	// Of one call: what the call does not fill of a slab is of no use to the next.
	brief bool
	need  int // bytes of the current fetch, if brief

	// Where the log was searched last for messages that their entries do not lead
	// to: what still cannot be read there is lost.
	searchedIn *queue
	searched   span
}

// fetched is the outcome of a fetch.
type fetched struct {
	messages []Message // that the filter wants, in the order of their claims
	claims   []claim   // theirs; valid until the next fetch
	unwanted []claim   // filtered out here: by SQL, or a tag that shared its hash with a wanted one; valid as long
	gone     []missed  // that cannot be read
	lost     []claim   // theirs
	start    coord.Position
	err      error // the log cannot be read at all: nothing above is set
}

// fetch reads the claims of one cursor, into memory of theirs.
func (f *fetcher) fetch(c *cursor, start coord.Position, filter *Filter, claims []claim) (out fetched) {
	q := c.queue
	f.refs, f.need = f.refs[:0], 0
	for i := range claims {
		f.refs = append(f.refs, commitlog.Ref{Position: claims[i].entry.Position, Size: claims[i].entry.Size})
		f.need += int(claims[i].entry.Size)
	}
	if filter.sql == nil {
		out.messages = make([]Message, 0, len(claims))
	}
	out.claims, out.unwanted = f.kept[:0], f.passed[:0]
	f.b.log.Read(f.refs, func(i int, r commitlog.Record, err error) bool {
		cl := claims[i]
		var v record.View
		if err == nil {
			err = decodeAs(q, cl.offset, r, &v)
		}
		if err != nil && fatal(err) {
			out.err = err
			return false
		}
		switch {
		case err != nil:
			m, found, restoreErr := f.restore(q, cl, filter)
			switch {
			case restoreErr != nil:
				out.err = restoreErr
				return false
			case !found:
				out.lost = append(out.lost, cl)
				out.gone = append(out.gone, missed{span{From: cl.offset, To: cl.offset + 1}, f.reason(q, cl, err)})
			case m == nil:
				out.unwanted = append(out.unwanted, cl)
			default:
				out.messages = append(out.messages, *m)
				out.claims = append(out.claims, cl)
			}
		case !filter.wants(&v, &f.sql):
			out.unwanted = append(out.unwanted, cl)
		default:
			n := len(out.messages)
			if n == cap(out.messages) {
				out.messages = slices.Grow(out.messages, min(len(claims)-i, f.sql.room(n)))
			}
			f.fill(&out.messages[:n+1][n], q, &v, r) // zero already
			// Filling may fault, and comes back here with an error then: a message
			// counts once it is whole.
			out.messages = out.messages[:n+1]
			out.claims = append(out.claims, cl)
		}
		return true
	})
	f.kept, f.passed = out.claims, out.unwanted
	f.sql.wanted = len(out.messages)
	for i := range out.messages {
		m := &out.messages[i]
		if m.Attempt = out.claims[i].attempt; q.topic.again && m.Origin != nil {
			m.Attempt += m.Origin.Attempts
			if q.topic.parked && m.Origin.Attempts == 0 {
				m.Origin = nil // nothing has happened to it
			}
		}
		m.origin = delivery{cursor: c, start: start, offset: out.claims[i].offset}
	}
	return out
}

// fatal reports whether err is not about one record: the log cannot be read at
// all, or the system could not read just now. What was not read is not lost.
func fatal(err error) bool {
	var refused syscall.Errno
	return errors.As(err, &refused) || errors.Is(err, commitlog.ErrClosed) ||
		!errors.Is(err, ErrCorrupt) && !errors.Is(err, commitlog.ErrNotFound)
}

// reason is nil if retention dropped the message, else what is damaged.
func (f *fetcher) reason(q *queue, cl claim, err error) error {
	if f.dropped(q, cl) {
		return nil
	}
	return err
}

func (f *fetcher) dropped(q *queue, cl claim) bool {
	return cl.offset < q.entries.Min() || cl.entry.Position < f.b.log.Start()
}

var errOtherRecord = &CorruptionError{Err: errors.New("index entry points at another record")}

// decodeAs reads the record as the message at off of q.
func decodeAs(q *queue, off Offset, r commitlog.Record, v *record.View) error {
	if err := record.DecodeMessage(r.Payload, v); err != nil {
		return &CorruptionError{Offset: int64(r.Position), Err: err}
	}
	if v.Topic != q.topic.id || v.Queue != q.id || v.Offset != off {
		return errOtherRecord
	}
	return nil
}

// fill copies a message out of the log.
func (f *fetcher) fill(m *Message, q *queue, v *record.View, r commitlog.Record) {
	text, body := f.copy(v.Text(), v.Body)
	m.Topic = q.topic.name
	m.Queue, m.Offset = q.id, v.Offset
	m.Body = body
	m.ID = MessageID{store: f.b.log.StoreID(), epoch: r.Epoch, position: r.Position}
	m.StoredAt = time.UnixMilli(v.StoredAt)
	m.BornAt = m.StoredAt
	if len(text) == len(v.Tag) { // no keys, no properties, no sharding key
		m.Tag = text
		return
	}
	var names record.Message
	v.Unpack(text, &names)
	m.Tag, m.Keys, m.Properties, m.ShardingKey = names.Tag, names.Keys, names.Properties, names.ShardingKey
	m.DedupKey = names.DedupKey
	m.BornAt = time.UnixMilli(v.BornAt())
	if names.Again != nil {
		m.again(names.Again)
	}
}

// again fills what a message says that is stored once more, or is to be.
func (m *Message) again(a *record.Again) {
	if a.DeliverAt != 0 {
		m.DeliverAt = time.UnixMilli(a.DeliverAt)
		m.Offset = -1
	}
	if a.Identity != (record.Identity{}) {
		m.ID.epoch, m.ID.position = a.Identity.Epoch, a.Identity.Position
	}
	if o := a.Origin; o != nil {
		m.Topic, m.Queue, m.Offset = o.Topic, o.Queue, o.Offset
		m.Origin = &Origin{Topic: o.Topic, Queue: o.Queue, Offset: o.Offset, Attempts: o.Attempts, LastError: o.LastError}
	}
}

// copy puts names and body of a message behind each other into memory of the
// receiver's own.
func (f *fetcher) copy(text, body []byte) (string, []byte) {
	n := len(text) + len(body)
	if n == 0 {
		return "", []byte{} // a body is never nil
	}
	if n > len(f.slab) {
		if n > slabBytes/2 {
			return string(text), append(make([]byte, 0, len(body)), body...)
		}
		size := slabBytes
		if f.brief {
			size = min(size, max(n, f.need))
		}
		f.slab = make([]byte, size)
	}
	mem := f.slab[:n:n]
	f.slab = f.slab[n:]
	copy(mem, text)
	own := mem[len(text):]
	copy(own, body)
	// The bytes under the string are written once, above, and never again: the
	// body that the receiver may change begins behind them.
	return unsafe.String(unsafe.SliceData(mem), len(text)), own
}
