// Package commitlog keeps the one log in which everything that happens is a
// frame. It stores, syncs, reads and recovers frames; it knows nothing of
// topics, queues or groups.
//
// The log is a row of segments, files named by the position of their first
// byte. Frames are stored into the last one, through a mapping where there is
// one, while the next one is being prepared:
//
//	|<--- sealed, synced, unmapped --->|<------- active ------->|<- prepared ->|
//	| 0 ..... END | 4 MiB ........ END | frame frame ...        |              |
//	                                      ^synced    ^written   ^reserve begins 256 KiB
//	                                                             before the last prepared byte
//
// Two marks say how far the log has come, and only ever advance: below written,
// frames are in the page cache and survive the end of the process; below synced
// they survive a power cut.
//
// Locks, in the order in which they are taken: housekeepMu, syncMu, appendMu,
// then those of segments, handles and the cache, which are leaves. No callback
// but fill and the function of Exclusive runs under one.
package commitlog

import (
	"context"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketmq/mq/internal/blockcache"
)

// mark is a position on a cache line of its own: written moves with every
// append, and those who watch synced should not pay for that.
type mark struct {
	_   [64]byte
	pos atomic.Int64
	_   [56]byte
}

func (m *mark) load() Position     { return Position(m.pos.Load()) }
func (m *mark) store(pos Position) { m.pos.Store(int64(pos)) }

// Log is an open commit log. Its methods may be called from any goroutine.
type Log struct {
	opts     Options
	codec    codec
	epoch    uint32
	fresh    Position // what lies above was written by this process
	snapshot bool     // made by OpenSnapshot
	handles  *handles
	cache    *blockcache.Cache

	written mark
	synced  mark
	poison  atomic.Pointer[poisoned]

	// segments is an immutable snapshot, oldest first, the active one last. It
	// can be read without a lock; who replaces it holds listMu.
	segments atomic.Pointer[[]*segment]
	listMu   sync.Mutex

	clock     clock
	waiters   waiterPool
	syncTimer *time.Timer // SyncEvery after the first unsynced byte; set under appendMu
	frames    atomic.Int64
	syncs     atomic.Int64
	roomWaits atomic.Int64
	refused   atomic.Int64
	stepped   atomic.Int64 // 64 KiB steps that senders populated

	appendMu  sync.Mutex // protects everything below
	active    *segment
	tail      Position // where the next frame goes
	next      *segment // prepared successor, nil: none
	prepareAt int64    // a tail beyond this offset wants a successor
	frame     Frame    // the one being filled
	room      waitList // who waits for room, in the order of arrival
	want      want     // what the preparer is asked for
	noRoom    [Reserved + 1]refusal
	dirty     []*segment // may have unsynced bytes, oldest first
	retiring  []*segment // sealed, their mapping and descriptor still held
	sealings  int        // seals that Options.Sealed was not told of
	armed     bool       // syncTimer runs
	syncAt    Position   // a tail beyond this arms the timer or wakes the syncer
	closed    bool

	syncMu     sync.Mutex // protects everything below
	syncing    bool       // somebody leads
	syncQueue  waitList
	syncClosed bool
	batch      []*segment // belongs to the leader

	forgotten Position // the caller of Forget's own

	housekeepMu sync.Mutex // serialises what cuts and removes files
	start       atomic.Int64

	populateC chan struct{} // one slot each: wake-ups that are pending are enough
	prepareC  chan struct{}
	syncC     chan struct{}
	stopC     chan struct{} // closed by Close
	running   sync.WaitGroup
	opened    atomic.Bool // Open has returned
	closeOnce sync.Once
	closeErr  error
}

// poisoned is why a log takes nothing any more.
type poisoned struct{ err error }

// newLog makes a log around its segments, of which the last one is active,
// mapped, and ends at tail. Nothing runs yet.
func newLog(o Options, c codec, epoch uint32, h *handles, segments []*segment, tail Position) *Log {
	l := &Log{
		opts: o, codec: c, epoch: epoch, fresh: tail, handles: h,
		cache:     blockcache.New(o.CacheBytes, blockBytes),
		active:    segments[len(segments)-1],
		tail:      tail,
		syncTimer: time.NewTimer(time.Hour),
		populateC: make(chan struct{}, 1), prepareC: make(chan struct{}, 1),
		syncC: make(chan struct{}, 1), stopC: make(chan struct{}),
	}
	l.syncTimer.Stop()
	l.clock.start, l.clock.mu = make(chan struct{}, 1), &l.appendMu
	l.frame.log = l
	l.segments.Store(&segments)
	l.start.Store(int64(segments[0].base()))
	l.dirty = append(l.dirty, l.active)
	l.prepareAt = prepareAt(l.active)
	l.written.store(tail)
	l.synced.store(tail)
	return l
}

