package mq

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/record"
)

// RetryPolicy says when messages of a group that failed come again, and how
// often. It is a record of the log, so it is the group's for as long as there is
// the group, whichever members come and go (RocketMQ's SubscriptionGroupConfig:
// retryMaxTimes and groupRetryPolicy). What a consumer's own options say comes
// before it; what neither says is the default.
//
// Delays and Initial exclude each other.
type RetryPolicy struct {
	// MaxAttempts is how often a message is delivered before it becomes a dead
	// letter; negative for no limit. 0 leaves it to the consumers.
	MaxAttempts int

	// Delays is how long a message waits after its first, second … failure, and
	// beyond their end as long as the last says: up to 1,024 of them, from 0 to ten
	// years. One is a fixed delay, a single 0 is none (RocketMQ 5's
	// CustomizedRetryPolicy).
	Delays []time.Duration

	// Initial, Limit and Jitter are those of Exponential. Limit is at least
	// Initial, and 2 hours if it is 0. Jitter is kept to a millionth.
	Initial, Limit time.Duration
	Jitter         float64
}

// GroupConfig is what can be set of a group.
type GroupConfig struct {
	// Retry is for messages that fail. Delays are those of push consumers; a simple
	// consumer's message comes again when its invisible time is up. Broadcasting
	// members do not try again.
	Retry RetryPolicy
}

// defaultLimit is RocketMQ 5's ExponentialRetryPolicy.
const defaultLimit = 2 * time.Hour

// UpdateGroup sets what can be set of a group, and makes the group if there is
// none (RocketMQ's updateSubGroup). It holds at once, also for living members, and
// for messages that wait to come again from their next failure on. It is safe from
// a power cut when the call returns. The zero GroupConfig leaves everything to
// the consumers again.
//
// Errors: ErrInvalidName, ErrInvalidArgument, ErrGroupNotFound if the group is
// deleted meanwhile, ErrClosed.
func (b *Broker) UpdateGroup(name string, config GroupConfig) error {
	if err := validateGroup(name); err != nil {
		return err
	}
	if err := b.alive(); err != nil {
		return err
	}
	kept, err := config.Retry.record()
	if err != nil {
		return err
	}
	ctx := context.Background()
	g, err := b.ensureGroup(groupKey{name: name})
	if err != nil {
		return err
	}
	// Reserved: giving up what always fails may be what makes room in a full store.
	end, err := b.appendState(ctx, commitlog.Reserved, func() (stateRecord, error) {
		if g.deleted {
			return nil, fmt.Errorf("%w: %q", ErrGroupNotFound, name)
		}
		r := g.record()
		r.Policy = kept
		return r, nil
	})
	if err != nil {
		return b.noted(err)
	}
	return b.durable(ctx, end, Synced)
}

// record is the policy as it is stored, nil if it says nothing.
func (p *RetryPolicy) record() (*record.Policy, error) {
	refused := func(field string, v any) (*record.Policy, error) {
		return nil, fmt.Errorf("%w: RetryPolicy.%s is %v", ErrInvalidArgument, field, v)
	}
	r := &record.Policy{Attempts: max(p.MaxAttempts, -1), Delays: slices.Clone(p.Delays), Initial: p.Initial, Limit: p.Limit}
	switch {
	case p.MaxAttempts >= record.MaxAttempts:
		return refused("MaxAttempts", p.MaxAttempts)
	case len(p.Delays) > record.MaxDelays:
		return refused("Delays", fmt.Sprintf("%d of them, at most %d", len(p.Delays), record.MaxDelays))
	case p.Initial < 0 || p.Initial > record.MaxDelay || p.Initial > 0 && len(p.Delays) > 0:
		return refused("Initial", p.Initial)
	case !(p.Jitter >= 0 && p.Jitter <= 1) || p.Jitter > 0 && p.Initial == 0: // not a number is refused too
		return refused("Jitter", p.Jitter)
	}
	for _, d := range p.Delays {
		if d < 0 || d > record.MaxDelay {
			return refused("Delays", d)
		}
	}
	if p.Initial > 0 {
		setDefault(&r.Limit, max(defaultLimit, p.Initial))
		r.Jitter = int(math.Round(p.Jitter * record.JitterUnit))
	}
	if r.Limit < r.Initial || r.Limit > record.MaxDelay || r.Limit != 0 && r.Initial == 0 {
		return refused("Limit", p.Limit)
	}
	if r.Attempts == 0 && len(r.Delays) == 0 && r.Initial == 0 {
		return nil, nil //nolint:nilnil // nothing is set
	}
	return r, nil
}

// policy is the living form of a record.Policy.
type policy struct {
	kept    *record.Policy
	backoff Backoff // nil: as each consumer has it
}

func newPolicy(r *record.Policy) *policy {
	if r == nil {
		return nil
	}
	p := &policy{kept: r}
	switch {
	case len(r.Delays) > 0:
		p.backoff = Table(r.Delays...)
	case r.Initial > 0:
		p.backoff = Exponential(r.Initial, r.Limit, float64(r.Jitter)/record.JitterUnit)
	}
	return p
}

// config is what the caller of UpdateGroup said.
func (p *policy) config() RetryPolicy {
	if p == nil {
		return RetryPolicy{}
	}
	return RetryPolicy{
		MaxAttempts: p.kept.Attempts, Delays: slices.Clone(p.kept.Delays),
		Initial: p.kept.Initial, Limit: p.kept.Limit, Jitter: float64(p.kept.Jitter) / record.JitterUnit,
	}
}

// defaultAttempts is RocketMQ's maxReconsumeTimes of 16 and the first delivery.
const defaultAttempts = 17

// mostAttempts is how often the group delivers a message for a consumer whose
// options say own; 0 or less: without limit.
func (g *group) mostAttempts(own int, ordered bool) int {
	if p := g.policy.Load(); own == 0 && p != nil {
		own = p.kept.Attempts
	}
	if own == 0 && !ordered {
		own = defaultAttempts
	}
	return own
}

// backoffFor is how long a message waits that failed with a consumer whose
// options say own.
func (g *group) backoffFor(own Backoff, ordered bool) Backoff {
	if own != nil {
		return own
	}
	if p := g.policy.Load(); p != nil && p.backoff != nil {
		return p.backoff
	}
	if ordered {
		return suspendQueue
	}
	return RetryDelays
}

// most is what holds for the consumer's next failure.
func (c *PushConsumer) most() int { return c.group.mostAttempts(c.maxAttempts, c.ordered) }

// wait asks the backoff that holds. One that panics, say beyond the end of a table,
// does so on a goroutine of the broker: then the message waits as by default.
func (c *PushConsumer) wait(attempt int) (d time.Duration) {
	defer func() {
		if v := recover(); v != nil {
			c.b.opts.Logger.Error("backoff panicked", "group", c.groupName, "attempt", attempt, "value", v)
			d = RetryDelays(attempt)
		}
	}()
	return c.group.backoffFor(c.backoff, c.ordered)(attempt)
}
