package mq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// seen is what a handler got, by attempt.
type seen struct {
	seenMu sync.Mutex // protects the two below
	ms     []*mq.Message
	done   chan struct{}
}

// wants closes done when n deliveries were seen.
func (s *seen) handler(n int, fail func(m *mq.Message) error) mq.Handler {
	s.done = make(chan struct{})
	return func(_ context.Context, m *mq.Message) error {
		s.seenMu.Lock()
		s.ms = append(s.ms, m)
		if len(s.ms) == n {
			close(s.done)
		}
		s.seenMu.Unlock()
		return fail(m)
	}
}

func deadLetters(t *testing.T, b *mq.Broker, group string) []*mq.Message {
	t.Helper()
	var ms []*mq.Message
	for m, err := range b.DeadLetters(group) {
		require.NoError(t, err)
		ms = append(ms, m)
	}
	return ms
}

// drain waits until the group has consumed everything there is.
func drain(t *testing.T, b *mq.Broker, group string) {
	t.Helper()
	mqtest.Eventually(t, func() bool {
		lag, _, err := b.Lag(group)
		require.NoError(t, err)
		return lag == 0
	}, "group %s lags", group)
}

var errBroken = errors.New("broken")

// TestDeadLetter: a message that fails as often as it may keeps all that it was
// in the dead letters, and the group is done with it.
func TestDeadLetter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, nil)
	var s seen
	c, err := b.NewPushConsumer("G", s.handler(3, func(*mq.Message) error { return errBroken }), &mq.PushOptions{Backoff: mq.Immediate, MaxAttempts: 3})
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.Tags("a")))
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	sent := &mq.Message{
		Topic: "T", Tag: "a", Keys: []string{"k1", "k2"}, Properties: map[string]string{"x": "", "y": "z"},
		ShardingKey: "s", Body: []byte("body"),
	}
	res, err := p.Send(t.Context(), sent)
	require.NoError(t, err)
	<-s.done
	drain(t, b, "G")
	for i, m := range s.ms {
		require.Equal(t, i+1, m.Attempt)
		requireSame(t, sent, res, m)
		if i > 0 {
			require.Equal(t, &mq.Origin{Topic: "T", Queue: res.Queue, Offset: res.Offset, Attempts: i, LastError: "broken"}, m.Origin)
		}
	}
	require.Equal(t, int64(1), b.Stats().Dead)
	require.NoError(t, c.Close())
	require.NoError(t, b.Close())

	b = mqtest.OpenDir(t, dir, nil)
	dead := deadLetters(t, b, "G")
	require.Len(t, dead, 1)
	requireSame(t, sent, res, dead[0])
	require.Equal(t, &mq.Origin{Topic: "T", Queue: res.Queue, Offset: res.Offset, Attempts: 3, LastError: "broken"}, dead[0].Origin)
	require.Equal(t, []string{"G"}, b.Groups(), "who keeps the dead letters is no group of the user's")
}

func requireSame(t *testing.T, sent *mq.Message, res mq.SendResult, m *mq.Message) {
	t.Helper()
	require.Equal(t, res.ID, m.ID)
	require.Equal(t, sent.Topic, m.Topic)
	require.Equal(t, res.Queue, m.Queue)
	require.Equal(t, res.Offset, m.Offset)
	require.Equal(t, sent.Tag, m.Tag)
	require.Equal(t, sent.Keys, m.Keys)
	require.Equal(t, sent.Properties, m.Properties)
	require.Equal(t, sent.ShardingKey, m.ShardingKey)
	require.Equal(t, sent.Body, m.Body)
}

// TestDiscard: a handler can give a message up at once, and its ordered group
// goes on with the next one of the key.
func TestDiscard(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprint(ordered), func(t *testing.T) {
			t.Parallel()
			b := mqtest.Open(t, nil)
			var s seen
			c, err := b.NewPushConsumer("G", s.handler(10, func(m *mq.Message) error {
				if string(m.Body) == "3" {
					return fmt.Errorf("wrapped: %w", mq.Discard(errBroken))
				}
				return nil
			}), &mq.PushOptions{Ordered: ordered})
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", mq.All))
			sendBodies(t, b, "T", 10)
			<-s.done
			drain(t, b, "G")
			dead := deadLetters(t, b, "G")
			require.Len(t, dead, 1)
			require.Equal(t, "3", string(dead[0].Body))
			require.Equal(t, 1, dead[0].Origin.Attempts)
			require.Equal(t, "wrapped: mq: discarded: broken", dead[0].Origin.LastError)
		})
	}
}

