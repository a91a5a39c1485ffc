package mq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// sendTagged stores n messages with these tags in turn.
func sendTagged(t testing.TB, b *mq.Broker, topic string, n int, tags ...string) {
	t.Helper()
	ms := numbered(topic, 0, n)
	for i, m := range ms {
		m.Tag = tags[i%len(tags)]
	}
	send(t, b, ms...)
}

func TestFilters(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendTagged(t, b, "T", 12, "A", "B", "C D", "")
	a, ab, all := []string{"0", "4", "8"}, []string{"0", "1", "4", "5", "8", "9"}, bodiesTo(12)
	rows := []struct {
		filter mq.Filter
		text   string
		want   []string
	}{
		{mq.All, "*", all},
		{mq.Tags(), "*", all},
		{mq.TagExpr(""), "*", all},
		{mq.TagExpr(" * "), "*", all},
		{mq.Tags("A"), "A", a},
		{mq.Tags("B", "A", "B"), "A || B", ab},
		{mq.TagExpr("A || B"), "A || B", ab},
		{mq.TagExpr("\tB||A  "), "A || B", ab},
		{mq.TagExpr("C D"), "C D", []string{"2", "6", "10"}},
		{mq.Tags("A", "none"), "A || none", a},
	}
	for i, row := range rows {
		require.Equal(t, row.text, row.filter.String())
		group := fmt.Sprint("G", i)
		c, err := b.NewPullConsumer(group, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", row.filter))
		require.Equal(t, row.want, bodiesOf(poll(t, c, len(row.want))), row.text)
		require.NoError(t, c.Commit(t.Context()))
		nothingMore(t, c)
		require.NoError(t, c.Close())
	}
}

func TestBadFilters(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	c, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	long := strings.Repeat("x", 128)
	for _, f := range []mq.Filter{
		mq.TagExpr("A ||"), mq.TagExpr("|| A"), mq.TagExpr("A || || B"), mq.TagExpr("||"),
		mq.Tags(""), mq.Tags("A", ""), mq.Tags(long), mq.TagExpr("A || " + long),
	} {
		require.ErrorIs(t, c.Subscribe("T", f), mq.ErrInvalidFilter)
		require.ErrorIs(t, b.Resubscribe("G", "T", f), mq.ErrInvalidFilter)
	}
	require.Empty(t, b.Topics())
	require.NoError(t, c.Subscribe("T", mq.Tags(long[:127])))
	require.NoError(t, c.Close())
}

// TestFilterThatMatchesNothing holds nothing: what it passes over is
// acknowledged, without a message to travel with.
func TestFilterThatMatchesNothing(t *testing.T) {
	t.Parallel()
	for _, n := range []int{10, 5000} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 2)
			got := newCrowd()
			c, err := b.NewPushConsumer("Push", got.handle, nil)
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", mq.Tags("none")))
			p, err := b.NewPullConsumer("Pull", nil)
			require.NoError(t, err)
			require.NoError(t, p.Subscribe("T", mq.Tags("none")))
			var polling sync.WaitGroup
			polling.Go(func() {
				for m, err := range p.Messages(t.Context()) {
					if m != nil || !errors.Is(err, mq.ErrClosed) {
						t.Error(m, err)
					}
				}
			})
			sendTagged(t, b, "T", n, "A", "")
			pass(time.Second) // SyncEvery, and a little
			require.Zero(t, lag(t, b, "Push"))
			require.Zero(t, lag(t, b, "Pull"))
			require.Empty(t, got.times)
			require.Zero(t, b.Stats().Missed)
			require.NoError(t, c.Close())
			require.NoError(t, p.Close())
			polling.Wait()
		})
	}
}

// TestSkippedTravelsWithAcks: what lies between wanted messages is acknowledged
// with them.
func TestSkippedTravelsWithAcks(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, &mq.Options{Durability: mq.Written, SyncEvery: time.Hour})
	createTopic(t, b, "T", 1)
	sendTagged(t, b, "T", 99, "A", "B", "C")
	c, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.Tags("B")))
	ms := poll(t, c, 33)
	require.Equal(t, int64(99), lag(t, b, "G"))
	require.NoError(t, c.Commit(t.Context(), ms...))
	require.LessOrEqual(t, lag(t, b, "G"), int64(1), "the last C may not have been looked at yet")
	require.NoError(t, c.Close())
}

