package mqpubsub

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"gocloud.dev/gcerrors"
	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/driver"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// pair opens a topic and a subscription on a broker in memory.
func pair(t *testing.T, to *TopicOptions, so *SubscriptionOptions) (*mq.Broker, *pubsub.Topic, *pubsub.Subscription) {
	t.Helper()
	b := mqtest.OpenMemory(t, nil)
	topic, err := OpenTopic(b, "T", to)
	require.NoError(t, err)
	t.Cleanup(func() { _ = topic.Shutdown(context.Background()) })
	sub, err := OpenSubscription(b, "G", "T", so)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Shutdown(context.Background()) })
	return b, topic, sub
}

func receive(t *testing.T, s *pubsub.Subscription) *pubsub.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := s.Receive(ctx)
	require.NoError(t, err)
	return m
}

// TestSettleOutOfOrder: what is acknowledged is gone, what is given back comes
// again, whatever their order.
func TestSettleOutOfOrder(t *testing.T) {
	t.Parallel()
	b, topic, sub := pair(t, nil, nil)
	const n = 20
	for i := range n {
		require.NoError(t, topic.Send(t.Context(), &pubsub.Message{Body: fmt.Append(nil, i)}))
	}
	var got []*pubsub.Message
	for range n {
		got = append(got, receive(t, sub))
	}
	again := map[string]bool{}
	for i := n - 1; i >= 0; i-- {
		if i%3 == 0 {
			again[string(got[i].Body)] = true
			got[i].Nack()
		} else {
			got[i].Ack()
		}
	}
	for range len(again) {
		m := receive(t, sub)
		require.True(t, again[string(m.Body)], "%s was acknowledged, or came again twice", m.Body)
		delete(again, string(m.Body))
		var native *mq.Message
		require.True(t, m.As(&native))
		require.Equal(t, 2, native.Attempt)
		m.Ack()
	}
	mqtest.Eventually(t, func() bool {
		lag, _, err := b.Lag("G")
		return err == nil && lag == 0
	}, "all is acknowledged")
}

// TestDeadLetter: a message that is given back MaxAttempts times comes no more.
func TestDeadLetter(t *testing.T) {
	t.Parallel()
	b, topic, sub := pair(t, nil, &SubscriptionOptions{MaxAttempts: 3})
	require.NoError(t, topic.Send(t.Context(), &pubsub.Message{Body: []byte("x")}))
	for range 3 {
		receive(t, sub).Nack()
	}
	mqtest.Eventually(t, func() bool { return b.Stats().Dead == 1 }, "it is a dead letter")
}

// TestShutdownGivesBack: what a subscription fetched and nobody settled goes to
// the group's other members at once, though its deadline is far away.
func TestShutdownGivesBack(t *testing.T) {
	t.Parallel()
	b, topic, sub := pair(t, nil, &SubscriptionOptions{AckDeadline: 24 * time.Hour})
	other, err := OpenSubscription(b, "G", "T", nil) // keeps the group alive
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Shutdown(context.Background())) }()
	const n = 10
	for i := range n {
		require.NoError(t, topic.Send(t.Context(), &pubsub.Message{Body: fmt.Append(nil, i)}))
	}
	left := map[string]bool{}
	for i := range n {
		m := receive(t, sub)
		if i%2 == 0 {
			m.Ack()
		} else {
			left[string(m.Body)] = true
		}
	}
	require.NoError(t, sub.Shutdown(t.Context()))
	require.Zero(t, b.Stats().Invisible)
	for range n / 2 {
		m := receive(t, other)
		require.True(t, left[string(m.Body)], "%s", m.Body)
		delete(left, string(m.Body))
		m.Ack()
	}
}

// TestShutdownWhileReceiving: messages that ReceiveBatch is handing out when the
// subscription is closed are not lost until their deadline.
func TestShutdownWhileReceiving(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	keeper, err := newSubscription(b, "G", "T", &SubscriptionOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, keeper.Close()) }()
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for range 200 {
		s, err := newSubscription(b, "G", "T", &SubscriptionOptions{AckDeadline: time.Hour})
		require.NoError(t, err)
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for {
				if _, err := s.ReceiveBatch(ctx, 10); err != nil {
					ended <- err
					return
				}
			}
		}()
		for range 10 {
			_, err := p.Send(t.Context(), &mq.Message{Topic: "T"})
			require.NoError(t, err)
		}
		cancel() // as the portable type does before it closes the driver
		require.NoError(t, s.Close())
		err = <-ended
		require.True(t, errors.Is(err, context.Canceled) || errors.Is(err, mq.ErrClosed), "%v", err)
		require.Zero(t, b.Stats().Invisible)
	}
}

