package pocketmq_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	pocketmq "github.com/pocketmq/mq/contrib/watermill"
	"github.com/pocketmq/mq/mqtest"
)

// declaration is what is said of the adapter to Watermill's suite. All of them
// share one broker: the suite opens and closes handles by the dozen.
type declaration struct {
	name     string
	features tests.Features
	pub      *pocketmq.PublisherOptions
	sub      pocketmq.SubscriberOptions
	grouped  bool
	keyed    bool // messages get a key before they are published
}

var declarations = []declaration{
	{
		name:     "A grouped",
		features: tests.Features{ConsumerGroups: true, Persistent: true},
		grouped:  true,
	},
	{
		name:     "B ordered",
		features: tests.Features{ConsumerGroups: true, GuaranteedOrder: true, Persistent: true},
		pub:      &pocketmq.PublisherOptions{ShardingKey: pocketmq.KeyFromMetadata(keyField)},
		sub:      pocketmq.SubscriberOptions{Ordered: true},
		grouped:  true,
	},
	{
		name:     "B ordered by many keys",
		features: tests.Features{ConsumerGroups: true, GuaranteedOrder: true, Persistent: true},
		pub:      &pocketmq.PublisherOptions{ShardingKey: pocketmq.KeyFromMetadata(keyField)},
		sub:      pocketmq.SubscriberOptions{Ordered: true},
		grouped:  true,
		keyed:    true,
	},
	{
		name:     "C no group",
		features: tests.Features{Persistent: true, NewSubscriberReceivesOldMessages: true},
	},
}

const keyField = "partition_key"

// keyedPublisher gives each message its payload as a key, which is what the
// suite's test of order looks at.
type keyedPublisher struct{ message.Publisher }

func (p keyedPublisher) Publish(topic string, messages ...*message.Message) error {
	for _, m := range messages {
		m.Metadata.Set(keyField, string(m.Payload))
	}
	return p.Publisher.Publish(topic, messages...)
}

type suite func(*testing.T, tests.Features, tests.PubSubConstructor, tests.ConsumerGroupPubSubConstructor)

// runSuite runs a suite for each declaration on a broker on disk, which is
// checked afterwards.
func runSuite(t *testing.T, run suite) {
	for _, d := range declarations {
		t.Run(d.name, func(t *testing.T) {
			b := mqtest.Open(t, nil)
			group := "suite-" + watermill.NewShortUUID()
			if !d.grouped {
				group = ""
			}
			run(t, d.features,
				func(t *testing.T) (message.Publisher, message.Subscriber) { return d.open(t, b, group) },
				func(t *testing.T, group string) (message.Publisher, message.Subscriber) { return d.open(t, b, group) })
		})
	}
}

func (d declaration) open(t *testing.T, b *mq.Broker, group string) (message.Publisher, message.Subscriber) {
	p, err := pocketmq.NewPublisher(b, d.pub)
	require.NoError(t, err)
	o := d.sub
	o.Group = group
	s, err := pocketmq.NewSubscriber(b, &o)
	require.NoError(t, err)
	if d.keyed {
		return keyedPublisher{p}, s
	}
	return p, s
}

// TestPubSub is Watermill's universal suite.
func TestPubSub(t *testing.T) { runSuite(t, tests.TestPubSub) }
