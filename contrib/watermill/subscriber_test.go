package pocketmq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/components/delay"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	pocketmq "github.com/pocketmq/mq/contrib/watermill"
	"github.com/pocketmq/mq/mqtest"
)

// TestNackStaysInItsTopic: a message that comes again does so where it belongs,
// though other subscriptions of the group are of other topics.
func TestNackStaysInItsTopic(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	s := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G"})
	publish(t, b, "A", "a")
	other := subscribe(t, s, "B")
	ch := subscribe(t, s, "A")
	for attempt := 1; attempt <= 50; attempt++ {
		m := next(t, ch)
		require.Equal(t, attempt, pocketmq.FromContext(m.Context()).Attempt)
		require.True(t, m.Nack())
		<-m.Context().Done()
	}
	require.Equal(t, []string{"a"}, consume(t, ch, 1))
	publish(t, b, "B", "b")
	require.Equal(t, []string{"b"}, consume(t, other, 1))
}

// TestRestart: what was acked does not come again after the store was closed;
// what was not does.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, nil)
	publish(t, b, "T", "1", "2", "3")
	ch := subscribe(t, newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G"}), "T")
	had := consume(t, ch, 2)
	left := next(t, ch)
	require.NoError(t, b.Close())
	ended(t, ch)
	b = mqtest.OpenDir(t, dir, nil)
	ch = subscribe(t, newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G"}), "T")
	require.Equal(t, []string{left.UUID}, consume(t, ch, 1))
	require.NotContains(t, had, left.UUID)
	total, _, err := b.Lag("G")
	require.NoError(t, err)
	require.Zero(t, total)
}

// TestGivenBack: what a subscription has out when it ends goes to one of the
// group that goes on, at once, whether it was read or not.
func TestGivenBack(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	publish(t, b, "T", "1", "2")
	stays := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G"})
	ctx, cancel := context.WithCancel(t.Context())
	leaves, err := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G", Concurrency: 2}).Subscribe(ctx, "T")
	require.NoError(t, err)
	m := next(t, leaves) // the other one stays unread
	mqtest.Eventually(t, func() bool {
		g, err := b.Group("G")
		return err == nil && g.Invisible == 2
	}, "both are out")
	ch := subscribe(t, stays, "T")
	cancel()
	ended(t, leaves)
	require.Error(t, m.Context().Err())
	require.ElementsMatch(t, []string{"1", "2"}, consume(t, ch, 2))
}

// TestConcurrency: as many messages are out as the option says, and no more.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, nil)
			publish(t, b, "T", "1", "2", "3", "4", "5")
			ch := subscribe(t, newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G", Concurrency: n}), "T")
			var out []*message.Message
			for range n {
				out = append(out, next(t, ch))
			}
			select {
			case m := <-ch:
				t.Fatalf("%s beyond %d", m.UUID, n)
			case <-time.After(time.Hour):
			}
			require.True(t, out[0].Ack())
			out = append(out, next(t, ch))
			require.Len(t, out, n+1)
		})
	}
}

// TestOrderHolds: messages of a key come in order though they fail now and
// then and subscriptions come and go.
func TestOrderHolds(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	p := newPublisher(t, b, &pocketmq.PublisherOptions{ShardingKey: pocketmq.KeyFromMetadata("key")})
	const keys, each = 5, 40
	for i := range keys * each {
		m := message.NewMessage(fmt.Sprint(i/keys), nil)
		m.Metadata.Set("key", fmt.Sprint(i%keys))
		require.NoError(t, p.Publish("T", m))
	}
	got := map[string][]string{}
	for i, left := 0, keys*each; left > 0; {
		s := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G", Ordered: true, Concurrency: 3, Backoff: mq.Immediate})
		ch := subscribe(t, s, "T")
		for range min(left, 30) {
			for m := next(t, ch); ; m = next(t, ch) {
				if i++; i%7 == 0 {
					m.Nack()
					continue
				}
				key := m.Metadata["key"]
				got[key] = append(got[key], m.UUID)
				m.Ack()
				<-m.Context().Done()
				break
			}
			left--
		}
		require.NoError(t, s.Close())
	}
	require.Len(t, got, keys)
	for key, ids := range got {
		require.Len(t, ids, each)
		for n, id := range ids {
			require.Equal(t, fmt.Sprint(n), id, "key %s: %v", key, ids)
		}
	}
}

