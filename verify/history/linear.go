package history

import (
	"fmt"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Linearizable tells whether one queue of a history can be explained by a list
// to which one thing happens at a time: a send appends, a delivery or a read
// shows what is at an offset, a sync makes the list durable, a power cut takes
// away some of the end that is not. A send without a known end may have happened
// at any time up to the next crash, or not at all.
//
// It is a second opinion on Check, by github.com/anishathalye/porcupine, and
// stricter: offsets must be dense from 0. The search can take exponential time,
// so it is for some hundred operations; if it takes longer than limit, the
// answer is an error. Retention, deletions and partitions are beyond it.
func Linearizable(ops []Op, topic string, id int, limit time.Duration) (bool, error) {
	calls := linearCalls(ops, queue{topic, id})
	switch porcupine.CheckOperationsTimeout(linearModel.ToModel(), calls, limit) {
	case porcupine.Ok:
		return true, nil
	case porcupine.Illegal:
		return false, nil
	default:
		return false, fmt.Errorf("history: %d operations on %s:%d: not decided in %v", len(calls), topic, id, limit)
	}
}

// What happens to the list.
type linearInput struct {
	kind   Kind // OpSend, OpRead, OpSyncDone or OpCut
	id     string
	offset int64 // where it is; -1: nobody knows
	synced bool  // by itself
}

// linearState is the list: its ids, one after another with a line feed behind
// each, so that states can be compared.
type linearState struct {
	ids    string
	synced int // bytes of ids that survive a power cut
}

func (s linearState) at(offset int64) (id string, ok bool) {
	rest := s.ids
	for ; offset > 0; offset-- {
		var found bool
		if _, rest, found = strings.Cut(rest, "\n"); !found {
			return "", false
		}
	}
	id, _, ok = strings.Cut(rest, "\n")
	return id, ok
}

func (s linearState) len() int64 { return int64(strings.Count(s.ids, "\n")) }

var linearModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{linearState{}} },
	Step: func(from, input, _ any) []any {
		s, in := from.(linearState), input.(linearInput)
		switch in.kind {
		case OpSend:
			return s.send(in)
		case OpRead:
			if id, ok := s.at(in.offset); id != in.id || ok != (in.id != "") {
				return nil
			}
			return []any{s}
		case OpSyncDone:
			s.synced = len(s.ids)
			return []any{s}
		default:
			return s.cut()
		}
	},
	DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%+v", input) },
}

func (s linearState) send(in linearInput) []any {
	next := linearState{s.ids + in.id + "\n", s.synced}
	if in.synced {
		next.synced = len(next.ids)
	}
	switch {
	case in.offset < 0: // perhaps
		return []any{s, next}
	case in.offset != s.len():
		return nil
	}
	return []any{next}
}

// cut returns all lists that a power cut may leave.
func (s linearState) cut() []any {
	var all []any
	for n := s.synced; n <= len(s.ids); n++ {
		if n == 0 || s.ids[n-1] == '\n' {
			all = append(all, linearState{s.ids[:n], n})
		}
	}
	return all
}

// linearCalls brings the operations on one queue into porcupine's form. Those
// under way at a crash end with it.
func linearCalls(ops []Op, q queue) []porcupine.Operation {
	var calls []porcupine.Operation
	type send struct {
		call int
		op   *Op
	}
	open := map[string]send{}
	since := map[[2]string]int{} // group and member: when it began to poll
	syncs := map[int64]int{}
	life := 0
	add := func(in linearInput, from, to int) {
		calls = append(calls, porcupine.Operation{ClientId: len(calls), Input: in, Call: int64(from), Return: int64(to)})
	}
	lost := func(end int) {
		for id, s := range open {
			add(linearInput{kind: OpSend, id: id, offset: -1}, s.call, end)
		}
		clear(open)
	}
	for i := range ops {
		o := &ops[i]
		switch o.Kind {
		case OpSend:
			if o.Topic == q.topic {
				open[o.ID] = send{i, o}
			}
		case OpSent:
			if s, ok := open[o.ID]; ok {
				delete(open, o.ID)
				if o.Queue == q.id {
					synced := s.op.Durability.survivesCut() || o.Durability == Synced
					add(linearInput{OpSend, o.ID, o.Offset, synced}, s.call, i)
				}
			}
		case OpFailed:
			delete(open, o.ID)
		case OpPolling:
			since[[2]string{o.Group, o.Member}] = i
		case OpPoll, OpRead:
			if o.queue() == q {
				add(linearInput{kind: OpRead, id: o.ID, offset: o.Offset}, max(life, since[[2]string{o.Group, o.Member}]), i)
			}
		case OpSync:
			syncs[o.Call] = i
		case OpSyncDone:
			if from, ok := syncs[o.Call]; ok {
				add(linearInput{kind: OpSyncDone}, from, i)
			}
		case OpKill, OpCut:
			lost(i)
			clear(syncs)
			life = i + 1
			if o.Kind == OpCut {
				add(linearInput{kind: OpCut}, i, i)
			}
		}
	}
	lost(len(ops))
	return calls
}
