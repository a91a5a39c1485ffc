package main

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/pocketmq/mq"
)

// tally is what is counted on both sides.
type tally struct {
	Lines int64 `json:"lines"`
	Bytes int64 `json:"bytes"`
}

func (t tally) plus(u tally) tally { return tally{t.Lines + u.Lines, t.Bytes + u.Bytes} }

// counts is a tally per tag.
type counts map[string]tally

func (c counts) total() (sum tally) {
	for _, t := range c {
		sum = sum.plus(t)
	}
	return sum
}

// largest is the tag with most lines; of several the first by name.
func (c counts) largest() (tag string) {
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if tag == "" || c[name].Lines > c[tag].Lines {
			tag = name
		}
	}
	return tag
}

// moreProperty marks a message whose line goes on in another message: a line
// may be longer than a body. Only the last part of a line counts as a line.
const moreProperty = "more"

func tallyOf(m *mq.Message) tally {
	t := tally{Lines: 1, Bytes: int64(len(m.Body))}
	if _, more := m.Properties[moreProperty]; more {
		t.Lines = 0
	}
	return t
}

// counter counts messages by tag. It is safe for concurrent use: its handlers
// run on many goroutines at once.
type counter struct {
	tags sync.Map // string → *cell; written once per tag, then only read
}

// cell is padded to a cache line of its own: neighbouring tags are counted by
// different processors.
type cell struct {
	lines, bytes atomic.Int64
	_            [48]byte
}

func (c *counter) add(m *mq.Message) {
	found, ok := c.tags.Load(m.Tag)
	if !ok {
		found, _ = c.tags.LoadOrStore(m.Tag, new(cell))
	}
	t, sum := tallyOf(m), found.(*cell)
	sum.lines.Add(t.Lines)
	sum.bytes.Add(t.Bytes)
}

func (c *counter) counts() counts {
	result := counts{}
	c.tags.Range(func(tag, sum any) bool {
		s := sum.(*cell)
		result[tag.(string)] = tally{s.lines.Load(), s.bytes.Load()}
		return true
	})
	return result
}
