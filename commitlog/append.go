package commitlog

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"time"
)

// Append appends one frame as large as lay, which fill puts together, and
// returns its end. When it returns nil the frame is written: it survives the end
// of this process, and Wait(end) makes it survive a power cut.
//
// fill runs under the append lock, so frames and whatever else it changes have
// one order. If it fails, nothing is appended and its error comes back. It must
// not append, wait, or keep the frame. ctx only ends waiting for room.
//
// Besides fill's own errors there are ErrTooLarge, ErrBackpressure (Try),
// ErrDiskFull, what Options.Allow said, ErrClosed and ErrPoisoned. After the
// last one fill may have run, and the frame may still be found when the log is
// opened again.
func (l *Log) Append(ctx context.Context, room Room, lay Layout, fill func(f *Frame) error) (end Position, err error) {
	return l.append(ctx, room, lay, 0, fill)
}

// append is Append for frames with flags.
func (l *Log) append(ctx context.Context, room Room, lay Layout, flags uint8, fill func(f *Frame) error) (end Position, err error) {
	if need := lay.Size(); need > MaxFrameBytes {
		return 0, fmt.Errorf("%w: %d bytes", ErrTooLarge, need)
	}
	end, err = l.appendAlone(ctx, room, lay, flags, fill)
	if (end-1)/yieldEvery != (end-Position(lay.Size())-1)/yieldEvery {
		runtime.Gosched()
	}
	return end, err
}

// yieldEvery is how much is appended until a sender lets others run. Nothing
// else would stop senders who never wait before they are preempted after 10 ms,
// which is megabytes: by then what consumers read has left the processor's
// cache. Where nobody waits for the processor it costs 0.1 µs in 256 KiB.
const yieldEvery = 256 << 10

// appendAlone is append under the lock.
func (l *Log) appendAlone(ctx context.Context, room Room, lay Layout, flags uint8, fill func(f *Frame) error) (end Position, err error) {
	need := lay.Size()
	l.lockAppend()
	defer l.appendMu.Unlock()
	if !l.admitLocked(room, need) {
		if err := l.awaitRoomLocked(ctx, room, need); err != nil {
			return 0, err
		}
	}
	end, err = l.putLocked(lay, flags, fill)
	if l.room.head != nil {
		signal(l.room.head.ready) // the next in line may fit too
	}
	return end, err
}

// lockTries is how often a sender tries to get the append lock before it sleeps:
// about as long as two frames take to store.
const lockTries = 60

// lockAppend takes the append lock. A sync.Mutex sleeps at once when there is
// something else to run, and with as many senders and workers as processors
// there always is: waking up costs more than a hundred frames.
func (l *Log) lockAppend() {
	for range lockTries {
		if l.appendMu.TryLock() {
			return
		}
	}
	l.appendMu.Lock()
}

// putLocked appends a frame that fits into the active segment.
func (l *Log) putLocked(lay Layout, flags uint8, fill func(*Frame) error) (end Position, err error) {
	s, need := l.active, lay.Size()
	off := int64(l.tail - s.base())
	if off+need > s.populated.Load() {
		l.stepped.Add(1)
		s.populateTo(roundUp(max(off+need, s.populated.Load()+populateStep), pageBytes))
	}
	// One frame for all appends: fill gets a pointer, and a local one would be
	// allocated each time.
	f := &l.frame
	defer l.guardStoreLocked(debug.SetPanicOnFault(true), &err)
	f.begin(s.mapping.Reserve(off, need), l.tail, l.synced.load(), flags, lay.records > 1)
	if err = fill(f); err == nil {
		err = f.finish()
	}
	if err != nil {
		f.giveUp()
		return 0, err
	}
	// From here on fill's own effects are there, so the frame must be too.
	if err = s.mapping.Commit(off, int64(f.used)); err != nil {
		return 0, l.poisonWith(fmt.Errorf("commitlog: write frame: %w", err))
	}
	f.buf = nil
	l.tail += Position(f.used)
	// Publishing: who loads this mark, or a later one, sees the bytes below it.
	l.written.store(l.tail)
	l.frames.Add(1)
	l.noticeLocked(s, off+int64(f.used))
	return l.tail, nil
}

// noticeLocked wakes whoever has to work when the tail has come to off.
func (l *Log) noticeLocked(s *segment, off int64) {
	if off > s.kickAt.Load() {
		s.kickAt.Store(math.MaxInt64) // until the populator says where next
		signal(l.populateC)
	}
	if off > l.prepareAt && l.next == nil {
		l.prepareAt = math.MaxInt64 // until another segment is active
		signal(l.prepareC)
	}
	if l.tail > l.syncAt {
		l.armSyncLocked()
	}
}

// guardStoreLocked is deferred around stores into the mapping. A fault in it
// (an I/O error, a file cut by somebody else, no room on a file system that
// copies on write) poisons the log; any other panic goes on, with the frame
// taken back.
func (l *Log) guardStoreLocked(old bool, err *error) {
	cause := recover()
	defer debug.SetPanicOnFault(old)
	if cause == nil {
		return
	}
	if fault := faultOf(cause); fault != nil {
		l.frame.buf = nil
		*err = l.poisonWith(fmt.Errorf("commitlog: store frame in %s: %w", l.active.name, fault))
		return
	}
	l.frame.giveUp()
	panic(cause)
}

// faultOf returns the error of a memory fault, nil if cause is none. Only what
// SetPanicOnFault turned into a panic knows its address: a nil dereference in a
// fill function is not taken for a broken disk.
func faultOf(cause any) error {
	fault, ok := cause.(interface {
		error
		Addr() uintptr
	})
	if !ok {
		return nil
	}
	return fault
}

// controlLayout is the layout of END, EPOCH and START.
var controlLayout = Layout{}.Add(controlPayload)

// fillControl returns a fill function for a frame of the log's own.
func fillControl(c control) func(*Frame) error {
	return func(f *Frame) error {
		dst, _, _ := f.Next(controlPayload, nil, 0)
		c.put(dst)
		return nil
	}
}

// rollLocked seals the active segment with an END frame and goes on in the
// prepared one.
func (l *Log) rollLocked() error {
	old, next := l.active, l.next
	stored := max(time.Now().UnixMilli(), l.clock.now.Load())
	end, err := l.putLocked(controlLayout, flagControl, fillControl(control{kind: controlEnd, value: uint64(next.base()), time: stored}))
	if err != nil {
		return err
	}
	old.stored.Store(stored)
	old.end.Store(int64(end - old.base()))
	l.replaceSegments(func(list []*segment) []*segment { return append(list[:len(list):len(list)], next) })
	l.active, l.next = next, nil
	l.dirty = append(l.dirty, next)
	l.retiring = append(l.retiring, old)
	l.sealings++
	l.prepareAt = prepareAt(next)
	// The mark goes to where the next frame will be, so that no mark ever lies
	// behind an END: replay can begin at every value of Written.
	l.tail = next.base() + segmentHeaderSize
	l.written.store(l.tail)
	signal(l.prepareC)
	signal(l.populateC)
	return nil
}
