package mq_test

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// always is a handler that fails, and keeps when.
type always struct {
	inbox
	began time.Time
	at    []time.Duration
}

func (f *always) handle(ctx context.Context, m *mq.Message) error {
	_ = f.inbox.handle(ctx, m)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = append(f.at, time.Since(f.began))
	return errors.New("no")
}

func (f *always) times() []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]time.Duration(nil), f.at...)
}

func seconds(ss ...int) []time.Duration {
	var ds []time.Duration
	for _, s := range ss {
		ds = append(ds, time.Duration(s)*time.Second)
	}
	return ds
}

// TestGroupPolicy: what the group says holds for consumers that say nothing, in
// every shape; what a consumer says comes first.
func TestGroupPolicy(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		policy mq.RetryPolicy
		own    mq.PushOptions
		want   []time.Duration // of deliveries, in the first 20 s
		dead   int64
	}{
		"table":        {mq.RetryPolicy{MaxAttempts: 4, Delays: seconds(1, 2)}, mq.PushOptions{}, seconds(0, 1, 3, 5), 1},
		"fixed":        {mq.RetryPolicy{Delays: seconds(9)}, mq.PushOptions{}, seconds(0, 9, 18), 0},
		"immediate":    {mq.RetryPolicy{MaxAttempts: 3, Delays: seconds(0)}, mq.PushOptions{}, seconds(0, 0, 0), 1},
		"exponential":  {mq.RetryPolicy{Initial: time.Second, Limit: 4 * time.Second}, mq.PushOptions{}, seconds(0, 1, 3, 7, 11, 15, 19), 0},
		"attempts":     {mq.RetryPolicy{MaxAttempts: 2}, mq.PushOptions{}, seconds(0, 10), 1},
		"no limit":     {mq.RetryPolicy{MaxAttempts: -1, Delays: seconds(1)}, mq.PushOptions{}, seconds(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19), 0},
		"ordered":      {mq.RetryPolicy{MaxAttempts: 3, Delays: seconds(2)}, mq.PushOptions{Ordered: true}, seconds(0, 2, 4), 1},
		"own delays":   {mq.RetryPolicy{MaxAttempts: 3, Delays: seconds(1)}, mq.PushOptions{Backoff: mq.Fixed(6 * time.Second)}, seconds(0, 6, 12), 1},
		"own attempts": {mq.RetryPolicy{MaxAttempts: 3, Delays: seconds(1)}, mq.PushOptions{MaxAttempts: 2}, seconds(0, 1), 1},
		"nothing":      {mq.RetryPolicy{}, mq.PushOptions{}, seconds(0, 10), 0},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := mqtest.OpenMemory(t, written())
				createTopic(t, b, "T", 1)
				require.NoError(t, b.UpdateGroup("G", mq.GroupConfig{Retry: row.policy}))
				f := &always{began: time.Now()}
				push(t, b, "G", "T", f.handle, &row.own)
				sendBodies(t, b, "T", 1)
				pass(20*time.Second - time.Millisecond)
				require.Equal(t, row.want, f.times())
				require.Equal(t, row.dead, b.Stats().Dead)
			})
		})
	}
}

// TestGroupPolicyJitter: to both sides, within its bounds.
func TestGroupPolicyJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		require.NoError(t, b.UpdateGroup("G", mq.GroupConfig{Retry: mq.RetryPolicy{
			MaxAttempts: 2, Initial: 100 * time.Second, Limit: 100 * time.Second, Jitter: 0.2,
		}}))
		f := &always{began: time.Now()}
		push(t, b, "G", "T", f.handle, nil)
		sendBodies(t, b, "T", 100)
		pass(200 * time.Second)
		var shorter, longer int
		for _, at := range f.times()[100:] {
			require.InDelta(t, 100, at.Seconds(), 20.001)
			if at < 100*time.Second {
				shorter++
			} else {
				longer++
			}
		}
		require.Positive(t, shorter)
		require.Positive(t, longer)
	})
}

// TestGroupPolicyChanges: for living consumers, from the next failure on.
func TestGroupPolicyChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		f := &always{began: time.Now()}
		push(t, b, "G", "T", f.handle, nil)
		sendBodies(t, b, "T", 1)
		pass(time.Second) // the first failed, and comes again after 10 s
		require.NoError(t, b.UpdateGroup("G", mq.GroupConfig{Retry: mq.RetryPolicy{MaxAttempts: 5, Delays: seconds(1)}}))
		pass(11500 * time.Millisecond)
		require.NoError(t, b.UpdateGroup("G", mq.GroupConfig{}))
		pass(10 * time.Minute)
		require.Equal(t, seconds(0, 10, 11, 12, 13, 193, 433), f.times(), "the fifth failure is not the last, and waits as by default")
	})
}

