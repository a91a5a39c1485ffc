package commitlog

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/pocketmq/mq/internal/vfs"
)

// prepareAt returns the offset in a segment at which its successor is wanted: a
// quarter, which leaves time to allocate and sync it. A store that hardly grows
// has no second segment.
func prepareAt(s *segment) int64 { return segmentHeaderSize + s.header.capacity/4 }

// runPreparer makes successors and puts sealed segments away, until the log is
// closed.
func (l *Log) runPreparer() {
	for {
		select {
		case <-l.stopC:
			return
		case <-l.prepareC:
		}
		if l.Err() != nil {
			l.releaseAll(l.Err())
		}
		l.retire(1)
		l.prepareSuccessor()
		l.tellSealed()
	}
}

// Poke says that there may be room again, because segments were dropped, space
// was freed or Options.Allow would answer otherwise: preparing is tried again.
func (l *Log) Poke() { signal(l.prepareC) }

// plan is a successor to be made.
type plan struct {
	base     Position
	capacity int64    // what is wanted
	least    int64    // what is tried if space is short
	old      *segment // unused and too small: goes first
	ask      want
	large    bool // the frame asked for does not fit in what others are content with
}

// prepareSuccessor makes the segment behind the active one, if it is time or
// somebody waits for it.
func (l *Log) prepareSuccessor() {
	refused := l.reviewOverdraft()
	l.appendMu.Lock()
	p, todo := l.planLocked(errors.Is(refused, ErrLater))
	l.appendMu.Unlock()
	if !todo {
		return
	}
	// What is too much already is too much with a successor. Allow is not asked
	// again: its answer counts once.
	if refused == nil {
		refused = l.opts.Allow(l.bytes(), p.capacity)
	}
	if refused != nil {
		if !p.ask.reserved {
			l.refuse(p, refused)
			return
		}
		p.capacity = p.least // what drains a full store takes as little as it can
	}
	if p.old != nil && !l.withdraw(p.old) {
		return
	}
	next, full := l.createPlanned(p)
	if next != nil && refused != nil {
		next.overdraft.Store(true)
	}
	l.offer(next, refused, full)
}

// planLocked takes what senders asked for and says what to make, if anything.
// undecided says that what is prepared may yet be for everybody, or not: Poke
// follows, and who was woken before could only ask once more, without end.
func (l *Log) planLocked(undecided bool) (p plan, todo bool) {
	ask := l.want
	l.want = want{}
	switch {
	case l.closed || l.poison.Load() != nil:
		todo = false
	case l.next != nil:
		todo = ask.need > roomIn(l.next.limit)
	default:
		todo = ask.need > 0 || int64(l.tail-l.active.base()) > prepareAt(l.active)
	}
	if !todo {
		if !undecided {
			l.wakeRoomLocked() // whoever asked finds what is there, or why not
		}
		return plan{}, false
	}
	ordinary := l.ordinaryCapacityLocked()
	return plan{
		base: l.active.next(), old: l.next, ask: ask,
		capacity: capacityFor(ask.need, ordinary),
		least:    capacityFor(ask.need, l.leastCapacity()),
		large:    l.next != nil || ask.need > roomIn(ordinary),
	}, true
}

// ordinaryCapacityLocked returns the capacity the next segment has unless a
// frame or the disk asks for another: twice the active one's.
func (l *Log) ordinaryCapacityLocked() int64 {
	return min(l.opts.SegmentBytes, max(firstSegmentBytes, 2*l.active.header.capacity))
}

// leastCapacity returns the smallest capacity that is tried when space is short.
func (l *Log) leastCapacity() int64 { return min(l.opts.SegmentBytes, leastSegmentBytes) }

// capacityFor returns capacity, or the smallest one in which a frame of need
// bytes fits even if nothing is prepared behind it.
func capacityFor(need, capacity int64) int64 {
	if need <= roomIn(capacity) {
		return capacity
	}
	return roundUp(segmentHeaderSize+need+endSize+reserveBytes, pageBytes)
}

// roomIn returns the largest frame that an unused segment takes from anybody.
func roomIn(capacity int64) int64 {
	return capacity - segmentHeaderSize - endSize - reserveOf(capacity)
}

// createPlanned makes the planned segment, smaller if space is short. If there
// is none for the large frame somebody waits with, there may be for all others.
// The refusal says what found no space.
func (l *Log) createPlanned(p plan) (*segment, refusal) {
	next, err := l.createShrinking(p.base, p.capacity, p.least)
	if err == nil {
		return next, refusal{}
	}
	if least := l.leastCapacity(); least < p.least {
		if next, smaller := l.createShrinking(p.base, max(least, halfOf(p.least)), least); smaller == nil {
			return next, refusal{err: err, need: p.ask.need}
		}
	}
	return nil, refusal{err: err}
}

// createShrinking halves the capacity as long as there is no space.
func (l *Log) createShrinking(base Position, capacity, least int64) (*segment, error) {
	for {
		s, err := l.createSegment(base, capacity)
		if err == nil || !outOfSpace(err) {
			return s, err
		}
		if capacity <= least {
			return nil, fmt.Errorf("%w: %w", ErrDiskFull, err)
		}
		capacity = max(least, halfOf(capacity))
	}
}

