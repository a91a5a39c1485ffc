package commitlog

import "sync"

// waiter is somebody who waits for room or for a sync.
type waiter struct {
	pos     Position // what must be synced
	follows bool     // must not be made leader

	// Set by whoever takes the waiter out of its list, before ready is sent to.
	leads bool
	err   error
	ready chan struct{} // one slot: the sender never blocks

	prev, next *waiter
	queued     bool
}

// waiterPool keeps waiters for reuse, so that waiting does not allocate. Each
// log has its own: in tests a channel must not leave its synctest bubble.
type waiterPool struct{ pool sync.Pool }

func (p *waiterPool) get() *waiter {
	if w, ok := p.pool.Get().(*waiter); ok {
		return w
	}
	return &waiter{ready: make(chan struct{}, 1)}
}

// put takes back a waiter that is in no list and whom nobody will signal.
func (p *waiterPool) put(w *waiter) {
	select {
	case <-w.ready: // a wake-up that came too late
	default:
	}
	*w = waiter{ready: w.ready}
	p.pool.Put(w)
}

// waitList is a queue of waiters; the lock that protects it is its owner's.
type waitList struct {
	head, tail *waiter
}

func (q *waitList) pushBack(w *waiter) {
	w.queued, w.prev, w.next = true, q.tail, nil
	if q.tail == nil {
		q.head = w
	} else {
		q.tail.next = w
	}
	q.tail = w
}

func (q *waitList) pushFront(w *waiter) {
	w.queued, w.prev, w.next = true, nil, q.head
	if q.head == nil {
		q.tail = w
	} else {
		q.head.prev = w
	}
	q.head = w
}

func (q *waitList) remove(w *waiter) {
	if w.prev == nil {
		q.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.queued, w.prev, w.next = false, nil, nil
}