// TestResendAndPurge: one, some and all; to the group they died in and no other;
// a message sent again starts anew.
func TestResendAndPurge(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, nil)
	fails := true
	var failing sync.RWMutex
	var s, other seen
	c, err := b.NewPushConsumer("G", s.handler(8+3, func(m *mq.Message) error {
		failing.RLock()
		defer failing.RUnlock()
		if fails {
			return errBroken
		}
		return nil
	}), &mq.PushOptions{MaxAttempts: 1})
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	o, err := b.NewPushConsumer("Other", other.handler(8, func(*mq.Message) error { return nil }), nil)
	require.NoError(t, err)
	require.NoError(t, o.Subscribe("T", mq.All))
	sendBodies(t, b, "T", 8)
	<-other.done
	drain(t, b, "G")
	dead := deadLetters(t, b, "G")
	require.Len(t, dead, 8)

	failing.Lock()
	fails = false
	failing.Unlock()
	n, err := b.ResendDeadLetters(t.Context(), "G", dead[2].ID)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	n, err = b.PurgeDeadLetters("G", dead[5].ID, dead[1].ID)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Len(t, deadLetters(t, b, "G"), 5)
	n, err = b.ResendDeadLetters(t.Context(), "G", dead[0].ID, dead[5].ID, dead[7].ID)
	require.ErrorIs(t, err, mq.ErrMessageNotFound, "was purged")
	require.Equal(t, 2, n)
	<-s.done
	drain(t, b, "G")
	for _, m := range s.ms[8:] {
		require.Equal(t, 1, m.Attempt, "they start anew")
	}
	n, err = b.PurgeDeadLetters("G")
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.Empty(t, deadLetters(t, b, "G"))
	n, err = b.PurgeDeadLetters("G")
	require.NoError(t, err)
	require.Zero(t, n)
	require.Len(t, other.ms, 8, "another group sees nothing of it")

	_, err = b.PurgeDeadLetters("nobody")
	require.ErrorIs(t, err, mq.ErrGroupNotFound)
	_, err = b.ResendDeadLetters(t.Context(), mq.DeadLetterTopic("G"))
	require.ErrorIs(t, err, mq.ErrGroupNotFound)
	for _, err := range b.DeadLetters("") {
		require.ErrorIs(t, err, mq.ErrGroupNotFound)
	}
}

// TestOnlyTheEngineSendsThere: a retry topic cannot be sent to, nor a group be
// named like one.
func TestOnlyTheEngineSendsThere(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, nil)
	var s seen
	c, err := b.NewPushConsumer("G", s.handler(1, func(*mq.Message) error { return errBroken }), &mq.PushOptions{MaxAttempts: 1})
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	sendBodies(t, b, "T", 1)
	drain(t, b, "G")
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for _, name := range []string{mq.DeadLetterTopic("G"), mq.RetryTopic("G")} {
		_, err = p.Send(t.Context(), &mq.Message{Topic: name})
		require.ErrorIs(t, err, mq.ErrInvalidName)
		_, err = p.SendBatch(t.Context(), []*mq.Message{{Topic: "New"}, {Topic: name}})
		require.ErrorIs(t, err, mq.ErrInvalidName)
		require.NotContains(t, b.Topics(), "New", "as long as one is refused nothing is made for another")
		require.ErrorIs(t, b.CreateTopic(name, nil), mq.ErrInvalidName)
		_, err = b.NewPullConsumer(name, nil)
		require.ErrorIs(t, err, mq.ErrInvalidName)
	}
	// But looked at like any other topic.
	pull, err := b.NewPullConsumer("Look", nil)
	require.NoError(t, err)
	require.NoError(t, pull.Subscribe(mq.DeadLetterTopic("G"), mq.All))
	ms, err := pull.Poll(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, ms, 1)
	require.Equal(t, "T", ms[0].Topic)
	require.NoError(t, pull.Commit(t.Context(), ms...))
	require.Len(t, deadLetters(t, b, "G"), 1, "looking takes nothing away")
}

