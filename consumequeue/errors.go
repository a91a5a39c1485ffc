package consumequeue

import (
	"errors"

	"github.com/pocketmq/mq/internal/vfs"
)

// Errors of reading and patching.
var (
	// ErrTrimmed is returned for an offset below the queue's Min: what it pointed
	// at is gone.
	ErrTrimmed = errors.New("consumequeue: offset below the first entry")

	// ErrRange is returned for an offset at or beyond the queue's End.
	ErrRange = errors.New("consumequeue: offset beyond the last entry")

	// ErrDropped is returned for a queue whose topic was dropped.
	ErrDropped = errors.New("consumequeue: topic dropped")
)

// Errors of opening and closing.
var (
	// ErrShort is returned by Restore if the queue's files hold less than the
	// state says. The queue is left empty; its entries have to be taken from the
	// log again.
	ErrShort = errors.New("consumequeue: file missing or short")

	// ErrState is returned by Restore for a state that contradicts itself, or for
	// a queue that already has entries.
	ErrState = errors.New("consumequeue: state does not fit")

	// ErrClosed is returned by what needs a file after Close.
	ErrClosed = vfs.ErrClosed
)
