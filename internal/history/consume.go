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
	if a := c.acks[groupSlot{o.Group, at}]; a != nil && a.m == m && a.begun > c.lastMove(o.Group, at) {
		switch {
		case a.holdsAt(began):
			c.report.add(DeliveredAgain, []int{a.begun, a.ended, i}, "%s at %v to group %s", m.id, at, o.Group)
		case a.void:
			c.report.Repeated++
		}
	}
	if !o.Unordered {
		c.inOrder(i, o, at)
	}
	if c.got[o.Group] == nil {
		c.got[o.Group] = map[*message]int{}
	}
	c.got[o.Group][m] = i
	far := groupSlot{o.Group, slot{queue: at.queue}}
	if last, ok := c.furthest[far]; !ok || last < at.offset {
		c.furthest[far] = at.offset
	}
}

// inOrder compares a delivery with the one before.
func (c *Checker) inOrder(i int, o *Op, at slot) {
	who := memberQueue{o.Group, o.Member, at.queue}
	last, ok := c.reached[who]
	c.reached[who] = position{at.offset, i, c.deals[o.Group]}
	switch {
	case !ok || last.deals != c.deals[o.Group]:
	case at.offset <= last.offset:
		c.report.add(NonMonotonicPoll, []int{last.op, i}, "member %s of %s: offset %d of %s:%d after %d",
			o.Member, o.Group, at.offset, at.topic, at.id, last.offset)
	default:
		for off := last.offset + 1; off < at.offset; off++ {
			between := slot{at.queue, off}
			m := c.slots[between]
			if m == nil || m.state != stored || c.acks[groupSlot{o.Group, between}] != nil {
				continue // not there, or of no concern to the group
			}
			c.report.add(SkippedPoll, []int{m.send, last.op, i}, "member %s of %s was led past %s at %v", o.Member, o.Group, m.id, between)
		}
	}
}

func (c *Checker) ack(i int, o *Op) {
	a := &ack{slot: o.slot(), group: o.Group, m: c.slots[o.slot()], durability: o.Durability, begun: i, ended: -1}
	// An acknowledgement that holds is not undone by another one.
	if old := c.acks[groupSlot{o.Group, a.slot}]; old == nil || !old.holdsAt(i) || old.m != a.m ||
		old.begun <= c.lastMove(o.Group, a.slot) || old.durability.weaker(a.durability) {
		c.acks[groupSlot{o.Group, a.slot}] = a
	}
	c.calls[o.Call] = append(c.calls[o.Call], a)
}

func (c *Checker) acked(i int, o *Op) {
	acks := c.calls[o.Call]
	delete(c.calls, o.Call)
	if o.Kind == OpUnacked {
		return
	}
	for _, a := range acks {
		c.report.Acks++
		a.ended = i
		switch a.durability {
		case Volatile:
			c.volatileAcks = append(c.volatileAcks, a)
		case Written:
			c.unsyncedAcks = append(c.unsyncedAcks, a)
		}
	}
}

func (c *Checker) drained(i int, o *Op) {
	for _, m := range c.messages {
		if m.state != stored || m.at.topic != o.Topic || !c.owes(o.Group, m) {
			continue
		}
		class := Unseen
		if last, ok := c.furthest[groupSlot{o.Group, slot{queue: m.at.queue}}]; ok && last > m.at.offset {
			class = LostWrite
		}
		c.report.add(class, []int{m.send, m.seen, i}, "%s at %v never reached group %s", m.id, m.at, o.Group)
	}
}

// owes tells whether a group that has everything must have got a message. What it
// got before a crash, and did not begin to acknowledge, comes again.
func (c *Checker) owes(group string, m *message) bool {
	if m.send < max(c.sought[groupTopic{group, m.at.topic}], c.sought[groupTopic{group, ""}]) {
		return false
	}
	passed, since := c.movedPast(group, m)
	if passed {
		return false
	}
	if a := c.acks[groupSlot{group, m.at}]; a != nil && a.begun > since {
		return false
	}
	got, ok := c.got[group][m]
	return !ok || got < max(since, c.crashed)
}
