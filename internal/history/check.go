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
	ops    []Op
	report *Report

	messages []*message
	byID     map[string]*message
	slots    map[slot]*message
	peaks    map[queue][]peak
	durable  map[queue]int64 // the last offset that survives a power cut

	unsynced     []*message // stored and not synced, in the order in which they were
	unsyncedAcks []*ack
	volatileAcks []*ack
	marks        map[int64]mark // of syncs under way
	scans        map[int64]int  // their beginnings

	acks     map[groupSlot]*ack
	calls    map[int64][]*ack
	moves    map[string][]*move // of a group, in the order in which they began
	moving   map[int64]*move
	sought   map[groupTopic]int // what was sent before this operation need not be delivered
	deals    map[string]int     // of a group: how often its queues were dealt out
	reached  map[memberQueue]position
	furthest map[groupSlot]int64         // of a group in a queue (offset 0): the highest offset delivered
	got      map[string]map[*message]int // by which operation
	asked    map[groupMember]int         // when it began to poll
	crashed  int                         // the last crash; -1: none
}

// NewChecker returns the judge of a history that has not begun.
func NewChecker() *Checker {
	return &Checker{
		report: &Report{Counts: map[Class]int{}},
		byID:   map[string]*message{}, slots: map[slot]*message{}, peaks: map[queue][]peak{}, durable: map[queue]int64{},
		marks: map[int64]mark{}, scans: map[int64]int{}, acks: map[groupSlot]*ack{}, calls: map[int64][]*ack{},
		moves: map[string][]*move{}, moving: map[int64]*move{}, sought: map[groupTopic]int{}, deals: map[string]int{},
		reached: map[memberQueue]position{}, furthest: map[groupSlot]int64{}, got: map[string]map[*message]int{},
		asked: map[groupMember]int{}, crashed: -1,
	}
}

// Add takes the next operations.
func (c *Checker) Add(ops ...Op) {
	for i := range ops {
		c.ops = append(c.ops, ops[i])
		c.step(len(c.ops)-1, &ops[i])
	}
}

// Report returns what was found so far: the next Add changes it.
func (c *Checker) Report() *Report {
	c.report.ops, c.report.Unknown, c.report.Gone = c.ops, 0, 0
	for _, m := range c.messages {
		switch {
		case m.state == begun:
			c.report.Unknown++
		case m.state == gone && m.sent:
			c.report.Gone++
		}
	}
	return c.report
}

// History returns the operations so far. The caller must not change them.
func (c *Checker) History() []Op { return c.ops[:len(c.ops):len(c.ops)] }

// state is what is known of a message.
type state uint8

const (
	begun  state = iota // its send has no end yet, or none that says anything
	failed              // it is not stored
	stored              // it must be there
	maybe               // it was stored, and a power cut may have taken it
	gone                // it was, and has
	moot                // retention or a deletion may have taken it
)

type message struct {
	id         string
	state      state
	synced     bool // survives a power cut
	sent       bool // acknowledged
	durability Durability
	hash       uint64
	at         slot
	send, seen int // operations: its beginning, the last that showed it; seen -1: none
}

// placed tells whether it is known where the message is.
func (m *message) placed() bool { return m.seen >= 0 }

// ack is a message that a group acknowledges.
type ack struct {
	slot
	group      string
	m          *message // what lies there
	durability Durability
	begun      int
	ended      int // -1: not yet, or nobody knows how
	void       bool
}

// holdsAt tells whether it had ended before operation i, and nothing has taken it
// back.
func (a *ack) holdsAt(i int) bool { return a.ended >= 0 && a.ended < i && !a.void }

type groupTopic struct{ group, topic string }

type groupMember struct{ group, member string }

type groupSlot struct {
	group string
	slot
}

type memberQueue struct {
	group, member string
	queue
}

// position is how far a member got in a queue.
type position struct {
	offset int64
	op     int
	deals  int // of the group at that time
}

// peak says that from operation op on, the last acknowledged offset of a queue
// is offset.
type peak struct {
	op     int
	offset int64
}

