package history

import "math"

// move is a reset of a group.
type move struct {
	group        string
	topic        string // empty: all
	queue        int    // -1: all
	to           int64  // what lies below it may be passed over
	begun, ended int    // operations; what has not ended: the last there can be
	known        bool   // it has moved the group for sure
}

func (v *move) moves(at slot) bool {
	return (v.topic == "" || v.topic == at.topic) && (v.queue < 0 || v.queue == at.id)
}

func (c *Checker) move(i int, o *Op) {
	v := &move{group: o.Group, topic: o.Topic, queue: -1, begun: i, ended: math.MaxInt}
	switch o.Kind {
	case OpReset:
		v.to = math.MaxInt64
	case OpResetQueue:
		v.queue, v.to = o.Queue, o.Offset
	}
	for _, a := range c.volatileAcks {
		if a.group == o.Group && (o.Topic == "" || o.Topic == a.topic) {
			a.void = true
		}
	}
	c.moves[o.Group] = append(c.moves[o.Group], v)
	c.moving[o.Call] = v
	c.deals[o.Group]++
}

// moved ends a move: only what is acknowledged from now on counts.
func (c *Checker) moved(i int, call int64, known bool) {
	v := c.moving[call]
	if v == nil {
		return
	}
	delete(c.moving, call)
	v.ended, v.known = i, known
	c.deals[v.group]++
}

// lastMove returns the operation up to which a group's acknowledgements of what
// lies at a place may have been taken back.
func (c *Checker) lastMove(group string, at slot) int {
	last := -1
	for _, v := range c.moves[group] {
		if v.moves(at) {
			last = max(last, v.ended)
		}
	}
	return last
}

// movedPast tells whether a group may have been moved past a message, and else
// since when it is to get it: whatever it had got and acknowledged before that.
func (c *Checker) movedPast(group string, m *message) (passed bool, since int) {
	since = -1
	for _, v := range c.moves[group] {
		if !v.moves(m.at) || m.send > v.ended {
			continue
		}
		switch {
		case m.at.offset < v.to:
			passed = true
		case v.known:
			passed = false
		}
		if v.known {
			since = v.begun
		}
	}
	return passed, since
}
