// Package mq is PocketMQ: RocketMQ's model of topics, message queues and
// consumer groups, inside one Go process and on one log on disk.
//
// # Store
//
// A Broker is an open store. Open takes a directory, which belongs to it until
// Close; OpenMemory is the same with nothing on disk, for tests. Nil options are
// the defaults everywhere.
//
//	b, err := mq.Open("data", nil)
//	defer b.Close()
//
// # Topics
//
// A message goes to a topic, and in it to one of its message queues. A queue is
// a list that grows at the end; an Offset is an index in it. Messages of one
// queue have an order, messages of different queues have none. CreateTopic says
// how many queues there are and how durable messages shall be; a topic that is
// not there is created when it is first used, unless Options.NoAutoCreate.
//
// # Sending
//
// A Producer stores messages: Send waits for them, SendAsync calls back,
// SendOneWay never waits, SendBatch stores several, all or nothing.
//
// What a nil error means is up to the topic's Durability. Synced, the default,
// is on the disk and survives a power cut; those who wait share a sync. Written
// is in the page cache: it survives the end of the process however it ends, and
// a power cut once it is synced, within Options.SyncEvery. A consumer does not
// see a message before it is as durable as that.
//
// Which queue a message goes to is decided by its ShardingKey: messages of one
// key go to one queue. Without a key queues take turns.
//
// # Consuming
//
// A group consumes a topic. Groups do not know of each other: each sees every
// message its filter wants, from where it started (Earliest, Latest, At). Within
// a group, members divide the queues among themselves in Clustering, and see all
// of them in Broadcasting. Queues are dealt out anew at once when a member comes
// or goes.
//
// A PushConsumer calls a Handler: nil means consumed, an error or a panic that
// the message comes again later. Messages are handled by several goroutines at
// once; with PushOptions.Ordered those of one sharding key one after another. A
// PullConsumer hands messages out when Poll asks for them, and they are consumed
// when Commit says so. A SimpleConsumer lends them out for a time: what Ack does
// not name before that is over comes again.
//
// An acknowledgement is stored like a message. After the process was killed
// nothing acknowledged comes again; what was handled but not acknowledged does.
// So delivery is at least once, and a handler should bear a message twice.
//
// # Memory and disk
//
// Retention drops whole segments of the log, by age and by size, but by default
// nothing that a group has yet to consume. Where there is no room, senders wait
// or get an error; memory does not grow with what is stored or waiting.
//
// # Errors
//
// Errors are sentinels, to be compared with errors.Is; their text names the
// value that was wrong. The error of a context comes back unwrapped. Damage is a
// *CorruptionError, a panic of a handler a *PanicError.
//
// # Ownership
//
// What is handed to a Send may be used again as soon as the call returns. What a
// consumer gets is its own for as long as it likes. Brokers, producers and
// consumers are safe for concurrent use; Close may be called twice, but not from
// a handler, callback or hook.
package mq
