// Package history judges what a message queue did by what its clients saw.
//
// A test records one Op for everything that begins and ends: sends, deliveries,
// acknowledgements, resets, crashes. Check goes through them once and reports
// what cannot be, in the error classes of jepsen.tests.kafka, each with the
// operations that prove it. It knows nothing of how the queue works, and never
// looks inside.
//
// # The rules of a recording
//
// The order of the operations is the order in which they happened, as far as
// anybody can know it: what begins is recorded before the call and what ended
// after it. Recorder does that for any number of goroutines.
//
// Every message has an ID of its own, put into its body by the test, and a Hash
// of that body; a send that is tried again is another message. A topic that is
// deleted and made again is another topic and needs another name here.
//
//	send ─┬─ sent      acknowledged: it is at Queue and Offset, as durable as Durability says
//	      ├─ failed    it is not stored, and never will be
//	      └─ unknown   nobody can tell; so is a send without an end
//
//	ack ──┬─ acked     it holds, as durable as Durability says
//	      └─ unacked   nobody can tell; so is an ack without an end
//
// Beginning and end of a send share the ID; of everything else that has two, the
// Call.
package history

import "strconv"

// Kind is what an Op is.
type Kind string

// Sending.
const (
	OpSend    Kind = "send"    // ID, Topic, Hash, Durability: is about to be sent
	OpSent    Kind = "sent"    // ID, Queue, Offset: is acknowledged. Durability: Synced if it is more than was asked for
	OpFailed  Kind = "failed"  // ID: is not stored
	OpUnknown Kind = "unknown" // ID: may be stored
)

// Consuming.
const (
	OpPolling Kind = "polling" // Group, Member: begins to ask for messages. What it gets may have been acknowledged since
	OpPoll    Kind = "poll"    // Group, Member, Topic, Queue, Offset, ID, Hash: was delivered. Unordered: out of order on purpose
	OpAck     Kind = "ack"     // Call, Group, Topic, Queue, Offset, Durability: is about to be acknowledged; one Op per message, all with the Call
	OpAcked   Kind = "acked"   // Call: they are acknowledged
	OpUnacked Kind = "unacked" // Call: they may be
	OpDrained Kind = "drained" // Group, Topic: there is nothing more to be delivered, and nothing is being sent

	OpJoin  Kind = "join"  // Group, Member: queues are dealt out anew, and read again from what is not acknowledged
	OpLeave Kind = "leave" // the same
	OpSeek  Kind = "seek"  // the same, and some messages may be passed over

	OpReset      Kind = "reset"       // Call, Group, Topic: begins; what was sent so far may be passed over. No Topic: all topics of the group
	OpRewind     Kind = "rewind"      // the same, to the beginning: nothing may be passed over
	OpResetQueue Kind = "reset-queue" // the same for one Queue: what lies below Offset may be passed over
	OpResetDone  Kind = "reset-done"  // Call: has ended. Error: nobody knows whether it has moved anything
)

// The store.
const (
	OpSync     Kind = "sync"      // Call: everything so far is about to be made durable
	OpSyncDone Kind = "sync-done" // Call: it is
	OpScan     Kind = "scan"      // Call: all that is stored is about to be read
	OpRead     Kind = "read"      // Topic, Queue, Offset, ID, Hash: is stored; no ID: nothing is stored there
	OpScanDone Kind = "scan-done" // Call: that was all
	OpDropped  Kind = "dropped"   // Topic, Queue, Offset: what is below may be gone. Recorded before it can be
	OpDeleted  Kind = "deleted"   // Topic: it may be gone. Recorded before it can be
	OpDamaged  Kind = "damaged"   // ID: its bytes were changed: it may be gone, and never wrong. Group, Topic, Queue, Offset: those of an acknowledgement
	OpTorn     Kind = "torn"      // Topic, Queue, Offset: damage hides that this and what is behind was stored: it may be gone, as after a power cut
	OpKill     Kind = "kill"      // the process has ended, with everything under way
	OpCut      Kind = "cut"       // the power was cut
)

// Durability is what an acknowledged thing survives.
type Durability string

// From weak to strong. The empty one is Synced.
const (
	Volatile Durability = "volatile" // nothing: until the process ends, or the group is reset in any queue of the topic; acknowledgements only
	Written  Durability = "written"  // the end of the process
	Synced   Durability = "synced"   // a power cut
)

func (d Durability) weaker(than Durability) bool {
	return d == Volatile && than != Volatile || d == Written && than.SurvivesCut()
}

// SurvivesCut tells whether a power cut takes nothing of it.
func (d Durability) SurvivesCut() bool { return d == Synced || d == "" }

// Op is one line of a history. Which fields matter is said at its Kind.
type Op struct {
	Kind       Kind       `json:"op"`
	Client     string     `json:"client,omitempty"` // who it was, for people
	Call       int64      `json:"call,omitempty"`
	ID         string     `json:"id,omitempty"`
	Topic      string     `json:"topic,omitempty"`
	Queue      int        `json:"queue,omitempty"`
	Offset     int64      `json:"offset,omitempty"`
	Hash       uint64     `json:"hash,omitempty"`
	Durability Durability `json:"durability,omitempty"`
	Group      string     `json:"group,omitempty"`
	Member     string     `json:"member,omitempty"`
	Unordered  bool       `json:"unordered,omitempty"`
	Error      string     `json:"error,omitempty"`
}

// queue and slot are where messages are.
type queue struct {
	topic string
	id    int
}

type slot struct {
	queue
	offset int64
}

func (o *Op) queue() queue { return queue{o.Topic, o.Queue} }
func (o *Op) slot() slot   { return slot{o.queue(), o.Offset} }

func (s slot) String() string {
	return s.topic + ":" + strconv.Itoa(s.id) + "@" + strconv.FormatInt(s.offset, 10)
}