func TestSubscriptionMismatch(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	join := func(f mq.Filter) (*mq.PullConsumer, error) {
		c, err := b.NewPullConsumer("G", nil)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		return c, c.Subscribe("T", f)
	}
	one, err := join(mq.Tags("A", "B"))
	require.NoError(t, err)
	two, err := join(mq.TagExpr("B||A"))
	require.NoError(t, err, "the same in other words")
	for _, f := range []mq.Filter{mq.All, mq.Tags("A"), mq.Tags("A || B")} {
		three, err := join(f)
		require.ErrorIs(t, err, mq.ErrSubscriptionMismatch)
		require.ErrorContains(t, err, "A || B")
		require.Empty(t, three.Assigned())
		require.NoError(t, three.Subscribe("U", f), "another topic is another matter")
		require.NoError(t, three.Close())
	}
	require.ErrorIs(t, one.Subscribe("T", mq.All), mq.ErrSubscriptionMismatch)
	require.NoError(t, two.Close())
	require.NoError(t, one.Subscribe("T", mq.All), "who is alone may change it")
	sendTagged(t, b, "T", 2, "C")
	require.Len(t, poll(t, one, 2), 2)
}

// TestResubscribe changes the filter of all members at once.
func TestResubscribe(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	var in inbox
	handler := in.handle
	for range 2 {
		c, err := b.NewPushConsumer("G", handler, nil)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		require.NoError(t, c.Subscribe("T", mq.Tags("A")))
	}
	sendTagged(t, b, "T", 10, "A", "A", "B", "B")
	consumedOrSkipped(t, b, "G")
	require.NoError(t, b.Resubscribe("G", "T", mq.Tags("B")))
	sendTagged(t, b, "T", 10, "A", "A", "B", "B")
	consumedOrSkipped(t, b, "G")
	got := map[string]int{}
	for _, m := range in.messages() {
		got[m.Tag]++
	}
	require.Equal(t, map[string]int{"A": 6, "B": 4}, got)
	c, err := b.NewPushConsumer("G", handler, nil)
	require.NoError(t, err)
	require.ErrorIs(t, c.Subscribe("T", mq.Tags("A")), mq.ErrSubscriptionMismatch)
	require.NoError(t, c.Subscribe("T", mq.Tags("B")))
	require.NoError(t, c.Close())
	require.ErrorIs(t, b.Resubscribe("None", "T", mq.All), mq.ErrGroupNotFound)
	require.ErrorIs(t, b.Resubscribe("G", "None", mq.All), mq.ErrTopicNotFound)
}

// consumedOrSkipped waits for a group with a filter, whose last skipped messages
// are acknowledged after SyncEvery.
func consumedOrSkipped(t testing.TB, b *mq.Broker, group string) {
	t.Helper()
	mqtest.Eventually(t, func() bool { return lag(t, b, group) == 0 }, "%s has passed everything", group)
}

// TestDerivedFilter: who filters what comes again to a group, or what it has parked,
// keeps nobody from joining it.
func TestDerivedFilter(t *testing.T) {
	t.Parallel()
	f := mq.SQL("a IS NULL")
	for _, derived := range []string{mq.RetryTopic("G"), mq.ParkedTopic("G", "T")} {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 2)
		o := &mq.PushOptions{Ordered: derived != mq.RetryTopic("G"), PrefetchMessages: 4, Backoff: mq.Fixed(time.Hour)}
		fails := func(context.Context, *mq.Message) error { return errBroken }
		one := push(t, b, "G", "T", fails, o)
		p := newProducer(t, b, nil)
		for range 10 {
			_, err := p.Send(t.Context(), &mq.Message{Topic: "T", ShardingKey: "k"})
			require.NoError(t, err)
		}
		mqtest.Eventually(t, func() bool { return slices.Contains(one.Assigned(), mq.Queue{Topic: derived}) }, "%s is consumed", derived)
		require.NoError(t, b.Resubscribe("G", derived, f))

		two, err := b.NewPushConsumer("G", fails, o)
		require.NoError(t, err)
		require.NoError(t, two.Subscribe("T", mq.All))
		had, err := b.Filter("G", derived)
		require.NoError(t, err)
		require.Equal(t, f.String(), had.String())
		require.NoError(t, two.Close())
	}
}
