package commitlog

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/pocketmq/mq/internal/vfs"
)

const (
	// reserveBytes is what ordinary appends leave before the last prepared byte,
	// for acks, resets, deletions and END. In tiny segments it is a quarter.
	reserveBytes = 256 << 10

	// populateStep is how much a sender makes present when it reaches the end of
	// the populated window: about 15 µs of page cache, paid once in 64 KiB.
	populateStep = 64 << 10
)

// segment is one file of the log.
//
//	|header|frame|frame|....|frame| END |            |
//	0      64                     tail  end          limit = capacity, unless space was short
type segment struct {
	header segmentHeader
	name   string
	limit  int64 // bytes of the file that frames and END may take

	// mapping is where frames are stored; view, if not nil, is all of it to load
	// from. Both are only used by the appender, who owns one reference, or under
	// a reference of one's own.
	mapping vfs.Mapping
	view    []byte
	mapRefs atomic.Int32

	overdraft atomic.Bool  // made although Options.Allow said no: for Reserved only
	populated atomic.Int64 // pages below are present; advanced under populateMu
	kickAt    atomic.Int64 // a tail beyond this wakes the populator
	end       atomic.Int64 // behind END; 0: not sealed
	stored    atomic.Int64 // when it was sealed, Unix ms
	bytes     atomic.Int64 // allocated

	released int64 // mapped pages below were let go; whoever leads a sync owns it

	populateMu sync.Mutex // serialises Populate, which must stay ahead of the tail

	// Protected by the handles' lock.
	file  vfs.File // nil: not open
	users int      // who forbid closing it
	gone  bool     // removed: closed with the last user
}

func (s *segment) base() Position { return s.header.base }

// next returns the base that the following segment has.
func (s *segment) next() Position { return s.header.base + Position(s.header.capacity) }

// holds tells whether pos lies in the segment's share of the positions.
func (s *segment) holds(pos Position) bool { return pos >= s.base() && pos < s.next() }

func (s *segment) sealed() bool { return s.end.Load() != 0 }

// bound returns how many bytes of the file are frames, when the log is written
// up to written. That mark must have been loaded before the segment was found.
func (s *segment) bound(written Position) int64 {
	n := int64(written - s.base())
	if end := s.end.Load(); end != 0 {
		n = min(n, end)
	}
	return max(0, min(n, s.limit))
}

// takes tells whether a frame of need bytes may be placed at off, END still
// fitting behind it. last says that nothing is prepared behind this segment.
func (s *segment) takes(off, need int64, room Room, last bool) bool {
	free := s.limit - off - endSize
	if room != Reserved {
		if s.overdraft.Load() {
			return false
		}
		if last {
			free -= reserveOf(s.limit)
		}
	}
	return need <= free
}

// reserveOf returns how much of a segment is left to Reserved.
func reserveOf(capacity int64) int64 { return min(reserveBytes, capacity/4) }

// attach gives the segment its mapping, with the reference that the log holds
// until the segment is sealed and synced.
func (s *segment) attach(m vfs.Mapping) {
	s.mapping = m
	s.view = m.View(0, s.limit)
	s.mapRefs.Store(1)
	s.kickAt.Store(math.MaxInt64)
	s.populated.Store(s.limit) // a twin without mapping has no pages
	if s.view != nil {
		s.populated.Store(0)
		s.kickAt.Store(0)
	}
}

// retain takes a reference that keeps the mapping; false if it is gone.
func (s *segment) retain() bool {
	for {
		n := s.mapRefs.Load()
		if n == 0 {
			return false
		}
		if s.mapRefs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release gives a reference back; the last one unmaps.
func (s *segment) release() error {
	if s.mapRefs.Add(-1) > 0 {
		return nil
	}
	if err := s.mapping.Unmap(); err != nil {
		return fmt.Errorf("commitlog: unmap %s: %w", s.name, err)
	}
	return nil
}

// releaseStep is what is worth letting go before a sync: a lone sender that
// syncs every frame never gets there.
const releaseStep = 128 << 10

// sync makes [from, to) durable. What is populated ahead of it stays as it is.
func (s *segment) sync(from, to int64) error {
	s.releaseTo(to)
	return s.mapping.Sync(from, to-from)
}

// releaseTo lets the mapped pages below off go, which nobody stores to any more:
// writing them back is far cheaper then (vfs.Mapping), and they do not count as
// resident. Readers behind the tail fault some of them in again, 16 at a time.
func (s *segment) releaseTo(off int64) {
	off &^= pageBytes - 1 // the page of the tail stays
	if s.view == nil || off-s.released < releaseStep || !s.retain() {
		return
	}
	if s.mapping.Release(s.released, off-s.released) == nil {
		s.released = off
	}
	_ = s.release() // the log holds another reference as long as the segment is dirty
}

// populateTo makes pages below to present, in steps, and tells whether it did
// anything. An error is left to the store that touches the page: it knows
// whether the fault matters.
//
// Two of these never run at once, so no page is touched by one of them while
// the other's caller stores to it: the sender only stores below populated.
func (s *segment) populateTo(to int64) bool {
	s.populateMu.Lock()
	defer s.populateMu.Unlock()
	from := s.populated.Load()
	if to = min(to, s.limit); from >= to {
		return false
	}
	_ = s.mapping.Populate(from, to-from)
	s.populated.Store(to)
	return true
}
