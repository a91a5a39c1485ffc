package consumequeue

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"
)

// dirty collects what the next Sync has to sync. It is bounded by the number of
// files written between two checkpoints.
type dirty struct {
	dirtyMu sync.Mutex // protects the two below, which are never nil
	files   map[fileKey]struct{}
	folders map[string]struct{}
}

func (d *dirty) init() {
	d.files = make(map[fileKey]struct{})
	d.folders = make(map[string]struct{})
}

// addFile marks a file as written to.
func (d *dirty) addFile(key fileKey) {
	d.dirtyMu.Lock()
	defer d.dirtyMu.Unlock()
	d.files[key] = struct{}{}
}

// addFolders marks folders as having new names in them.
func (d *dirty) addFolders(dirs ...string) {
	d.dirtyMu.Lock()
	defer d.dirtyMu.Unlock()
	for _, dir := range dirs {
		d.folders[dir] = struct{}{}
	}
}

// removed forgets a file that was removed.
func (d *dirty) removed(key fileKey) {
	d.dirtyMu.Lock()
	defer d.dirtyMu.Unlock()
	delete(d.files, key)
}

// take returns what there is and starts anew.
func (d *dirty) take() (files map[fileKey]struct{}, folders map[string]struct{}) {
	d.dirtyMu.Lock()
	defer d.dirtyMu.Unlock()
	files, folders = d.files, d.folders
	d.init()
	return files, folders
}

// giveBack returns what a failed Sync took.
func (d *dirty) giveBack(files map[fileKey]struct{}, folders map[string]struct{}) {
	d.dirtyMu.Lock()
	defer d.dirtyMu.Unlock()
	maps.Copy(d.files, files)
	maps.Copy(d.folders, folders)
}

// Sync makes durable what Flush and Patch wrote before the call, and the names
// of new files and folders. A checkpoint calls it after it captured the queues
// and before it is written.
//
// After an error nothing may be assumed about the entries flushed since the last
// Sync that succeeded, even if another one succeeds: a write that the disk lost
// is found out when the entry does not resolve.
func (s *Store) Sync() error {
	// A second Sync must not return while the first is at work on what it took.
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if s.closed.Load() {
		return ErrClosed
	}
	files, folders := s.dirty.take()
	for key := range files {
		if err := s.syncFile(key); err != nil {
			s.dirty.giveBack(files, folders)
			return fmt.Errorf("consumequeue: sync %s: %w", key.queue.path(key.base), err)
		}
	}
	for dir := range folders {
		// A folder that is gone was swept with its topic.
		if err := s.fs.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.dirty.giveBack(files, folders)
			return fmt.Errorf("consumequeue: sync folder %s: %w", dir, err)
		}
	}
	return nil
}

// syncFile syncs one file, through another descriptor than the one it was
// written with if that was closed meanwhile. A checkpoint may have captured a
// topic before it was dropped: then its files are there until Sweep.
func (s *Store) syncFile(key fileKey) error {
	h, err := s.handles.acquire(key.queue, key.base)
	if errors.Is(err, fs.ErrNotExist) && key.queue.dropped.Load() {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.handles.release(h)
	return h.file.Sync()
}
