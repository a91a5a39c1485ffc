package mq

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/journal"
	"github.com/pocketmq/mq/internal/keyindex"
	"github.com/pocketmq/mq/internal/record"
	"github.com/pocketmq/mq/internal/vfs"
)

const (
	unflushedBytes = 16 * mib // of queue entries not yet in files, all queues together
	keptBytes      = 16 * mib // of those in files that stay in memory: 800,000 messages
	openQueueFiles = 256      // descriptors of queue files
	syncBytes      = 64 * mib // a Written message is synced at the latest when so much follows it
)

// own makes the directory and takes its lock.
func (b *Broker) own() error {
	if err := b.makeDirectory(); err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	if info, err := os.Stat(b.dir); err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	} else if !info.IsDir() {
		return fmt.Errorf("%w: %q is a file", ErrDirectory, b.dir)
	}
	lock, err := vfs.LockFile(filepath.Join(b.dir, "LOCK"))
	var held *vfs.LockedError
	switch {
	case errors.As(err, &held):
		return fmt.Errorf("%w: %q by process %d", ErrLocked, b.dir, held.PID)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	b.lock = lock
	return nil
}

// makeDirectory makes the directory and what is missing above it, durably: a
// store whose name a power cut takes back is lost with all that was synced.
func (b *Broker) makeDirectory() error {
	dir, err := filepath.Abs(b.dir)
	if err != nil {
		return err
	}
	// What is there already may have been made by an opening that died before its
	// name was durable, so the directory's own parent is always among them.
	parents := []string{filepath.Dir(dir)} // from the inside out
	for d := filepath.Dir(dir); ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); err == nil || d == filepath.Dir(d) {
			break
		}
		parents = append(parents, filepath.Dir(d))
	}
	if err := b.fs.MkdirAll(b.dir); err != nil {
		return err
	}
	for _, parent := range slices.Backward(parents) {
		// A parent that may be passed through and not read cannot be synced; then
		// somebody else made the directory.
		if err := b.fs.SyncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// path names a file or folder of the store.
func (b *Broker) path(name string) string {
	if b.dir == "" {
		return name
	}
	return filepath.Join(b.dir, name)
}

// open brings the folds to the end of the log: from the last checkpoint and
// what was appended behind it, or from the log alone.
func (b *Broker) open() error {
	store, segments, err := commitlog.Probe(b.fs, b.path("commitlog"))
	if errors.Is(err, ErrVersion) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	if err := b.openIndexes(); err != nil {
		return err
	}
	start, err := b.restore()
	if err == nil && start.From > 0 && segments == 0 {
		return fmt.Errorf("%w: the log is gone, of which the journal knows %d bytes", ErrCorrupt, start.Synced)
	}
	if err == nil && start.From > 0 && store != 0 && store != b.storeID {
		err = fmt.Errorf("%w: the journal is of store %016x, the log of %016x", ErrCorrupt, b.storeID, store)
		start = commitlog.Start{}
	}
	if err != nil {
		b.opts.Logger.Warn("checkpoint cannot be used, folding the whole log", "err", err)
		b.recovery.Rebuilt = true
	}
	rebuild := err != nil || start.From == 0
	if rebuild {
		if err := b.forget(); err != nil {
			return err
		}
		start = commitlog.Start{Synced: start.Synced}
	} else if b.journal != nil {
		b.journal.Forget() // it is folded
	}
	if err := b.openLog(start, rebuild); err != nil {
		return err
	}
	return b.begin()
}

// forget empties the indexes, which are folded from the log again. Files without
// a checkpoint mean nothing, and a checkpoint without its files must not be found:
// it may have been of no use only because something could not be read just now.
func (b *Broker) forget() error {
	if b.journal != nil {
		if err := b.journal.Discard(); err != nil {
			return fmt.Errorf("%w: %w", ErrDirectory, err)
		}
	}
	b.upkeep.checkpointed.Store(0) // retention waits for the next one
	b.state.clear()
	b.names = newNames()
	err := errors.Join(b.entries.Close(), b.keys.Close(), b.timer.index.Close())
	for _, name := range []string{"consumequeue", "index", "timer"} {
		err = errors.Join(err, b.fs.RemoveAll(b.path(name)), b.fs.MkdirAll(b.path(name)))
	}
	return errors.Join(err, b.openFolders())
}

func (b *Broker) openIndexes() (err error) {
	for _, name := range []string{"commitlog", "consumequeue", "index", "timer"} {
		if err := b.fs.MkdirAll(b.path(name)); err != nil {
			return fmt.Errorf("%w: %w", ErrDirectory, err)
		}
	}
	if err := b.openFolders(); err != nil {
		return err
	}
	if b.dir == "" {
		return nil // nothing to come back to
	}
	if err := b.missJournal(); err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	if b.journalFS != nil && b.journalFS != vfs.OS() {
		b.journal, err = journal.OpenIn(b.journalFS, b.path("journal"), b.opts.Logger)
	} else {
		b.journal, err = journal.Open(b.path("journal"), b.opts.Logger)
	}
	switch {
	case errors.Is(err, journal.ErrVersion):
		return fmt.Errorf("%w: %w", ErrVersion, err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	return nil
}

// missJournal makes the names of the store's folders durable, and notes if a
// log is there without its journal: every store that was ever opened has one.
func (b *Broker) missJournal() error {
	logs, err := b.fs.List(b.path("commitlog"))
	if err != nil {
		return err
	}
	_, err = b.fs.List(b.path("journal"))
	b.recovery.Rebuilt = len(logs) > 0 && errors.Is(err, fs.ErrNotExist)
	return b.fs.SyncDir(b.dir)
}

func (b *Broker) openFolders() (err error) {
	b.entries, err = consumequeue.Open(b.fs, b.path("consumequeue"), consumequeue.Options{
		MaxUnflushed: unflushedBytes,
		MaxKept:      keptBytes,
		MaxOpen:      openQueueFiles,
		Shared:       b.isSnapshot,
		Full:         b.upkeep.wantFlush,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	b.keys, err = keyindex.Open(b.fs, b.path("index"))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	b.timer.index, err = keyindex.Open(b.fs, b.path("timer"))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	return nil
}

// openLog opens the log and folds what it holds behind the checkpoint. A
// rebuild folds it twice, names first: see state.applyContent.
func (b *Broker) openLog(start commitlog.Start, rebuild bool) error {
	opts := b.logOptions()
	replay := func(r commitlog.Record) error {
		if rebuild {
			return b.state.rebuildState(r)
		}
		if err := b.state.applyState(r.Payload, r.Position); err != nil {
			return err
		}
		return b.state.applyContent(r)
	}
	open := commitlog.Open
	if b.isSnapshot {
		open = commitlog.OpenSnapshot
	}
	log, found, err := open(opts, start, replay)
	if errors.Is(err, ErrDiskFull) && b.upkeep.spendReserve() {
		// Ending the epoch takes a frame. Folding everything again is harmless, but
		// for what is counted, and for pairs that are in no file: they would be there
		// twice, and what waits be delivered twice.
		b.timer.restore()
		b.keys.Restart()
		b.timer.index.Restart()
		log, found, err = open(opts, start, replay)
	}
	if err != nil {
		return openError(err)
	}
	b.log = log
	if rebuild {
		b.state.applyStarts()
		b.state.second = true
		err := b.foldContent(context.Background())
		b.state.second = false
		if err != nil {
			return err
		}
	}
	b.recovery.Clean = found.Clean && !b.recovery.Rebuilt
	b.recovery.Replayed, b.recovery.Corrupt = found.Replayed, found.Corrupt
	for _, c := range found.Cut {
		b.recovery.Cut = append(b.recovery.Cut, CutRange{From: int64(c.From), To: int64(c.To)})
	}
	return nil
}

// logOptions are those of the broker's log.
func (b *Broker) logOptions() commitlog.Options {
	return commitlog.Options{
		FS: b.fs, Dir: b.path("commitlog"), Mmap: !b.opts.DisableMmap,
		SegmentBytes: b.opts.SegmentBytes,
		SyncEvery:    b.opts.SyncEvery, SyncBytes: syncBytes,
		CacheBytes: max(b.opts.CacheBytes, 1), // -1: as little as works
		HeadLen:    record.HeadLen,
		Allow:      b.allow,
		Sealed:     b.upkeep.wantCheckpoint,
		Poisoned:   func(err error) { _ = b.noted(err) },
		Logger:     b.opts.Logger,
	}
}

// foldContent is the second pass of a rebuild. Entries, keys and times go to their
// files on the way, or memory would grow with the store. Damage was found by the first
// pass, and is no reason not to go on.
func (b *Broker) foldContent(ctx context.Context) error {
	folded := 0
	err := b.log.Scan(b.log.Start(), b.log.Written(), func(r commitlog.Record) error {
		if err := b.state.applyContent(r); err != nil {
			return err
		}
		if folded++; folded%(unflushedBytes/4/consumequeue.EntrySize) != 0 {
			return nil
		}
		err := b.entries.Flush()
		if b.keys.Pending() >= pendingKeys {
			err = errors.Join(err, b.keys.Flush(r.Position)) // no further: what follows is yet to be added
		}
		if b.timer.index.Pending() >= pendingTimes {
			err = errors.Join(err, b.timer.index.Flush(r.Position))
		}
		return errors.Join(err, ctx.Err())
	})
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return openError(err)
	}
	return nil
}

// openError keeps the sentinels of the log and calls everything else a
// directory that cannot be used.
func openError(err error) error {
	if errors.Is(err, ErrVersion) || errors.Is(err, ErrDiskFull) || errors.Is(err, ErrCorrupt) {
		return err
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	return fmt.Errorf("mq: open log: %w", err)
}

// begin turns a store that is read into one that is written.
func (b *Broker) begin() error {
	b.state.settleEnds()
	b.state.forgetHands(b.log.Epoch())
	b.trimQueues(b.log.Start())
	err := errors.Join(b.keys.DropBefore(b.log.Start()), b.timer.index.DropBefore(b.log.Start()))
	if err != nil { // a crash may have cut that short
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	if b.journal != nil {
		// From here on the log may run ahead of what the journal calls its end.
		if err := b.journal.Withdraw(); err != nil {
			return fmt.Errorf("%w: %w", ErrDirectory, err)
		}
	}
	if err := b.entries.SweepUnknown(b.knownFolder()); err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	b.upkeep.start()
	b.callback.start()
	b.timer.start()
	return nil
}

// knownFolder tells the queue folders of topics that exist from what a crash
// left behind.
func (b *Broker) knownFolder() func(string) bool {
	known := map[string]bool{}
	for _, t := range b.state.topics {
		known[consumequeue.Dir(t.name, t.id)] = true
	}
	return func(dir string) bool { return known[dir] }
}
