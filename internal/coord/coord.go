// Package coord holds the coordinates in which PocketMQ speaks of messages.
//
// They are separate types because they must not mix: a byte in the log, an
// index in a message queue and the number of a queue are all integers, and
// handing one for another is a mistake the compiler should find.
package coord

// Position is a byte in the commit log, counted from the first byte the store
// ever had. Positions advance by the capacity of a segment, so they are not
// contiguous and never come back.
type Position int64

// Offset is the index of a message in its message queue. Offsets are dense and
// start at 0.
type Offset int64

// QueueID is the number of a message queue within its topic, from 0.
type QueueID int

// TopicID names a topic for ever: the position of the record that created it.
// A topic that is deleted and created again has another id.
type TopicID Position

// GroupID names a consumer group, or one broadcasting member of it: the
// position of the record that created it.
type GroupID Position
