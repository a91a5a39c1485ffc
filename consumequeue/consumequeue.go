// Package consumequeue keeps the index of every message queue: one entry of 20
// bytes per message, in the order of offsets, as RocketMQ's ConsumeQueue does.
//
// Entries live in memory first. When a queue has about a thousand they are
// appended to its file; nothing is synced before Sync, which a checkpoint calls.
// What is not in a file yet travels in the checkpoint (Capture, Restore), so a
// queue with few messages has no file and no folder. Everything here can be
// folded from the log again.
//
//	<dir>/<topic>@<id>/<queue>/<offset of the first entry, 20 digits>
//
// One goroutine at a time appends, to all queues of a store together: the one
// that holds the log's append lock. Any number read meanwhile, without a lock
// for what is in memory. Flush, Sync, Capture, Trim, Patch and Sweep run beside
// both.
//
// The package has no goroutine of its own and reads no messages. It makes no
// promise of compatibility: it is part of the engine.
package consumequeue

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

const (
	// FileEntries is the number of entries in a full file (RocketMQ's
	// mappedFileSizeConsumeQueue, 300,000 entries of 20 bytes).
	FileEntries = 300_000

	// chunkEntries is how many entries are written to a file together, and the
	// size of the chunks of a busy queue: 20 KiB, an exact size class of the
	// allocator.
	chunkEntries = 1024

	// minChunkEntries is the size of a queue's first chunk; each further one
	// doubles what the queue has in memory. 40,000 queues with up to 8 messages
	// each take 6.4 MB, half of what makes Flush write early.
	minChunkEntries = 8

	defaultMaxUnflushed = 16 << 20
	defaultMaxOpen      = 256
)

// Options configure a Store. The zero value means the defaults.
type Options struct {
	// MaxUnflushed bounds the memory, in bytes, of entries that are in no file.
	// Flush keeps it; appending never waits, so whoever appends holds back while
	// Stats().Unflushed is far above. Default 16 MiB.
	MaxUnflushed int64

	// MaxKept bounds the memory, in bytes, of entries that are in files and stay
	// in memory nevertheless, the newest ones, so that who reads near the end
	// makes no system call. Default 0: none.
	MaxKept int64

	// MaxOpen bounds the open files. More are open only while more goroutines
	// than that read files. Default 256.
	MaxOpen int

	// Shared: the files are another store's, which removes those it does not need
	// any more. What was in one that is gone counts as trimmed.
	Shared bool

	// Full is called when someone should call Flush: enough full chunks for large
	// writes are waiting, or MaxUnflushed is near. It is called again and again
	// until that is done, under the append lock: it must not block or call the
	// store.
	Full func()
}

// withDefaults returns a copy with every field set.
func (o Options) withDefaults() Options {
	if o.MaxUnflushed <= 0 {
		o.MaxUnflushed = defaultMaxUnflushed
	}
	if o.MaxOpen <= 0 {
		o.MaxOpen = defaultMaxOpen
	}
	if o.Full == nil {
		o.Full = func() {}
	}
	return o
}

// Store holds the queues of all topics.
//
// Lock order: flushMu, syncMu, then a queue's fileMu, then one of the others,
// which are leaves. Appending takes fullMu alone, once per chunk; reading takes
// handlesMu alone, and only for entries in files.
type Store struct {
	fs      vfs.FS
	dir     string
	opts    Options
	known   map[string]bool // topic folders found at Open; never written to after
	handles handles
	dirty   dirty

	unflushed atomic.Int64 // bytes of chunks that are in no file
	kept      atomic.Int64 // bytes of those that are
	waiting   atomic.Int64 // bytes of full chunks since the last Flush began
	writes    atomic.Int64 // to files
	written   atomic.Int64 // bytes

	queuesMu sync.RWMutex // protects the two below
	topics   map[coord.TopicID]*topic
	dropped  []*topic // by Drop, since the last Sweep

	fullMu sync.Mutex // protects full and the listed mark of queues
	full   []*Queue   // what the next Flush has to look at

	flushMu sync.Mutex // one Flush at a time; protects the two below
	scratch []byte
	parts   []keptPart // oldest first

	syncMu sync.Mutex // one Sync or Sweep at a time; protects ripe
	ripe   []*topic   // dropped before the last Sweep: the next one removes their files

	closed atomic.Bool
}

// topic is what the queues of a topic have in common.
type topic struct {
	store  *Store
	name   string
	id     coord.TopicID
	queues []*Queue // ascending ids; protected by queuesMu
}

// Open opens the store in dir, which need not exist. It reads names of folders
// only; queues come back with Restore or by appending again.
func Open(fsys vfs.FS, dir string, o Options) (*Store, error) {
	s := &Store{
		fs: fsys, dir: dir, opts: o.withDefaults(),
		known:  make(map[string]bool),
		topics: make(map[coord.TopicID]*topic),
	}
	s.handles.init(fsys, s.opts.MaxOpen)
	s.dirty.init()
	entries, err := fsys.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("consumequeue: open %s: %w", dir, err)
	}
	for _, e := range entries {
		if e.Dir {
			s.known[e.Name] = true
		}
	}
	return s, nil
}

// Queue returns the queue of a topic, making it if it is new: empty, without a
// file or folder. The same arguments return the same Queue until Drop.
func (s *Store) Queue(name string, id coord.TopicID, q coord.QueueID) *Queue {
	s.queuesMu.Lock()
	defer s.queuesMu.Unlock()
	t := s.topics[id]
	if t == nil {
		t = &topic{store: s, name: name, id: id}
		s.topics[id] = t
	}
	i, found := slices.BinarySearchFunc(t.queues, q, func(have *Queue, want coord.QueueID) int {
		return cmp.Compare(have.id, want)
	})
	if !found {
		t.queues = slices.Insert(t.queues, i, newQueue(t, q))
	}
	return t.queues[i]
}

// queues returns all queues there are.
func (s *Store) queues() []*Queue {
	s.queuesMu.RLock()
	defer s.queuesMu.RUnlock()
	var all []*Queue
	for _, t := range s.topics {
		all = append(all, t.queues...)
	}
	return all
}

// Stats describes a store.
type Stats struct {
	Queues    int   // that exist
	OpenFiles int   // descriptors held
	Unflushed int64 // bytes of memory for entries that are in no file
	Kept      int64 // bytes of memory for entries that are
	Writes    int64 // to files, since Open
	Written   int64 // bytes written to files, since Open
}

// Stats returns a snapshot of counters.
func (s *Store) Stats() Stats {
	st := Stats{
		OpenFiles: s.handles.count(),
		Unflushed: s.unflushed.Load(),
		Kept:      s.kept.Load(),
		Writes:    s.writes.Load(),
		Written:   s.written.Load(),
	}
	s.queuesMu.RLock()
	defer s.queuesMu.RUnlock()
	for _, t := range s.topics {
		st.Queues += len(t.queues)
	}
	return st
}

// Close closes the files. It writes and syncs nothing: what is to be kept is
// flushed, captured and synced before. Entries in memory stay readable. It is
// idempotent.
func (s *Store) Close() error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if s.closed.Swap(true) {
		return nil
	}
	if err := s.handles.close(); err != nil {
		return fmt.Errorf("consumequeue: close: %w", err)
	}
	return nil
}
