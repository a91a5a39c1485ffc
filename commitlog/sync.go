package commitlog

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
)

// Wait waits until the log is synced up to pos, a value that Append returned.
// If nobody is syncing, the caller does it itself, so that a lone sender needs
// no other goroutine; whoever comes meanwhile waits, and one of those that the
// sync did not cover does the next one. ctx ends waiting, not a sync that the
// caller itself runs.
//
// Once a sync has failed, everything it did not cover fails with ErrPoisoned,
// now and later.
func (l *Log) Wait(ctx context.Context, pos Position) error { return l.wait(ctx, pos, false) }

// Follow waits like Wait, but leaves the syncing to others: to a caller of Wait,
// or to the log's own goroutine, which is woken.
func (l *Log) Follow(ctx context.Context, pos Position) error { return l.wait(ctx, pos, true) }

func (l *Log) wait(ctx context.Context, pos Position, follows bool) error {
	if l.Synced() >= pos {
		return nil
	}
	if pos > l.Written() {
		return fmt.Errorf("%w: %d", errNotWritten, pos)
	}
	l.syncMu.Lock()
	if err := l.unsyncableLocked(); err != nil || l.Synced() >= pos {
		l.syncMu.Unlock()
		if l.Synced() >= pos {
			return nil
		}
		return err
	}
	if !l.syncing && !follows {
		l.syncing = true
		l.syncMu.Unlock()
		return l.lead(pos)
	}
	w := l.waiters.get()
	w.pos, w.follows = pos, follows
	l.syncQueue.pushBack(w)
	if !l.syncing {
		signal(l.syncC)
	}
	l.syncMu.Unlock()
	select {
	case <-w.ready:
	case <-ctx.Done():
		if l.abandon(w) {
			return ctx.Err()
		}
	}
	leads, err := w.leads, w.err
	l.waiters.put(w)
	if leads {
		// Those whom the last sync released are ready to run, and will append and
		// wait again: let them do it before this sync rather than during it.
		runtime.Gosched()
		return l.lead(pos)
	}
	return err
}

// unsyncableLocked returns why no sync will happen any more.
func (l *Log) unsyncableLocked() error {
	if err := l.Err(); err != nil {
		return err
	}
	if l.syncClosed {
		return ErrClosed
	}
	return nil
}

// abandon takes a waiter out of the queue whose context is done. It returns
// false if the waiter was served in the same moment: then it may be the leader,
// and has to be.
func (l *Log) abandon(w *waiter) bool {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	if !w.queued {
		<-w.ready
		return false
	}
	l.syncQueue.remove(w)
	l.waiters.put(w)
	return true
}

// lead runs one sync, which covers pos, as everything up to Written was there
// before it began, and hands over.
func (l *Log) lead(pos Position) error {
	err := l.syncFiles()
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.handOverLocked()
	if l.Synced() >= pos {
		return nil
	}
	return err
}

// handOverLocked releases those who are served and makes the first of the others
// leader. Followers alone leave it to the syncer.
func (l *Log) handOverLocked() {
	synced, failed := l.Synced(), l.unsyncableLocked()
	var heir *waiter
	for w := l.syncQueue.head; w != nil; {
		next := w.next
		switch {
		case w.pos <= synced:
			l.serveLocked(w, nil)
		case failed != nil:
			l.serveLocked(w, failed)
		case heir == nil && !w.follows:
			heir = w
		}
		w = next
	}
	if heir != nil {
		heir.leads = true
		l.serveLocked(heir, nil)
		return
	}
	l.syncing = false
	if l.syncQueue.head != nil {
		signal(l.syncC)
	}
}

// serveLocked ends the waiting of w.
func (l *Log) serveLocked(w *waiter, err error) {
	l.syncQueue.remove(w)
	w.err = err
	w.ready <- struct{}{} // has a slot, and is sent to once
}

// syncFiles syncs everything written before it began. Only the leader runs it,
// and never under the append lock.
//
// Segments are synced in the order of the log, or a power cut between two of
// them could leave a log with a gap behind which frames are missing that were
// promised. Each is synced through the mapping, or the descriptor, that it was
// made with.
func (l *Log) syncFiles() error {
	if err := l.Err(); err != nil {
		return err
	}
	// Under the lock, so that no frame is half stored at the target, and only for
	// as long as it takes to note what to sync.
	l.appendMu.Lock()
	from, target := l.Synced(), l.tail
	l.batch = append(l.batch[:0], l.dirty...)
	l.appendMu.Unlock()
	for _, s := range l.batch {
		if err := s.sync(max(0, int64(from-s.base())), s.bound(target)); err != nil {
			// What the disk has is unknown from here on, and a second sync that
			// succeeds would prove nothing: the kernel marks the pages clean.
			return l.poisonWith(fmt.Errorf("commitlog: sync %s: %w", s.name, err))
		}
		if err := s.file.Intact(s.limit); err != nil {
			// It is on the disk, in a file that nobody will find again.
			return l.poisonWith(fmt.Errorf("commitlog: segment %s: %w", s.name, err))
		}
		l.syncs.Add(1)
	}
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	// All but the last were sealed before the sync began, so they stay synced.
	settled := len(l.batch) - 1
	l.dirty = append(l.dirty[:0], l.dirty[settled:]...)
	l.synced.store(target)
	if len(l.retiring) > 0 {
		signal(l.prepareC)
	}
	return nil
}

// armSyncLocked is called when the tail is beyond syncAt: with the first
// unsynced byte it starts the timer, after SyncBytes it wakes the syncer.
func (l *Log) armSyncLocked() {
	if l.armed {
		l.syncAt = maxPosition // once is enough
		signal(l.syncC)
		return
	}
	l.armed = true
	l.syncAt = l.Synced() + Position(l.opts.SyncBytes)
	l.syncTimer.Reset(l.opts.SyncEvery)
}

// disarmSync follows a sync by the syncer. Nothing unsynced: the timer rests
// until the next append.
func (l *Log) disarmSync() {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if l.armed = l.tail > l.Synced(); l.armed {
		l.syncAt = l.Synced() + Position(l.opts.SyncBytes)
		l.syncTimer.Reset(l.opts.SyncEvery)
		return
	}
	l.syncAt = 0
	l.syncTimer.Stop()
}

// runSyncer syncs in the background, until the log is closed: for followers,
// and what nobody waits for.
func (l *Log) runSyncer() {
	defer l.syncTimer.Stop()
	for {
		select {
		case <-l.stopC:
			return
		case <-l.syncC:
		case <-l.syncTimer.C:
		}
		// The syncer waits like anybody else; the error is kept by the log, and
		// reaches all who wait.
		if err := l.wait(context.Background(), l.Written(), false); err != nil {
			l.opts.Logger.Debug("commit log: background sync", slog.Any("error", err))
			continue
		}
		l.disarmSync()
	}
}

// releaseAll fails everybody who waits: the log is poisoned or closed. A leader
// at work hands over by itself.
func (l *Log) releaseAll(err error) {
	l.syncMu.Lock()
	for l.syncQueue.head != nil {
		w := l.syncQueue.head
		if w.pos <= l.Synced() {
			l.serveLocked(w, nil)
			continue
		}
		l.serveLocked(w, err)
	}
	l.syncMu.Unlock()
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	l.wakeRoomLocked() // each who leaves wakes the next
}