// TestKeeperIsNoGroup: what the engine keeps dead letters by cannot be moved, copied
// to or deleted, which would lose them.
func TestKeeperIsNoGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		push(t, b, "G", "T", func(context.Context, *mq.Message) error { return mq.Discard(errBroken) }, nil)
		sendBodies(t, b, "T", 3)
		pass(time.Second)
		keeper := mq.DeadLetterTopic("G")
		require.ErrorIs(t, b.ResetOffset(keeper, keeper, mq.Latest), mq.ErrGroupNotFound)
		require.ErrorIs(t, b.CopyOffsets("G", keeper, keeper), mq.ErrNotAssigned)
		require.ErrorIs(t, b.CopyOffsets(keeper, "G", keeper), mq.ErrGroupNotFound)
		require.ErrorIs(t, b.DeleteGroup(keeper), mq.ErrGroupNotFound)
		_, err := b.Offsets(keeper, keeper)
		require.ErrorIs(t, err, mq.ErrGroupNotFound)
		require.Len(t, deadLetters(t, b, "G"), 3)
	})
}

// TestResentWithoutMembers: dead letters that are sent again while the group has no
// member wait for one like all that it has yet to consume.
func TestResentWithoutMembers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, small(mq.Retention{}))
		createTopic(t, b, "T", 1)
		createTopic(t, b, "Other", 1)
		c := push(t, b, "G", "T", func(context.Context, *mq.Message) error { return mq.Discard(errBroken) }, nil)
		sendBodies(t, b, "T", 1)
		pass(time.Second)
		require.NoError(t, c.Close())
		n, err := b.ResendDeadLetters(t.Context(), "G")
		require.NoError(t, err)
		require.Equal(t, 1, n)
		fill(t, b, "Other", 0, 100)
		pass(100 * time.Hour)
		fill(t, b, "Other", 100, 1)
		pass(time.Minute)
		var in inbox
		push(t, b, "G", "T", in.handle, nil)
		pass(time.Second)
		require.Equal(t, bodiesTo(1), in.bodies())
	})
}

// TestResendOnce: dead letters that somebody sends again, or purges, while others
// are about to send them again are sent once, or not at all.
func TestResendOnce(t *testing.T) {
	t.Parallel()
	for _, purged := range []bool{false, true} {
		var b *mq.Broker
		var meanwhile func() (int, error)
		o := written()
		o.Hooks = &mq.Hooks{Rebalanced: func(mq.RebalancedInfo) {
			if do := meanwhile; do != nil {
				meanwhile = nil
				n, err := do()
				require.NoError(t, err)
				require.Equal(t, 3, n)
			}
		}}
		b = mqtest.OpenMemory(t, o)
		createTopic(t, b, "T", 1)
		c, err := b.NewPushConsumer("G", func(context.Context, *mq.Message) error { return errBroken }, &mq.PushOptions{MaxAttempts: 1})
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", mq.All))
		sendBodies(t, b, "T", 3)
		drain(t, b, "G")
		require.NoError(t, c.Close())
		dead := deadLetters(t, b, "G")
		require.Len(t, dead, 3)

		member, err := b.NewSimpleConsumer("G", nil)
		require.NoError(t, err)
		require.NoError(t, member.Subscribe("T", mq.All))
		// The first that is sent again makes the retry topic, which is dealt out.
		meanwhile = func() (int, error) {
			if purged {
				return b.PurgeDeadLetters("G")
			}
			return b.ResendDeadLetters(context.Background(), "G")
		}
		n, err := b.ResendDeadLetters(t.Context(), "G", dead[0].ID)
		require.ErrorIs(t, err, mq.ErrMessageNotFound)
		require.Zero(t, n)
		require.Empty(t, deadLetters(t, b, "G"))
		info, err := b.Topic(mq.RetryTopic("G"))
		require.NoError(t, err)
		require.Equal(t, map[bool]int64{false: 3, true: 0}[purged], info.Messages)
	}
}
