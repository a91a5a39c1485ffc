// Package toy is a message queue of some slices, for tests of who judges
// histories.
package toy

import (
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/pocketmq/mq/internal/history"
)

// Run records what clients saw of a queue in so many steps. The queue is sound,
// unless a flaw is named: then it breaks that promise now and then, and broken
// tells whether it has.
func Run(seed uint64, steps int, flaw history.Class) (ops []history.Op, broken bool) {
	y := &toy{rnd: rand.New(rand.NewPCG(seed, 0)), flaw: flaw}
	return y.run(steps), y.broken
}

// toy is the queue, with its recorder.
type toy struct {
	history.Recorder
	rnd  *rand.Rand
	flaw history.Class

	log    []toyMessage // of all queues, in one order
	synced int
	acks   []toyAck // the same
	firm   int      // acks that are synced
	next   [2]int   // of the member, per queue
	sends  []string // under way
	number int
	call   int64
	broken bool // the flaw has shown
}

type toyMessage struct {
	id    string
	queue int
}

type toyAck struct{ queue, offset int }

func (y *toy) queue(q int) (ids []string) {
	for _, m := range y.log {
		if m.queue == q {
			ids = append(ids, m.id)
		}
	}
	return ids
}

// slips tells whether the flaw shows now.
func (y *toy) slips(c history.Class) bool {
	if y.flaw != c || y.rnd.IntN(3) > 0 {
		return false
	}
	y.broken = true
	return true
}

func (y *toy) begin(id string) {
	y.Add(history.Op{Kind: history.OpSend, ID: id, Topic: "T", Hash: 1, Durability: []history.Durability{history.Written, history.Synced}[len(id)%2]})
}

// finish ends the send of an id: it is stored or refused, and somebody is told,
// or not.
func (y *toy) finish(id string) {
	q := y.rnd.IntN(2)
	at := len(y.queue(q))
	switch y.rnd.IntN(8) {
	case 0:
		if y.slips(history.AbortedRead) {
			y.log = append(y.log, toyMessage{id, q})
		}
		y.Add(history.Op{Kind: history.OpFailed, ID: id})
		return
	case 1:
		if y.rnd.IntN(2) == 0 {
			y.log = append(y.log, toyMessage{id, q})
		}
		y.Add(history.Op{Kind: history.OpUnknown, ID: id})
		return
	}
	if !y.slips(history.LostWrite) {
		y.log = append(y.log, toyMessage{id, q})
	}
	if len(id)%2 == 1 {
		y.synced = len(y.log)
		y.firm = len(y.acks)
	}
	if y.slips(history.DuplicateOffset) {
		y.log = append(y.log, toyMessage{id, q})
	}
	if at > 0 && y.slips(history.InconsistentOffsets) {
		at--
	}
	y.Add(history.Op{Kind: history.OpSent, ID: id, Queue: q, Offset: int64(at)})
}

func (y *toy) poll() {
	q := y.rnd.IntN(2)
	y.Add(plain(history.OpPolling))
	ids := y.queue(q)
	if y.next[q] > 0 && y.next[q] < len(ids) && y.slips(history.NonMonotonicPoll) {
		y.next[q]--
	}
	for y.next[q] < len(ids) && slices.Contains(y.acks, toyAck{q, y.next[q]}) {
		y.next[q]++
	}
	if y.next[q] > 0 && y.next[q] < len(ids)-1 && y.slips(history.SkippedPoll) {
		y.next[q]++
	}
	if y.next[q] >= len(ids) {
		return
	}
	off := y.next[q]
	op := history.Op{Kind: history.OpPoll, Group: "G", Member: "a", Topic: "T", Queue: q, Offset: int64(off), ID: ids[off], Hash: 1}
	if y.slips(history.WrongBytes) {
		op.Hash = 2
	}
	y.Add(op)
	y.next[q]++
	if len(ids[off])%2 == 1 { // shown, so it is synced
		for i, m := range y.log {
			if m.id == ids[off] {
				y.synced = max(y.synced, i+1)
			}
		}
	}
	if y.rnd.IntN(2) == 0 {
		y.call++
		y.Add(history.Op{Kind: history.OpAck, Call: y.call, Group: "G", Topic: "T", Queue: q, Offset: int64(off), Durability: history.Written})
		if !y.slips(history.DeliveredAgain) {
			y.acks = append(y.acks, toyAck{q, off})
		}
		y.Add(history.Op{Kind: history.OpAcked, Call: y.call, Group: "G", Topic: "T"})
	}
}

// crash loses what a crash may lose.
func (y *toy) crash() {
	kind := []history.Kind{history.OpKill, history.OpCut}[y.rnd.IntN(2)]
	if kind == history.OpCut {
		y.log = y.log[:y.synced+y.rnd.IntN(len(y.log)-y.synced+1)]
		y.acks = y.acks[:y.firm+y.rnd.IntN(len(y.acks)-y.firm+1)]
		y.acks = slices.DeleteFunc(y.acks, func(a toyAck) bool { return a.offset >= len(y.queue(a.queue)) })
		y.firm = min(y.firm, len(y.acks))
	}
	y.sends, y.next = nil, [2]int{}
	y.Add(plain(kind))
	y.scan()
}

func (y *toy) scan() {
	y.call++
	y.Add(history.Op{Kind: history.OpScan, Call: y.call})
	for q := range 2 {
		for off, id := range y.queue(q) {
			y.Add(history.Op{Kind: history.OpRead, Topic: "T", Queue: q, Offset: int64(off), ID: id, Hash: 1})
		}
	}
	y.Add(history.Op{Kind: history.OpScanDone, Call: y.call})
}

func (y *toy) run(steps int) []history.Op {
	for range steps {
		switch y.rnd.IntN(16) {
		case 0, 1, 2, 3, 4:
			if len(y.sends) < 3 {
				y.number++
				id := strconv.Itoa(y.number)
				y.sends = append(y.sends, id)
				y.begin(id)
			}
		case 5, 6, 7, 8:
			if n := len(y.sends); n > 0 {
				i := y.rnd.IntN(n)
				id := y.sends[i]
				y.sends = slices.Delete(y.sends, i, i+1)
				y.finish(id)
			}
		case 9:
			y.next = [2]int{}
			y.Add(plain(history.OpJoin))
		case 10:
			y.call++
			y.Add(history.Op{Kind: history.OpSync, Call: y.call, Group: "G", Topic: "T"})
			y.synced, y.firm = len(y.log), len(y.acks)
			y.Add(history.Op{Kind: history.OpSyncDone, Call: y.call, Group: "G", Topic: "T"})
		case 11:
			if y.rnd.IntN(6) == 0 {
				y.crash()
			}
		default:
			y.poll()
		}
	}
	y.next = [2]int{}
	y.Add(plain(history.OpJoin))
	for range 8 * (len(y.log) + 1) {
		y.poll()
	}
	y.scan()
	y.Add(plain(history.OpDrained))
	return y.History()
}

func plain(kind history.Kind) history.Op {
	return history.Op{Kind: kind, Group: "G", Member: "a", Topic: "T"}
}