// TestBackoff: a nacked message waits as long as the option says, and others do
// not wait for it; or as the handler says in the metadata, if that is longer.
func TestBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, nil)
		o := &pocketmq.SubscriberOptions{Group: "G", Backoff: func(attempt int) time.Duration { return time.Duration(attempt) * time.Minute }}
		ch := subscribe(t, newSubscriber(t, b, o), "T")
		m := message.NewMessage("m", nil)
		delay.Message(m, delay.For(90*time.Second)) // that of its publication counts once
		require.NoError(t, newPublisher(t, b, nil).Publish("T", m))
		last := <-ch
		for attempt, after := range []struct{ said, want time.Duration }{
			{0, time.Minute}, {0, 2 * time.Minute}, {time.Hour, time.Hour}, {time.Second, 4 * time.Minute},
		} {
			if after.said > 0 {
				delay.Message(last, delay.For(after.said))
			}
			start := time.Now()
			last.Nack()
			publish(t, b, "T", "other")
			require.Equal(t, []string{"other"}, consume(t, ch, 1))
			require.Less(t, time.Since(start), time.Second)
			last = <-ch
			require.Equal(t, "m", last.UUID)
			require.Equal(t, attempt+2, pocketmq.FromContext(last.Context()).Attempt)
			require.InDelta(t, after.want, time.Since(start), float64(10*time.Millisecond))
		}
	})
}

// TestInstances: each instance of a group gets every message, and goes on where
// it was.
func TestInstances(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	publish(t, b, "T", "1", "2")
	for _, instance := range []string{"one", "two"} {
		s := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G", Instance: instance})
		require.ElementsMatch(t, []string{"1", "2"}, consume(t, subscribe(t, s, "T"), 2))
		require.NoError(t, s.Close())
	}
	publish(t, b, "T", "3")
	s := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G", Instance: "one"})
	require.Equal(t, []string{"3"}, consume(t, subscribe(t, s, "T"), 1))
	require.Equal(t, []string{"G|one", "G|two"}, b.Groups())
}

// TestWithoutGroup: a subscription without a group leaves nothing behind, and
// takes with it what an earlier process left.
func TestWithoutGroup(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	publish(t, b, "T", "1")
	killed, err := b.NewSimpleConsumer("watermill|killed", nil)
	require.NoError(t, err)
	require.NoError(t, killed.Subscribe("T", mq.All))
	require.NoError(t, killed.Close())
	living := newSubscriber(t, b, nil)
	ch := subscribe(t, living, "T")
	require.Len(t, b.Groups(), 1)
	require.NotContains(t, b.Groups(), "watermill|killed")

	other := newSubscriber(t, b, &pocketmq.SubscriberOptions{From: mq.Latest})
	live := subscribe(t, other, "T")
	require.Len(t, b.Groups(), 2, "the living one stays")
	publish(t, b, "T", "2")
	require.Equal(t, []string{"2"}, consume(t, live, 1))
	require.ElementsMatch(t, []string{"1", "2"}, consume(t, ch, 2))
	require.NoError(t, other.Close())
	require.NoError(t, living.Close())
	require.Empty(t, b.Groups())
}

// TestBrokerCloseEndsSubscriptions: wherever they wait, and though nobody closes
// the subscriber.
func TestBrokerCloseEndsSubscriptions(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, nil)
	publish(t, b, "unread", "1")
	publish(t, b, "unacked", "1")
	s := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G", CloseTimeout: time.Hour})
	unread, unacked, empty := subscribe(t, s, "unread"), subscribe(t, s, "unacked"), subscribe(t, s, "empty")
	m := next(t, unacked)
	mqtest.Eventually(t, func() bool {
		g, err := b.Group("G")
		return err == nil && g.Invisible == 2
	}, "a message waits to be read")
	require.NoError(t, b.Close())
	for _, ch := range []<-chan *message.Message{unread, unacked, empty} {
		ended(t, ch)
	}
	<-m.Context().Done()
	_, err := s.Subscribe(t.Context(), "T")
	require.ErrorIs(t, err, mq.ErrClosed)
}

// TestCloseTimeout: a message that is out when the subscriber is closed may be
// acked as long as CloseTimeout says; without, it comes again.
func TestCloseTimeout(t *testing.T) {
	t.Parallel()
	for _, wait := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, nil)
			publish(t, b, "T", "1")
			s := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G", CloseTimeout: wait})
			m := next(t, subscribe(t, s, "T"))
			var closed atomic.Bool
			go func() {
				require.NoError(t, s.Close())
				closed.Store(true)
			}()
			synctest.Wait()
			require.Equal(t, wait == 0, closed.Load())
			require.Equal(t, wait == 0, m.Context().Err() != nil)
			m.Ack()
			synctest.Wait()
			require.True(t, closed.Load())
			left, _, err := b.Lag("G")
			require.NoError(t, err)
			require.Equal(t, wait == 0, left == 1, "%d left", left)
		})
	}
}

// TestCloseTimeoutEnds: nobody waits longer for a message that is never acked.
func TestCloseTimeoutEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, nil)
		publish(t, b, "T", "1")
		s := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G", CloseTimeout: time.Minute})
		next(t, subscribe(t, s, "T"))
		start := time.Now()
		require.NoError(t, s.Close())
		require.Equal(t, time.Minute, time.Since(start))
		require.Equal(t, []string{"1"}, consume(t, subscribe(t, newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G"}), "T"), 1))
	})
}

