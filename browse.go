package mq

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
)

// MessageAt returns the message at an offset of a queue. Its Attempt is 0: it was
// not delivered, and no group is disturbed.
//
// Errors: ErrTopicNotFound, ErrQueueNotFound, ErrOffsetOutOfRange if the offset is
// negative or behind what consumers may see, ErrMessageNotFound if retention
// dropped the message, ErrCorrupt, ErrClosed.
func (b *Broker) MessageAt(q Queue, off Offset) (*Message, error) {
	if err := b.alive(); err != nil {
		return nil, err
	}
	found, err := b.queueOf(q)
	if err != nil {
		return nil, err
	}
	s := newStretch(&fetcher{b: b}, found, off, off+1)
	if off < 0 || off >= found.entries.End() || off >= found.entries.Min() && !s.visible() {
		return nil, fmt.Errorf("%w: %v offset %d, the queue ends at %d", ErrOffsetOutOfRange, q, off, found.entries.End())
	}
	m, err := s.first(&All, 1)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, fmt.Errorf("%w: %v offset %d", ErrMessageNotFound, q, off)
	}
	return s.take(), nil
}

// Browse returns the messages of a topic that were stored at from or later and
// before to, and that the filter wants, in the order in which they were stored. A
// zero from is the oldest message, a zero to the newest one at this moment; times
// outside of what is stored are no error. Of what waits for its time see
// BrowseWaiting.
//
// No group is disturbed: nothing is acknowledged, counted or held. What retention
// drops meanwhile is missing. If the system's clock was set back while the store
// was closed, times are those of an approximate place. Memory: at most 1,024
// messages and about 1 MiB, but one message of each queue in any case.
//
// The sequence yields an error for a message that is damaged, and goes on;
// ErrTopicNotFound, ErrInvalidFilter and ErrClosed end it.
func (b *Broker) Browse(topicName string, from, to time.Time, f Filter) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		stretches, err := b.stretches(topicName, from, to)
		if err == nil {
			err = f.err
		}
		if err != nil {
			yield(nil, err)
			return
		}
		browse(stretches, &f, yield)
	}
}

// browse merges stretches by the places of their messages in the log.
func browse(stretches []*stretch, f *Filter, yield func(*Message, error) bool) {
	most := max(1, browseMost/max(1, len(stretches)))
	for {
		var next *stretch
		for _, s := range stretches {
			m, err := s.first(f, most)
			for ; err != nil; m, err = s.first(f, most) {
				if !yield(nil, err) || isClosed(err) {
					return
				}
			}
			if m != nil && (next == nil || s.position() < next.position()) {
				next = s
			}
		}
		if next == nil {
			return
		}
		if !yield(next.take(), nil) {
			return
		}
	}
}

// stretches are the parts of a topic's queues between two times.
func (b *Broker) stretches(topicName string, from, to time.Time) ([]*stretch, error) {
	if err := b.alive(); err != nil {
		return nil, err
	}
	t, err := b.knownTopic(topicName)
	if err != nil {
		return nil, err
	}
	var all []*stretch
	f := &fetcher{b: b} // of all: what it reuses is not kept by any
	for _, q := range *t.queues.Load() {
		begin, end := q.entries.Min(), q.entries.End()
		if !from.IsZero() {
			if begin, err = b.offsetAt(q, from); err != nil {
				return nil, err
			}
		}
		if !to.IsZero() {
			before, err := b.offsetAt(q, to)
			if err != nil {
				return nil, err
			}
			end = min(end, before)
		}
		if begin < end {
			all = append(all, newStretch(f, q, begin, end))
		}
	}
	if n := int64(len(all)); n > 0 {
		for _, s := range all {
			s.maxBytes = max(1, mib/n)
		}
	}
	return all, nil
}

// stretch is a part of a queue that is read from its beginning to its end.
type stretch struct {
	q        *queue
	next     Offset
	end      Offset
	mark     coord.Position // what lies behind it consumers may not see
	maxBytes int64          // read at once

	fetcher  *fetcher
	cursor   cursor // of no group: nothing that is read can be acknowledged
	messages []Message
	places   []coord.Position // of messages
	damaged  []missed
}

func newStretch(f *fetcher, q *queue, from, to Offset) *stretch {
	s := &stretch{q: q, next: from, end: to, mark: f.b.mark(q.topic), maxBytes: mib, fetcher: f}
	s.cursor.queue = q
	return s
}

// visible reports whether consumers may see the message at next.
func (s *stretch) visible() bool {
	var e [1]consumequeue.Entry
	n, err := s.q.read(s.next, e[:])
	return err != nil || n == 1 && visible(e[0], s.mark)
}

// first returns the first message that is left and that f wants, nil at the end.
// It reads up to so many at once. What an error is about is passed: a message, or
// all of the stretch.
func (s *stretch) first(f *Filter, most int) (*Message, error) {
	for {
		for len(s.damaged) > 0 {
			gone := s.damaged[0]
			if s.damaged = s.damaged[1:]; gone.err != nil {
				return nil, s.lost(gone)
			}
		}
		if len(s.messages) > 0 {
			return &s.messages[0], nil
		}
		claims, err := s.claim(most)
		if err != nil || len(claims) == 0 {
			return nil, err
		}
		got := s.fetcher.fetch(&s.cursor, 0, f, claims)
		if got.err != nil {
			s.next = s.end
			return nil, got.err
		}
		s.messages, s.places, s.damaged = got.messages, s.places[:0], got.gone
		for i := range got.claims {
			s.places = append(s.places, got.claims[i].entry.Position)
		}
	}
}

// lost is the error for a message that is not where it should be.
func (s *stretch) lost(gone missed) error {
	err := gone.err
	if !errors.Is(err, ErrCorrupt) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return fmt.Errorf("%v offset %d: %w", s.q.name(), gone.From, err)
}

// claim names the next messages; none at the end.
func (s *stretch) claim(most int) ([]claim, error) {
	var buf [64]consumequeue.Entry
	n, err := 0, consumequeue.ErrTrimmed
	for errors.Is(err, consumequeue.ErrTrimmed) { // dropped at this moment: there is more behind it
		s.next = max(s.next, s.q.entries.Min())
		if n = int(min(int64(s.end-s.next), int64(most), int64(len(buf)))); n <= 0 {
			return nil, nil
		}
		n, err = s.q.read(s.next, buf[:n])
	}
	if err != nil {
		s.next = s.end
		if s.q.topic.deleted.Load() {
			err = nil
		}
		return nil, err
	}
	claims, bytes := make([]claim, 0, n), int64(0)
	for _, e := range buf[:n] {
		if !visible(e, s.mark) || bytes >= s.maxBytes {
			break
		}
		claims = append(claims, claim{offset: s.next, entry: e})
		s.next++
		bytes += int64(e.Size)
	}
	return claims, nil
}

// position is where the first message lies in the log.
func (s *stretch) position() coord.Position { return s.places[0] }

// take hands out the first message.
func (s *stretch) take() *Message {
	m := &s.messages[0]
	m.origin = delivery{}
	s.messages, s.places = s.messages[1:], s.places[1:]
	return m
}
