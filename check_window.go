package mq

import (
	"github.com/cespare/xxhash/v2"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// checkedWindow is a topic's window. It has the last of the messages with a
// DedupKey that the log has of the topic: all of them, from the first on.
type checkedWindow struct {
	*window
	topic     string
	from      int            // its first when the check began
	start     coord.Position // of that
	next, end int            // what has not been met in the log
}

// windows notes what a topic's window has. The append lock is held.
func (c *checker) windows(t *topic) {
	w := t.window.Load()
	if w == nil {
		return
	}
	if from := w.from(c.start); from < w.next {
		c.dedup[t.id] = &checkedWindow{window: w, topic: t.name, from: w.first, start: w.sent(from).at, next: from, end: w.next}
	}
}

// peek returns what is to be met next. moved tells whether messages have left the
// window since the check began.
func (c *checker) peek(w *checkedWindow) (k sentKey, ok, moved bool) {
	c.b.log.Exclusive(func() {
		moved = w.first != w.from
		if w.next = max(w.next, w.first); w.next < w.end {
			k, ok = *w.sent(w.next), true
		}
	})
	return k, ok, moved
}

// sentOnce checks that a message with a DedupKey is in its topic's window.
func (c *checker) sentOnce(v *record.View, at coord.Position) {
	w := c.dedup[v.Topic]
	if w == nil || len(v.DedupKey) == 0 || v.Identity() != (record.Identity{}) || at < w.start {
		return
	}
	c.notSent(w, at)
	k, ok, moved := c.peek(w)
	switch {
	case ok && k.at == at && k.hash == xxhash.Sum64(v.DedupKey)&c.b.dedupBits:
		w.next++
	case !moved:
		c.flaw("topic %q: the message at position %d with DedupKey %.60q is not in the window", w.topic, at, v.DedupKey)
	}
}

// notSent checks what the window has below a position, and the log has not: it was
// dropped meanwhile, or is damaged.
func (c *checker) notSent(w *checkedWindow, before coord.Position) {
	for k, ok, _ := c.peek(w); ok && k.at < before; k, ok, _ = c.peek(w) {
		w.next++
		c.b.log.Read([]commitlog.Ref{{Position: k.at}}, func(_ int, _ commitlog.Record, err error) bool {
			if err == nil && k.at >= c.b.log.Start() {
				c.flaw("topic %q: what the window has at position %d is no message with a DedupKey", w.topic, k.at)
			}
			return false
		})
	}
}