// TestUnmarshalFails: a message that cannot be read does not end the
// subscription, and is not tried in a hot loop.
func TestUnmarshalFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, nil)
		publish(t, b, "T", "bad", "good")
		f := &failing{}
		s := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G", Marshaler: f, Backoff: mq.Immediate})
		ch := subscribe(t, s, "T")
		require.Equal(t, []string{"good"}, consume(t, ch, 1))
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		require.EqualValues(t, 11, f.failed.Load())
		f.mended.Store(true)
		require.Equal(t, []string{"bad"}, consume(t, ch, 1))
	})
}

type failing struct {
	pocketmq.DefaultMarshaler
	failed atomic.Int64
	mended atomic.Bool
}

func (f *failing) Unmarshal(m *mq.Message) (*message.Message, error) {
	if string(m.Body) == "bad" && !f.mended.Load() {
		f.failed.Add(1)
		return nil, errors.New("cannot be read")
	}
	return f.DefaultMarshaler.Unmarshal(m)
}

// TestReset: an ack of before a reset means nothing and ends nothing.
func TestReset(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	publish(t, b, "T", "1")
	ch := subscribe(t, newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G"}), "T")
	m := next(t, ch)
	require.NoError(t, b.ResetOffset("G", "T", mq.Earliest))
	m.Ack()
	require.Equal(t, []string{"1"}, consume(t, ch, 1))
}

// TestInitialize: the group starts where it was initialized.
func TestInitialize(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	publish(t, b, "T", "before")
	s := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G", From: mq.Latest})
	require.NoError(t, s.SubscribeInitialize("T"))
	publish(t, b, "T", "after")
	require.Equal(t, []string{"after"}, consume(t, subscribe(t, s, "T"), 1))
	require.NoError(t, newSubscriber(t, b, nil).SubscribeInitialize("T"))
	require.Equal(t, []string{"G"}, b.Groups())
}

// TestNames: names of CQRS are topics and groups, and different ones stay
// different.
func TestNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"": "", "plain_-|%Name9": "plain_-|%Name9", "events.Placed": "events%2EPlaced", "a b": "a%20b",
		"100%25": "100%2525", "%": "%", "%2": "%2", "%2g": "%2g", "%%25": "%%2525", "é": "%C3%A9",
	} {
		require.Equal(t, want, pocketmq.EscapeName(name))
	}
	b := mqtest.OpenMemory(t, nil)
	publish(t, b, "events.Placed", "1")
	s := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "on events.Placed"})
	require.Equal(t, []string{"1"}, consume(t, subscribe(t, s, "events.Placed"), 1))
	require.Equal(t, []string{"events%2EPlaced"}, slices.DeleteFunc(b.Topics(), func(name string) bool { return name[0] == '%' }))
	require.Equal(t, []string{"on%20events%2EPlaced"}, b.Groups())
}

// FuzzNames: EscapeName gives what is legal, and never the same for two names.
func FuzzNames(f *testing.F) {
	f.Add("a.b", "a%2Eb")
	f.Add("%25", "%")
	f.Fuzz(func(t *testing.T, one, two string) {
		a, b := pocketmq.EscapeName(one), pocketmq.EscapeName(two)
		require.Regexp(t, `^[%|a-zA-Z0-9_-]*$`, a)
		if one != two {
			require.NotEqual(t, a, b)
		}
	})
}

// TestRefused: what cannot work is said at once.
func TestRefused(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	for _, o := range []*pocketmq.SubscriberOptions{
		{Concurrency: -1}, {CloseTimeout: -1}, {Instance: "one"}, {Group: "watermill|mine"},
	} {
		_, err := pocketmq.NewSubscriber(b, o)
		require.ErrorIs(t, err, mq.ErrInvalidOptions, "%+v", o)
	}
	s := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G"})
	subscribe(t, s, "T")
	_, err := newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G", Ordered: true}).Subscribe(t.Context(), "T")
	require.ErrorIs(t, err, mq.ErrGroupKind)
	_, err = s.Subscribe(t.Context(), "")
	require.ErrorIs(t, err, mq.ErrInvalidName)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Subscribe(ctx, "T")
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, err = s.Subscribe(t.Context(), "T")
	require.ErrorIs(t, err, mq.ErrClosed)
	require.ErrorIs(t, s.SubscribeInitialize("T"), mq.ErrClosed)
	_, err = newSubscriber(t, b, &pocketmq.SubscriberOptions{Filter: mq.TagExpr("||")}).Subscribe(t.Context(), "T")
	require.ErrorIs(t, err, mq.ErrInvalidFilter)
	require.Equal(t, []string{"G"}, b.Groups())
}
