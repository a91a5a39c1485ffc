package mq

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// RetryAfter is an error for a handler to return: the message comes again after
// d, whatever PushOptions.Backoff says. It counts as an attempt like any other
// failure.
func RetryAfter(d time.Duration) error { return &retryAfter{d} }

type retryAfter struct{ delay time.Duration }

func (e *retryAfter) Error() string { return fmt.Sprintf("mq: retry after %v", e.delay) }

// Discard wraps an error for a handler to return: the message becomes a dead
// letter at once, however often it was tried (RocketMQ's
// delayLevelWhenNextConsume of -1). A nil err is allowed.
func Discard(err error) error { return &discarded{err} }

type discarded struct{ err error }

func (e *discarded) Error() string {
	if e.err == nil {
		return "mq: discarded"
	}
	return "mq: discarded: " + e.err.Error()
}

func (e *discarded) Unwrap() error { return e.err }

// Backoff says how long a message whose delivery number attempt failed (1 is
// the first) waits until it comes again. It may be called from several
// goroutines at once. If it panics the message waits as RetryDelays says.
type Backoff func(attempt int) time.Duration

// RetryDelays is RocketMQ's messageDelayLevel from its third level on: how long
// a message waits after its first, second … delivery failed. Beyond the last it
// waits two hours each time.
func RetryDelays(attempt int) time.Duration { return table(retryDelays[:], attempt) }

var retryDelays = [...]time.Duration{
	10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 3 * time.Minute,
	4 * time.Minute, 5 * time.Minute, 6 * time.Minute, 7 * time.Minute, 8 * time.Minute,
	9 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour,
}

func table(delays []time.Duration, attempt int) time.Duration {
	return delays[min(max(attempt, 1), len(delays))-1]
}

// Table waits as long as delays says for each attempt, and beyond its end as
// long as the last says (RocketMQ 5's CustomizedRetryPolicy). Without delays it
// is Immediate.
func Table(delays ...time.Duration) Backoff {
	if len(delays) == 0 {
		return Immediate
	}
	own := append([]time.Duration(nil), delays...)
	return func(attempt int) time.Duration { return table(own, attempt) }
}

// Fixed waits as long each time.
func Fixed(d time.Duration) Backoff { return func(int) time.Duration { return d } }

// Immediate does not wait: a message that always fails is tried in a hot loop.
func Immediate(int) time.Duration { return 0 }

// Exponential waits initial after the first failure and twice as long after each
// further one, at most limit (RocketMQ 5's ExponentialRetryPolicy: 5 s, 2 h,
// multiplier 2). Each wait is made longer or shorter by up to the fraction
// jitter of it, 0 to 1, so that messages that failed together do not come again
// together.
func Exponential(initial, limit time.Duration, jitter float64) Backoff {
	jitter = min(max(jitter, 0), 1)
	return func(attempt int) time.Duration {
		d := math.Ldexp(float64(initial), max(attempt, 1)-1)
		d = min(d, float64(limit)) * (1 + jitter*(2*rand.Float64()-1))
		if d >= math.MaxInt64 { // it would overflow into the past
			return math.MaxInt64
		}
		return time.Duration(d)
	}
}

// retry is what becomes of a message that failed.
type retry struct {
	after time.Duration
	dead  bool // it does not come again
}

// judge says what becomes of a message whose delivery number attempt failed
// with err.
func judge(err error, attempt, most int, backoff Backoff) retry {
	var gone *discarded
	if errors.As(err, &gone) || most > 0 && attempt >= most {
		return retry{after: -1, dead: true}
	}
	var again *retryAfter
	if errors.As(err, &again) {
		return retry{after: max(0, again.delay)}
	}
	return retry{after: max(0, backoff(attempt))}
}
