package commitlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// retire puts sealed segments away whose every byte is synced: their mapping is
// given up, the file is cut behind END, and its descriptor may be closed. The
// newest keep of them stay as they are: readers a little behind the tail are in
// the middle of them.
func (l *Log) retire(keep int) {
	l.housekeepMu.Lock()
	defer l.housekeepMu.Unlock()
	l.appendMu.Lock()
	n := 0
	for n < len(l.retiring)-keep && l.retiring[n].base() < l.dirty[0].base() {
		n++
	}
	done := l.retiring[:n:n]
	l.retiring = l.retiring[n:]
	l.appendMu.Unlock()
	for _, s := range done {
		if err := l.putAway(s); err != nil {
			l.opts.Logger.Warn("commit log: put sealed segment away", slog.Any("error", err))
		}
	}
}

// putAway is retire for one segment. The cut needs no sync: a file that comes
// back longer after a power cut still says where it ends.
func (l *Log) putAway(s *segment) error {
	end := s.end.Load()
	cut := s.file.Cut(end)
	if cut == nil {
		s.bytes.Store(end)
	}
	return errors.Join(cut, s.release(), l.handles.release(s))
}

// tellSealed calls Options.Sealed, once for each seal.
func (l *Log) tellSealed() {
	if !l.opened.Load() {
		return // the caller of Open has no log yet; Open wakes us when it has
	}
	l.appendMu.Lock()
	n := l.sealings
	l.sealings = 0
	l.appendMu.Unlock()
	for range n {
		l.opts.Sealed()
	}
}

// DropBefore drops the segments that lie wholly below pos, but never the active
// one. A START frame with the new beginning of the log is synced first, then
// files are removed, oldest first. A power cut may undo some removals and not
// others: recovery finds the frame and removes what lies below it, so the
// caller must not complete a checkpoint whose From lies above that frame before
// DropBefore has returned.
//
// Readers of a dropped segment finish what they began.
func (l *Log) DropBefore(ctx context.Context, pos Position) error {
	first, drop := l.below(pos)
	if len(drop) == 0 {
		return nil
	}
	c := control{kind: controlStart, value: uint64(first), time: time.Now().UnixMilli()}
	end, err := l.append(ctx, Reserved, controlLayout, flagControl, fillControl(c))
	if err != nil {
		return fmt.Errorf("commitlog: drop segments: %w", err)
	}
	if err := l.Wait(ctx, end); err != nil {
		return fmt.Errorf("commitlog: drop segments: %w", err)
	}
	l.retire(0) // what is dropped may have been sealed a moment ago
	l.housekeepMu.Lock()
	defer l.housekeepMu.Unlock()
	defer l.Poke()
	l.start.Store(max(l.start.Load(), int64(first)))
	for _, s := range drop {
		if err := l.dropSegment(s); err != nil {
			return fmt.Errorf("commitlog: drop segment: %w", err)
		}
	}
	if err := l.opts.FS.SyncDir(l.opts.Dir); err != nil {
		return fmt.Errorf("commitlog: drop segments: %w", err)
	}
	return nil
}

// below returns the segments wholly below pos, and the base of the first that
// stays.
func (l *Log) below(pos Position) (first Position, drop []*segment) {
	segments := *l.segments.Load()
	n := 0
	for n < len(segments)-1 && segments[n].next() <= pos {
		n++
	}
	return segments[n].base(), segments[:n]
}

// dropSegment takes one segment out of the log and removes its file. Somebody
// else may have done it already. If the file cannot be removed it is no part of
// the log any more all the same: the next opening tries again.
func (l *Log) dropSegment(s *segment) error {
	found := false
	l.replaceSegments(func(old []*segment) []*segment {
		if found = len(old) > 0 && old[0] == s; found {
			return old[1:]
		}
		return old
	})
	if !found {
		return nil
	}
	l.cache.Drop(uint64(s.base()))
	return errors.Join(l.handles.forget(s), l.opts.FS.Remove(s.name))
}
