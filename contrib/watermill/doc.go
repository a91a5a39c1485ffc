// Package pocketmq lets programs written for Watermill use PocketMQ: a Publisher
// and a Subscriber on a [mq.Broker] in the same process.
//
//	b, err := mq.Open("data", nil)
//	pub, err := pocketmq.NewPublisher(b, nil)
//	sub, err := pocketmq.NewSubscriber(b, &pocketmq.SubscriberOptions{Group: "orders"})
//
// A Watermill topic is a PocketMQ topic, a message one message: metadata are its
// properties, the payload is its body. Publish returns when the messages are as
// durable as their topic asks for, and several messages are stored all or
// nothing. What was acked is not delivered again after the end of the process.
//
// The README says how groups, order, broadcasting, delays and failures map, and
// what Watermill's own test suite found.
package pocketmq
