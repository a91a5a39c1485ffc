package mq_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// tracks are the states of a message, by group.
func tracks(t testing.TB, b *mq.Broker, id mq.MessageID) map[string]mq.TrackState {
	t.Helper()
	all, err := b.MessageTrack(id)
	require.NoError(t, err)
	states := map[string]mq.TrackState{}
	for _, track := range all {
		states[track.Group+track.Instance] = track.State
	}
	return states
}

// TestTracks: one message, and groups in every state.
func TestTracks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		ok := func(context.Context, *mq.Message) error { return nil }
		fails := func(context.Context, *mq.Message) error { return errors.New("no") }
		hold := newGate()
		var consumers []*mq.PushConsumer
		consume := func(group string, h mq.Handler, f mq.Filter, o *mq.PushOptions) *mq.PushConsumer {
			c, err := b.NewPushConsumer(group, h, o)
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", f))
			consumers = append(consumers, c)
			return c
		}
		consume("Consumed", ok, mq.SQL("n = 5"), nil)
		consume("ByTag", ok, mq.Tags("B"), nil)
		consume("BySQL", ok, mq.SQL("n > 5"), nil)
		consume("Hand", hold.handle, mq.All, nil)
		consume("OrderedHand", hold.handle, mq.All, &mq.PushOptions{Ordered: true})
		consume("Retry", fails, mq.All, nil)
		consume("OrderedRetry", fails, mq.All, &mq.PushOptions{Ordered: true})
		consume("Dead", fails, mq.All, &mq.PushOptions{MaxAttempts: 1})
		consume("Paused", ok, mq.All, nil).Pause()
		consume("Cast", fails, mq.All, &mq.PushOptions{Model: mq.Broadcasting, Instance: "1"})
		idle := pull(t, b, "Idle", "T", nil)
		polled := pull(t, b, "Polled", "T", nil)
		late := pull(t, b, "Late", "T", &mq.PullOptions{})
		simply := simple(t, b, "Simple", nil, "T")
		inOrder := simple(t, b, "SimpleOrdered", &mq.SimpleOptions{Ordered: true}, "T")
		ignores, err := b.NewPullConsumer("Ignores", nil)
		require.NoError(t, err)
		require.NoError(t, ignores.Subscribe("U", mq.All))
		first := send(t, b, &mq.Message{Topic: "T", Tag: "A", ShardingKey: "k", Properties: map[string]string{"n": "5"}})[0].ID
		pass(time.Millisecond)
		behind := send(t, b, &mq.Message{Topic: "T", Tag: "A", ShardingKey: "k", Properties: map[string]string{"n": "5"}})[0].ID
		poll(t, polled, 1)
		require.NoError(t, b.ResetOffset("Late", "T", mq.Latest))
		receiveFrom(t, simply, 1, time.Minute)
		receiveFrom(t, inOrder, 1, time.Minute)
		pass(5 * time.Millisecond) // before the first retries

		want := map[string]mq.TrackState{
			"Consumed": mq.Consumed, "ByTag": mq.Filtered, "BySQL": mq.Filtered, "Hand": mq.InHand, "OrderedHand": mq.InHand, "Retry": mq.Retrying, "OrderedRetry": mq.Retrying,
			"Dead": mq.Dead, "Paused": mq.NotConsumedYet, "Cast1": mq.Consumed, "Idle": mq.NotConsumedYet, "Polled": mq.InHand, "Late": mq.Consumed, "Simple": mq.InHand, "SimpleOrdered": mq.InHand,
		}
		require.Equal(t, want, tracks(t, b, first))
		for _, group := range []string{"Polled", "Simple", "SimpleOrdered", "OrderedRetry", "OrderedHand"} {
			want[group] = mq.NotConsumedYet
		}
		require.Equal(t, want, tracks(t, b, behind))
		pass(time.Second) // what was passed over is acknowledged
		require.Equal(t, mq.Filtered, tracks(t, b, first)["ByTag"])

		all, err := b.MessageTrack(first)
		require.NoError(t, err)
		require.True(t, len(all) > 1 && all[0].Group < all[1].Group, "sorted")
		for _, track := range all {
			if track.Group == "Dead" {
				require.Equal(t, mq.Track{Group: "Dead", State: mq.Dead, Attempts: 1, LastError: "no"}, track)
			}
		}

		// Sent again, it is tried again, and is dead again; purged, it stays dead.
		n, err := b.ResendDeadLetters(t.Context(), "Dead", first)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		pass(time.Second)
		require.Equal(t, mq.Dead, tracks(t, b, first)["Dead"])
		_, err = b.PurgeDeadLetters("Dead")
		require.NoError(t, err)
		require.Equal(t, mq.Dead, tracks(t, b, first)["Dead"])

		// Given back, or its time is up: it comes again. Acknowledged, it is consumed.
		pass(time.Minute)
		require.Equal(t, mq.Retrying, tracks(t, b, first)["Simple"])
		for range 2 {
			m := receiveFrom(t, simply, 1, time.Hour)
			require.Equal(t, mq.InHand, tracks(t, b, m[0].ID)["Simple"])
			require.NoError(t, simply.Ack(t.Context(), m...))
			require.Equal(t, mq.Consumed, tracks(t, b, m[0].ID)["Simple"])
		}
		require.NoError(t, polled.Commit(t.Context()))
		require.Equal(t, mq.Consumed, tracks(t, b, first)["Polled"])
		hold.open()
		pass(time.Second)
		require.Equal(t, mq.Consumed, tracks(t, b, first)["Hand"])
		for _, c := range consumers {
			require.NoError(t, c.Close())
		}
		require.NoError(t, errors.Join(idle.Close(), polled.Close(), late.Close(), simply.Close(), inOrder.Close(), ignores.Close()))
	})
}

