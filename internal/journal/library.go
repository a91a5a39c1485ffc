package journal

import (
	"fmt"

	"github.com/tidwall/wal"
)

// segmentBytes is when the library begins another file. Dropping the front of
// its log means writing the file anew in which the rest begins, so small files
// keep that cheap; each costs an fsync, so not too small.
const segmentBytes = 1 << 20

// library is a tidwall/wal log that is only appended to. Nothing is ever read
// through it: its reads change state under a read lock, take zero bytes for
// entries and know no checksums. A panic inside comes out as an error, after
// which, as after any error, it must only be closed.
type library struct {
	log  *wal.Log
	next uint64 // index of the next entry
}

// openLibrary opens or creates a log in a folder whose files have been found in
// order, and end with the entry before next.
func openLibrary(dir string, next uint64) (*library, error) {
	l := &library{next: next}
	err := guard("open", func() (err error) {
		// NoSync leaves the fsyncs to us: by itself it makes one for each entry,
		// where one for all chunks of a checkpoint will do.
		l.log, err = wal.Open(dir, &wal.Options{
			NoSync:           true,
			SegmentSize:      segmentBytes,
			SegmentCacheSize: 1,
			DirPerms:         0o700,
			FilePerms:        0o600,
		})
		if err != nil {
			return err
		}
		last, err := l.log.LastIndex()
		if err == nil && last != next-1 {
			err = fmt.Errorf("it ends with entry %d, not %d", last, next-1)
		}
		return err
	})
	if err != nil {
		if l.log != nil {
			_ = l.close()
		}
		return nil, err
	}
	return l, nil
}

// append adds an entry. It is copied.
func (l *library) append(entry []byte) error {
	return guard("append", func() error {
		if err := l.log.Write(l.next, entry); err != nil {
			return err
		}
		l.next++
		return nil
	})
}

// sync makes all entries durable, but not the names of new files: files that are
// full were synced when the next one was begun.
func (l *library) sync() error { return guard("sync", l.log.Sync) }

// dropBefore removes the entries before index.
func (l *library) dropBefore(index uint64) error {
	return guard("drop", func() error { return l.log.TruncateFront(index) })
}

// close closes the log. It syncs first, as far as that still works.
func (l *library) close() error { return guard("close", l.log.Close) }

// guard runs a call into the library and turns a panic into an error.
func guard(op string, call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("tidwall/wal: %s: panic: %v", op, p)
		}
	}()
	if err := call(); err != nil {
		return fmt.Errorf("tidwall/wal: %s: %w", op, err)
	}
	return nil
}
