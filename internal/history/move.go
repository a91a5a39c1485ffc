package history

import "math"

// move is a reset of a group.
type move struct {
	topic        string // empty: all
	queue        int    // -1: all
	to           int64  // what lies below it may be passed over
	begun, ended int    // operations; what has not ended: the last there can be
	known        bool   // it has moved the group for sure
}

// moveOf names a move: that of a group at that place among its moves.
type moveOf struct {
	group string
	n     int
}

func (v *move) moves(at slot) bool {
	return (v.topic == "" || v.topic == at.topic) && (v.queue < 0 || v.queue == at.id)
}

func (c *Checker) move(i int, o *Op) {
	v := move{topic: o.Topic, queue: -1, begun: i, ended: math.MaxInt}
	switch o.Kind {
	case OpReset:
		v.to = math.MaxInt64
	case OpResetQueue:
		v.queue, v.to = o.Queue, o.Offset
	}
	c.voidVolatile(o.Group, o.Topic)
	g := c.crowd(o.Group)
	c.moving[o.Call] = moveOf{o.Group, len(g.moves)}
	g.moves = append(g.moves, v)
	g.deals++
}

// moved ends a move: only what is acknowledged from now on counts.
func (c *Checker) moved(i int, call int64, known bool) {
	of, ok := c.moving[call]
	if !ok {
		return
	}
	delete(c.moving, call)
	g := c.crowd(of.group)
	v := &g.moves[of.n]
	v.ended, v.known = i, known
	c.voidVolatile(of.group, v.topic)
	g.deals++
}

// voidVolatile takes back what a group has acknowledged in a topic, if that is not
// known to be stored: it may have been handed out before the move.
func (c *Checker) voidVolatile(group, topic string) {
	for _, n := range c.volatileAcks {
		if a := &c.acks[n]; a.of.group == group && (topic == "" || topic == a.of.topic) {
			a.void = true
		}
	}
}

// lastMove returns the operation up to which a group's acknowledgements of what
// lies at a place may have been taken back.
func (g *crowd) lastMove(at slot) int {
	last := -1
	for n := range g.moves {
		if v := &g.moves[n]; v.moves(at) {
			last = max(last, v.ended)
		}
	}
	return last
}

// movedPast tells whether a group may have been moved past a message, and else
// since when it is to get it: whatever it had got and acknowledged before that.
func (g *crowd) movedPast(m *message) (passed bool, since int) {
	since = -1
	for n := range g.moves {
		v := &g.moves[n]
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