// TestTracksOverRestarts: what is in the log is known without anybody alive.
func TestTracksOverRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 1)
	var attempts inbox
	c, err := b.NewPushConsumer("Retry", func(ctx context.Context, m *mq.Message) error {
		_ = attempts.handle(ctx, m)
		return fmt.Errorf("later: %w", mq.RetryAfter(time.Hour))
	}, nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	f, err := b.NewPullConsumer("Filtered", nil)
	require.NoError(t, err)
	require.NoError(t, f.Subscribe("T", mq.SQL("n = 1")))
	id := send(t, b, &mq.Message{Topic: "T"})[0].ID
	delayed := send(t, b, &mq.Message{Topic: "T", Delay: time.Hour})[0].ID
	attempts.await(t, 1)
	consumed(t, b, "Retry")
	nothingMore(t, f)
	consumedOrSkipped(t, b, "Filtered")
	require.NoError(t, errors.Join(c.Close(), f.Close()))
	check := func() {
		all, err := b.MessageTrack(id)
		require.NoError(t, err)
		require.Equal(t, []mq.Track{{Group: "Filtered", State: mq.Filtered}, {Group: "Retry", State: mq.Retrying, Attempts: 1, LastError: "later: mq: retry after 1h0m0s"}}, all)
		require.Equal(t, map[string]mq.TrackState{"Filtered": mq.NotConsumedYet, "Retry": mq.NotConsumedYet}, tracks(t, b, delayed))
	}
	check()
	require.NoError(t, b.Close())
	b = mqtest.OpenDir(t, dir, written())
	check()
	_, err = b.MessageTrack(mq.MessageID{})
	require.ErrorIs(t, err, mq.ErrMessageNotFound)
	require.NoError(t, b.DeleteGroup("Retry"))
	require.Equal(t, map[string]mq.TrackState{"Filtered": mq.Filtered}, tracks(t, b, id))
	require.Equal(t, "Filtered", mq.Filtered.String())
	require.Equal(t, "TrackState(?)", mq.TrackState(99).String())
}

// TestTrackOfRetried: while it waits and while it is out again it is said so, and
// once the last attempt was well it is consumed.
func TestTrackOfRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		hold := newGate()
		c, err := b.NewPushConsumer("G", func(ctx context.Context, m *mq.Message) error {
			if m.Attempt == 1 {
				return errors.New("no")
			}
			return hold.handle(ctx, m)
		}, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", mq.All))
		id := send(t, b, &mq.Message{Topic: "T"})[0].ID
		pass(5 * time.Second)
		require.Equal(t, mq.Retrying, tracks(t, b, id)["G"])
		pass(time.Minute)
		require.Equal(t, mq.InHand, tracks(t, b, id)["G"])
		hold.open()
		pass(time.Second)
		require.Equal(t, mq.Consumed, tracks(t, b, id)["G"])
		require.NoError(t, c.Close())
	})
}

// TestTrackOfResent: a dead letter that was sent again is what came of it then.
func TestTrackOfResent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		var calls atomic.Int64
		c, err := b.NewPushConsumer("G", func(context.Context, *mq.Message) error {
			if calls.Add(1) == 1 {
				return mq.Discard(errors.New("no"))
			}
			return nil
		}, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", mq.All))
		id := send(t, b, &mq.Message{Topic: "T"})[0].ID
		pass(time.Second)
		require.Equal(t, mq.Dead, tracks(t, b, id)["G"])
		_, err = b.ResendDeadLetters(t.Context(), "G", id)
		require.NoError(t, err)
		pass(time.Second)
		require.Equal(t, mq.Consumed, tracks(t, b, id)["G"])
		require.NoError(t, c.Close())
	})
}