// halfOf returns about half of a capacity: whole pages, or the segment would not
// be taken for one when the log is opened again, nor its successor by its name.
func halfOf(capacity int64) int64 { return capacity / 2 / pageBytes * pageBytes }

func (l *Log) createSegment(base Position, capacity int64) (*segment, error) {
	header := segmentHeader{
		epoch: l.epoch, store: l.codec.store, base: base, capacity: capacity,
		created: time.Now().UnixMilli(), start: l.Start(),
	}
	return createSegment(l.opts, l.handles, header)
}

// createSegment makes a file, its header and its name durable, and maps it. A
// segment is synced before it is offered, for its name, and because pages of an
// allocation that is not synced cost 4 to 8 µs each.
func createSegment(o Options, h *handles, header segmentHeader) (*segment, error) {
	s := &segment{header: header, name: segmentName(o.Dir, header.base), limit: header.capacity}
	f, err := o.FS.Create(s.name, s.limit)
	if errors.Is(err, fs.ErrExist) {
		// Left by an attempt whose removal failed: it was never offered.
		if err = o.FS.Remove(s.name); err == nil {
			f, err = o.FS.Create(s.name, s.limit)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("commitlog: create segment: %w", err)
	}
	if err := s.furnish(o, f); err != nil {
		return nil, errors.Join(fmt.Errorf("commitlog: create segment: %w", err), f.Close(), o.FS.Remove(s.name))
	}
	h.adopt(s, f)
	return s, nil
}

// furnish writes and syncs what a new segment begins with.
func (s *segment) furnish(o Options, f vfs.File) error {
	b := make([]byte, segmentHeaderSize)
	s.header.put(b)
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := o.FS.SyncDir(o.Dir); err != nil {
		return err
	}
	s.bytes.Store(s.limit)
	s.attach(mapFile(o, f, s.limit))
	s.populateTo(populateStep)
	return nil
}

// mapFile maps a segment, or returns the twin that writes.
func mapFile(o Options, f vfs.File, size int64) vfs.Mapping {
	if !o.Mmap {
		return vfs.Unmapped(f)
	}
	m, err := f.Map(size)
	if err == nil {
		return m
	}
	// Whatever the reason (no such thing here, address space used up), writes do
	// the same, slower.
	if !errors.Is(err, errors.ErrUnsupported) {
		o.Logger.Warn("commit log: segment is not mapped", slog.Any("error", err))
	}
	return vfs.Unmapped(f)
}

// withdraw takes back a successor that is too small and unused. It is false if a
// sender has rolled into it meanwhile: then what was planned would take the name
// of a segment that is in use, and whoever waits has to ask again.
func (l *Log) withdraw(old *segment) bool {
	l.appendMu.Lock()
	if l.next != old {
		l.wakeRoomLocked()
		l.appendMu.Unlock()
		return false
	}
	l.next = nil
	l.appendMu.Unlock()
	if err := l.discard(old); err != nil {
		l.opts.Logger.Warn("commit log: remove unused segment", slog.Any("error", err))
	}
	return true
}

// discard unmaps, closes and removes a segment nobody ever read or wrote.
func (l *Log) discard(s *segment) error {
	return errors.Join(s.release(), l.handles.release(s), l.handles.forget(s), l.opts.FS.Remove(s.name))
}

// offer hands a successor to the senders, or the reasons why there is none.
func (l *Log) offer(next *segment, refused error, full refusal) {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if next != nil {
		l.next = next
	}
	l.noRoom = [Reserved + 1]refusal{Wait: full, Try: full, Reserved: full}
	if refused != nil && !errors.Is(refused, ErrLater) {
		l.noRoom[Wait], l.noRoom[Try] = refusal{err: refused}, refusal{err: refused}
	}
	l.wakeRoomLocked()
}

// refuse tells ordinary senders that no segment is allowed. What is prepared
// stays, for frames that fit.
func (l *Log) refuse(p plan, refused error) {
	if errors.Is(refused, ErrLater) {
		return // Poke follows
	}
	no := refusal{err: refused}
	if p.large { // others may find what they need
		no.need = p.ask.need
	}
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	l.noRoom[Wait], l.noRoom[Try] = no, no
	l.wakeRoomLocked()
}

// reviewOverdraft opens segments that were made against Options.Allow to
// everybody, if it has changed its mind. It returns what Allow says.
func (l *Log) reviewOverdraft() (refused error) {
	l.appendMu.Lock()
	drawn, unused := l.overdrawnLocked(), int64(0)
	if l.next != nil {
		unused = l.next.bytes.Load()
	}
	l.appendMu.Unlock()
	if !drawn {
		return nil
	}
	refused = l.opts.Allow(l.bytes(), unused)
	if errors.Is(refused, ErrLater) {
		return refused // what was said before holds until then
	}
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	l.noRoom[Wait], l.noRoom[Try] = refusal{err: refused}, refusal{err: refused}
	if refused != nil {
		return refused
	}
	l.active.overdraft.Store(false)
	if l.next != nil {
		l.next.overdraft.Store(false)
	}
	return nil
}

func (l *Log) overdrawnLocked() bool {
	return l.active.overdraft.Load() || l.next != nil && l.next.overdraft.Load()
}

// bytes returns what the log has allocated, an unused successor apart.
func (l *Log) bytes() int64 {
	var n int64
	for _, s := range *l.segments.Load() {
		n += s.bytes.Load()
	}
	return n
}
