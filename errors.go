package mq

import (
	"errors"

	"github.com/pocketmq/mq/commitlog"
)

// Errors of opening a store.
var (
	// ErrLocked says that another broker, in this process or another, owns the
	// directory. The message names the holder's process id.
	ErrLocked = errors.New("mq: directory is locked")

	// ErrDirectory says that the directory cannot hold a store: it is a file,
	// or it cannot be read, written or made.
	ErrDirectory = errors.New("mq: directory cannot be used")

	// ErrNoStore says that a directory that should hold a store does not.
	ErrNoStore = errors.New("mq: not a store")

	// ErrVersion says that the store was written by a newer format. Nothing
	// was changed.
	ErrVersion = commitlog.ErrVersion

	// ErrInvalidOptions says that a field of an options struct has a value that
	// it cannot have. The message names the field and the value.
	ErrInvalidOptions = errors.New("mq: invalid options")
)

// Errors of what a caller hands in. Nothing was changed.
var (
	// ErrInvalidName says that a name of a topic, group or instance is empty,
	// too long, has a character outside ^[%|a-zA-Z0-9_-]+$ or is reserved.
	ErrInvalidName = errors.New("mq: invalid name")

	// ErrInvalidMessage says that a message is nil or that its tag, keys,
	// properties, sharding key or deduplication key are over their limits.
	ErrInvalidMessage = errors.New("mq: invalid message")

	// ErrTooLarge says that a body, or a batch as a whole, is over its limit.
	ErrTooLarge = commitlog.ErrTooLarge

	// ErrInvalidArgument says that another argument has a value that it cannot
	// have. The message names it.
	ErrInvalidArgument = errors.New("mq: invalid argument")

	// ErrInvalidFilter says that the expression of a filter cannot be read. In
	// one of SQL an *ExpressionError says where.
	ErrInvalidFilter = errors.New("mq: invalid filter")

	// ErrNoDedupWindow says that a message has a DedupKey and its topic no window
	// (TopicConfig.Dedup), or is not there yet: it could not be told from a repeat.
	ErrNoDedupWindow = errors.New("mq: topic has no deduplication window")

	// ErrOffsetOutOfRange says that an offset is negative or beyond the end of
	// its message queue.
	ErrOffsetOutOfRange = errors.New("mq: offset out of range")
)

// Errors of what is not there, or is there already.
var (
	// ErrTopicNotFound says that the topic does not exist (and is not created
	// on first use where it was asked for).
	ErrTopicNotFound = errors.New("mq: topic not found")

	// ErrTopicExists says that a topic of that name exists already.
	ErrTopicExists = errors.New("mq: topic exists")

	// ErrQueueNotFound says that the topic has no message queue of that number.
	ErrQueueNotFound = errors.New("mq: queue not found")

	// ErrGroupNotFound says that there is no group of that name: nobody ever was a
	// member of it, nothing was set of it, or it was deleted.
	ErrGroupNotFound = errors.New("mq: group not found")

	// ErrMessageNotFound says that no message is stored under that id: it was
	// dropped by retention, or never was.
	ErrMessageNotFound = errors.New("mq: message not found")
)

// ErrNotWaiting says that a message does not wait for its time: it has been
// delivered or recalled, was never delayed, its topic is gone, or it is not of
// this store.
var ErrNotWaiting = errors.New("mq: message is not waiting")

// ErrTimeout is the cause (context.Cause) with which the context of a handler is
// cancelled that takes longer than PushOptions.Timeout. If it then returns an
// error, that is wrapped together with this one.
var ErrTimeout = errors.New("mq: handler past its time-out")

// Errors of groups.
var (
	// ErrGroupKind says that the living members of the group are of another
	// kind of consumer, another model or another order mode.
	ErrGroupKind = errors.New("mq: group has members of another kind")

	// ErrGroupActive says that the group has living members, and what was asked
	// for needs a group without any.
	ErrGroupActive = errors.New("mq: group has living members")

	// ErrInstanceInUse says that a living broadcasting member has that instance
	// name already.
	ErrInstanceInUse = errors.New("mq: instance name in use")

	// ErrSubscriptionMismatch says that another member of the group subscribes
	// to the topic with another filter. Resubscribe changes it for all.
	ErrSubscriptionMismatch = errors.New("mq: filter differs from the group's")

	// ErrNotAssigned says that the message queue belongs to another member, or
	// that the message was not delivered to this group.
	ErrNotAssigned = errors.New("mq: not assigned to this consumer")

	// ErrReceiptExpired says that a message is no longer this receiver's: its
	// invisible time was over, it was acknowledged or given back already, or the
	// group's offsets were reset, its topic deleted, or its last member closed.
	ErrReceiptExpired = errors.New("mq: receipt expired")

	// ErrStale says that the offsets of the group were reset, or the group or
	// topic deleted, after the message was delivered. It was not acknowledged.
	ErrStale = errors.New("mq: delivery is from before a reset")
)

// Errors of a running store.
var (
	// ErrClosed says that the broker, producer or consumer is closed.
	ErrClosed = commitlog.ErrClosed

	// ErrBackpressure says that the log is not prepared that far, or that too
	// many asynchronous sends are under way. The message is not stored; a
	// little later there is room again.
	ErrBackpressure = commitlog.ErrBackpressure

	// ErrFull says that the store is at Retention.MaxBytes and everything in it
	// has yet to be consumed, or that the message is too large for that bound
	// whatever is dropped. It is not stored.
	ErrFull = errors.New("mq: store is full")

	// ErrDiskFull says that the file system has no room for another segment.
	// The message is not stored; later sends try again.
	ErrDiskFull = commitlog.ErrDiskFull

	// ErrPoisoned says that writing or syncing failed, so that nothing more can
	// be promised until the store is opened again. Stored messages stay
	// readable. A send that returns it may still be stored.
	ErrPoisoned = commitlog.ErrPoisoned

	// ErrCorrupt says that stored bytes are damaged. A *CorruptionError carries
	// the place.
	ErrCorrupt = commitlog.ErrCorrupt
)

// CorruptionError tells where damage was found: a file of the store and the
// offset of the first bad byte in it. errors.Is(err, ErrCorrupt) holds.
type CorruptionError = commitlog.CorruptionError
