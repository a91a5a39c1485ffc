// Package linear is a second opinion on histories, by
// github.com/anishathalye/porcupine.
package linear

import (
	"fmt"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/pocketmq/mq/internal/history"
)

// Check tells whether one queue of a history can be explained by a list to which
// one thing happens at a time: a send appends, a delivery or a read
// shows what is at an offset, a sync makes the list durable, a power cut takes
// away some of the end that is not. A send without a known end may have happened
// at any time up to the next crash, or not at all.
//
// It is stricter than history.Check: offsets must be dense from 0. The search
// can take exponential time, so it is for some hundred operations; if it takes
// longer than limit, the answer is an error. Retention, deletions and partitions
// are beyond it.
func Check(ops []history.Op, topic string, queue int, limit time.Duration) (bool, error) {
	calls := callsOn(ops, topic, queue)
	switch porcupine.CheckOperationsTimeout(model.ToModel(), calls, limit) {
	case porcupine.Ok:
		return true, nil
	case porcupine.Illegal:
		return false, nil
	default:
		return false, fmt.Errorf("linear: %d operations on %s:%d: not decided in %v", len(calls), topic, queue, limit)
	}
}

// input is what happens to the list.
type input struct {
	kind   history.Kind // OpSend, OpRead, OpSyncDone or OpCut
	id     string
	offset int64 // where it is; -1: nobody knows
	synced bool  // by itself
}

// list is the queue: its ids, one after another with a line feed behind each, so
// that states can be compared.
type list struct {
	ids    string
	synced int // bytes of ids that survive a power cut
}

func (s list) at(offset int64) (id string, ok bool) {
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

func (s list) len() int64 { return int64(strings.Count(s.ids, "\n")) }

var model = porcupine.NondeterministicModel{
	Init: func() []any { return []any{list{}} },
	Step: func(from, what, _ any) []any {
		s, in := from.(list), what.(input)
		switch in.kind {
		case history.OpSend:
			return s.send(in)
		case history.OpRead:
			if id, ok := s.at(in.offset); id != in.id || ok != (in.id != "") {
				return nil
			}
			return []any{s}
		case history.OpSyncDone:
			s.synced = len(s.ids)
			return []any{s}
		default:
			return s.cut()
		}
	},
	DescribeOperation: func(what, _ any) string { return fmt.Sprintf("%+v", what) },
}

func (s list) send(in input) []any {
	next := list{s.ids + in.id + "\n", s.synced}
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
func (s list) cut() []any {
	var all []any
	for n := s.synced; n <= len(s.ids); n++ {
		if n == 0 || s.ids[n-1] == '\n' {
			all = append(all, list{s.ids[:n], n})
		}
	}
	return all
}

// callsOn brings the operations on one queue into porcupine's form. Those under
// way at a crash end with it.
func callsOn(ops []history.Op, topic string, queue int) []porcupine.Operation {
	var calls []porcupine.Operation
	type send struct {
		call int
		op   *history.Op
	}
	open := map[string]send{}
	since := map[[2]string]int{} // group and member: when it began to poll
	syncs := map[int64]int{}
	life := 0
	add := func(in input, from, to int) {
		calls = append(calls, porcupine.Operation{ClientId: len(calls), Input: in, Call: int64(from), Return: int64(to)})
	}
	lost := func(end int) {
		for id, s := range open {
			add(input{kind: history.OpSend, id: id, offset: -1}, s.call, end)
		}
		clear(open)
	}
	for i := range ops {
		o := &ops[i]
		switch o.Kind {
		case history.OpSend:
			if o.Topic == topic {
				open[o.ID] = send{i, o}
			}
		case history.OpSent:
			if s, ok := open[o.ID]; ok {
				delete(open, o.ID)
				if o.Queue == queue {
					synced := s.op.Durability.SurvivesCut() || o.Durability == history.Synced
					add(input{history.OpSend, o.ID, o.Offset, synced}, s.call, i)
				}
			}
		case history.OpFailed:
			delete(open, o.ID)
		case history.OpPolling:
			since[[2]string{o.Group, o.Member}] = i
		case history.OpPoll, history.OpRead:
			if o.Topic == topic && o.Queue == queue {
				add(input{kind: history.OpRead, id: o.ID, offset: o.Offset}, max(life, since[[2]string{o.Group, o.Member}]), i)
			}
		case history.OpSync:
			syncs[o.Call] = i
		case history.OpSyncDone:
			if from, ok := syncs[o.Call]; ok {
				add(input{kind: history.OpSyncDone}, from, i)
			}
		case history.OpKill, history.OpCut:
			lost(i)
			clear(syncs)
			life = i + 1
			if o.Kind == history.OpCut {
				add(input{kind: history.OpCut}, i, i)
			}
		}
	}
	lost(len(ops))
	return calls
}
