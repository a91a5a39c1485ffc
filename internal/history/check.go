package history

import (
	"maps"
	"slices"
	"sort"
)

// Check judges a history. It takes n log n steps for n operations, and besides
// as many for each OpScanDone, OpDrained and OpDeleted as there are messages.
func Check(ops []Op) *Report {
	c := NewChecker()
	c.Add(ops...)
	return c.Report()
}

// Checker judges a history while it is made: what cannot be is known as soon as
// the operation that proves it is there. It is for one goroutine.
type Checker struct {
	ops    ops
	report *Report

	// Messages and acknowledgements are known by their place in messages and acks,
	// so that a copy of those is a copy of everything (Clone).
	messages []message
	names    names
	lines    map[queue]*line

	unsynced     []int // stored and not synced, in the order in which they were
	acks         []ack
	unsyncedAcks []int
	volatileAcks []int
	marks        map[int64]mark // of syncs under way
	scans        map[int64]int  // their beginnings

	calls   map[int64][]int
	moving  map[int64]moveOf
	sought  map[groupTopic]int  // what was sent before this operation need not be delivered
	asked   map[groupMember]int // when it began to poll
	crowds  map[string]*crowd
	shares  map[groupQueue]*share
	crashed int // the last crash; -1: none
}

// NewChecker returns the judge of a history that has not begun.
func NewChecker() *Checker {
	return &Checker{
		report: &Report{Counts: map[Class]int{}},
		names:  names{own: map[string]int{}}, lines: map[queue]*line{},
		marks: map[int64]mark{}, scans: map[int64]int{}, calls: map[int64][]int{},
		moving: map[int64]moveOf{}, sought: map[groupTopic]int{}, asked: map[groupMember]int{},
		crowds: map[string]*crowd{}, shares: map[groupQueue]*share{}, crashed: -1,
	}
}

// Add takes the next operations.
func (c *Checker) Add(ops ...Op) {
	first := c.ops.len()
	c.ops.add(ops)
	for i := range ops {
		c.step(first+i, &ops[i])
	}
}

// Report returns what was found so far: the next Add changes it.
func (c *Checker) Report() *Report {
	c.report.ops, c.report.Unknown, c.report.Gone = c.ops, 0, 0
	for i := range c.messages {
		switch m := &c.messages[i]; {
		case m.state == begun:
			c.report.Unknown++
		case m.state == gone && m.sent:
			c.report.Gone++
		}
	}
	return c.report
}

// History returns the operations so far.
func (c *Checker) History() []Op { return c.ops.all() }

func (c *Checker) step(i int, o *Op) {
	switch o.Kind {
	case OpSend:
		c.send(i, o)
	case OpSent:
		c.sent(i, o)
	case OpFailed, OpUnknown:
		c.notSent(i, o)
	case OpPolling:
		c.asked[groupMember{o.Group, o.Member}] = i
	case OpPoll:
		c.poll(i, o)
	case OpRead:
		c.read(i, o)
	case OpAck:
		c.ack(i, o)
	case OpAcked, OpUnacked:
		c.ackEnded(i, o)
	case OpDrained:
		c.drained(i, o)
	case OpJoin, OpLeave:
		c.crowd(o.Group).deals++
	case OpSeek:
		c.crowd(o.Group).deals++
		c.sought[groupTopic{o.Group, o.Topic}] = i
	case OpReset, OpRewind, OpResetQueue:
		c.move(i, o)
	case OpResetDone:
		c.moved(i, o.Call, o.Error == "")
	case OpSync:
		c.marks[o.Call] = mark{len(c.unsynced), len(c.unsyncedAcks)}
	case OpSyncDone:
		c.syncDone(i, o)
	case OpScan:
		c.scans[o.Call] = i
	case OpScanDone:
		c.scanDone(i, o)
	case OpDropped:
		c.excuse(func(m *message) bool { return m.placed() && m.at.queue == o.queue() && m.at.offset < o.Offset })
	case OpDeleted:
		c.excuse(func(m *message) bool { return m.at.topic == o.Topic })
	case OpDamaged:
		c.damaged(i, o)
	case OpTorn:
		c.torn(i, o)
	case OpKill, OpCut:
		c.crash(i, o.Kind == OpCut)
	default:
		c.report.add(Malformed, []int{i}, "operation of no known kind")
	}
}

