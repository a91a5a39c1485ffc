package mq

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
)

// upkeep is the goroutine that does what nobody waits for: it writes full
// chunks of queue entries to their files, checkpoints after each sealed
// segment, and drops old segments. It sleeps unless told, or until a sealed
// segment is too old; one that is held by a group is looked at again every ten
// seconds (RocketMQ's cleanResourceInterval).
type upkeep struct {
	b *Broker

	flush      chan struct{} // each 1 deep
	checkpoint chan struct{}
	retain     chan struct{}
	poison     chan error // 1 deep: it is sent once
	quit       chan struct{}
	done       sync.WaitGroup

	failed       bool           // the last checkpoint: it is tried again; run's own
	forgetAt     coord.Position // synced this far, see forgetConsumed; run's own
	checkpointed atomic.Int64   // position that the last synced checkpoint starts at
	checkpoints  atomic.Int64
	dropped      atomic.Int64

	mu        sync.Mutex // protects everything below
	heldBy    string     // for Stats
	heldBytes int64
	question  question // what the log asked last, none if it has the room
	full      int64    // the answer to that: so much, or more, has no room
}

// question is whether a log of so many bytes may have more.
type question struct{ bytes, more int64 }

const (
	retainEvery = 10 * time.Second

	// reserveName is a file of reserveBytes that is given up when the disk is
	// full, so that a checkpoint can still be written, and retention drop what is
	// too old.
	reserveName  = "RESERVE"
	reserveBytes = mib

	nothingFull = math.MaxInt64
)

func (u *upkeep) init(b *Broker) {
	u.b, u.full = b, nothingFull
	u.flush = make(chan struct{}, 1)
	u.checkpoint = make(chan struct{}, 1)
	u.retain = make(chan struct{}, 1)
	u.poison = make(chan error, 1)
	u.quit = make(chan struct{})
}

// wantFlush is called by the index of a queue, under the append lock.
func (u *upkeep) wantFlush() { poke(u.flush) }

// wantCheckpoint is called by the log after it sealed a segment.
func (u *upkeep) wantCheckpoint() { poke(u.checkpoint) }

func (u *upkeep) start() {
	u.keepReserve()
	u.done.Add(1)
	go u.run()
}

func (u *upkeep) stop() {
	close(u.quit)
	u.done.Wait()
}

func (u *upkeep) run() {
	defer u.done.Done()
	timer := time.NewTimer(retainEvery)
	defer timer.Stop()
	for {
		select {
		case <-u.flush:
			// If this fails, entries stay in memory. Where the disk has no room for
			// them the log has none for messages, so they do not grow without end.
			u.warn("flush queue entries", u.b.entries.Flush())
			u.warn("flush keys", u.b.flushKeys())
			u.b.forgetConsumed()
			continue
		case <-u.checkpoint:
			u.runCheckpoint()
		case err := <-u.poison:
			u.tellPoisoned(err)
		case <-u.retain:
			u.answer()
			u.retry(timer)
			continue
		case <-timer.C:
			if u.failed {
				u.runCheckpoint()
			}
		case <-u.quit:
			select {
			case err := <-u.poison:
				u.tellPoisoned(err)
			default:
			}
			return
		}
		u.runRetention()
		if wait := u.rest(); wait > 0 {
			timer.Reset(wait)
		}
	}
}

// retry has a checkpoint that failed tried again by time.
func (u *upkeep) retry(timer *time.Timer) {
	if u.failed {
		timer.Reset(retainEvery)
	}
}

// rest is how long there is nothing to look at: until the oldest segment is too
// old. 0: until something happens.
func (u *upkeep) rest() time.Duration {
	oldest, age := u.b.log.Segments()[0], u.b.opts.Retention.Age
	switch {
	case u.failed:
		return retainEvery
	case !oldest.Sealed || age < 0:
		return 0
	}
	return max(retainEvery, age-time.Since(oldest.LastStored))
}

// ask says whether a log of so many bytes may have more. If that is beyond limit
// only retention can tell, so senders wait until it has run; then the log asks
// again.
func (u *upkeep) ask(bytes, more, limit int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	full := u.full
	u.full, u.question = nothingFull, question{}
	switch {
	case bytes+more <= limit:
		return nil
	case more >= full:
		return ErrFull
	}
	u.question = question{bytes, more}
	poke(u.retain)
	return commitlog.ErrLater
}

func (u *upkeep) asked() question {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.question
}

// answer makes room for the log if it can, and has it ask again. It is the last
// word on whether the store is full, so what only waits for its checkpoint gets
// one. What the log counted when it asked may be dropped, or become more, before
// it asks again: full is what has no room now.
func (u *upkeep) answer() {
	asked, dropped := u.asked(), u.dropped.Load()
	for _, s := range u.b.log.Segments() {
		if s.Sealed && u.b.journal != nil && int64(s.End) > u.checkpointed.Load() {
			u.runCheckpoint()
			break
		}
	}
	u.runRetention()
	u.mu.Lock()
	waits := asked != question{} && asked == u.question // else another answer is due, if any
	if waits && u.dropped.Load() == dropped {
		if allocated(u.b.log.Segments())+asked.more > u.b.opts.Retention.MaxBytes {
			u.full = asked.more
		}
	}
	u.mu.Unlock()
	u.b.log.Poke()
}

func (u *upkeep) tellPoisoned(err error) {
	u.b.opts.Logger.Error("log poisoned", "err", err)
	if u.b.opts.Hooks.Poisoned != nil {
		u.b.opts.Hooks.Poisoned(err)
	}
}

func (u *upkeep) runCheckpoint() {
	err := u.b.checkpoint(false)
	u.warn("checkpoint", err)
	u.failed = err != nil
	if err == nil {
		u.keepReserve()
	}
}

// runRetention drops what may go. Only what lies below the last checkpoint may,
// and there is one after each sealed segment; where it failed, the segment waits
// for the next.
func (u *upkeep) runRetention() {
	if u.b.log.Err() != nil {
		return
	}
	err := u.b.retain(context.Background())
	if errors.Is(err, ErrDiskFull) && u.spendReserve() {
		u.b.log.Poke() // the next time there is room to write down what goes
	}
	if !errors.Is(err, ErrClosed) {
		u.warn("retention", err)
	}
}

func (u *upkeep) warn(what string, err error) {
	if err != nil {
		u.b.opts.Logger.Warn(what, "err", err)
	}
}

// held returns the group that keeps the oldest segment, and how much is kept.
func (u *upkeep) held() (group string, bytes int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.heldBy, u.heldBytes
}

func (u *upkeep) setHeld(group string, bytes int64) {
	u.mu.Lock()
	u.heldBy, u.heldBytes = group, bytes
	u.mu.Unlock()
}

// keepReserve makes the reserve file, if there is none and room for it.
func (u *upkeep) keepReserve() {
	if u.b.dir == "" {
		return
	}
	f, err := u.b.fs.Create(u.b.path(reserveName), reserveBytes)
	if err != nil {
		return // there already, or the disk is full
	}
	u.warn("reserve", errors.Join(f.Sync(), f.Close()))
}

// spendReserve gives the reserve up and reports whether there was one.
func (u *upkeep) spendReserve() bool {
	if u.b.dir == "" {
		return false
	}
	return u.b.fs.Remove(u.b.path(reserveName)) == nil
}
