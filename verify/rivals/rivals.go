package main

import (
	"context"
	"time"
)

// rival is a store under test.
type rival struct {
	name    string
	promise string // what its acknowledgement means by its own documentation
	open    func(ctx context.Context, dir string) (broker, error)
}

var rivals = []rival{
	{"jetstream", "JetStream, default: in the operating system, fsync every 2 min", openJetStream(false)},
	{"jetstream-sync", "JetStream, SyncAlways: fsynced", openJetStream(true)},
	{"kfake", "kfake with DataDir: in the operating system", openKfake(false)},
	{"kfake-sync", "kfake with DataDir and SyncWrites: fsynced", openKfake(true)},
}

// broker is a rival's open store, with one topic and one group.
type broker interface {
	// send stores a message and returns when it is acknowledged.
	send(ctx context.Context, body []byte) error

	// consume takes messages, reports them, acknowledges them, and reports
	// that. Without acknowledge it only takes them, until none have come for a
	// while.
	consume(ctx context.Context, acknowledge bool, got, acked func(bodies [][]byte)) error

	// all visits every message that is stored.
	all(ctx context.Context, visit func(body []byte)) error
}

const (
	topic = "T"
	group = "G"

	// quiet is how long nothing comes when nothing is left.
	quiet = 2 * time.Second
)
