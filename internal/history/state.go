package history

// state is what is known of a message.
type state uint8

const (
	begun  state = iota // its send has no end yet, or none that says anything
	failed              // it is not stored
	stored              // it must be there
	maybe               // it was stored, and a power cut may have taken it
	gone                // it was, and has
	moot                // retention, a deletion or damage may have taken it
)

// message is one. Those who have more than its number must not keep it: the next
// send moves all of them.
type message struct {
	number     int // its place among the messages
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
	of         groupTopic
	m          int // what lies there; -1: nobody knows
	durability Durability
	begun      int
	ended      int // -1: not yet, or nobody knows how
	void       bool
}

// holdsAt tells whether it had ended before operation i, and nothing has taken it
// back.
func (a *ack) holdsAt(i int) bool { return a.ended >= 0 && a.ended < i && !a.void }

// line is what is known of a queue.
type line struct {
	slots   byOffset // the message seen last there
	peaks   []peak
	durable int64 // the last offset that survives a power cut; -1: none does
}

// crowd is what is known of a group.
type crowd struct {
	deals int    // how often its queues were dealt out
	got   []int  // by message: one more than the operation by which the group got it last; 0: none
	moves []move // in the order in which they began
}

// share is what is known of a group in a queue.
type share struct {
	acks     byOffset
	furthest int64                // the highest offset delivered; -1: none was
	reached  map[string]*position // by member
}

func (c *Checker) line(q queue) *line {
	l := c.lines[q]
	if l == nil {
		l = &line{durable: -1}
		c.lines[q] = l
	}
	return l
}

func (c *Checker) crowd(group string) *crowd {
	g := c.crowds[group]
	if g == nil {
		g = &crowd{}
		c.crowds[group] = g
	}
	return g
}

func (c *Checker) share(group string, q queue) *share {
	s := c.shares[groupQueue{group, q}]
	if s == nil {
		s = &share{furthest: -1, reached: map[string]*position{}}
		c.shares[groupQueue{group, q}] = s
	}
	return s
}

type groupTopic struct{ group, topic string }

type groupMember struct{ group, member string }

type groupQueue struct {
	group string
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

// named and lies return a message, nil if there is none.
func (c *Checker) named(id string) *message {
	if n, ok := c.names.find(id); ok {
		return &c.messages[n]
	}
	return nil
}

func (c *Checker) lies(at slot) *message {
	if n := c.line(at.queue).slots.get(at.offset); n >= 0 {
		return &c.messages[n]
	}
	return nil
}
