package consumequeue

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"

	"github.com/pocketmq/mq/internal/coord"
)

// Drop forgets the queues of a topic. Their memory is free at once; their files
// are removed by the second Sweep from now, or by SweepUnknown. An unknown topic
// is ignored; its name is not looked at. The caller holds the append lock and
// appends to none of the queues afterwards.
func (s *Store) Drop(_ string, id coord.TopicID) {
	s.queuesMu.Lock()
	t := s.topics[id]
	if t != nil {
		delete(s.topics, id)
		s.dropped = append(s.dropped, t)
	}
	s.queuesMu.Unlock()
	if t == nil {
		return
	}
	for _, q := range t.queues { // nobody adds to them any more
		q.dropped.Store(true)
		q.release(q.End())
	}
}

// Sweep removes files that no checkpoint needs. The caller has just made a
// checkpoint durable, and captured every queue for it since the last Sweep.
//
// Of a queue, the files below the Min of its last capture go. The files of a
// dropped topic go with the second Sweep after Drop: the first may belong to a
// checkpoint that captured the topic before it was dropped, and which would be
// ErrShort without them. Where nothing can have been dropped since the capture,
// as when a store is closed, Sweep may be called twice.
//
// Removals are not synced: a file that a power cut brings back is removed again
// by Restore or SweepUnknown.
func (s *Store) Sweep() error {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if s.closed.Load() {
		return ErrClosed
	}
	var errs []error
	for _, q := range s.queues() {
		if err := q.sweep(); err != nil {
			errs = append(errs, err)
		}
	}
	ripe := s.ripe
	s.ripe = s.takeDropped()
	for _, t := range ripe {
		if err := t.remove(); err != nil {
			s.ripe = append(s.ripe, t) // the next Sweep tries again
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Store) takeDropped() []*topic {
	s.queuesMu.Lock()
	defer s.queuesMu.Unlock()
	dropped := s.dropped
	s.dropped = nil
	return dropped
}

// remove removes the files of a dropped topic. The caller holds syncMu.
func (t *topic) remove() error {
	for _, q := range t.queues {
		q.fileMu.Lock() // waits for a flush that began before Drop
		t.store.handles.forget(q, math.MaxInt64)
		q.fileMu.Unlock()
	}
	if err := t.store.fs.RemoveAll(t.folder()); err != nil {
		return fmt.Errorf("consumequeue: remove %s: %w", t.folder(), err)
	}
	for _, q := range t.queues {
		t.store.handles.forget(q, math.MaxInt64)
	}
	return nil
}

// sweep removes the queue's files whose entries all lie below the min last
// captured.
func (q *Queue) sweep() error {
	q.fileMu.Lock()
	defer q.fileMu.Unlock()
	if !q.filed || q.dropped.Load() {
		return nil
	}
	// A file goes even if the queue will continue in it, when all that is in it
	// is below: the next flush makes one that begins with bytes never written.
	// The checkpoint needs entries from captured up to its Flushed, which is not
	// beyond the one of now.
	captured, flushed := coord.Offset(q.captured.Load()), q.view.Load().flushed
	if captured < min(q.oldest+FileEntries, flushed) {
		return nil
	}
	found, err := q.files()
	if err != nil {
		return err
	}
	for len(found) > 0 && captured >= min(found[0].base+FileEntries, flushed) {
		if err := q.remove(found[0].base); err != nil {
			q.oldest = found[0].base
			return err
		}
		found = found[1:]
	}
	if q.filed = len(found) > 0; q.filed {
		q.oldest = found[0].base
	}
	return nil
}

// remove removes one of the queue's files; those before it are gone. The caller
// holds fileMu and syncMu.
func (q *Queue) remove(base coord.Offset) error {
	s := q.topic.store
	s.handles.forget(q, base+1)
	err := s.fs.Remove(q.path(base))
	s.handles.forget(q, base+1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("consumequeue: remove %s: %w", q.path(base), err)
	}
	s.dirty.removed(fileKey{q, base})
	return nil
}

// SweepUnknown removes the folders of topics for which keep is false: those that
// the checkpoint does not name, all of them if there is none. Those of topics
// dropped since Open, by the replay, are left to Sweep: the checkpoint still has
// them. Folders that are not named as Dir names them are left alone. It is called
// when a store has been opened, before its queues are used.
func (s *Store) SweepUnknown(keep func(dir string) bool) error {
	var errs []error
	dropped := s.droppedDirs()
	for name := range s.known {
		if !isDir(name) || keep(name) || dropped[name] {
			continue
		}
		if err := s.fs.RemoveAll(filepath.Join(s.dir, name)); err != nil {
			errs = append(errs, fmt.Errorf("consumequeue: remove %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// droppedDirs names the folders of topics that wait for Sweep.
func (s *Store) droppedDirs() map[string]bool {
	s.queuesMu.RLock()
	defer s.queuesMu.RUnlock()
	dirs := map[string]bool{}
	for _, t := range s.dropped {
		dirs[Dir(t.name, t.id)] = true
	}
	return dirs
}
