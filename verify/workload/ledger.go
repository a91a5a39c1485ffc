package workload

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pocketmq/mq"
)

// Ledger is what the world was told about one store, over all lives of the
// workload: which messages are stored and which acknowledgements count. Hearing
// already finds what contradicts itself; Check asks the store.
type Ledger struct {
	// Of what was told, and what of it was not kept.
	Acknowledged int64 // messages whose Send returned nil
	Acks         int64 // acknowledgements that returned nil
	Lost         int64 // promised messages that are not there as they were sent
	Again        int64 // deliveries of messages whose acknowledgement was promised
	Refused      int64 // times the store did not open
	Problems     []string

	// What a power cut may do.
	Gone     int64 // acknowledged as Written, not synced, and cut
	Repeated int64 // acknowledgements not synced, whose messages came again

	queues map[mq.Queue]*queueLog
	groups map[string]bool
	topics map[string]bool // whose creation was promised
	ids    map[mq.MessageID]bool
	life   life
	keep   *strings.Builder // everything said, if somebody wants it

	listenMu  sync.Mutex // protects the listeners
	listeners map[string]chan struct{}

	unverified []place // sent since the last check
	volatile   []volatileAck
	trying     map[uint64]bool // sends that began and have not ended
	grey       map[uint64]bool // those at the moment of a power cut
	cut        bool            // and it has been cut
	syncMarks  map[string]syncMark
}

// life is what the ledger knows of the process that runs or ran last.
type life struct {
	Config
	Life
	opened, closed bool // the store
	closeFailed    bool // Close returned an error: it may have come far enough
}

// Life is what a process said of itself.
type Life struct {
	Refusal    string         // why the store did not open
	Poisoned   string         // why nothing could be stored any more, at its end
	Failed     map[string]int // calls that returned an error
	Hung       []string       // calls that did not return in time
	Unreadable []string       // acknowledged messages that could not be read
	Full, Room bool           // the disk was, and there was room again
}

type place struct {
	queue  mq.Queue
	offset mq.Offset
}

func (p place) String() string { return fmt.Sprintf("%v@%d", p.queue, p.offset) }

// queueLog is what is known of a message queue, by offset.
type queueLog struct {
	messages []message
	groups   map[string]*progress
}

type message struct {
	id       mq.MessageID
	number   uint64
	size     int
	known    bool // number and size are
	sent     bool // acknowledged
	promised bool // and safe from a power cut
}

// progress is that of a group in a queue.
type progress struct {
	marks []mark    // by offset
	done  mq.Offset // what lies below was acknowledged
}

type mark uint8

const (
	delivered   mark = 1 << iota
	acked            // and the process that did it was told
	ackPromised      // and that is safe from a power cut
	mayRepeat        // the acknowledgement was cut with the power
)

type volatileAck struct {
	group string
	place
}

// syncMark is how much had been said when a sync began.
type syncMark struct{ sent, acks int }

// NewLedger returns the ledger of a store that is not there yet.
func NewLedger() *Ledger {
	return &Ledger{
		queues: map[mq.Queue]*queueLog{}, groups: map[string]bool{}, topics: map[string]bool{},
		trying: map[uint64]bool{}, grey: map[uint64]bool{},
		ids: map[mq.MessageID]bool{}, syncMarks: map[string]syncMark{},
	}
}

// problem notes what is wrong. The first of them say the most.
func (l *Ledger) problem(format string, args ...any) {
	if len(l.Problems) < 20 {
		l.Problems = append(l.Problems, fmt.Sprintf("life %d: ", l.life.Config.Life)+fmt.Sprintf(format, args...))
	}
}

// Flaw notes what a tool saw beside the ledger.
func (l *Ledger) Flaw(format string, args ...any) { l.problem(format, args...) }

// Sound reports whether every promise was kept.
func (l *Ledger) Sound() bool {
	return l.Lost == 0 && l.Again == 0 && l.Refused == 0 && len(l.Problems) == 0
}

// Life is what the process that ran last said of itself.
func (l *Ledger) Life() Life { return l.life.Life }

// Record keeps what is said from now on for Replay.
func (l *Ledger) Record() { l.keep = &strings.Builder{} }

// Replay returns a ledger that has heard what l recorded: for a copy of the
// store.
func (l *Ledger) Replay() (*Ledger, error) {
	other := NewLedger()
	other.begin(l.life.Config)
	return other, other.hearAll(strings.NewReader(l.keep.String()), func() {})
}

func (l *Ledger) begin(c Config) {
	l.life = life{Config: c, opened: l.life.opened && !l.life.closed, closeFailed: l.life.closeFailed, Life: Life{Failed: map[string]int{}}}
	clear(l.syncMarks)
	l.trying, l.grey, l.cut = map[uint64]bool{}, map[uint64]bool{}, false
}

