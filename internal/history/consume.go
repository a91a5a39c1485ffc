package history

func (c *Checker) poll(i int, o *Op) {
	c.report.Delivered++
	m := c.known(i, o)
	if m == nil {
		return
	}
	at := o.slot()
	c.observe(i, m, at)
	// Nobody sees a message that is not yet as durable as it is to be.
	c.store(i, m, m.durability.SurvivesCut())
	began, asked := c.asked[groupMember{o.Group, o.Member}]
	if !asked {
		began = i
	}
	s := c.share(o.Group, at.queue)
	if a := c.ackOf(s, at.offset); a != nil && a.m == m.number && a.begun > c.crowd(o.Group).lastMove(at) {
		switch {
		case a.holdsAt(began):
			c.report.add(DeliveredAgain, []int{a.begun, a.ended, i}, "%s at %v to group %s", m.id, at, o.Group)
		case a.void:
			c.report.Repeated++
		}
	}
	if !o.Unordered {
		c.inOrder(i, o, s)
	}
	c.crowd(o.Group).gets(m.number, i)
	s.furthest = max(s.furthest, at.offset)
}

// gets notes that a group got a message by operation i.
func (g *crowd) gets(n, i int) {
	if n >= len(g.got) {
		g.got = append(g.got, make([]int, n+1-len(g.got))...)
	}
	g.got[n] = i + 1
}

// gotAt returns the operation by which a group got a message last; -1: none.
func (g *crowd) gotAt(n int) int {
	if n >= len(g.got) {
		return -1
	}
	return g.got[n] - 1
}

// ackOf returns a group's acknowledgement of what lies there, nil if there is
// none.
func (c *Checker) ackOf(s *share, offset int64) *ack {
	if n := s.acks.get(offset); n >= 0 {
		return &c.acks[n]
	}
	return nil
}

// inOrder compares a delivery with the one before.
func (c *Checker) inOrder(i int, o *Op, s *share) {
	at := o.slot()
	this := position{at.offset, i, c.crowd(o.Group).deals}
	reached := s.reached[o.Member]
	if reached == nil {
		s.reached[o.Member] = new(this)
		return
	}
	last := *reached
	*reached = this
	switch {
	case last.deals != this.deals:
	case at.offset <= last.offset:
		c.report.add(NonMonotonicPoll, []int{last.op, i}, "member %s of %s: offset %d of %s:%d after %d",
			o.Member, o.Group, at.offset, at.topic, at.id, last.offset)
	default:
		for off := last.offset + 1; off < at.offset; off++ {
			between := slot{at.queue, off}
			m := c.lies(between)
			if m == nil || m.state != stored || c.ackOf(s, off) != nil {
				continue // not there, or of no concern to the group
			}
			c.report.add(SkippedPoll, []int{m.send, last.op, i}, "member %s of %s was led past %s at %v", o.Member, o.Group, m.id, between)
		}
	}
}

func (c *Checker) ack(i int, o *Op) {
	a := ack{of: groupTopic{o.Group, o.Topic}, m: -1, durability: o.Durability, begun: i, ended: -1}
	if m := c.lies(o.slot()); m != nil {
		a.m = m.number
	}
	n, s := len(c.acks), c.share(o.Group, o.queue())
	// An acknowledgement that holds is not undone by another one.
	if old := c.ackOf(s, o.Offset); old == nil || !old.holdsAt(i) || old.m != a.m ||
		old.begun <= c.crowd(o.Group).lastMove(o.slot()) || old.durability.weaker(a.durability) {
		s.acks.set(o.Offset, n)
	}
	c.acks = append(c.acks, a)
	c.calls[o.Call] = append(c.calls[o.Call], n)
}

func (c *Checker) ackEnded(i int, o *Op) {
	acks := c.calls[o.Call]
	delete(c.calls, o.Call)
	if o.Kind == OpUnacked {
		return
	}
	for _, n := range acks {
		a := &c.acks[n]
		c.report.Acks++
		a.ended = i
		switch a.durability {
		case Volatile:
			c.volatileAcks = append(c.volatileAcks, n)
		case Written:
			c.unsyncedAcks = append(c.unsyncedAcks, n)
		}
	}
}

func (c *Checker) drained(i int, o *Op) {
	var q queue // of s: messages of one queue often follow each other
	var s *share
	for n := range c.messages {
		m := &c.messages[n]
		if m.state != stored || m.at.topic != o.Topic {
			continue
		}
		if s == nil || q != m.at.queue {
			q = m.at.queue
			s = c.share(o.Group, q)
		}
		if !c.owes(o.Group, s, m) {
			continue
		}
		class := Unseen
		if s.furthest > m.at.offset {
			class = LostWrite
		}
		c.report.add(class, []int{m.send, m.seen, i}, "%s at %v never reached group %s", m.id, m.at, o.Group)
	}
}

// owes tells whether a group that has everything must have got a message. What it
// got before a crash, and did not begin to acknowledge, comes again.
func (c *Checker) owes(group string, s *share, m *message) bool {
	if m.send < max(c.sought[groupTopic{group, m.at.topic}], c.sought[groupTopic{group, ""}]) {
		return false
	}
	g := c.crowd(group)
	passed, since := g.movedPast(m)
	if passed {
		return false
	}
	if a := c.ackOf(s, m.at.offset); a != nil && a.begun > since {
		return false
	}
	got := g.gotAt(m.number)
	return got < 0 || got < max(since, c.crashed)
}
