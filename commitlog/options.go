package commitlog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

// Position is a byte in the log.
type Position = coord.Position

const (
	// firstSegmentBytes is the capacity of a store's first segment; each next
	// one is twice as large, up to Options.SegmentBytes. A test or an edge box
	// does not pay for two segments of 128 MiB.
	firstSegmentBytes = 4 << 20

	// leastSegmentBytes is the smallest capacity that is tried when space is
	// short, before the log says that the disk is full.
	leastSegmentBytes = 1 << 20

	// pageBytes is what capacities and therefore the bases of segments are
	// multiples of.
	pageBytes = 4096

	// leastOptionBytes is the smallest SegmentBytes that makes sense: room for a
	// header, an END frame and the reserve, for tests of rolling.
	leastOptionBytes = 4 * pageBytes
)

// Defaults of Options.
const (
	DefaultSegmentBytes = 128 << 20
	DefaultSyncEvery    = 500 * time.Millisecond
	DefaultSyncBytes    = 64 << 20
	DefaultCacheBytes   = 64 << 20
)

// Options configure a Log. FS, Dir and HeadLen are required.
type Options struct {
	// FS is the file system, and Dir the folder in it that holds the segments.
	// The folder is made if it is missing.
	FS  vfs.FS
	Dir string

	// Mmap writes and reads the tail through mappings where FS has them. Without
	// it, or where Map fails with errors.ErrUnsupported, every append is a write.
	Mmap bool

	// SegmentBytes is the largest capacity of a segment, 0 for 128 MiB. A frame
	// that does not fit makes its segment larger.
	SegmentBytes int64

	// SyncEvery is how long a written byte may stay unsynced, 0 for 500 ms;
	// SyncBytes is how many may, 0 for 64 MiB. Reaching either starts a sync in
	// the background.
	SyncEvery time.Duration
	SyncBytes int64

	// CacheBytes bounds the cache of blocks read back from files, 0 for 64 MiB.
	CacheBytes int64

	// HeadLen tells how many bytes at the beginning of a record's payload are
	// its head, the rest being the body, which is hashed apart. It says false
	// for a payload that cannot be one; it is asked about damaged bytes too.
	HeadLen func(payload []byte) (int, bool)

	// Allow is asked before a log of so many bytes gets a segment of more. Its error
	// goes to those who wait for room, but for ErrLater, with which they go on
	// waiting until Poke has it asked again. Nil allows everything.
	Allow func(bytes, more int64) error

	// Sealed is called after a segment was sealed, outside all locks and one
	// call after another. It must not call Close. May be nil.
	Sealed func()

	// Poisoned is called once, with the error that everybody gets from then on. It
	// is called under whatever locks are held at that moment, and must not wait. May
	// be nil.
	Poisoned func(err error)

	// Logger gets what goes wrong in the background and what recovery found.
	// Nil discards.
	Logger *slog.Logger
}

// prepared returns a copy of o with the defaults filled in, or says what is
// wrong with it.
func (o Options) prepared() (Options, error) {
	if o.FS == nil || o.Dir == "" || o.HeadLen == nil {
		return o, errors.New("commitlog: open: FS, Dir and HeadLen are required")
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.SegmentBytes < leastOptionBytes {
		return o, fmt.Errorf("commitlog: open: SegmentBytes %d is below %d", o.SegmentBytes, leastOptionBytes)
	}
	o.SegmentBytes = roundUp(o.SegmentBytes, pageBytes)
	if o.SyncEvery <= 0 {
		o.SyncEvery = DefaultSyncEvery
	}
	if o.SyncBytes <= 0 {
		o.SyncBytes = DefaultSyncBytes
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.Allow == nil {
		o.Allow = func(int64, int64) error { return nil }
	}
	if o.Sealed == nil {
		o.Sealed = func() {}
	}
	if o.Poisoned == nil {
		o.Poisoned = func(error) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return o, nil
}

// roundUp returns the smallest multiple of step that is not below n.
func roundUp(n, step int64) int64 { return (n + step - 1) / step * step }

// Start is what the caller's last checkpoint knows of the log. The zero value
// knows nothing: the whole log is replayed.
type Start struct {
	// From is where replay begins: a value of Written noted before the
	// checkpoint's state was captured.
	From Position

	// Synced is a position up to which the log was synced before the checkpoint
	// was completed. A log that ends before it is corrupt.
	Synced Position

	// Epoch is the value of Epoch when the checkpoint was taken, 0 if it is not
	// known; then the segment of From is read from its beginning to find it.
	Epoch uint32

	// Clean says that the log was closed with Written at Synced, and nothing
	// appended since.
	Clean bool
}

// Recovery tells what opening found and did.
type Recovery struct {
	// Clean: the log ended where a clean close left it, or is new.
	Clean bool

	// Start and End are the first byte of the log and the position behind its
	// last frame, after recovery.
	Start, End Position

	// Cut lists bytes behind the last valid frame that were dropped, because
	// nothing proves that they were ever synced.
	Cut []Cut

	// Corrupt lists places that are damaged although what lies there was
	// synced. Nothing was deleted there.
	Corrupt []*CorruptionError

	// Rewritten is how many bytes were written and synced again, Replayed how
	// many records were handed to the replay function.
	Rewritten int64
	Replayed  int64

	// Epoch is the epoch from now on.
	Epoch uint32
}

// Cut is a stretch of the log that recovery dropped.
type Cut struct {
	From, To Position
}

// Record is one record of the log.
type Record struct {
	// Position names the record for ever.
	Position Position

	// Size is the record with its header, as an index notes it.
	Size uint32

	// Epoch is the store's epoch when the record was appended.
	Epoch uint32

	// End is the end of the frame that holds the record. Read, and a Scan that
	// began inside a frame, do not see the frame; they give the end of the
	// record.
	End Position

	// Payload is what the caller wrote. It is only valid inside the function
	// that got the record, and must not be changed.
	Payload []byte
}

// Ref says where a record is.
type Ref struct {
	Position Position
	Size     uint32 // as in Record; 0: not known, it is read from the header
}

// Segment describes one file of the log.
type Segment struct {
	Base       Position  // its first byte
	End        Position  // behind its last frame
	Bytes      int64     // allocated
	Sealed     bool      // it takes no more frames
	LastStored time.Time // when it was sealed; zero if it is not
}

// Stats are counters and gauges of a log, at one moment.
type Stats struct {
	Start, Written, Synced Position
	Epoch                  uint32

	Segments int   // files with records
	Bytes    int64 // allocated, the prepared successor included

	Frames    int64 // appended since opening
	Syncs     int64 // of files, since opening
	RoomWaits int64 // appends that had to wait for room
	Refused   int64 // appends that found none, or were not to wait
	Populated int64 // 64 KiB steps that a sender populated itself

	CacheHits, CacheMisses int64 // of the block cache
}

// Room says what an Append does when there is no room, and which room it may
// use.
type Room uint8

const (
	// Wait waits until room is prepared or ctx is done.
	Wait Room = iota

	// Try fails with ErrBackpressure.
	Try

	// Reserved may use the room that the others leave: the last 256 KiB before
	// the last prepared byte, and a segment that Allow refused. It is for what
	// lets a full store be drained: acks, resets, deletions. It waits as Wait
	// does if even that is used up.
	Reserved
)