// mark is how much a sync covers: lengths of unsynced and unsyncedAcks.
type mark struct{ messages, acks int }

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
		c.acked(i, o)
	case OpDrained:
		c.drained(i, o)
	case OpJoin, OpLeave:
		c.deals[o.Group]++
	case OpSeek:
		c.deals[o.Group]++
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
	case OpKill, OpCut:
		c.crash(i, o.Kind == OpCut)
	default:
		c.report.add(Malformed, []int{i}, "operation of no known kind")
	}
}

func (c *Checker) send(i int, o *Op) {
	if o.ID == "" || c.byID[o.ID] != nil {
		c.report.add(Malformed, []int{i}, "a send needs an id of its own")
		return
	}
	m := &message{id: o.ID, at: slot{queue: queue{topic: o.Topic}}, durability: o.Durability, hash: o.Hash, send: i, seen: -1}
	c.messages = append(c.messages, m)
	c.byID[o.ID] = m
	c.report.Sent++
}

func (c *Checker) sent(i int, o *Op) {
	m := c.byID[o.ID]
	if m == nil || m.state == failed {
		c.report.add(Malformed, []int{i}, "acknowledged, but not being sent")
		return
	}
	c.report.Acknowledged++
	at := slot{queue{m.at.topic, o.Queue}, o.Offset}
	c.observe(i, m, at)
	m.sent = true
	c.store(i, m, m.durability.SurvivesCut() || o.Durability == Synced)
	peaks := c.peaks[at.queue]
	if n := sort.Search(len(peaks), func(n int) bool { return peaks[n].op > m.send }); n > 0 && peaks[n-1].offset >= at.offset {
		c.report.add(NonMonotonicSend, []int{peaks[n-1].op, m.send, i}, "%s lies at %v, and offset %d was acknowledged before it was sent",
			m.id, at, peaks[n-1].offset)
	}
	if n := len(peaks); n == 0 || peaks[n-1].offset < at.offset {
		c.peaks[at.queue] = append(peaks, peak{i, at.offset})
	}
}

func (c *Checker) notSent(i int, o *Op) {
	m := c.byID[o.ID]
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
	if other := c.slots[at]; other != nil && other != m {
		if other.state == maybe || other.state == gone {
			other.state = gone // the power cut took it
		} else {
			c.report.add(InconsistentOffsets, []int{other.seen, i}, "at %v lie %s and %s", at, other.id, m.id)
		}
	}
	c.slots[at] = m
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
			c.unsynced = append(c.unsynced, m)
		}
	}
	if synced && !m.synced {
		c.synced(m)
	}
}

func (c *Checker) synced(m *message) {
	m.synced = true
	if last, ok := c.durable[m.at.queue]; !ok || last < m.at.offset {
		c.durable[m.at.queue] = m.at.offset
	}
}

func (c *Checker) syncDone(i int, o *Op) {
	upTo, ok := c.marks[o.Call]
	if !ok {
		return // a crash was in between
	}
	for _, m := range c.unsynced[:upTo.messages] {
		if m.state == stored {
			c.synced(m)
		}
	}
	for _, a := range c.unsyncedAcks[:upTo.acks] {
		a.durability = Synced
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
	for _, a := range c.volatileAcks {
		a.void = true
	}
	c.volatileAcks = nil
	clear(c.calls)
	clear(c.marks)
	clear(c.scans)
	clear(c.reached)
	if !cut {
		c.report.Kills++
		return
	}
	c.report.Cuts++
	for _, m := range c.unsynced {
		if (m.state == stored || m.state == moot) && !m.synced {
			m.state = maybe
		}
	}
	for _, a := range c.unsyncedAcks {
		a.void = a.void || !a.durability.SurvivesCut()
	}
	c.unsynced, c.unsyncedAcks = nil, nil
	for q := range c.peaks {
		last, ok := c.durable[q]
		if !ok {
			last = -1
		}
		c.peaks[q] = append(c.peaks[q], peak{i, last})
	}
}

func (c *Checker) read(i int, o *Op) {
	if o.ID == "" {
		switch m := c.slots[o.slot()]; {
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
	m := c.byID[o.ID]
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
	for _, m := range c.messages {
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
	for _, m := range c.messages {
		if which(m) && (m.state == begun || m.state == stored) {
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
