package mq

import (
	"math"

	"github.com/pocketmq/mq/internal/coord"
)

// forgetStep is how much the log grows until it is worth asking who needs what
// lies behind.
const forgetStep = 16 * mib

// forgetConsumed lets the system have the memory that caches messages which
// everybody has consumed. Who reads them again, a new group, a reset or a query,
// reads them from the disk. It is the upkeep's.
func (b *Broker) forgetConsumed() {
	synced := b.log.Synced()
	if synced < b.upkeep.forgetAt {
		return
	}
	b.upkeep.forgetAt = synced + forgetStep
	if to, ok := b.consumedTo(); ok {
		b.log.Forget(to)
	}
}

// consumedTo returns the position below which no group that has members has
// anything to consume; false: there is no such group, so nobody has consumed
// anything.
func (b *Broker) consumedTo() (to coord.Position, ok bool) {
	b.members.Lock()
	defer b.members.Unlock()
	to = math.MaxInt64
	for _, g := range b.names.groupsNamed("") {
		if len(g.members) > 0 {
			to, ok = min(to, b.firstUnconsumed(g)), true
		}
	}
	return to, ok
}

// firstUnconsumed returns where the first message lies that the group has yet to
// consume; beyond all positions if there is none, and before all others if that
// cannot be told: whoever asks is about to let go of what lies before.
func (b *Broker) firstUnconsumed(g *group) coord.Position {
	type wanted struct {
		queue *queue
		next  Offset
	}
	var wants []wanted
	b.log.Exclusive(func() {
		for id, sub := range g.subs {
			t := b.state.topics[id]
			if t == nil {
				continue
			}
			for _, q := range *t.queues.Load() {
				if next := sub.progress(q.id).committed; next < q.entries.End() {
					wants = append(wants, wanted{q, next})
				}
			}
		}
	})
	first := coord.Position(math.MaxInt64)
	for _, w := range wants {
		at, ok, err := positionOf(w.queue, w.next)
		if err != nil {
			return 0
		}
		if ok {
			first = min(first, at)
		}
	}
	return first
}
