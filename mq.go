package mq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/journal"
	"github.com/pocketmq/mq/internal/keyindex"
	"github.com/pocketmq/mq/internal/vfs"
)

// Broker is an open store: the message queue inside this process. It is safe
// for concurrent use. Open or OpenMemory make one.
type Broker struct {
	opts Options
	dir  string // empty in memory
	fs   vfs.FS

	lock    *vfs.Lock
	log     *commitlog.Log
	entries *consumequeue.Store
	keys    *keyindex.Index
	journal *journal.Journal // nil in memory

	isSnapshot bool   // of OpenReadOnly
	journalFS  vfs.FS // if not the system's: the journal can then only be read

	recovery Recovery

	storeID uint64 // that the checkpoint was of

	dedupBits uint64 // of the hashes of DedupKeys: all, but in tests of those that meet
	names     names

	// Guarded by the append lock (commitlog: Append and Exclusive).
	state state
	timer timer // has parts of its own beside

	// members serializes what changes who consumes what: joining, leaving,
	// resets, topics growing and going. Lock order: members, then a group's mu,
	// then the append lock.
	members    sync.Mutex
	consumers  map[*member]struct{} // living ones
	rebalanced []RebalancedInfo     // hooks due when members is let go
	draining   bool                 // Shutdown has begun: who joins gets no queues either

	counters counters
	callback completions // asynchronous sends under way
	upkeep   upkeep      // the goroutine that checkpoints and retains

	closing  chan struct{} // closed when Close begins
	isClosed atomic.Bool
	close    sync.Once
	closeErr error
	poisoned sync.Once
}

// Recovery tells what opening a store found.
type Recovery struct {
	// Clean: the store had been closed. Everything below is empty.
	Clean bool

	// Replayed is how many records of the log were read to bring the indexes up
	// to date.
	Replayed int64

	// Cut lists the byte ranges of the log that were dropped behind the last
	// whole frame: messages that were being written when the process ended, or
	// that were not synced when the power went.
	Cut []CutRange

	// Corrupt lists damage below what was proven synced. The messages there are
	// lost; consumers skip them and Hooks.Missed tells.
	Corrupt []*CorruptionError

	// Rebuilt: the journal was missing or damaged, and everything was folded
	// from the log again.
	Rebuilt bool
}

// CutRange is the bytes From <= position < To of the log.
type CutRange struct{ From, To int64 }

// Open opens the store in dir, which is created if it is not there. One broker
// owns a directory at a time. Nil options are the defaults.
//
// A store always opens after a crash or a power cut; Recovery tells what was
// found. Errors: ErrInvalidOptions, ErrDirectory, ErrLocked, ErrVersion; ErrDiskFull
// where there is no room for a single frame, not even with the store's reserve.
func Open(dir string, options *Options) (*Broker, error) {
	opts := options.withDefaults(false)
	if err := opts.validate(); err != nil {
		return nil, err
	}
	if dir == "" {
		return nil, fmt.Errorf("%w: the name is empty", ErrDirectory)
	}
	b := newBroker(opts, vfs.OS(), dir)
	if err := b.unfinished(); err != nil {
		return nil, err
	}
	if err := b.own(); err != nil {
		return nil, err
	}
	if err := b.open(); err != nil {
		return nil, errors.Join(err, b.release())
	}
	return b, nil
}

// OpenMemory opens a broker that keeps everything on the heap, for tests and
// for data that need not outlive the process. It behaves like one on disk, with
// Retention.MaxBytes (256 MiB unless set) as the size of its disk: messages
// that all groups have consumed make room for new ones.
func OpenMemory(options *Options) (*Broker, error) {
	opts := options.withDefaults(true)
	if err := opts.validate(); err != nil {
		return nil, err
	}
	b := newBroker(opts, vfs.NewMem(memoryDisk(opts)), "")
	if err := b.open(); err != nil {
		return nil, errors.Join(err, b.release())
	}
	return b, nil
}

// memoryDisk is the room of a memory broker: its log, and besides an entry of
// 20 bytes for each of the smallest messages that fit in it.
func memoryDisk(opts Options) int64 {
	if opts.Retention.MaxBytes <= 0 {
		return 1 << 62
	}
	return 2 * opts.Retention.MaxBytes
}

func newBroker(opts Options, fs vfs.FS, dir string) *Broker {
	b := &Broker{opts: opts, dir: dir, fs: fs, closing: make(chan struct{}), consumers: map[*member]struct{}{}}
	b.dedupBits = math.MaxUint64
	b.names = newNames()
	b.state.b = b
	b.timer.init(b)
	b.state.clear()
	b.callback.init(b)
	b.upkeep.init(b)
	return b
}

