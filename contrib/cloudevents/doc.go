// Package pocketmq is a protocol binding of CloudEvents for PocketMQ, after the
// draft of the one for RocketMQ: events are the messages that RocketMQ's
// producers and consumers of CloudEvents know.
//
//	b, err := mq.Open("data", nil)
//	s, err := pocketmq.NewSender(b, "orders", nil)
//	c, err := cloudevents.NewClient(s)
//	err = c.Send(ctx, event)
//
//	r, err := pocketmq.NewReceiver(b, "billing", "orders", nil)
//	c, err := cloudevents.NewClient(r)
//	err = c.StartReceiver(ctx, func(e cloudevents.Event) error { … })
//
// An event in binary mode is a message whose body is the data and whose
// properties are the attributes and extensions, each under its name with CE_
// before it, and the type of the data under CE_contenttype. One in structured
// mode is a body in an event format, whose media type is under CE_contenttype.
package pocketmq
