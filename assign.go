package mq

import (
	"cmp"
	"slices"
)

// Strategy deals the queues of one topic out among members. Both are sorted;
// the result says which member gets which queues. A queue that is in nobody's
// list is not consumed; of two members that claim one, the first by name has
// it. It is called whenever a member joins or leaves, under locks of the
// broker, so it must not call it. The group uses the Strategy of the member
// that joined first. It need not know of messages that come again: queues of a
// ParkedTopic that it gives to nobody go where the queues go that they belong to,
// and a RetryTopic has a member in any case.
type Strategy func(members []string, queues []Queue) map[string][]Queue

// Averagely gives each member a run of neighbouring queues, the first members
// one more where it does not come out even (RocketMQ's default,
// AllocateMessageQueueAveragely). Two members over four queues get {0,1} and
// {2,3}.
func Averagely(members []string, queues []Queue) map[string][]Queue {
	dealt := make(map[string][]Queue, len(members))
	n, count := len(queues), len(members)
	rest := n % max(count, 1)
	for i, member := range members {
		size, start := n/count, i*(n/count)+rest
		if i < rest {
			size++
			start = i * size
		}
		dealt[member] = slices.Clip(queues[start : start+size]) // who appends to it leaves the next one's alone
	}
	return dealt
}

// ByCircle deals the queues like cards (RocketMQ's
// AllocateMessageQueueAveragelyByCircle). Two members over four queues get
// {0,2} and {1,3}.
func ByCircle(members []string, queues []Queue) map[string][]Queue {
	dealt := make(map[string][]Queue, len(members))
	if len(members) == 0 {
		return dealt
	}
	for i, q := range queues {
		member := members[i%len(members)]
		dealt[member] = append(dealt[member], q)
	}
	return dealt
}

// Manual gives each member the queues listed for its Instance name (RocketMQ's
// AllocateMessageQueueByConfig). The lists are copied.
func Manual(lists map[string][]Queue) Strategy {
	own := make(map[string][]Queue, len(lists))
	for member, queues := range lists {
		own[member] = slices.Clone(queues)
	}
	return func([]string, []Queue) map[string][]Queue { return own }
}

func compareQueues(a, b Queue) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.ID, b.ID))
}