// alive says whether the broker still takes calls.
func (b *Broker) alive() error {
	if b.isClosed.Load() {
		return ErrClosed
	}
	return nil
}

// Recovery tells what opening this store found.
func (b *Broker) Recovery() Recovery { return b.recovery }

// Sync makes everything sent and acknowledged before the call safe from a power
// cut. A sync under way is not cancelled by ctx, only the waiting for it.
func (b *Broker) Sync(ctx context.Context) error {
	if err := b.alive(); err != nil {
		return err
	}
	return b.noted(b.log.Sync(ctx))
}

// durable waits until what ends at end is as durable as d asks for.
func (b *Broker) durable(ctx context.Context, end coord.Position, d Durability) error {
	if d != Synced {
		return nil
	}
	return b.noted(b.log.Wait(ctx, end))
}

// noted passes err on. The first time it says that the log is poisoned, the
// upkeep tells: here the caller may hold locks. The log itself notes what fails
// while nobody waits for it.
func (b *Broker) noted(err error) error {
	if err != nil && errors.Is(err, ErrPoisoned) {
		b.poisoned.Do(func() { b.upkeep.poison <- err })
	}
	return err
}

// Shutdown drains the broker and closes it: consumers get no new messages, and
// handlers under way may finish until ctx ends. Then it is Close. What was not
// drained in time is reported by the error of ctx.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.members.Lock()
	b.draining = true
	for m := range b.consumers {
		m.draining = true
	}
	for _, g := range b.active() {
		g.rebalance()
	}
	b.unlockMembers()
	var drained error
	for _, m := range b.living() {
		m.hush()
	}
	for _, m := range b.living() {
		if err := m.drained(ctx); err != nil {
			drained = err
			break
		}
	}
	return errors.Join(drained, b.Close())
}

// Close stops everything and closes the store: blocked calls return ErrClosed,
// handlers' contexts are cancelled and their return is waited for, pending
// callbacks are called, everything is synced and checkpointed. It may be called
// more than once and from many goroutines; each call returns the same error
// when it is done: ErrPoisoned, that of a checkpoint that was not written, or those of
// consumers (PushConsumer.Close). It must not be called from a handler, callback or
// hook.
func (b *Broker) Close() error {
	b.close.Do(func() { b.closeErr = b.shut() })
	return b.closeErr
}

// Done returns a channel that is closed as soon as Close has been called, or
// when Shutdown has drained. It is for code that waits for something of its own
// on behalf of a consumer, such as for what somebody makes of a message it has
// passed on: calls of the broker return ErrClosed by themselves.
func (b *Broker) Done() <-chan struct{} { return b.closing }

// shut runs the stages of Close, each of which relies on the one before:
//
//  1. consumers: their last acks are appended; deliveries of delayed messages
//  2. from here nothing is appended, so the log has its final end
//  3. sync: pending sends are answered by it, callbacks are run
//  4. checkpoint of that end, marked clean
//  5. files, then the lock
func (b *Broker) shut() error {
	b.isClosed.Store(true)
	close(b.closing)
	var errs []error
	for _, m := range b.living() {
		errs = append(errs, m.Close())
	}
	b.timer.stop()
	b.log.StopAppending()
	synced := b.log.Sync(context.Background())
	b.callback.stop()
	b.upkeep.stop()
	if errs = append(errs, synced); synced == nil {
		errs = append(errs, b.checkpoint(true))
	}
	errs = append(errs, b.release())
	return errors.Join(errs...)
}

// release closes what is open, in reverse order of opening.
func (b *Broker) release() error {
	var errs []error
	if b.log != nil {
		errs = append(errs, b.log.Close())
	}
	if b.entries != nil {
		errs = append(errs, b.entries.Close())
	}
	if b.keys != nil {
		errs = append(errs, b.keys.Close())
	}
	if b.timer.index != nil {
		errs = append(errs, b.timer.index.Close())
	}
	if b.journal != nil {
		errs = append(errs, b.journal.Close())
	}
	if b.lock != nil {
		errs = append(errs, b.lock.Unlock())
	}
	return errors.Join(errs...)
}

// living returns the consumers that are not closed.
func (b *Broker) living() []*member {
	b.members.Lock()
	defer b.members.Unlock()
	all := make([]*member, 0, len(b.consumers))
	for m := range b.consumers {
		all = append(all, m)
	}
	return all
}
