// Package mqpubsub is a driver that puts PocketMQ under gocloud.dev/pubsub:
// programs written for the Go CDK run on a store inside their own process.
//
//	b, err := mq.Open("data", nil)
//	topic, err := mqpubsub.OpenTopic(b, "OrderTopic", nil)
//	sub, err := mqpubsub.OpenSubscription(b, "OrderGroup", "OrderTopic", nil)
//
// A Topic is a topic, a Subscription a member of a consumer group that
// subscribes to one topic. Groups each get every message, members of one group
// share them. A Subscription is a mq.SimpleConsumer: messages are settled one by
// one, in any order, and what is neither acknowledged nor given back within
// SubscriptionOptions.AckDeadline comes again.
//
// # URLs
//
// pubsub.OpenTopic and pubsub.OpenSubscription know two schemes, Scheme and
// MemScheme; see URLOpener.
//
//	pocketmq:///var/lib/shop?topic=OrderTopic
//	pocketmq:///var/lib/shop?topic=OrderTopic&group=OrderGroup
//	pocketmq+mem://shop?topic=OrderTopic&group=OrderGroup
//
// # Delivery
//
// At least once. Send returns when the message is as durable as its topic asks
// for, which by default is on the disk. What Ack acknowledged does not come again
// after the process was killed; the portable type sends acknowledgements in the
// background, and Shutdown waits for them. Shutdown also gives back at once what
// the Subscription had fetched and nobody settled.
//
// Metadata are the message's properties: names and values may hold any byte.
//
// # As
//
//   - Topic: **mq.Broker, **mq.Producer
//   - Subscription: **mq.Broker, **mq.SimpleConsumer
//   - Message (received): **mq.Message
//   - Message.BeforeSend: **mq.Message, to set tag, keys, sharding key or delay.
//     It goes to the Topic's topic whatever is set there.
//   - Message.AfterSend: *mq.SendResult
//   - Error: any error type the chain holds, such as **mq.CorruptionError.
//     errors.Is finds the broker's sentinels in the portable type's errors too.
package mqpubsub
