package mq

import (
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strings"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

type queueKey struct {
	topic coord.TopicID
	queue QueueID
}

// queueCheck follows a message queue along the log. Its messages come in the
// order of their offsets, and so do its entries, so a window on its file is
// enough.
type queueCheck struct {
	name  string             // of the topic; empty: not known yet
	known bool               // the checkpoint has it: state says how far
	state consumequeue.State // Tail is let go when it has been passed
	next  Offset             // of the message that comes next
	count int64              // messages seen

	window []consumequeue.Entry // of a file, from at on
	at     Offset
	file   string
	fileAt int64
	short  bool // a file has less than it should: said once
}

// missingRun is offsets of a queue that no message in the log has.
type missingRun struct {
	queueKey
	from, to Offset
}

// maxRuns bounds what is noted of them.
const maxRuns = 100_000

// unknownTopic is what is in the log of a topic that nothing names.
type unknownTopic struct {
	messages int64
	first    coord.Position
	queues   QueueID // highest
}

// sizeBuffers shares VerifyOptions.BufferBytes among the queues with files.
func (v *verifier) sizeBuffers() {
	n := 0
	for _, q := range v.queues {
		if q.state.Flushed > q.state.Min {
			n++
		}
	}
	size := int(v.opts.BufferBytes/(consumequeue.EntrySize+12)) / max(n, 1)
	size = min(max(size, 1), 1024)
	for _, q := range v.queues {
		if q.state.Flushed > q.state.Min {
			q.window = make([]consumequeue.Entry, 0, size)
		}
	}
}

// record looks at a record of the log.
func (v *verifier) record(r commitlog.Record) error {
	kind := record.KindOf(r.Payload)
	var err error
	switch kind {
	case record.KindMessage:
		var m record.View
		if err = record.DecodeMessage(r.Payload, &m); err == nil {
			v.message(&m, r)
		}
	case record.KindAck:
		if err = record.DecodeAck(r.Payload, &v.b.state.ack); err == nil {
			v.report.Acks++
			v.b.state.applyAck(&v.b.state.ack)
		}
	case record.KindDelayed:
		var m record.View
		err = record.DecodeDelayed(r.Payload, &m)
	case record.KindSettle:
		_, err = record.DecodeSettle(r.Payload)
	case record.KindHandout:
		if err = record.DecodeHandout(r.Payload, &v.b.state.hand); err == nil {
			v.b.state.applyHandout(&v.b.state.hand)
		}
	case record.KindFiller:
	case record.KindTopicDelete:
		if d, derr := record.DecodeTopicDelete(r.Payload); derr == nil {
			v.deleted[d.ID] = true
		}
		fallthrough
	default:
		err = v.foldState(r)
	}
	if err == nil && !kind.Known() {
		err = errors.New("unknown kind of record")
	}
	if err != nil {
		v.problem(v.located(DamagedRecord, r.Position, int64(r.Size), err.Error()))
	}
	return nil
}

// foldState folds what is no message. A checkpoint has all that lies below it,
// also that something was deleted whose deletion can no longer be read.
func (v *verifier) foldState(r commitlog.Record) error {
	if v.checkpoint == nil {
		return v.b.state.rebuildState(r)
	}
	if r.Position < v.head.from {
		return nil
	}
	return v.b.state.applyState(r.Payload, r.Position)
}

// located makes a problem of a place in the log.
func (v *verifier) located(kind ProblemKind, at coord.Position, bytes int64, detail string) Problem {
	p := Problem{Kind: kind, Bytes: bytes, Detail: detail}
	p.File, p.Offset = v.at(at)
	return p
}

// message holds a message against its queue.
func (v *verifier) message(m *record.View, r commitlog.Record) {
	t := v.b.state.topics[m.Topic]
	if t == nil {
		u := v.unknown[m.Topic]
		if u == nil {
			u = &unknownTopic{first: r.Position}
			v.unknown[m.Topic] = u
		}
		u.messages++
		u.queues = max(u.queues, m.Queue)
	}
	key := queueKey{m.Topic, m.Queue}
	q := v.queues[key]
	if q == nil {
		q = &queueCheck{}
		v.queues[key] = q
	}
	if q.count == 0 && !q.known {
		q.next = m.Offset
	}
	q.count++
	if m.Offset < q.next {
		if q.known && m.Offset < q.state.Min {
			return // retention trimmed it
		}
		v.problem(v.located(DamagedRecord, r.Position, int64(r.Size), fmt.Sprintf("offset %d of its queue is given twice", m.Offset)))
		return
	}
	if m.Offset > q.next {
		v.miss(key, q.next, m.Offset)
	}
	q.next = m.Offset + 1
	v.entry(key, q, m, r)
}

// miss notes offsets that are not in the log.
func (v *verifier) miss(key queueKey, from, to Offset) {
	if len(v.missing) < maxRuns {
		v.missing = append(v.missing, missingRun{key, from, to})
	}
}

// entry compares the entry of a message with it.
func (v *verifier) entry(key queueKey, q *queueCheck, m *record.View, r commitlog.Record) {
	if !q.known || m.Offset >= q.state.End || m.Offset < q.state.Min {
		return
	}
	e, ok := v.entryAt(key, q, m.Offset)
	tag := entryTag(m, strings.HasPrefix(q.name, parkPrefix))
	if !ok || e == (consumequeue.Entry{Position: r.Position, Size: r.Size, Tag: tag}) {
		return
	}
	p := Problem{Kind: DamagedEntry, Topic: q.name, Queue: key.queue, From: m.Offset, To: m.Offset + 1}
	p.Detail = fmt.Sprintf("it says position %d, size %d; the message is at %d, size %d", e.Position, e.Size, r.Position, r.Size)
	if m.Offset < q.state.Flushed {
		p.File, p.Offset = q.file, q.fileAt+int64(m.Offset-q.at)*consumequeue.EntrySize
	} else {
		p.File = v.path("journal")
	}
	v.problem(p)
}

// entryAt returns the entry of an offset from Min to End, false if its file does
// not have it.
func (v *verifier) entryAt(key queueKey, q *queueCheck, off Offset) (e consumequeue.Entry, ok bool) {
	if off >= q.state.Flushed {
		return q.state.Tail[off-q.state.Flushed], true
	}
	if i := off - q.at; i >= 0 && i < Offset(len(q.window)) {
		return q.window[i], true
	}
	n, file, at, err := consumequeue.Peek(v.fs, v.path("consumequeue"), q.name, key.topic, key.queue, off, q.window[:cap(q.window)])
	q.window, q.at, q.file, q.fileAt = q.window[:n], off, file, at
	if n > 0 {
		return q.window[0], true
	}
	if !q.short {
		q.short = true
		kind, detail := DamagedQueueFile, fmt.Sprintf("it ends before offset %d; the checkpoint says %d", off, q.state.Flushed)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			kind, detail = Unreadable, err.Error()
		}
		v.problem(Problem{Kind: kind, File: file, Offset: at, Detail: detail})
	}
	return e, false
}