// cutMark is what Process.Cutting puts between what was said before a power cut
// and what is said after it. It may stand in the middle of a line.
const cutMark = "\x00cut\n"

// hearCut: what was said until now was said with the power on. Calls that are in
// the middle of their sync have no promise when they return: a file system that
// is shut down inside an fdatasync may let that return without an error and
// without the data (ext4 drops the conversion of unwritten extents silently
// then), which no computer without power could tell anybody. Sends that begin
// later are judged like any other: their syncs have to fail.
func (l *Ledger) hearCut() {
	for number := range l.trying {
		l.grey[number] = true
	}
	l.cut = true
	clear(l.syncMarks)
}

// hearAll reads a log to its end. A line that is not whole was not said.
func (l *Ledger) hearAll(log io.Reader, opened func()) error {
	r := bufio.NewReaderSize(log, 64<<10)
	torn := ""
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		line, torn = torn+line, ""
		if before, ok := strings.CutSuffix(line, cutMark); ok {
			l.hearCut()
			torn = before
			continue
		}
		if l.keep != nil {
			l.keep.WriteString(line)
		}
		l.tellListeners(line)
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "opened ") {
			opened()
		}
		if err := l.hear(line); err != nil {
			l.problem("line %.200q: %v", line, err)
		}
	}
}

func (l *Ledger) listen(text string) <-chan struct{} {
	l.listenMu.Lock()
	defer l.listenMu.Unlock()
	c := make(chan struct{})
	l.listeners = map[string]chan struct{}{text: c}
	return c
}

func (l *Ledger) tellListeners(line string) {
	l.listenMu.Lock()
	defer l.listenMu.Unlock()
	for text, c := range l.listeners {
		if strings.Contains(line, text) {
			close(c)
			delete(l.listeners, text)
		}
	}
}

// hear takes one line.
func (l *Ledger) hear(line string) error {
	what, rest := firstWord(line)
	f := &fields{words: strings.Fields(rest)}
	switch what {
	case "sent":
		l.hearSent(f)
	case "try":
		if number := f.hex(); f.err == nil {
			l.trying[number] = true
		}
	case "got":
		group, p, number, size, whole := f.word(), f.place(), f.hex(), f.number(), f.word()
		if f.err == nil {
			l.hearDelivery(group, p, number, int(size), whole == "true")
		}
	case "acked":
		promise, group, p := f.word(), f.word(), f.place()
		if f.err == nil {
			l.hearAck(group, p, promise == "s")
		}
	case "done":
		group, p := f.word(), f.place()
		if f.err == nil {
			l.hearDone(group, p)
		}
	case "opened":
		l.hearOpened(f)
	default:
		l.hearOfLife(what, rest)
	}
	return f.err
}

// hearOfLife takes lines about the process.
func (l *Ledger) hearOfLife(what, rest string) {
	switch what {
	case "topic":
		if !l.cut {
			l.topics[rest] = true
		}
	case "sync":
		l.syncMarks[rest] = syncMark{len(l.unverified), len(l.volatile)}
	case "synced":
		l.hearSynced(rest)
	case "closed":
		l.life.closed = true
	case "poisoned":
		l.life.Poisoned = rest
	case "hung":
		l.life.Hung = append(l.life.Hung, rest)
	case "unreadable":
		l.life.Unreadable = append(l.life.Unreadable, rest)
	case "refused":
		l.life.Refusal = rest
	case "failed", "gave":
		l.life.Failed[rest]++
		l.life.closeFailed = l.life.closeFailed || strings.HasPrefix(rest, "close ")
	case "full":
		l.life.Full = true
	case "room":
		l.life.Room = true
	case "left":
	default:
		l.problem("%s %s", what, rest)
	}
}

func (l *Ledger) hearOpened(f *fields) {
	clean := f.word() == "true"
	f.number() // ranges that were cut
	corrupt := f.number()
	if clean && l.life.opened && !l.life.closeFailed {
		l.problem("a store that was not closed opens as if it had been")
	}
	if corrupt != 0 {
		l.problem("opening found %d places below the synced mark damaged", corrupt)
	}
	l.life.opened, l.life.closed, l.life.closeFailed = true, false, false
}

func (l *Ledger) hearSent(f *fields) {
	promised := f.word() == "s"
	p := f.place()
	id, err := mq.ParseID(f.word())
	number, size := f.hex(), int(f.number())
	if f.err == nil {
		f.err = err
	}
	if f.err != nil {
		return
	}
	delete(l.trying, number)
	promised = promised && !l.grey[number]
	l.Acknowledged++
	if l.ids[id] {
		l.problem("%v: id %v was given to two messages", p, id)
	}
	l.ids[id] = true
	m := l.message(p)
	if m.sent || m.known && (m.number != number || m.size != size) {
		l.problem("%v is message %x and was message %x", p, number, m.number)
	}
	*m = message{id: id, number: number, size: size, known: true, sent: true, promised: promised}
	l.unverified = append(l.unverified, p)
}

