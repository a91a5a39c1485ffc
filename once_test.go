package mq_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// memoryLedger is a database of rows: transactions run one after another, and
// what they do is there when they commit.
type memoryLedger struct {
	mu   sync.Mutex
	rows map[string]int
	fail func() error // at commit
}

type memoryTx map[string]int

func (l *memoryLedger) Transact(_ context.Context, do func(memoryTx) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	tx := memoryTx(maps.Clone(l.rows))
	if err := do(tx); err != nil {
		return err
	}
	if l.fail != nil {
		if err := l.fail(); err != nil {
			return err
		}
	}
	l.rows = tx
	return nil
}

func (l *memoryLedger) Mark(_ context.Context, tx memoryTx, key string) (bool, error) {
	if key == "refused" {
		return false, errors.New("no room")
	}
	tx["mark "+key]++
	return tx["mark "+key] == 1, nil
}

// TestOnce: through failures of the effect, of the commit and of what comes
// after it, retries, dead letters and a reset, each effect is there once.
func TestOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 2)
	ledger := &memoryLedger{rows: map[string]int{}}
	n, lost := 0, 0
	ledger.fail = func() error {
		if n++; n%5 == 0 {
			return errors.New("not committed")
		}
		return nil
	}
	var mu sync.Mutex
	keys := map[string]map[string]bool{}
	tries := map[string]int{}
	effect := func(_ context.Context, tx memoryTx, m *mq.Message) error {
		mu.Lock()
		defer mu.Unlock()
		body := string(m.Body)
		tx["effect "+body]++
		if tries[body]++; tries[body] == 1 && len(body)%2 == 0 {
			return errors.New("not this time")
		}
		return nil
	}
	once := mq.Once("G", ledger, nil, effect)
	handler := func(ctx context.Context, m *mq.Message) error {
		mu.Lock()
		if keys[string(m.Body)] == nil {
			keys[string(m.Body)] = map[string]bool{}
		}
		keys[string(m.Body)][mq.OnceKey("G", m)] = true
		mu.Unlock()
		if err := once(ctx, m); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if lost++; lost%3 == 0 {
			return errors.New("the effect is there, and the acknowledgement is not")
		}
		return nil
	}
	push(t, b, "G", "T", handler, &mq.PushOptions{Concurrency: 4, MaxAttempts: 2, Backoff: func(int) time.Duration { return time.Millisecond }})
	sendBodies(t, b, "T", 200)
	complete := func() bool {
		_, _ = b.ResendDeadLetters(t.Context(), "G")
		ledger.mu.Lock()
		defer ledger.mu.Unlock()
		return len(ledger.rows) == 400
	}
	mqtest.Eventually(t, complete, "all effects are there")
	require.NoError(t, b.ResetOffset("G", "T", mq.Earliest))
	mqtest.Eventually(t, func() bool { complete(); return lag(t, b, "G") == 0 }, "all comes again")
	ledger.mu.Lock()
	defer ledger.mu.Unlock()
	for _, body := range bodiesTo(200) {
		require.Equal(t, 1, ledger.rows["effect "+body], body)
		mu.Lock()
		require.Len(t, keys[body], 1, body)
		mu.Unlock()
	}
}

// TestOnceKeys: a key of the user's takes the place of the message's, groups
// have their own, and a ledger that fails is the handler's error.
func TestOnceKeys(t *testing.T) {
	t.Parallel()
	ledger := &memoryLedger{rows: map[string]int{}}
	effects := 0
	effect := func(context.Context, memoryTx, *mq.Message) error { effects++; return nil }
	byKey := func(m *mq.Message) string { return m.DedupKey }
	h := mq.Once("G", ledger, byKey, effect)
	for range 2 { // two messages
		require.NoError(t, h(t.Context(), &mq.Message{DedupKey: "k"}))
	}
	require.Equal(t, 1, effects)
	require.ErrorContains(t, h(t.Context(), &mq.Message{DedupKey: "refused"}), "no room")
	require.Equal(t, 1, effects)
	m := &mq.Message{}
	require.NoError(t, mq.Once("G", ledger, nil, effect)(t.Context(), m))
	require.NoError(t, mq.Once("H", ledger, nil, effect)(t.Context(), m))
	require.Equal(t, 3, effects)
}