// TestGroupPolicyIsKept: across clean ends, and when it has to be read from the
// log; and it goes with the group.
func TestGroupPolicyIsKept(t *testing.T) {
	t.Parallel()
	rows := map[string]mq.RetryPolicy{
		"G":  {MaxAttempts: 3, Delays: seconds(0, 5)},
		"H":  {MaxAttempts: -1, Initial: time.Second, Limit: time.Hour, Jitter: 0.25},
		"I":  {MaxAttempts: 1},
		"J":  {Initial: time.Second},
		"J2": {},
	}
	want := func(name string) mq.RetryPolicy {
		p := rows[name]
		if p.Initial > 0 && p.Limit == 0 {
			p.Limit = 2 * time.Hour
		}
		return p
	}
	dir := filepath.Join(t.TempDir(), "store")
	for _, journal := range []string{"new", "kept", "lost"} {
		if journal == "lost" {
			loseJournal(t, dir)
		}
		b, err := mq.Open(dir, written())
		require.NoError(t, err)
		for name, p := range rows {
			if journal == "new" {
				require.NoError(t, b.UpdateGroup(name, mq.GroupConfig{Retry: mq.RetryPolicy{MaxAttempts: 99}}))
				require.NoError(t, b.UpdateGroup(name, mq.GroupConfig{Retry: p}))
			}
			info, err := b.Group(name)
			require.NoError(t, err)
			require.Equal(t, want(name), info.Retry, "%s, journal %s", name, journal)
		}
		require.NoError(t, b.Check(t.Context()))
		require.NoError(t, b.Close())
	}
	b := mqtest.OpenDir(t, dir, written())
	require.NoError(t, b.DeleteGroup("G"))
	_, err := b.Group("G")
	require.ErrorIs(t, err, mq.ErrGroupNotFound)
	require.NoError(t, b.UpdateGroup("G", mq.GroupConfig{}))
	info, err := b.Group("G")
	require.NoError(t, err)
	require.Equal(t, mq.RetryPolicy{}, info.Retry)
}

// TestBadPolicies are refused, and change nothing.
func TestBadPolicies(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	had := mq.RetryPolicy{MaxAttempts: 5}
	require.NoError(t, b.UpdateGroup("G", mq.GroupConfig{Retry: had}))
	const tooLong = 4000 * 24 * time.Hour
	for name, row := range map[string]struct {
		policy mq.RetryPolicy
		field  string
	}{
		"attempts":               {mq.RetryPolicy{MaxAttempts: 1 << 31}, "MaxAttempts"},
		"negative delay":         {mq.RetryPolicy{Delays: seconds(1, -1)}, "Delays"},
		"delay too long":         {mq.RetryPolicy{Delays: []time.Duration{tooLong}}, "Delays"},
		"too many delays":        {mq.RetryPolicy{Delays: make([]time.Duration, 1025)}, "Delays"},
		"two kinds":              {mq.RetryPolicy{Delays: seconds(1), Initial: 1}, "Initial"},
		"negative initial":       {mq.RetryPolicy{Initial: -1}, "Initial"},
		"initial too long":       {mq.RetryPolicy{Initial: tooLong}, "Initial"},
		"limit below":            {mq.RetryPolicy{Initial: 2, Limit: 1}, "Limit"},
		"limit too long":         {mq.RetryPolicy{Initial: 2, Limit: tooLong}, "Limit"},
		"limit negative":         {mq.RetryPolicy{Initial: 2, Limit: -1}, "Limit"},
		"limit alone":            {mq.RetryPolicy{Limit: 1}, "Limit"},
		"jitter alone":           {mq.RetryPolicy{Jitter: 0.5}, "Jitter"},
		"jitter above one":       {mq.RetryPolicy{Initial: 1, Jitter: 1.1}, "Jitter"},
		"jitter negative":        {mq.RetryPolicy{Initial: 1, Jitter: -0.1}, "Jitter"},
		"jitter is not a number": {mq.RetryPolicy{Initial: 1, Jitter: math.NaN()}, "Jitter"},
	} {
		for _, group := range []string{"G", "new"} {
			err := b.UpdateGroup(group, mq.GroupConfig{Retry: row.policy})
			require.ErrorIs(t, err, mq.ErrInvalidArgument, name)
			require.ErrorContains(t, err, row.field, name)
		}
		info, err := b.Group("G")
		require.NoError(t, err)
		require.Equal(t, had, info.Retry, name)
	}
	require.Equal(t, []string{"G"}, b.Groups())
	for _, name := range []string{"", "a b", "%DLQ%G", "DEFAULT_CONSUMER"} {
		require.ErrorIs(t, b.UpdateGroup(name, mq.GroupConfig{}), mq.ErrInvalidName)
	}
	require.NoError(t, b.Close())
	require.ErrorIs(t, b.UpdateGroup("G", mq.GroupConfig{}), mq.ErrClosed)
}

// TestBackoffPanics: one that panics, as a table that is too short does, ends no
// process: the message comes again as by default.
func TestBackoffPanics(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 1)
			table := []time.Duration{time.Second}
			f := &always{began: time.Now()}
			push(t, b, "G", "T", f.handle, &mq.PushOptions{
				Ordered: ordered, MaxAttempts: 4, Backoff: func(attempt int) time.Duration { return table[attempt-1] },
			})
			sendBodies(t, b, "T", 1)
			pass(time.Hour)
			require.Equal(t, seconds(0, 1, 31, 91), f.times())
			require.Zero(t, lag(t, b, "G"))
		})
	}
}
