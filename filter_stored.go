package mq

import (
	"context"
	"fmt"

	"github.com/pocketmq/mq/commitlog"
)

// A group's filter of a topic stands in the log, in the record that says where
// the group stands in it. Nothing is delivered by it: who subscribes says what he
// wants. It answers what the group passes over while nobody is a member.
//
//	""                      every message
//	'T' { length/1 | tag }  one of these tags
//	'S' expression          SQL
//	'?'                     not written down: it is too long
const (
	storedTags    = 'T'
	storedSQL     = 'S'
	storedUnknown = "?"

	// maxStoredFilter is the longest filter that is written down: the longest
	// expression, and about as much in tags.
	maxStoredFilter = 1 + 16*kib
)

// stored is the filter as it is written down.
func (f *Filter) stored() string {
	if f.sql != nil {
		return string(storedSQL) + f.sql.expr.String()
	}
	if len(f.tags) == 0 {
		return ""
	}
	s := []byte{storedTags}
	for _, tag := range f.tags {
		if s = append(append(s, byte(len(tag))), tag...); len(s) > maxStoredFilter {
			return storedUnknown
		}
	}
	return string(s)
}

// readFilter reads what stored wrote. Its error is an ErrInvalidFilter, and so it
// is for what a later version wrote.
func readFilter(s string) (Filter, error) {
	switch {
	case s == "":
		return All, nil
	case s[0] == storedSQL:
		f := SQL(s[1:])
		return f, f.err
	case s[0] == storedTags && len(s) > 1:
		var tags []string
		for rest := s[1:]; rest != ""; {
			n := 1 + int(rest[0])
			if n > len(rest) {
				return Filter{}, fmt.Errorf("%w: %.200q is cut short", ErrInvalidFilter, s)
			}
			tags = append(tags, rest[1:n])
			rest = rest[n:]
		}
		f := Tags(tags...)
		return f, f.err
	}
	return Filter{}, fmt.Errorf("%w: %.200q was stored and says nothing", ErrInvalidFilter, s)
}

// noteFilter writes the group's filter of t down, unless it is the one that is
// known. What cannot be written now is missing from what the group is asked
// about later, and nothing else.
func (g *group) noteFilter(t *topic, f *Filter) {
	b, stored, known := g.b, f.stored(), false
	b.log.Exclusive(func() {
		sub := g.subs[t.id]
		known = sub == nil || sub.filter == stored
	})
	if known {
		return
	}
	_, err := b.appendState(context.Background(), commitlog.Reserved, func() (stateRecord, error) {
		sub := g.subs[t.id]
		if sub == nil || g.deleted {
			return nil, errGone
		}
		r := sub.record(g.id, t.id)
		r.Subscription = stored
		return r, nil
	})
	if err != nil && err != errGone && !isClosed(err) {
		b.opts.Logger.Warn("filter not written down", "group", g.name, "topic", t.name, "err", b.noted(err))
	}
}

// Filter returns the filter that a group's members subscribe to a topic with or,
// while there are none, subscribed with last. It is kept over restarts, but not
// synced: after a power cut it may be the one before. ErrInvalidFilter says that
// it is not known: one that has more than 16 KiB of tags is not kept.
//
// Errors: ErrGroupNotFound, ErrTopicNotFound, ErrNotAssigned if the group never
// subscribed to the topic, ErrInvalidFilter.
func (b *Broker) Filter(groupName, topicName string) (Filter, error) {
	groups, err := b.knownGroup(groupName)
	if err != nil {
		return Filter{}, err
	}
	t, err := b.knownTopic(topicName)
	if err != nil {
		return Filter{}, err
	}
	for _, g := range groups {
		if f, subscribed, err := g.filterOf(t); subscribed {
			return f, err
		}
	}
	return Filter{}, fmt.Errorf("%w: group %q never subscribed to topic %q", ErrNotAssigned, groupName, topicName)
}

// filterOf returns what the group wants of t, if it ever subscribed to it.
func (g *group) filterOf(t *topic) (f Filter, subscribed bool, err error) {
	g.mu.Lock()
	gt := g.topics[t]
	if gt != nil {
		f = gt.filter
	}
	g.mu.Unlock()
	if gt != nil {
		return f, true, nil
	}
	stored := ""
	g.b.log.Exclusive(func() {
		if sub := g.subs[t.id]; sub != nil {
			stored, subscribed = sub.filter, true
		}
	})
	f, err = readFilter(stored)
	return f, subscribed, err
}