// run starts the log's goroutines; Close stops them and waits.
func (l *Log) run() {
	l.running.Go(l.runPopulator)
	l.running.Go(l.runPreparer)
	l.running.Go(l.runSyncer)
	l.running.Go(l.runClock)
}

// Written returns the end of what is written: where the next frame goes.
func (l *Log) Written() Position { return l.written.load() }

// Synced returns the position below which everything survives a power cut.
func (l *Log) Synced() Position { return l.synced.load() }

// Start returns the first byte of the log.
func (l *Log) Start() Position { return Position(l.start.Load()) }

// StoreID returns the random number that names the store for ever.
func (l *Log) StoreID() uint64 { return l.codec.store }

// Epoch returns the epoch of the frames appended now. It rises with every
// opening after an unclean end, so that a position that is given out again is
// told from the first time.
func (l *Log) Epoch() uint32 { return l.epoch }

// Exclusive runs fn under the append lock: no frame is appended meanwhile. fn
// must not append, wait or close.
func (l *Log) Exclusive(fn func()) {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	fn()
}

// Err returns why the log is poisoned, nil if it is not. errors.Is(err,
// ErrPoisoned) holds.
func (l *Log) Err() error {
	if p := l.poison.Load(); p != nil {
		return p.err
	}
	return nil
}

// poisonWith makes the log take nothing any more, for the first reason that
// comes. It needs no lock, for faults are found under any; the preparer tells
// those who wait.
func (l *Log) poisonWith(cause error) error {
	p := &poisoned{err: fmt.Errorf("%w: %w", ErrPoisoned, cause)}
	if l.poison.CompareAndSwap(nil, p) {
		l.opts.Logger.Error("commit log is poisoned", slog.String("dir", l.opts.Dir), slog.Any("error", cause))
		l.opts.Poisoned(p.err)
		signal(l.prepareC)
	}
	return l.Err()
}

// find returns the segment that holds pos, nil if there is none.
func (l *Log) find(pos Position) *segment { return findSegment(*l.segments.Load(), pos) }

func findSegment(segments []*segment, pos Position) *segment {
	// Most look near the tail.
	if n := len(segments); n > 0 && pos >= segments[n-1].base() {
		if s := segments[n-1]; s.holds(pos) {
			return s
		}
		return nil
	}
	i := sort.Search(len(segments), func(i int) bool { return segments[i].base() > pos }) - 1
	if i < 0 || !segments[i].holds(pos) {
		return nil
	}
	return segments[i]
}

// replaceSegments publishes another list of segments.
func (l *Log) replaceSegments(change func(old []*segment) []*segment) {
	l.listMu.Lock()
	defer l.listMu.Unlock()
	list := change(*l.segments.Load())
	l.segments.Store(&list)
}

// Segments lists the files of the log, oldest first; the prepared successor is
// not one of them yet.
func (l *Log) Segments() []Segment {
	written := l.Written()
	segments := *l.segments.Load()
	list := make([]Segment, len(segments))
	for i, s := range segments {
		list[i] = Segment{Base: s.base(), End: s.base() + Position(s.bound(written)), Bytes: s.bytes.Load()}
		if s.sealed() {
			list[i].Sealed, list[i].LastStored = true, time.UnixMilli(s.stored.Load())
		}
	}
	return list
}

// Stats returns the log's counters and gauges.
func (l *Log) Stats() Stats {
	segments := *l.segments.Load()
	cache := l.cache.Stats()
	st := Stats{
		Start: l.Start(), Synced: l.Synced(), Written: l.Written(), Epoch: l.epoch,
		Segments: len(segments), Frames: l.frames.Load(), Syncs: l.syncs.Load(),
		RoomWaits: l.roomWaits.Load(), Refused: l.refused.Load(), Populated: l.stepped.Load(),
		CacheHits: cache.Hits, CacheMisses: cache.Misses,
	}
	for _, s := range segments {
		st.Bytes += s.bytes.Load()
	}
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if l.next != nil {
		st.Bytes += l.next.bytes.Load()
	}
	return st
}

// Sync waits until everything written so far is synced.
func (l *Log) Sync(ctx context.Context) error { return l.Wait(ctx, l.Written()) }