// logRead notes what reading the log found.
func (v *verifier) logRead(found *commitlog.Examination, err error) error {
	if found == nil {
		return fmt.Errorf("mq: verify: %w", err)
	}
	if v.checkpoint == nil {
		v.b.state.applyStarts()
	}
	rep := v.report
	rep.Segments, rep.LogBytes, rep.Frames, rep.Epoch = found.Files, found.Bytes, found.Frames, found.Epoch
	rep.Topics, rep.Groups = len(v.b.state.topics), len(v.b.state.groups)
	if found.StoreID != 0 {
		rep.Store = fmt.Sprintf("%016x", found.StoreID)
	}
	rep.Closed = found.Clean
	for key, q := range v.queues {
		if v.b.state.topics[key.topic] != nil {
			rep.Messages += q.count
		}
	}
	v.listGaps(found)
	v.listUnknown()
	v.listMissing(found.Start)
	return nil
}

// listGaps reports the places of the log that hold no frame.
func (v *verifier) listGaps(found *commitlog.Examination) {
	for _, g := range found.Gaps {
		p := Problem{Kind: DamagedLog, File: g.File, Offset: g.Offset, Bytes: int64(g.To - g.From), Detail: g.Err.Error()}
		switch {
		case g.Missing():
			p.Kind = MissingSegment
		case g.Header():
			p.Kind = DamagedHeader
		case !g.Damage:
			p.Kind = TornTail
		}
		v.problem(p)
	}
	for _, g := range append(found.Torn, found.Short...) {
		v.problem(Problem{Kind: TornTail, File: g.File, Offset: g.Offset, Bytes: int64(g.To - g.From), Detail: g.Err.Error()})
	}
	for _, name := range found.Foreign {
		v.problem(Problem{Kind: UnknownFile, File: name})
	}
}

