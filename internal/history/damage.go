package history

// damaged excuses what somebody changed the bytes of. A message that is gone
// leaves its offset empty; an acknowledgement that is gone is one taken back.
func (c *Checker) damaged(i int, o *Op) {
	if o.Group != "" {
		if a := c.ackOf(c.share(o.Group, o.queue()), o.Offset); a != nil {
			a.void = true
			return
		}
		c.report.add(Malformed, []int{i}, "damaged, but never acknowledged")
		return
	}
	m := c.named(o.ID)
	if m == nil {
		c.report.add(Malformed, []int{i}, "damaged, but never sent")
		return
	}
	if m.state == begun || m.state == stored {
		m.state = moot
	}
}

// torn forgets that the end of a queue was synced, and cuts the power. Nothing
// below that end is touched.
func (c *Checker) torn(i int, o *Op) {
	q := o.queue()
	for n := range c.messages {
		if m := &c.messages[n]; m.state == stored && m.at.queue == q && m.at.offset >= o.Offset {
			m.state, m.synced = maybe, false
		}
	}
	l := c.line(q)
	l.durable = min(l.durable, o.Offset-1)
	if n := len(l.peaks); n > 0 {
		l.peaks = append(l.peaks, peak{i, min(l.peaks[n-1].offset, o.Offset-1)})
	}
}
