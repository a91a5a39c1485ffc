package commitlog

import (
	"context"
	"errors"
	"fmt"
)

// Close syncs the log and closes it; what is blocked in Append gets ErrClosed.
// It cuts the last segment to what it holds and removes the unused successor. A
// poisoned log is only closed, and Close says so. The second and every later
// call returns what the first did. Reads that are under way finish.
func (l *Log) Close() error {
	l.closeOnce.Do(func() { l.closeErr = l.close() })
	return l.closeErr
}

// StopAppending gives the log its end, before Close: what is blocked in Append, or
// comes later, gets ErrClosed. What is stored can be synced and read.
func (l *Log) StopAppending() {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	l.closed = true
	l.wakeRoomLocked() // each who leaves wakes the next
}

func (l *Log) close() error {
	if l.snapshot {
		return l.handles.close()
	}
	l.StopAppending()
	err := l.Sync(context.Background()) // also serves everybody in Wait
	close(l.stopC)
	l.running.Wait()
	l.syncMu.Lock()
	l.syncClosed = true
	l.syncMu.Unlock()
	l.releaseAll(ErrClosed)
	l.awaitLeader()
	if err == nil {
		err = l.Err() // all that is written may be synced, and the log poisoned all the same
	}
	if err == nil {
		l.retire(0)
		err = l.tidy()
	}
	return errors.Join(err, l.abandonFiles())
}

// awaitLeader waits for a sync under way. If the log was poisoned meanwhile,
// nobody else did, and its files must not be closed below it.
func (l *Log) awaitLeader() {
	l.syncMu.Lock()
	if !l.syncing {
		l.syncMu.Unlock()
		return
	}
	w := l.waiters.get()
	w.pos, w.follows = maxPosition, true
	l.syncQueue.pushBack(w)
	l.syncMu.Unlock()
	<-w.ready // served when the leader hands over, as everybody is by now
}

// tidy leaves the folder as a clean opening wants it: no successor, and a last
// file that ends with the last frame. Both are made durable; if they were not,
// the next opening would take the end for an unclean one, which costs time and
// no data.
func (l *Log) tidy() error {
	l.appendMu.Lock()
	next := l.next
	l.next = nil
	l.appendMu.Unlock()
	if next != nil {
		if err := l.discard(next); err != nil {
			return fmt.Errorf("commitlog: remove unused segment: %w", err)
		}
	}
	f, end := l.active.file, int64(l.tail-l.active.base())
	if err := f.Cut(end); err != nil {
		return fmt.Errorf("commitlog: cut last segment: %w", err)
	}
	l.active.bytes.Store(end)
	if err := f.Sync(); err != nil {
		return fmt.Errorf("commitlog: sync last segment: %w", err)
	}
	if err := l.opts.FS.SyncDir(l.opts.Dir); err != nil {
		return fmt.Errorf("commitlog: sync folder: %w", err)
	}
	return nil
}

// abandonFiles unmaps and closes whatever is still open.
func (l *Log) abandonFiles() error {
	l.appendMu.Lock()
	held := append(append([]*segment{}, l.retiring...), l.active)
	if l.next != nil {
		held = append(held, l.next)
	}
	l.retiring, l.next = nil, nil
	l.appendMu.Unlock()
	var errs []error
	for _, s := range held {
		errs = append(errs, s.release(), l.handles.release(s))
	}
	return errors.Join(append(errs, l.handles.close())...)
}
