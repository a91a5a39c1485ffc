package commitlog

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/pocketmq/mq/internal/vfs"
)

// When opening.
var (
	// ErrVersion means that a segment was written in a format this version does
	// not know. Nothing was changed.
	ErrVersion = errors.New("commitlog: unknown format version")
)

// When appending or waiting.
var (
	// ErrClosed means that the log was closed.
	ErrClosed = vfs.ErrClosed

	// ErrPoisoned means that a sync, a store or a load of mapped bytes failed
	// earlier. What the log says about durability could no longer be trusted, so
	// it takes nothing until it is opened again. Stored records stay readable.
	ErrPoisoned = errors.New("commitlog: log is poisoned")

	// ErrBackpressure means that there is no prepared room and that the caller
	// asked not to wait for it.
	ErrBackpressure = errors.New("commitlog: no room prepared")

	// ErrDiskFull means that not even the smallest segment can be allocated.
	ErrDiskFull = errors.New("commitlog: disk is full")

	// ErrLater is what Options.Allow says when it does not know yet: whoever waits
	// for room goes on waiting, until Poke has it asked again.
	ErrLater = errors.New("commitlog: not decided yet")

	// ErrTooLarge means that a frame would be larger than MaxFrameBytes.
	ErrTooLarge = errors.New("commitlog: frame is too large")
)

// When reading.
var (
	// ErrCorrupt is what every CorruptionError is.
	ErrCorrupt = errors.New("commitlog: damaged bytes")

	// ErrNotFound means that no record begins at a position: it was dropped, is
	// not written yet, or never was one.
	ErrNotFound = errors.New("commitlog: no record at this position")
)

// Misuse by the caller of Append; the frame is not appended.
var (
	errEmptyFrame = errors.New("commitlog: append frame: it holds no record")
	errNotWritten = errors.New("commitlog: wait for position: it was never written")
)

// CorruptionError says where bytes are damaged. errors.Is(err, ErrCorrupt)
// holds for it.
type CorruptionError struct {
	File   string // path of the segment
	Offset int64  // in the file
	Err    error  // what is wrong there
}

// Error names the file, the offset and the cause.
func (e *CorruptionError) Error() string {
	return fmt.Sprintf("commitlog: damaged bytes in %s at %d: %v", e.File, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *CorruptionError) Unwrap() error { return e.Err }

// Is makes every CorruptionError an ErrCorrupt.
func (e *CorruptionError) Is(target error) bool { return target == ErrCorrupt }

// outOfSpace tells whether an error means that space is used up, on the disk or
// in the user's quota.
func outOfSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
