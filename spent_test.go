package mq_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// receiveNone asks while time goes by, and must get nothing.
func receiveNone(t *testing.T, c *mq.SimpleConsumer, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	ms, err := c.Receive(ctx, 32, time.Hour)
	require.ErrorIs(t, err, context.DeadlineExceeded, "unexpected: %v", bodiesOf(ms))
}

// TestSimpleDeadLetter: what was received as often as it may is a dead letter,
// when it is given back or when somebody asks after its time was up, and its key
// goes on.
func TestSimpleDeadLetter(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		for _, nack := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				var h told
				b := mqtest.OpenMemory(t, &mq.Options{Durability: mq.Written, Hooks: h.hooks()})
				createTopic(t, b, "T", 1)
				sent := send(t, b, &mq.Message{Topic: "T", ShardingKey: "k", Tag: "t", Body: []byte("0")}, &mq.Message{Topic: "T", ShardingKey: "k", Body: []byte("1")})
				const most = 3
				o := &mq.SimpleOptions{Ordered: ordered, MaxAttempts: most}
				one, two := simple(t, b, "G", o, "T"), simple(t, b, "G", o, "T")
				last := "mq: not acknowledged while it was invisible"
				for attempt := 1; attempt <= most; attempt++ {
					m := receiveFrom(t, two, 1, 5*time.Second)[0]
					if string(m.Body) == "1" { // out of order it comes between
						require.NoError(t, two.Ack(t.Context(), m))
						m = receiveFrom(t, two, 1, 5*time.Second)[0]
					}
					require.Equal(t, "0", string(m.Body))
					require.Equal(t, attempt, m.Attempt)
					require.Empty(t, deadLetters(t, b, "G"))
					if nack {
						require.NoError(t, one.Nack(t.Context(), m))
						require.ErrorIs(t, one.Nack(t.Context(), m), mq.ErrReceiptExpired)
						last = "mq: given back by its receiver"
					}
				}
				if ordered {
					require.Equal(t, "1", string(receiveFrom(t, one, 1, time.Hour)[0].Body))
				} else {
					receiveNone(t, one, 2*time.Minute)
				}
				dead := deadLetters(t, b, "G")
				require.Len(t, dead, 1)
				require.Equal(t, &mq.Origin{Topic: "T", Attempts: most, LastError: last}, dead[0].Origin)
				require.Equal(t, []any{sent[0].ID, "t", "k", "0"}, []any{dead[0].ID, dead[0].Tag, dead[0].ShardingKey, string(dead[0].Body)})
				failed, _ := h.both()
				require.Len(t, failed, 1)
				require.EqualError(t, failed[0].Err, last)
				failed[0].Err = nil
				require.Equal(t, mq.FailedInfo{Group: "G", ID: sent[0].ID, Queue: mq.Queue{Topic: "T"}, Attempt: most, Retry: -1, Dead: true}, failed[0])
				require.EqualValues(t, 1, b.Stats().Dead)
				if ordered {
					require.EqualValues(t, 1, lag(t, b, "G"))
				} else {
					require.Zero(t, lag(t, b, "G"))
				}

				// Sent again it has all its attempts, and counts them anew.
				n, err := b.ResendDeadLetters(t.Context(), "G")
				require.NoError(t, err)
				require.Equal(t, 1, n)
				for attempt := 1; attempt <= most; attempt++ {
					m := receiveFrom(t, two, 1, 5*time.Second)[0]
					require.Equal(t, []any{"0", attempt}, []any{string(m.Body), m.Attempt})
					require.NoError(t, two.Nack(t.Context(), m))
				}
				receiveNone(t, two, time.Second)
				require.Len(t, deadLetters(t, b, "G"), 1)
			})
		}
	}
}

