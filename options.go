package mq

import (
	"fmt"
	"log/slog"
	"time"
)

// Options says how a store is opened. The zero value, and nil, mean the
// defaults named at each field. Options are copied: changing them after Open
// has no effect.
type Options struct {
	// Logger receives what happens in the background and on recovery. Nil
	// discards it.
	Logger *slog.Logger

	// Hooks are called when something happens that a program may want to act
	// on. Nil calls nothing.
	Hooks *Hooks

	// Durability of topics that are created on first use, or with a nil or zero
	// TopicConfig. Default Synced.
	Durability Durability

	// NoAutoCreate makes sending to or subscribing to a topic that does not
	// exist an error (ErrTopicNotFound). By default it is created.
	NoAutoCreate bool

	// DefaultQueues is the number of message queues of a topic that does not
	// say. Default 4 (RocketMQ's DefaultMQProducer.defaultTopicQueueNums).
	DefaultQueues int

	// MaxBodyBytes bounds the body of a message. Default 4 MiB (RocketMQ's
	// maxMessageSize), at most 15 MiB.
	MaxBodyBytes int

	// SyncEvery bounds how long a message of a Written topic stays unsynced.
	// Default 500 ms (RocketMQ's flushIntervalCommitLog).
	SyncEvery time.Duration

	// SegmentBytes is the largest capacity of a log segment. A store begins with
	// segments of 4 MiB and doubles up to it. Default 128 MiB, at least 1 MiB.
	SegmentBytes int64

	// Retention says how long messages are kept.
	Retention Retention

	// CacheBytes bounds the cache of log blocks that all readers of older
	// messages share. Default 64 MiB, -1 for the smallest that works.
	CacheBytes int64

	// DisableMmap writes and reads the log by system calls instead of mapping
	// it. Slower; for file systems on which mappings misbehave.
	DisableMmap bool
}

// Retention says how long messages are kept. Only whole segments are dropped,
// oldest first, never the one that is written.
type Retention struct {
	// Age after which messages are dropped. Default 72 h (RocketMQ's
	// fileReservedTime), -1 keeps them for ever.
	Age time.Duration

	// MaxBytes bounds the log, preallocated space included. Zero or -1 is off
	// (OpenMemory: 256 MiB), the least is 4 MiB. Segments are at most a quarter
	// of it. At the bound the oldest segments are dropped; where
	// they have yet to be consumed, sends fail with ErrFull.
	MaxBytes int64

	// DropUnconsumed drops messages that a group has yet to consume, as
	// RocketMQ does. Hooks.Missed and Stats tell what was missed. By default
	// nothing a group has yet to consume is dropped.
	DropUnconsumed bool

	// GroupExpiry is how long the store must have been open without a member of
	// a group until that group no longer holds its messages. It keeps its
	// progress. Default 7 days, -1 never.
	GroupExpiry time.Duration
}

// Durability is what is known of a message, or of an acknowledgement, by the
// time the call that stored it returns.
type Durability uint8

const (
	// DefaultDurability is the Durability of the surrounding options: for a
	// topic Options.Durability, which is Synced unless set; for
	// acknowledgements Written.
	DefaultDurability Durability = iota

	// Synced is on the disk (fdatasync): it survives a power cut.
	Synced

	// Written is in the operating system's page cache: it survives the end of
	// the process, kill -9 included, and within Options.SyncEvery a power cut.
	Written
)

// String returns the name of the constant.
func (d Durability) String() string {
	switch d {
	case DefaultDurability:
		return "Default"
	case Synced:
		return "Synced"
	case Written:
		return "Written"
	}
	return fmt.Sprintf("Durability(%d)", uint8(d))
}

const (
	kib = 1 << 10
	mib = 1 << 20

	maxQueues        = 1024
	leastMaxBytes    = 4 * mib   // of Retention: four segments of the smallest size
	memoryMaxBytes   = 256 * mib // what a process can spare for a test
	memorySegment    = 16 * mib  // a sixteenth of it, so that space comes back in small steps
	largestBodyBytes = 15 * mib  // a frame is at most 16 MiB, names and headers included
)

// withDefaults returns a copy of o in which every field is set.
func (o *Options) withDefaults(memory bool) Options {
	var c Options
	if o != nil {
		c = *o
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Hooks == nil {
		c.Hooks = &Hooks{}
	} else {
		hooks := *c.Hooks
		c.Hooks = &hooks
	}
	setDefault(&c.Durability, Synced)
	setDefault(&c.DefaultQueues, 4)
	setDefault(&c.MaxBodyBytes, 4*mib)
	setDefault(&c.SyncEvery, 500*time.Millisecond)
	setDefault(&c.SegmentBytes, 128*mib)
	setDefault(&c.CacheBytes, 64*mib)
	setDefault(&c.Retention.Age, 72*time.Hour)
	setDefault(&c.Retention.GroupExpiry, 7*24*time.Hour)
	if memory {
		setDefault(&c.Retention.MaxBytes, memoryMaxBytes)
		c.SegmentBytes = min(c.SegmentBytes, memorySegment)
	}
	if c.Retention.MaxBytes > 0 {
		// A log that is bounded needs several segments, or nothing could ever be
		// dropped from it.
		c.SegmentBytes = min(c.SegmentBytes, max(mib, c.Retention.MaxBytes/4))
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate says which field cannot be used. It runs on the copy with defaults.
func (o *Options) validate() error {
	switch {
	case o.Durability > Written:
		return invalidOption("Durability", o.Durability)
	case o.DefaultQueues < 1 || o.DefaultQueues > maxQueues:
		return invalidOption("DefaultQueues", o.DefaultQueues)
	case o.MaxBodyBytes < 1 || o.MaxBodyBytes > largestBodyBytes:
		return invalidOption("MaxBodyBytes", o.MaxBodyBytes)
	case o.SyncEvery < 0:
		return invalidOption("SyncEvery", o.SyncEvery)
	case o.SegmentBytes < mib || o.SegmentBytes > 1<<32:
		return invalidOption("SegmentBytes", o.SegmentBytes)
	case o.CacheBytes < -1:
		return invalidOption("CacheBytes", o.CacheBytes)
	case o.Retention.Age < -1:
		return invalidOption("Retention.Age", o.Retention.Age)
	case o.Retention.MaxBytes < -1 || o.Retention.MaxBytes > 0 && o.Retention.MaxBytes < leastMaxBytes:
		return invalidOption("Retention.MaxBytes", o.Retention.MaxBytes)
	case o.Retention.GroupExpiry < -1:
		return invalidOption("Retention.GroupExpiry", o.Retention.GroupExpiry)
	}
	return nil
}

func invalidOption(field string, value any) error {
	return fmt.Errorf("%w: %s is %v", ErrInvalidOptions, field, value)
}