// listUnknown reports topics that have messages and no name.
func (v *verifier) listUnknown() {
	for id, u := range v.unknown {
		switch t := v.b.state.topics[id]; {
		case t != nil: // carried behind its first messages
		case v.deleted[id], v.checkpoint != nil && coord.Position(id) < v.head.from:
		default:
			v.problem(v.located(UnknownTopic, u.first, 0, fmt.Sprintf("%d messages of topic %d from here on", u.messages, id)))
			continue
		}
		delete(v.unknown, id)
	}
}

// listMissing reports the offsets that no message has, but not those that
// retention took.
func (v *verifier) listMissing(start coord.Position) {
	for key, q := range v.queues {
		if q.known && q.next < q.state.End {
			v.miss(key, q.next, q.state.End)
		}
	}
	sort.Slice(v.missing, func(i, j int) bool {
		a, b := v.missing[i], v.missing[j]
		switch {
		case a.topic != b.topic:
			return a.topic < b.topic
		case a.queue != b.queue:
			return a.queue < b.queue
		}
		return a.from < b.from
	})
	kept := v.missing[:0]
	for _, m := range v.missing {
		t, q := v.b.state.topics[m.topic], v.queues[m.queueKey]
		if t == nil {
			continue
		}
		for q.known && m.from < m.to && m.from < q.state.End {
			e, ok := v.entryAt(m.queueKey, q, max(m.from, q.state.Min))
			if !ok || e.Hole() || e.Position < 0 || e.Position >= start {
				break
			}
			m.from++
		}
		if m.from >= m.to {
			continue
		}
		kept = append(kept, m)
		p := Problem{Kind: Hole, Topic: t.name, Queue: m.queue, From: m.from, To: m.to}
		if q.known && m.from < q.state.End {
			if e, ok := v.entryAt(m.queueKey, q, m.from); ok && !e.Hole() && e.Position >= 0 {
				p.File, p.Offset = v.at(e.Position)
				p.Detail = "the message was here"
			}
		}
		v.problem(p)
	}
	v.missing = kept
}

// checkQueueFiles looks for files of queues that are not there or not needed.
func (v *verifier) checkQueueFiles() error {
	for key, q := range v.queues {
		if !q.known || q.short || v.b.state.topics[key.topic] == nil {
			continue
		}
		// The last entry of each file that is needed.
		for from := q.state.Min; from < q.state.Flushed; {
			base := from - from%consumequeue.FileEntries
			to := min(base+consumequeue.FileEntries, q.state.Flushed)
			if _, ok := v.entryAt(key, q, to-1); !ok {
				break
			}
			from = to
		}
	}
	return consumequeue.List(v.fs, v.path("consumequeue"), func(f consumequeue.Found) error {
		if f.Foreign {
			v.problem(Problem{Kind: UnknownFile, File: f.Path})
			return v.ctx.Err()
		}
		v.report.QueueFiles++
		if v.checkpoint != nil && v.b.state.topics[f.Topic] == nil {
			v.problem(Problem{Kind: Leftover, File: f.Path, Detail: "of a topic that does not exist"})
		}
		return v.ctx.Err()
	})
}