func (c *Checker) send(i int, o *Op) {
	if o.ID == "" || c.named(o.ID) != nil {
		c.report.add(Malformed, []int{i}, "a send needs an id of its own")
		return
	}
	n := len(c.messages)
	c.messages = append(c.messages, message{
		number: n, id: o.ID, at: slot{queue: queue{topic: o.Topic}}, durability: o.Durability, hash: o.Hash, send: i, seen: -1,
	})
	c.names.own[o.ID] = n
	c.report.Sent++
}

func (c *Checker) sent(i int, o *Op) {
	m := c.named(o.ID)
	if m == nil || m.state == failed {
		c.report.add(Malformed, []int{i}, "acknowledged, but not being sent")
		return
	}
	c.report.Acknowledged++
	at := slot{queue{m.at.topic, o.Queue}, o.Offset}
	c.observe(i, m, at)
	m.sent = true
	c.store(i, m, m.durability.SurvivesCut() || o.Durability == Synced)
	l := c.line(at.queue)
	peaks := l.peaks
	if n := sort.Search(len(peaks), func(n int) bool { return peaks[n].op > m.send }); n > 0 && peaks[n-1].offset >= at.offset {
		c.report.add(NonMonotonicSend, []int{peaks[n-1].op, m.send, i}, "%s lies at %v, and offset %d was acknowledged before it was sent",
			m.id, at, peaks[n-1].offset)
	}
	if n := len(peaks); n == 0 || peaks[n-1].offset < at.offset {
		l.peaks = append(peaks, peak{i, at.offset})
	}
}

func (c *Checker) notSent(i int, o *Op) {
	m := c.named(o.ID)
	switch {
	case m == nil:
		c.report.add(Malformed, []int{i}, "ended, but not being sent")
	case o.Kind == OpUnknown:
	case m.placed():
		c.report.add(AbortedRead, []int{m.seen, i}, "%s was seen at %v, and refused", m.id, m.at)
	default:
		m.state = failed
	}
}

// observe notes that a message was seen.
func (c *Checker) observe(i int, m *message, at slot) {
	if m.placed() && m.at != at {
		c.report.add(DuplicateOffset, []int{m.seen, i}, "%s lies at %v and at %v", m.id, m.at, at)
		return
	}
	if m.state == gone {
		c.report.add(InconsistentOffsets, []int{m.seen, i}, "%s at %v had gone, and is back", m.id, at)
	}
	other := c.lies(at)
	if other != nil && other != m {
		if other.state == maybe || other.state == gone {
			other.state = gone // the power cut took it
		} else {
			c.report.add(InconsistentOffsets, []int{other.seen, i}, "at %v lie %s and %s", at, other.id, m.id)
		}
	}
	if other != m {
		c.line(at.queue).slots.set(at.offset, m.number)
	}
	m.at, m.seen = at, i
}

// store notes that a message must be there from now on.
func (c *Checker) store(i int, m *message, synced bool) {
	if m.state == moot {
		return
	}
	if m.state != stored {
		m.state = stored
		if !synced {
			c.unsynced = append(c.unsynced, m.number)
		}
	}
	if synced && !m.synced {
		c.synced(m)
	}
}

func (c *Checker) synced(m *message) {
	m.synced = true
	l := c.line(m.at.queue)
	l.durable = max(l.durable, m.at.offset)
}

