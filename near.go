package mq

import (
	"math"
	"slices"
	"sort"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// near is what of the timer index is in memory: the delayed messages that are
// due first, in the order in which they are delivered.
//
//	mark | flight | loaded and fresh … horizon | in the index alone …
//
// Everything above the mark and not above the horizon is here; what lies behind
// the horizon is read when it is near. It is guarded by the append lock.
type near struct {
	flight []record.Due // taken out to be delivered; below all others
	loaded []record.Due // from the index, ascending
	fresh  nearHeap     // appended since

	// settled are those of the above that are not to be delivered.
	settled map[coord.Position]record.Due

	horizon record.Due
	floor   int64 // nothing may come before what was taken out: times given out now are not below
	wakeAt  int64 // who delivers sleeps until then: told if something is due before
}

// maxNear is how many due times are loaded at once, and how many appended ones
// are kept besides: 1 MiB each, and a load takes some 20 ms.
const maxNear = 1 << 16

// endOfTime is behind everything.
var endOfTime = record.Due{At: math.MaxInt64, Position: math.MaxInt64}

// begin makes it empty, with everything above the mark in the index.
func (n *near) begin(mark record.Due) {
	*n = near{horizon: mark, floor: mark.At, settled: map[coord.Position]record.Due{}}
}

// add notes an appended message. It is true if who delivers must be woken.
func (n *near) add(d record.Due) (wake bool) {
	if d.Compare(n.horizon) > 0 {
		return false
	}
	n.fresh.push(d)
	if len(n.fresh) > maxNear {
		n.shrink()
	}
	if d.At >= n.wakeAt {
		return false
	}
	n.wakeAt = 0 // once is enough
	return true
}

// shrink brings the horizon nearer: what lies behind it is in the index, too.
func (n *near) shrink() {
	sort.Slice(n.fresh, func(i, j int) bool { return n.fresh[i].Compare(n.fresh[j]) < 0 })
	n.cut(n.fresh[maxNear/2])
}

// cut moves the horizon to d, unless it is nearer, and leaves nothing behind it:
// what is there will be read from the index, once.
func (n *near) cut(d record.Due) {
	if d.Compare(n.horizon) > 0 {
		d = n.horizon // it came nearer while what lies behind it was read
	}
	n.horizon = d
	n.fresh = slices.DeleteFunc(n.fresh, func(f record.Due) bool { return f.Compare(d) > 0 })
	n.fresh.init()
	end, _ := slices.BinarySearchFunc(n.loaded, record.Due{At: d.At, Position: d.Position + 1}, record.Due.Compare)
	n.loaded = n.loaded[:end]
	for pos, s := range n.settled {
		if s.Compare(d) > 0 {
			delete(n.settled, pos)
		}
	}
}

// settle notes that a message is not to be delivered.
func (n *near) settle(d record.Due) {
	if d.Compare(n.horizon) <= 0 {
		n.settled[d.Position] = d
	}
}

// isSettled forgets the note, for one that is taken out for good.
func (n *near) isSettled(d record.Due) bool {
	_, ok := n.settled[d.Position]
	delete(n.settled, d.Position)
	return ok
}

// loading opens the horizon while what lies behind it is read: nothing of what
// is appended meanwhile may be missed. It returns where to read from.
func (n *near) loading() (from record.Due) {
	from = n.horizon
	n.horizon = endOfTime
	return from
}

// take adds what was read, which is everything up to end.
func (n *near) take(due []record.Due, end record.Due) {
	n.loaded = append(slices.Clip(n.loaded), due...)
	n.cut(end)
}

// first returns what is due first, behind the flight.
func (n *near) first() (d record.Due, ok bool) {
	switch {
	case len(n.loaded) == 0 && len(n.fresh) == 0:
		return d, false
	case len(n.fresh) == 0 || len(n.loaded) > 0 && n.loaded[0].Compare(n.fresh[0]) < 0:
		return n.loaded[0], true
	}
	return n.fresh[0], true
}

func (n *near) pop() {
	if len(n.fresh) == 0 || len(n.loaded) > 0 && n.loaded[0].Compare(n.fresh[0]) < 0 {
		n.loaded = n.loaded[1:]
		return
	}
	n.fresh.pop()
}

// len counts what is near, apart from the flight.
func (n *near) len() int { return len(n.loaded) + len(n.fresh) }

// launch takes out what is due by now, behind what was taken out before and is
// still to be delivered. Then floor is such that nothing can come before it.
func (n *near) launch(now int64, most int) {
	for len(n.flight) < most {
		d, ok := n.first()
		if !ok || d.At > now {
			break
		}
		n.pop()
		n.floor = max(n.floor, d.At)
		if !n.isSettled(d) {
			n.flight = append(n.flight, d)
		}
	}
}

// landed drops the first of the flight: they are done.
func (n *near) landed(count int) {
	for _, d := range n.flight[:count] {
		delete(n.settled, d.Position)
	}
	n.flight = n.flight[count:]
}

// nearHeap has the earliest first.
type nearHeap []record.Due

func (h *nearHeap) push(d record.Due) {
	s := append(*h, d)
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 2
		if s[up].Compare(d) <= 0 {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = d
	*h = s
}

func (h *nearHeap) pop() {
	s := *h
	last := len(s) - 1
	s[0] = s[last]
	*h = s[:last]
	h.sink(0)
}

func (h nearHeap) init() {
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.sink(i)
	}
}

func (h nearHeap) sink(i int) {
	for {
		least := 2*i + 1
		if least >= len(h) {
			return
		}
		if right := least + 1; right < len(h) && h[right].Compare(h[least]) < 0 {
			least = right
		}
		if h[least].Compare(h[i]) >= 0 {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}
