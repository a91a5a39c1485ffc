package mq

import "time"

// Hooks are functions that a program may want called when something happens.
// Each may be nil. They are called outside all locks, on the goroutine on which
// the thing happened, so a slow hook holds that up and nothing else; they may
// call the broker, but Close.
type Hooks struct {
	// Rebalanced is called after the queues of a group were dealt out anew.
	Rebalanced func(RebalancedInfo)

	// Failed is called when a handler returned an error or panicked, and when a
	// message becomes a dead letter without that: it was in hand each time when the
	// process ended, or simple consumers received it too often.
	Failed func(FailedInfo)

	// Overdue is called once for a handler that takes longer than
	// PushOptions.Timeout, while it runs, after its context was cancelled. As long
	// as the hook runs the consumer's other slow handlers are not looked after.
	Overdue func(OverdueInfo)

	// Missed is called when a group went past messages that it never got:
	// retention dropped them (Retention.DropUnconsumed) or they are damaged.
	Missed func(MissedInfo)

	// Dropped is called after retention removed segments of the log, on the
	// goroutine that runs the callbacks of asynchronous sends.
	Dropped func(DroppedInfo)

	// Poisoned is called once, when writing or syncing failed for good.
	Poisoned func(err error)
}

// RebalancedInfo says who has which queues now.
type RebalancedInfo struct {
	Group    string
	Instance string             // of a broadcasting member
	Queues   map[string][]Queue // by member; a member without queues has an empty list
}

// FailedInfo says which delivery failed.
type FailedInfo struct {
	Group    string
	Instance string // of a broadcasting member
	ID       MessageID
	Queue    Queue
	Offset   Offset
	Attempt  int           // of the delivery that failed, from 1
	Retry    time.Duration // until it comes again; -1: it does not (broadcasting, dead letter)
	Dead     bool          // it becomes a dead letter
	Err      error         // what the handler returned; a *PanicError if it panicked
}

// OverdueInfo says which handler is past its time-out.
type OverdueInfo struct {
	Group   string
	Member  string // whose handler it is
	ID      MessageID
	Queue   Queue
	Offset  Offset
	Attempt int           // of this delivery, from 1
	Timeout time.Duration // PushOptions.Timeout
}

// MissedInfo says which offsets of a queue a group went past: From <= o < To.
type MissedInfo struct {
	Group    string
	Queue    Queue
	From, To Offset
	Err      error // nil if retention dropped them, else what is damaged
}

// DroppedInfo says what retention removed.
type DroppedInfo struct {
	Segments int
	Bytes    int64
}