func (c *Checker) syncDone(i int, o *Op) {
	upTo, ok := c.marks[o.Call]
	if !ok {
		return // a crash was in between
	}
	for _, n := range c.unsynced[:upTo.messages] {
		if m := &c.messages[n]; m.state == stored {
			c.synced(m)
		}
	}
	for _, n := range c.unsyncedAcks[:upTo.acks] {
		c.acks[n].durability = Synced
	}
	c.unsynced, c.unsyncedAcks = c.unsynced[upTo.messages:], c.unsyncedAcks[upTo.acks:]
	delete(c.marks, o.Call)
	for call, m := range c.marks { // of others under way
		c.marks[call] = mark{max(0, m.messages-upTo.messages), max(0, m.acks-upTo.acks)}
	}
}

// crash takes away what nothing keeps.
func (c *Checker) crash(i int, cut bool) {
	for call := range c.moving {
		c.moved(i, call, false)
	}
	c.crashed = i
	for _, n := range c.volatileAcks {
		c.acks[n].void = true
	}
	c.volatileAcks = nil
	clear(c.calls)
	clear(c.marks)
	clear(c.scans)
	for _, s := range c.shares {
		clear(s.reached)
	}
	if !cut {
		c.report.Kills++
		return
	}
	c.report.Cuts++
	for _, n := range c.unsynced {
		if m := &c.messages[n]; (m.state == stored || m.state == moot) && !m.synced {
			m.state = maybe
		}
	}
	for _, n := range c.unsyncedAcks {
		a := &c.acks[n]
		a.void = a.void || !a.durability.SurvivesCut()
	}
	c.unsynced, c.unsyncedAcks = nil, nil
	for _, l := range c.lines {
		l.peaks = append(l.peaks, peak{i, l.durable})
	}
}

func (c *Checker) read(i int, o *Op) {
	if o.ID == "" {
		switch m := c.lies(o.slot()); {
		case m == nil:
		case m.state == stored:
			c.report.add(LostWrite, []int{m.send, m.seen, i}, "%s is not at %v any more", m.id, m.at)
		case m.state == maybe:
			m.state = gone
		}
		return
	}
	if m := c.known(i, o); m != nil {
		c.observe(i, m, o.slot())
		c.store(i, m, false)
	}
}

// known returns the message of an operation that shows one.
func (c *Checker) known(i int, o *Op) *message {
	m := c.named(o.ID)
	switch {
	case m == nil:
		c.report.add(AbortedRead, []int{i}, "%q at %v was never sent", o.ID, o.slot())
		return nil
	case m.at.topic != o.Topic:
		c.report.add(AbortedRead, []int{m.send, i}, "%q was sent to %s", o.ID, m.at.topic)
		return nil
	case m.state == failed:
		c.report.add(AbortedRead, []int{m.send, i}, "%s at %v was refused", m.id, o.slot())
		return nil
	case m.hash != o.Hash:
		c.report.add(WrongBytes, []int{m.send, i}, "%s at %v", m.id, o.slot())
	}
	return m
}

func (c *Checker) scanDone(i int, o *Op) {
	from, ok := c.scans[o.Call]
	if !ok {
		return
	}
	delete(c.scans, o.Call)
	for n := range c.messages {
		m := &c.messages[n]
		if m.seen >= from {
			continue
		}
		switch m.state {
		case begun:
			if m.send < c.crashed && c.crashed < from {
				m.state = gone // who sent it is, and it is not there
			}
		case stored:
			c.report.add(LostWrite, []int{m.send, m.seen, i}, "%s is not at %v any more", m.id, m.at)
		case maybe:
			m.state = gone
		}
	}
}

func (c *Checker) excuse(which func(*message) bool) {
	for n := range c.messages {
		if m := &c.messages[n]; which(m) && (m.state == begun || m.state == stored) {
			m.state = moot
		}
	}
}

// Topics lists the topics of a history.
func Topics(ops []Op) []string {
	seen := map[string]bool{}
	for i := range ops {
		if ops[i].Kind == OpSend {
			seen[ops[i].Topic] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
