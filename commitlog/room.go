package commitlog

import "context"

// want is what senders without room ask of the preparer.
type want struct {
	need     int64 // bytes of the largest frame, 0: nothing
	reserved bool  // even if Options.Allow says no
}

// refusal is why the preparer could not make room.
type refusal struct {
	err  error
	need int64 // for frames as large as this and larger
}

// admitLocked makes sure that a frame of need bytes fits behind the tail, if
// that takes no waiting.
func (l *Log) admitLocked(room Room, need int64) bool {
	if l.closed || l.poison.Load() != nil {
		return false
	}
	// Those who wait already come first, or a large frame might never find room
	// among small ones. What drains a full store goes ahead.
	if l.room.head != nil && room != Reserved {
		return false
	}
	return l.placeLocked(room, need)
}

// placeLocked tells whether the frame fits, rolling to the next segment if it
// fits only there.
func (l *Log) placeLocked(room Room, need int64) bool {
	off := int64(l.tail - l.active.base())
	// What was prepared for Reserved alone does not count for the others.
	last := l.next == nil || l.next.overdraft.Load()
	if l.active.takes(off, need, room, last) {
		return true
	}
	if l.next == nil || !l.next.takes(segmentHeaderSize, need, room, true) {
		return false
	}
	return l.rollLocked() == nil
}

// awaitRoomLocked waits, without the lock meanwhile, until the frame fits behind
// the tail. Senders are served in the order of arrival.
func (l *Log) awaitRoomLocked(ctx context.Context, room Room, need int64) error {
	if l.room.head != nil && room == Try {
		l.refused.Add(1)
		return l.stopped(ErrBackpressure)
	}
	var w *waiter
	defer func() {
		if w != nil {
			l.leaveRoomLocked(w)
		}
	}()
	for {
		if err := l.stopped(nil); err != nil {
			return err
		}
		if w == nil && l.admitLocked(room, need) || w != nil && l.placeLocked(room, need) {
			return nil
		}
		if err := l.askLocked(room, need); err != nil {
			l.refused.Add(1)
			return err
		}
		if w == nil {
			w = l.queueRoomLocked(room)
		}
		if err := l.sleepLocked(ctx, w); err != nil {
			return err
		}
	}
}

// stopped returns why nothing can be appended, or otherwise.
func (l *Log) stopped(otherwise error) error {
	if err := l.Err(); err != nil {
		return err
	}
	if l.closed {
		return ErrClosed
	}
	return otherwise
}

// askLocked tells the preparer what is missing. It returns an error if there is
// no point in waiting for the answer: the last attempt failed (the next one
// begins now, for those who come later), or the caller does not want to.
func (l *Log) askLocked(room Room, need int64) error {
	l.want.need = max(l.want.need, need)
	l.want.reserved = l.want.reserved || room == Reserved
	signal(l.prepareC)
	if no := l.noRoom[room]; no.err != nil && need >= no.need {
		return no.err
	}
	if room == Try {
		return ErrBackpressure
	}
	return nil
}

// queueRoomLocked puts a new waiter in line: at its end, or before all others
// for Reserved.
func (l *Log) queueRoomLocked(room Room) *waiter {
	l.roomWaits.Add(1)
	w := l.waiters.get()
	if room == Reserved {
		l.room.pushFront(w)
	} else {
		l.room.pushBack(w)
	}
	return w
}

// sleepLocked waits for a signal. Only the first in line gets them.
func (l *Log) sleepLocked(ctx context.Context, w *waiter) error {
	l.appendMu.Unlock()
	defer l.appendMu.Lock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leaveRoomLocked takes w out of line and lets the next one try: what w was
// signalled for may be enough for it.
func (l *Log) leaveRoomLocked(w *waiter) {
	l.room.remove(w)
	l.waiters.put(w)
	l.wakeRoomLocked()
}

// wakeRoomLocked lets the first in line look again.
func (l *Log) wakeRoomLocked() {
	if l.room.head != nil {
		signal(l.room.head.ready)
	}
}
