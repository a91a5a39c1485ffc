package mqpubsub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/driver"
	"gocloud.dev/pubsub/drivertest"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// harness makes the topics and subscriptions of one test of the suite. Nothing is
// created on first use: topics that are not there have to stay so.
type harness struct {
	broker *mq.Broker
	made   atomic.Int64
}

func onDisk(t testing.TB) *mq.Broker { return mqtest.Open(t, &mq.Options{NoAutoCreate: true}) }

func inMemory(t testing.TB) *mq.Broker { return mqtest.OpenMemory(t, &mq.Options{NoAutoCreate: true}) }

func (h *harness) name(testName string) string {
	return fmt.Sprintf("%s-%d", strings.NewReplacer("/", "-", "'", "", ".", "", "#", "").Replace(testName), h.made.Add(1))
}

func (h *harness) CreateTopic(_ context.Context, testName string) (driver.Topic, func(), error) {
	name := h.name(testName)
	if err := h.broker.CreateTopic(name, nil); err != nil {
		return nil, nil, err
	}
	t, err := newTopic(h.broker, name, &TopicOptions{})
	return t, func() { _ = h.broker.DeleteTopic(name) }, err
}

func (h *harness) MakeNonexistentTopic(context.Context) (driver.Topic, error) {
	return newTopic(h.broker, "Nowhere", &TopicOptions{})
}

func (h *harness) CreateSubscription(_ context.Context, dt driver.Topic, testName string) (driver.Subscription, func(), error) {
	s, err := newSubscription(h.broker, h.name(testName), dt.(*topic).name, &SubscriptionOptions{})
	return s, func() {}, err
}

func (h *harness) MakeNonexistentSubscription(context.Context) (driver.Subscription, func(), error) {
	s, err := newSubscription(h.broker, "Nobody", "Nowhere", &SubscriptionOptions{})
	return s, func() {}, err
}

func (h *harness) Close() {} // mqtest checks and closes the broker

func (h *harness) MaxBatchSizes() (int, int) { return 0, 0 }

func (h *harness) SupportsMultipleSubscriptions() bool { return true }

func TestConformance(t *testing.T) {
	for name, open := range map[string]func(testing.TB) *mq.Broker{"disk": onDisk, "memory": inMemory} {
		t.Run(name, func(t *testing.T) {
			drivertest.RunConformanceTests(t, func(_ context.Context, t *testing.T) (drivertest.Harness, error) {
				return &harness{broker: open(t)}, nil
			}, []drivertest.AsTest{asTest{}})
		})
	}
}

// asTest: every type that the package comment promises for As.
type asTest struct{}

func (asTest) Name() string { return "types of the broker" }

func (asTest) TopicCheck(t *pubsub.Topic) error {
	var b *mq.Broker
	var p *mq.Producer
	if !t.As(&b) || !t.As(&p) || b == nil || p == nil {
		return errors.New("topic: no broker or no producer")
	}
	return nil
}

func (asTest) SubscriptionCheck(s *pubsub.Subscription) error {
	var b *mq.Broker
	var c *mq.SimpleConsumer
	if !s.As(&b) || !s.As(&c) || b == nil || c == nil {
		return errors.New("subscription: no broker or no consumer")
	}
	return nil
}

func (asTest) TopicErrorCheck(t *pubsub.Topic, err error) error { return asError(t.ErrorAs, err) }

func (asTest) SubscriptionErrorCheck(s *pubsub.Subscription, err error) error {
	return asError(s.ErrorAs, err)
}

func asError(as func(error, any) bool, err error) error {
	var corrupt *mq.CorruptionError
	if as(err, &corrupt) {
		return fmt.Errorf("%v is a %T", err, corrupt)
	}
	if !errors.Is(err, mq.ErrTopicNotFound) {
		return fmt.Errorf("%v does not hold %v", err, mq.ErrTopicNotFound)
	}
	return nil
}

func (asTest) BeforeSend(as func(any) bool) error {
	var m *mq.Message
	if !as(&m) {
		return errors.New("before send: no message")
	}
	m.Tag, m.Keys, m.Topic = "T", []string{"k"}, "Elsewhere"
	return nil
}

func (asTest) AfterSend(as func(any) bool) error {
	var r mq.SendResult
	if !as(&r) || r.ID.IsZero() {
		return errors.New("after send: no result")
	}
	return nil
}

func (asTest) MessageCheck(pm *pubsub.Message) error {
	var m *mq.Message
	if !pm.As(&m) {
		return errors.New("received: no message")
	}
	if m.Tag != "T" || len(m.Keys) != 1 || m.Topic == "Elsewhere" {
		return fmt.Errorf("received: tag %q, keys %q, topic %q", m.Tag, m.Keys, m.Topic)
	}
	return nil
}

// BenchmarkPubSub is the suite's own: an operation is 10,000 messages, sent by 100
// goroutines and received by 100.
func BenchmarkPubSub(b *testing.B) {
	for _, c := range []struct {
		name       string
		durability mq.Durability
		open       func(testing.TB, *mq.Options) *mq.Broker
	}{
		{"synced", mq.Synced, mqtest.Open},
		{"written", mq.Written, mqtest.Open},
		{"memory", mq.Written, mqtest.OpenMemory},
	} {
		b.Run(c.name, func(b *testing.B) {
			broker := c.open(b, &mq.Options{Durability: c.durability})
			sub, err := OpenSubscription(broker, "G", "T", nil)
			require.NoError(b, err)
			topic, err := OpenTopic(broker, "T", nil)
			require.NoError(b, err)
			drivertest.RunBenchmarks(b, topic, sub)
			require.NoError(b, topic.Shutdown(b.Context()))
			require.NoError(b, sub.Shutdown(b.Context()))
		})
	}
}