func (l *Ledger) hearSynced(n string) {
	m, ok := l.syncMarks[n]
	if !ok {
		if !l.cut {
			l.problem("sync %s ended and did not begin", n)
		}
		return
	}
	for _, p := range l.unverified[:min(m.sent, len(l.unverified))] {
		l.message(p).promised = true
	}
	for _, a := range l.volatile[:min(m.acks, len(l.volatile))] {
		l.progress(a.group, a.queue).at(a.offset, ackPromised)
	}
}

func (l *Ledger) hearDelivery(group string, p place, number uint64, size int, whole bool) {
	if !whole {
		l.Lost++
		l.problem("%s: %v was delivered with a body that nobody sent", group, p)
		return
	}
	m := l.message(p)
	if m.known && (m.number != number || m.size != size) {
		l.Lost++
		l.problem("%s: %v is message %x of %d bytes, and was %x of %d", group, p, number, size, m.number, m.size)
	}
	m.known, m.number, m.size = true, number, size
	g := l.progress(group, p.queue)
	switch had := g.get(p.offset); {
	case had&acked != 0 || p.offset < g.done:
		l.Again++
		l.problem("%s: %v was acknowledged and comes again", group, p)
	case had&mayRepeat != 0:
		l.Repeated++
	}
	g.at(p.offset, delivered)
}

func (l *Ledger) hearAck(group string, p place, promised bool) {
	l.Acks++
	m := acked
	if promised && !l.cut { // after a cut it may be one that was under way
		m |= ackPromised
	} else {
		l.volatile = append(l.volatile, volatileAck{group, p})
	}
	l.progress(group, p.queue).at(p.offset, m)
}

func (l *Ledger) hearDone(group string, p place) {
	g := l.progress(group, p.queue)
	if p.offset < g.done {
		l.Again++
		l.problem("%s: %v was acknowledged up to %d and is up to %d", group, p.queue, g.done, p.offset)
	}
	l.Acks += int64(max(0, p.offset-g.done))
	g.done = p.offset
}

func (l *Ledger) queue(q mq.Queue) *queueLog {
	log := l.queues[q]
	if log == nil {
		log = &queueLog{groups: map[string]*progress{}}
		l.queues[q] = log
	}
	return log
}

// message returns the entry of a place, which may be beyond those known.
func (l *Ledger) message(p place) *message {
	log := l.queue(p.queue)
	if missing := int(p.offset) + 1 - len(log.messages); missing > 0 {
		log.messages = append(log.messages, make([]message, missing)...)
	}
	return &log.messages[p.offset]
}

func (l *Ledger) progress(group string, q mq.Queue) *progress {
	l.groups[group] = true
	log := l.queue(q)
	g := log.groups[group]
	if g == nil {
		g = &progress{}
		log.groups[group] = g
	}
	return g
}

func (g *progress) get(off mq.Offset) mark {
	if int(off) < len(g.marks) {
		return g.marks[off]
	}
	return 0
}

func (g *progress) at(off mq.Offset, m mark) {
	if missing := int(off) + 1 - len(g.marks); missing > 0 {
		g.marks = append(g.marks, make([]mark, missing)...)
	}
	g.marks[off] |= m
}

// queueNames lists the queues in a fixed order.
func (l *Ledger) queueNames() []mq.Queue {
	names := make([]mq.Queue, 0, len(l.queues))
	for q := range l.queues {
		names = append(names, q)
	}
	slices.SortFunc(names, func(a, b mq.Queue) int { return strings.Compare(a.String(), b.String()) })
	return names
}

// fields reads the words of a line; the first mistake stays.
type fields struct {
	words []string
	err   error
}

func (f *fields) word() string {
	if len(f.words) == 0 {
		f.err = io.ErrUnexpectedEOF
		return ""
	}
	w := f.words[0]
	f.words = f.words[1:]
	return w
}

func (f *fields) parse(base int) uint64 {
	n, err := strconv.ParseUint(f.word(), base, 63)
	if err != nil && f.err == nil {
		f.err = err
	}
	return n
}

func (f *fields) number() uint64 { return f.parse(10) }
func (f *fields) hex() uint64    { return f.parse(16) }

// place checks what would make a ledger of any size of one bad line.
func (f *fields) place() place {
	p := place{queue: mq.Queue{Topic: f.word(), ID: mq.QueueID(f.number())}, offset: mq.Offset(f.number())} //nolint:gosec // 63 bits
	if p.offset > 1<<30 && f.err == nil {
		f.err = fmt.Errorf("offset %d", p.offset)
	}
	return p
}
