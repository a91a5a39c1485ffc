package history_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/verify/history"
)

// toy is a message queue of some slices, whose clients and crashes are recorded.
// Sound as it is; a flaw makes it break one promise now and then.
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
	y.Add(history.Op{Kind: history.OpSend, ID: id, Topic: "T", Hash: 1, Durability: []history.Durability{written, synced}[len(id)%2]})
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
		y.Add(ended(history.OpFailed, id))
		return
	case 1:
		if y.rnd.IntN(2) == 0 {
			y.log = append(y.log, toyMessage{id, q})
		}
		y.Add(ended(history.OpUnknown, id))
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
		y.Add(history.Op{Kind: history.OpAck, Call: y.call, Group: "G", Topic: "T", Queue: q, Offset: int64(off), Durability: written})
		if !y.slips(history.DeliveredAgain) {
			y.acks = append(y.acks, toyAck{q, off})
		}
		y.Add(calls(history.OpAcked, y.call))
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
			y.Add(calls(history.OpSync, y.call))
			y.synced, y.firm = len(y.log), len(y.acks)
			y.Add(calls(history.OpSyncDone, y.call))
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

func TestRandomSound(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		y := &toy{rnd: rand.New(rand.NewPCG(seed, 0))}
		ops := y.run(40)
		require.NoError(t, history.Check(ops).Err(), "seed %d", seed)
		for q := range 2 {
			ok, err := history.Linearizable(ops, "T", q, time.Minute)
			require.NoError(t, err, "seed %d", seed)
			require.True(t, ok, "seed %d, queue %d", seed, q)
		}
	}
}

// TestRandomFlaws: a flaw that has shown is found, by its name.
func TestRandomFlaws(t *testing.T) {
	t.Parallel()
	for _, class := range []history.Class{
		history.LostWrite, history.DuplicateOffset, history.InconsistentOffsets, history.AbortedRead, history.WrongBytes,
		history.NonMonotonicPoll, history.SkippedPoll, history.DeliveredAgain,
	} {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			shown, found := 0, 0
			for seed := range uint64(100) {
				y := &toy{rnd: rand.New(rand.NewPCG(seed, 1)), flaw: class}
				r := history.Check(y.run(60))
				if y.broken {
					shown++
				}
				if r.Counts[class] > 0 {
					found++
				}
			}
			t.Logf("found in %d of %d histories with it", found, shown)
			require.GreaterOrEqual(t, shown, 20)
			require.GreaterOrEqual(t, found, shown/2)
		})
	}
}

// A million operations take seconds.
func BenchmarkCheck(b *testing.B) {
	y := &toy{rnd: rand.New(rand.NewPCG(1, 2))}
	for i := range 200_000 {
		id := strconv.Itoa(i)
		off := int64(i)
		y.Add(send(id, synced), sent(id, off), poll(id, off), ack(int64(i), off, synced), calls(history.OpAcked, int64(i)))
	}
	y.Add(plain(history.OpDrained))
	for b.Loop() {
		require.NoError(b, history.Check(y.History()).Err())
	}
	b.ReportMetric(float64(len(y.History()))*float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}
