package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Class is a kind of error. The names are those of jepsen.tests.kafka where it
// has one.
type Class string

const (
	// LostWrite: an acknowledged message is not there, although it must have
	// survived what happened since; or a group got what lies behind it, and
	// never it.
	LostWrite Class = "lost write"

	// Unseen: a group that has drained a topic never got an acknowledged message
	// at the end of a queue.
	Unseen Class = "unseen"

	// DuplicateOffset: one message was seen at two places.
	DuplicateOffset Class = "duplicate offset"

	// InconsistentOffsets: two messages were seen at one place, and no crash can
	// have taken the first away. Or a message is back that had gone.
	InconsistentOffsets Class = "inconsistent offsets"

	// AbortedRead: what was delivered had been refused, or was never sent.
	AbortedRead Class = "aborted read"

	// WrongBytes: what was delivered is not what was sent.
	WrongBytes Class = "wrong bytes"

	// NonMonotonicPoll: a member got something from before what it got last, and
	// its queues had not been dealt out anew.
	NonMonotonicPoll Class = "non-monotonic poll"

	// SkippedPoll: a member was led past a message that it had not acknowledged.
	SkippedPoll Class = "skipped poll"

	// NonMonotonicSend: a message lies before one that had been acknowledged
	// when its sending began.
	NonMonotonicSend Class = "non-monotonic send"

	// DeliveredAgain: a group got what it had acknowledged, although the
	// acknowledgement must have survived what happened since.
	DeliveredAgain Class = "delivered again"

	// Malformed: the recording breaks its own rules; nothing else can be relied
	// on.
	Malformed Class = "malformed history"
)

// Classes lists all of them.
var Classes = []Class{
	LostWrite, Unseen, DuplicateOffset, InconsistentOffsets, AbortedRead, WrongBytes,
	NonMonotonicPoll, SkippedPoll, NonMonotonicSend, DeliveredAgain, Malformed,
}

// Anomaly is one thing that cannot be.
type Anomaly struct {
	Class Class
	What  string
	Ops   []int // the operations that prove it: indexes into the history, ascending
}

// maxAnomalies of one class are kept; all are counted.
const maxAnomalies = 20

// Report is what Check found.
type Report struct {
	Anomalies []Anomaly     // of each class the first 20
	Counts    map[Class]int // what is not there did not occur

	Sent, Acknowledged, Unknown int // messages: begun, acknowledged, with an end that nobody knows
	Delivered, Acks             int // deliveries, acknowledgements of single messages
	Kills, Cuts                 int

	// What crashes may do.
	Gone     int // acknowledged messages that a power cut took before they were synced
	Repeated int // deliveries of messages whose acknowledgement a crash took

	ops ops
}

// Err returns nil if nothing was found, and an error that tells all otherwise.
func (r *Report) Err() error {
	if len(r.Counts) == 0 {
		return nil
	}
	return errors.New("history: " + r.String())
}

// String is a summary, and the anomalies with their operations.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d operations, %d sent, %d acknowledged, %d unknown, %d delivered, %d acks, %d kills, %d power cuts",
		r.ops.len(), r.Sent, r.Acknowledged, r.Unknown, r.Delivered, r.Acks, r.Kills, r.Cuts)
	for _, class := range slices.Sorted(maps.Keys(r.Counts)) {
		fmt.Fprintf(&b, "; %s: %d", class, r.Counts[class])
	}
	for _, a := range r.Anomalies {
		b.WriteString("\n" + r.Proof(a))
	}
	return b.String()
}

// Operations counts what was judged.
func (r *Report) Operations() int { return r.ops.len() }

// Errors counts the anomalies of all classes.
func (r *Report) Errors() (n int) {
	for _, count := range r.Counts {
		n += count
	}
	return n
}

// Proof describes an anomaly of the report, with its operations.
func (r *Report) Proof(a Anomaly) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", a.Class, a.What)
	for _, i := range a.Ops {
		line, err := json.Marshal(r.ops.at(i))
		if err != nil {
			line = []byte(err.Error())
		}
		fmt.Fprintf(&b, "\n  %8d %s", i, line)
	}
	return b.String()
}

// add notes an anomaly. Operations that are not known are negative.
func (r *Report) add(class Class, ops []int, format string, args ...any) {
	if r.Counts[class]++; r.Counts[class] > maxAnomalies {
		return
	}
	ops = slices.DeleteFunc(ops, func(i int) bool { return i < 0 })
	slices.Sort(ops)
	r.Anomalies = append(r.Anomalies, Anomaly{Class: class, What: fmt.Sprintf(format, args...), Ops: slices.Compact(ops)})
}
