// Package workload is the work that the tools of the fault lab break: a process
// of its own that sends and consumes in every way there is, and says what it
// was told in a log outside the store. A Ledger reads that log, opens the store
// after the fault and decides whether every promise was kept.
//
// A program that wants to be the process calls Main first thing; Start starts
// the program again as that process.
package workload

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/pocketmq/mq"
)

// Config is one life of the process.
type Config struct {
	Dir         string // of the store
	Seed        uint64
	Life        int    // lives of one store have different numbers
	DisableMmap bool   // the portable segments
	Steps       int    // so many steps one after another, and the end; 0: everything at once, for ever
	LeaveOpen   bool   // end without closing the store
	Fill        bool   // send until the disk is full, and see what can be done then
	Ballast     string // then, a file whose removal makes room; empty: the process kills itself
}

// SegmentBytes of the stores: small, so that there are seals and checkpoints.
const SegmentBytes = 1 << 20

// Options are those of the store, for a process and for who looks at it later.
func (c *Config) Options() *mq.Options {
	return &mq.Options{
		SegmentBytes: SegmentBytes, SyncEvery: 50 * time.Millisecond,
		DisableMmap: c.DisableMmap, Retention: mq.Retention{Age: -1},
	}
}

// Topics and groups of the workload. Besides these there is one Synced topic
// per life, made in the middle of it.
const (
	syncedTopic  = "S"
	writtenTopic = "W"
	lateTopic    = "Late" // and a number

	pullGroup   = "pull"
	syncedGroup = "pull-synced" // its acknowledgements wait for the disk
	pushGroup   = "push"
	auditGroup  = "audit" // reads everything at the end
)

const queues = 3

// lateTopics bounds how many topics a store gets.
const lateTopics = 40

func lateName(life int) string { return fmt.Sprint(lateTopic, life%lateTopics) }

func durability(topic string) mq.Durability {
	if topic == writtenTopic {
		return mq.Written
	}
	return mq.Synced
}

// bodyHead is the number of a message in hexadecimal digits, which begins its
// body. What follows is made from the number, so that a body alone tells whether
// it is whole.
const bodyHead = 16

func appendBody(b []byte, number uint64, size int) []byte {
	b = fmt.Appendf(b, "%016x", number)
	x := number | 1
	for len(b) < size {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b[:max(size, bodyHead)]
}

// readBody returns the number of the message, if the body is one of ours, whole.
func readBody(b []byte) (number uint64, whole bool) {
	if len(b) < bodyHead {
		return 0, false
	}
	if _, err := fmt.Sscanf(string(b[:bodyHead]), "%16x", &number); err != nil {
		return 0, false
	}
	return number, string(appendBody(make([]byte, 0, len(b)+8), number, len(b))) == string(b)
}

// Numbers of messages: life, producer, count.
func firstNumber(life, producer int) uint64 {
	return uint64(life)<<40 | uint64(producer)<<32 //nolint:gosec // small and positive
}

// oneLine keeps an error on the line it is reported on.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