// TestDeadline: a message that is not settled comes again after the deadline, one
// that is given back after NackDelay, and settling it late is no error.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := mq.OpenMemory(nil)
		require.NoError(t, err)
		defer b.Close()
		s, err := newSubscription(b, "G", "T", &SubscriptionOptions{AckDeadline: 5 * time.Second, NackDelay: 3 * time.Second})
		require.NoError(t, err)
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		_, err = p.Send(t.Context(), &mq.Message{Topic: "T", Body: []byte("x")})
		require.NoError(t, err)

		first := next(t, s)
		at := time.Now()
		second := next(t, s)
		require.InDelta(t, 5, time.Since(at).Seconds(), 0.1)
		require.Len(t, s.out, 1)
		require.NoError(t, s.SendAcks(t.Context(), []driver.AckID{first.AckID}), "too late")
		require.Len(t, s.out, 1, "the second delivery is out")

		at = time.Now()
		require.NoError(t, s.SendNacks(t.Context(), []driver.AckID{second.AckID}))
		third := next(t, s)
		require.InDelta(t, 3, time.Since(at).Seconds(), 0.1)
		require.NoError(t, s.SendAcks(t.Context(), []driver.AckID{third.AckID}))
		require.Empty(t, s.out)
		require.NoError(t, s.SendNacks(t.Context(), []driver.AckID{third.AckID}), "too late")

		at = time.Now()
		ms, err := s.ReceiveBatch(t.Context(), 1)
		require.NoError(t, err)
		require.Empty(t, ms)
		require.Equal(t, receiveWait, time.Since(at))
		require.NoError(t, s.Close())
	})
}

func next(t *testing.T, s *subscription) *driver.Message {
	t.Helper()
	for range 10 {
		ms, err := s.ReceiveBatch(t.Context(), 1)
		require.NoError(t, err)
		if len(ms) == 1 {
			return ms[0]
		}
	}
	t.Fatal("no message for ten seconds")
	return nil
}

// TestOrdered: messages of one key come in order, also when one is given back,
// and the key's next one not before it.
func TestOrdered(t *testing.T) {
	t.Parallel()
	_, topic, sub := pair(t, &TopicOptions{KeyName: "order"}, &SubscriptionOptions{Ordered: true})
	const keys, each = 5, 20
	for i := range each {
		for k := range keys {
			require.NoError(t, topic.Send(t.Context(), &pubsub.Message{
				Metadata: map[string]string{"order": fmt.Sprint(k)}, Body: fmt.Append(nil, i),
			}))
		}
	}
	want, failed := map[string]int{}, map[string]bool{}
	for done := 0; done < keys*each; {
		m := receive(t, sub)
		key := m.Metadata["order"]
		require.Equal(t, fmt.Sprint(want[key]), string(m.Body), "key %s", key)
		if id := key + string(m.Body); want[key]%4 == 0 && !failed[id] {
			failed[id] = true
			m.Nack()
			continue
		}
		want[key]++
		done++
		m.Ack()
	}
}

// TestRefusedAlone: a message that the broker refuses fails, and those that are
// sent at the same time do not.
func TestRefusedAlone(t *testing.T) {
	t.Parallel()
	b, topic, _ := pair(t, nil, nil)
	const n = 200
	errs := make(chan error, n)
	for i := range n {
		m := &pubsub.Message{Body: []byte("x")}
		if i%2 == 0 {
			m.Metadata = map[string]string{"much": string(make([]byte, 40_000))}
		}
		go func() { errs <- topic.Send(t.Context(), m) }()
	}
	refused := 0
	for range n {
		if err := <-errs; err != nil {
			require.Equal(t, gcerrors.InvalidArgument, gcerrors.Code(err))
			require.ErrorIs(t, err, mq.ErrInvalidMessage)
			refused++
		}
	}
	require.Equal(t, n/2, refused)
	require.EqualValues(t, n/2, b.Stats().Sent)
}

