package workload

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/internal/history"
	"github.com/pocketmq/mq/verify/linear"
)

// Ledger is what the world was told about one store, over all lives of the
// workload: a history, which package history judges while it is heard (hear.go).
// Check and Finish ask the store, and add what it says (check.go). Beside the
// history it knows what that has no words for: whether the store opens and how,
// that topics are there, that ids are given once.
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

	judge    *history.Checker
	reported int   // anomalies that are among the problems
	lost     int64 // what the history does not know of
	again    int64

	groups map[string]bool
	topics map[string]bool          // whose creation was promised
	given  map[mq.MessageID]bool    // ids
	ids    map[uint64]mq.MessageID  // of acknowledged messages, by number
	sent   []told                   // since the last check
	names  map[uint64]string        // of messages in the history
	done   map[groupQueue]mq.Offset // up to where a push group was acknowledged, as far as it was told
	firm   map[groupQueue]mq.Offset // the same, and safe from a power cut
	calls  map[string]*call         // under way, of this life
	call   int64                    // the last one
	life   life                     // that runs or ran last
	keep   *strings.Builder         // everything said, if somebody wants it
	trying map[uint64]bool          // sends that began and have not ended
	grey   map[uint64]bool          // those at the moment of a power cut
	cut    bool                     // and it has been cut

	listenMu  sync.Mutex // protects the listeners
	listeners map[string]chan struct{}
}

// told is an acknowledged message that nobody has looked up yet.
type told struct {
	number uint64
	id     mq.MessageID
	place
}

type groupQueue struct {
	group string
	queue mq.Queue
}

// call is a sync or a commit.
type call struct {
	number int64
	acks   int64                    // of a commit
	done   map[groupQueue]mq.Offset // what a sync makes firm
}

// life is what the ledger knows of the process that runs or ran last.
type life struct {
	Config
	Life
	running        bool // as far as the history knows
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

// NewLedger returns the ledger of a store that is not there yet.
func NewLedger() *Ledger {
	return &Ledger{
		judge:  history.NewChecker(),
		groups: map[string]bool{}, topics: map[string]bool{},
		given: map[mq.MessageID]bool{}, ids: map[uint64]mq.MessageID{}, names: map[uint64]string{},
		done: map[groupQueue]mq.Offset{}, firm: map[groupQueue]mq.Offset{}, calls: map[string]*call{},
		trying: map[uint64]bool{}, grey: map[uint64]bool{},
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

// tally brings the verdict on the history into the ledger's own words.
func (l *Ledger) tally() {
	r := l.judge.Report()
	for _, a := range r.Anomalies[l.reported:] {
		l.problem("%s", r.Proof(a))
	}
	l.reported = len(r.Anomalies)
	l.Lost, l.Again = l.lost, l.again+int64(r.Counts[history.DeliveredAgain])
	for _, class := range []history.Class{history.LostWrite, history.Unseen, history.WrongBytes, history.InconsistentOffsets} {
		l.Lost += int64(r.Counts[class])
	}
	l.Gone, l.Repeated = int64(r.Gone), int64(r.Repeated)
}

// History returns everything told so far. The caller must not change it.
func (l *Ledger) History() []history.Op { return l.judge.History() }

// Judged counts the operations of the history, and the errors found in it.
func (l *Ledger) Judged() (operations, errors int64) {
	r := l.judge.Report()
	return int64(r.Operations()), int64(r.Errors())
}

// LinearLimit is enough for Linearize where a queue is as small as it should be.
const LinearLimit = 2 * time.Second

// Linearize asks for a second opinion on up to most small queues: whether their
// history can be explained by a list to which one thing happens at a time. It
// returns how many can; a queue that takes longer than limit is not counted.
func (l *Ledger) Linearize(most int, limit time.Duration) (sound int) {
	ops := l.History()
	for _, topic := range history.Topics(ops) {
		if !strings.HasPrefix(topic, lateTopic) {
			continue // large, or of other tools
		}
		if most--; most < 0 {
			break
		}
		for q := range queues {
			ok, err := linear.Check(ops, topic, q, limit)
			switch {
			case err != nil: // not decided
			case !ok:
				l.problem("no list explains what was seen of %s:%d", topic, q)
			default:
				sound++
			}
		}
	}
	return sound
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

// begin is called when a process starts.
func (l *Ledger) begin(c Config) {
	l.ended(Killed)
	l.life = life{
		Config: c, running: true, opened: l.life.opened && !l.life.closed, closeFailed: l.life.closeFailed,
		Life: Life{Failed: map[string]int{}},
	}
}

// ended notes the end of a process, in whatever way.
func (l *Ledger) ended(fault Fault) {
	kind := history.OpKill
	if fault == PowerCut {
		kind = history.OpCut
	} else if !l.life.running {
		return
	}
	l.judge.Add(history.Op{Kind: kind})
	l.life.running = false
	clear(l.calls)
	clear(l.trying)
	clear(l.grey)
	l.cut = false
}

// cutMark is what Process.Cutting puts between what was said before a power cut
// and what is said after it. It may stand in the middle of a line.
const cutMark = "\x00cut\n"

// hearCut: what was said until now was said with the power on. Calls that are in
// the middle of their sync have no promise when they return: a file system that
// is shut down inside an fdatasync may let that return without an error and
// without the data (ext4 drops the conversion of unwritten extents silently
// then), which no computer without power could tell anybody. Nobody knows how
// they ended. Calls that begin later are judged like any other: their syncs have
// to fail.
func (l *Ledger) hearCut() {
	for number := range l.trying {
		l.grey[number] = true
	}
	clear(l.calls)
	l.cut = true
}

// hearAll reads a log to its end. A line that is not whole was not said.
func (l *Ledger) hearAll(log io.Reader, opened func()) error {
	defer l.tally()
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