// TestSimpleAttemptsSurvive: they are counted across ends of the process and of
// the group's last member, clean or not, also when they have to be read from the
// log, until the message is a dead letter.
func TestSimpleAttemptsSurvive(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "store")
		o := &mq.SimpleOptions{Ordered: ordered, MaxAttempts: 6}
		b := mqtest.OpenDir(t, dir, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 1)
		require.NoError(t, b.Close())
		receives := func(b *mq.Broker, attempt int) *mq.SimpleConsumer {
			c := simple(t, b, "G", o, "T")
			m := receiveFrom(t, c, 1, time.Hour)[0]
			require.Equal(t, attempt, m.Attempt)
			return c
		}
		b = mqtest.OpenDir(t, dir, written())
		require.NoError(t, receives(b, 1).Close())
		require.NoError(t, receives(b, 2).Close()) // the last member
		require.NoError(t, b.Close())              // a clean end
		b = mqtest.OpenDir(t, dir, written())
		receives(b, 3)
		copied := filepath.Join(t.TempDir(), "copied")
		copyStore(t, dir, copied) // kill -9
		require.NoError(t, b.Close())
		b = mqtest.OpenDir(t, copied, written())
		require.False(t, b.Recovery().Clean)
		receives(b, 4)
		require.NoError(t, b.Close())
		loseJournal(t, copied)
		b = mqtest.OpenDir(t, copied, written())
		require.True(t, b.Recovery().Rebuilt)
		c := receives(b, 5)
		m, err := b.NewSimpleConsumer("G", &mq.SimpleOptions{Ordered: ordered, MaxAttempts: 6})
		require.NoError(t, err)
		require.NoError(t, m.Close())
		require.NoError(t, c.Close())
		require.NoError(t, b.Close())
		b = mqtest.OpenDir(t, copied, written())
		receives(b, 6)
		require.NoError(t, b.Close())
		b = mqtest.OpenDir(t, copied, written())
		receiveNone(t, simple(t, b, "G", o, "T"), 2*time.Second)
		dead := deadLetters(t, b, "G")
		require.Len(t, dead, 1)
		require.Equal(t, 6, dead[0].Origin.Attempts)
		require.Zero(t, lag(t, b, "G"))
		require.NoError(t, b.Close())
	}
}

// TestSimpleResetCountsAnew: it is the one thing that does.
func TestSimpleResetCountsAnew(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 1)
	c := simple(t, b, "G", &mq.SimpleOptions{MaxAttempts: 2}, "T")
	for range 3 {
		for attempt := 1; attempt <= 2; attempt++ {
			m := receiveFrom(t, c, 1, time.Hour)[0]
			require.Equal(t, attempt, m.Attempt)
			require.NoError(t, c.Nack(t.Context(), m))
		}
		require.NoError(t, b.ResetOffset("G", "T", mq.Earliest))
	}
	require.Len(t, deadLetters(t, b, "G"), 3)
}

// TestSimpleMostAttempts: by default 17, or what the group says, and without
// limit in order; what was received by a simple consumer is known to a handler,
// and does not come alone.
func TestSimpleMostAttempts(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		own, groups, want int
		ordered           bool
	}{
		"default":         {0, 0, 17, false},
		"ordered":         {0, 0, 0, true},
		"group's":         {0, 5, 5, false},
		"ordered group's": {0, 5, 5, true},
		"own":             {3, 5, 3, false},
		"no limit":        {-1, 5, 0, false},
	}
	for name, row := range rows {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 1)
		require.NoError(t, b.UpdateGroup("G", mq.GroupConfig{Retry: mq.RetryPolicy{MaxAttempts: row.groups}}))
		c := simple(t, b, "G", &mq.SimpleOptions{MaxAttempts: row.own, Ordered: row.ordered}, "T")
		received := 0
		for ; received < 30 && b.Stats().Dead == 0; received++ {
			require.NoError(t, c.Nack(t.Context(), receiveFrom(t, c, 1, time.Hour)...), name)
		}
		if row.want == 0 {
			row.want = 30
		}
		require.Equal(t, row.want, received, name)
	}
}

func TestSimpleThenPush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 10)
		c := simple(t, b, "G", nil, "T")
		receiveFrom(t, c, 10, time.Hour)
		require.NoError(t, c.Close())
		h := newGate()
		push(t, b, "G", "T", h.handle, nil)
		pass(time.Second)
		require.Equal(t, 10, h.len(), "at once, not one after another as what may have ended the process")
		for _, m := range h.messages() {
			require.Equal(t, 2, m.Attempt)
		}
		h.open()
		pass(time.Second)
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestSimpleResetWhileHandingOut: what was about to be handed out when the offsets
// were reset is not handed out after that, from where it was before.
func TestSimpleResetWhileHandingOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b *mq.Broker
		b = mqtest.OpenMemory(t, &mq.Options{Durability: mq.Written, Hooks: &mq.Hooks{Failed: func(mq.FailedInfo) {
			require.NoError(t, b.ResetOffset("G", "T", mq.Latest)) // of a Receive that buries one message
		}}})
		createTopic(t, b, "T", 1)
		c := simple(t, b, "G", &mq.SimpleOptions{MaxAttempts: 1}, "T")
		sendBodies(t, b, "T", 1)
		require.Equal(t, "0", string(receiveFrom(t, c, 1, time.Second)[0].Body))
		pass(2 * time.Second)
		send(t, b, numbered("T", 1, 2)...)
		require.Equal(t, "1", string(receiveFrom(t, c, 1, time.Minute)[0].Body), "it is the turn of what is new")
		send(t, b, numbered("T", 2, 4)...)
		receiveNone(t, c, time.Hour)
		require.Len(t, deadLetters(t, b, "G"), 1)
		require.Zero(t, b.Stats().Invisible)
		send(t, b, numbered("T", 4, 5)...)
		require.Equal(t, "4", string(receiveFrom(t, c, 1, time.Minute)[0].Body))
	})
}