// TestBatchIsAllOrNothing: one message that is refused keeps the others out.
func TestBatchIsAllOrNothing(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	d, err := newTopic(b, "T", &TopicOptions{})
	require.NoError(t, err)
	good := &driver.Message{Body: []byte("x")}
	bad := &driver.Message{Metadata: map[string]string{"much": string(make([]byte, 40_000))}}
	require.ErrorIs(t, d.SendBatch(t.Context(), []*driver.Message{good, bad, good}), mq.ErrInvalidMessage)
	require.Zero(t, b.Stats().Sent)

	failing := errors.New("no")
	bad = &driver.Message{BeforeSend: func(func(any) bool) error { return failing }}
	require.ErrorIs(t, d.SendBatch(t.Context(), []*driver.Message{good, bad}), failing)
	require.Zero(t, b.Stats().Sent)

	require.NoError(t, d.SendBatch(t.Context(), []*driver.Message{good, good}))
	require.EqualValues(t, 2, b.Stats().Sent)
	require.NoError(t, d.Close())
	require.ErrorIs(t, d.SendBatch(t.Context(), []*driver.Message{good}), mq.ErrClosed)
}

// TestMetadataIsBinarySafe: the suite tries all of ASCII, in UTF-8; the driver
// carries any byte.
func TestMetadataIsBinarySafe(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	d, err := newTopic(b, "T", &TopicOptions{})
	require.NoError(t, err)
	s, err := newSubscription(b, "G", "T", &SubscriptionOptions{})
	require.NoError(t, err)
	all := make([]byte, 256)
	want := map[string]string{"": "empty name", "empty value": ""}
	for i := range all {
		all[i] = byte(i)
		want[string(all[i:i+1])] = string(all[max(0, i-3) : i+1])
	}
	require.NoError(t, d.SendBatch(t.Context(), []*driver.Message{{Metadata: want}}))
	got := next(t, s)
	require.Equal(t, want, got.Metadata)
	require.NoError(t, s.SendAcks(t.Context(), []driver.AckID{got.AckID}))
	require.NoError(t, s.Close())
	require.NoError(t, d.Close())
}

// TestErrorCodes: every sentinel of the broker that can come up has a code, and
// only back-pressure is retried behind the caller's back.
func TestErrorCodes(t *testing.T) {
	t.Parallel()
	for _, c := range errorCodes {
		for _, err := range c.errs {
			wrapped := fmt.Errorf("somewhere: %w", err)
			require.Equal(t, c.code, failures{}.ErrorCode(wrapped), "%v", err)
			require.Equal(t, errors.Is(err, mq.ErrBackpressure), failures{}.IsRetryable(wrapped), "%v", err)
		}
	}
	require.Equal(t, gcerrors.Unknown, failures{}.ErrorCode(errors.New("other")))

	// A store that is full tells the sender, who would wait for ever otherwise.
	b := mqtest.OpenMemory(t, &mq.Options{Retention: mq.Retention{MaxBytes: 4 << 20}})
	sub, err := OpenSubscription(b, "G", "T", nil) // holds its messages
	require.NoError(t, err)
	topic, err := OpenTopic(b, "T", nil)
	require.NoError(t, err)
	for err == nil {
		err = topic.Send(t.Context(), &pubsub.Message{Body: make([]byte, 64<<10)})
	}
	require.Equal(t, gcerrors.ResourceExhausted, gcerrors.Code(err), "%v", err)
	require.NoError(t, topic.Shutdown(t.Context()))
	require.NoError(t, sub.Shutdown(t.Context()))
}

// TestOpenRefuses: what cannot work is an error at once.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	for name, c := range map[string]struct {
		group, topic string
		options      *SubscriptionOptions
		want         error
	}{
		"group":    {"no group", "T", nil, mq.ErrInvalidName},
		"topic":    {"G", "no topic", nil, mq.ErrInvalidName},
		"deadline": {"G", "T", &SubscriptionOptions{AckDeadline: -1}, mq.ErrInvalidOptions},
		"delay":    {"G", "T", &SubscriptionOptions{NackDelay: -1}, mq.ErrInvalidOptions},
		"filter":   {"G", "T", &SubscriptionOptions{Filter: mq.TagExpr("A ||")}, mq.ErrInvalidFilter},
	} {
		_, err := OpenSubscription(b, c.group, c.topic, c.options)
		require.ErrorIs(t, err, c.want, name)
	}
	require.Zero(t, b.Stats().Consumers, "none is left behind")
	require.NoError(t, b.Close())
	_, err := OpenSubscription(b, "G", "T", nil)
	require.ErrorIs(t, err, mq.ErrClosed)
	_, err = OpenTopic(b, "T", nil)
	require.ErrorIs(t, err, mq.ErrClosed)
}
