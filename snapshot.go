package mq

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/journal"
	"github.com/pocketmq/mq/internal/vfs"
)

// Snapshot is a store as it was when OpenReadOnly looked at it. Its methods are
// those of Broker that only ask, and may be called from any goroutine.
type Snapshot struct {
	b  *Broker
	at time.Time
}

// snapshotTries is how often a store is looked at whose owner changes it
// meanwhile: after a checkpoint or a dropped segment the names that were just
// listed are others.
const snapshotTries = 5

// OpenReadOnly looks at the store in dir, which a broker of this or another
// process may have open: browsing it, asking for lag, finding messages. It takes
// no lock, changes no file and does not disturb the owner. It needs the right to
// read the files, which are their owner's alone (0600).
//
// What comes back does not move: to see what was sent or acknowledged later, open
// another. That reads the last checkpoint and what the log holds behind it, some
// hundred megabytes at most; of a store whose journal is damaged, the whole log.
// Messages are shown as soon as they are written: a power cut may still take them
// back. A message that retention drops later is ErrMessageNotFound.
//
// Of options only Logger and CacheBytes count. Errors: ErrNoStore, ErrVersion,
// ErrDirectory, ErrInvalidOptions.
func OpenReadOnly(dir string, options *Options) (*Snapshot, error) {
	opts := options.withDefaults(false)
	if err := opts.validate(); err != nil {
		return nil, err
	}
	return openSnapshot(vfs.OS(), dir, opts)
}

func openSnapshot(fsys vfs.FS, dir string, opts Options) (s *Snapshot, err error) {
	if err := isStore(fsys, dir); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		before := fingerprint(fsys, dir)
		b := newBroker(opts, vfs.Overlay(fsys), dir)
		err = b.openSnapshot()
		// What looks damaged or missing may only be on its way.
		suspect := err != nil || b.recovery.Rebuilt || len(b.recovery.Corrupt) > 0
		if !suspect || try == snapshotTries || errors.Is(err, ErrVersion) || before == fingerprint(fsys, dir) {
			if err != nil {
				return nil, errors.Join(err, b.release())
			}
			return &Snapshot{b: b, at: time.Now()}, nil
		}
		_ = b.release() // nothing was written
	}
}

// openSnapshot is open, for reading: no recovery, and no goroutine is started.
func (b *Broker) openSnapshot() error {
	b.isSnapshot = true
	if err := b.openFolders(); err != nil {
		return err
	}
	var start commitlog.Start
	found, err := journal.Examine(b.fs, b.path("journal"))
	switch {
	case errors.Is(err, journal.ErrVersion):
		return fmt.Errorf("%w: %w", ErrVersion, err)
	case err == nil && found.Last != nil:
		start, err = b.restoreFrom(found.Last)
	}
	rebuild := err != nil || start.From == 0
	if rebuild {
		b.recovery.Rebuilt = err != nil && !errors.Is(err, fs.ErrNotExist)
		if err := b.forget(); err != nil {
			return err
		}
		start = commitlog.Start{Synced: start.Synced}
	}
	if err := b.openLog(start, rebuild); err != nil {
		return err
	}
	b.state.settleEnds()
	b.trimQueues(b.log.Start())
	return nil
}

// At returns when the store was looked at.
func (s *Snapshot) At() time.Time { return s.at }

// Recovery tells what looking at the store found. Nothing was repaired.
func (s *Snapshot) Recovery() Recovery { return s.b.recovery }

// Close lets go of the files. It may be called twice.
func (s *Snapshot) Close() error {
	s.b.close.Do(func() {
		s.b.isClosed.Store(true)
		s.b.closeErr = s.b.release()
	})
	return s.b.closeErr
}

// Topics: see Broker.Topics.
func (s *Snapshot) Topics() []string { return s.b.Topics() }

// Topic: see Broker.Topic.
func (s *Snapshot) Topic(name string) (TopicInfo, error) { return s.b.Topic(name) }

// Route: see Broker.Route.
func (s *Snapshot) Route(topic string) ([]QueueInfo, error) { return s.b.Route(topic) }

// Groups: see Broker.Groups.
func (s *Snapshot) Groups() []string { return s.b.Groups() }

// Offsets: see Broker.Offsets.
func (s *Snapshot) Offsets(group, topic string) ([]QueueOffset, error) {
	return s.b.Offsets(group, topic)
}

// Lag: see Broker.Lag.
func (s *Snapshot) Lag(group string) (total int64, queues []QueueOffset, err error) {
	return s.b.Lag(group)
}

// Backlog: see Broker.Backlog.
func (s *Snapshot) Backlog(group string) (total Backlog, queues []Backlog, err error) {
	return s.b.Backlog(group)
}

// Filter: see Broker.Filter.
func (s *Snapshot) Filter(group, topic string) (Filter, error) { return s.b.Filter(group, topic) }

// Browse: see Broker.Browse.
func (s *Snapshot) Browse(topic string, from, to time.Time, f Filter) iter.Seq2[*Message, error] {
	return s.b.Browse(topic, from, to, f)
}

// BrowseWaiting: see Broker.BrowseWaiting.
func (s *Snapshot) BrowseWaiting(topic string, from, to time.Time) iter.Seq2[*Message, error] {
	return s.b.BrowseWaiting(topic, from, to)
}

// DeadLetters: see Broker.DeadLetters.
func (s *Snapshot) DeadLetters(group string) iter.Seq2[*Message, error] {
	return s.b.DeadLetters(group)
}

// MessageAt: see Broker.MessageAt.
func (s *Snapshot) MessageAt(q Queue, off Offset) (*Message, error) { return s.b.MessageAt(q, off) }

// MessageTrack: see Broker.MessageTrack.
func (s *Snapshot) MessageTrack(id MessageID) ([]Track, error) { return s.b.MessageTrack(id) }

// MessageByID: see Broker.MessageByID.
func (s *Snapshot) MessageByID(id MessageID) (*Message, error) { return s.b.MessageByID(id) }

// MessagesByKey: see Broker.MessagesByKey.
func (s *Snapshot) MessagesByKey(topic, key string, max int) ([]*Message, error) {
	return s.b.MessagesByKey(topic, key, max)
}

// OffsetAt: see Broker.OffsetAt.
func (s *Snapshot) OffsetAt(q Queue, at time.Time) (Offset, error) { return s.b.OffsetAt(q, at) }

// StoredAt: see Broker.StoredAt.
func (s *Snapshot) StoredAt(q Queue, off Offset) (time.Time, error) { return s.b.StoredAt(q, off) }
