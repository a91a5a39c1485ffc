// Package mqotel instruments PocketMQ with OpenTelemetry: spans and metrics by the
// semantic conventions for messaging systems and for RocketMQ (version 1.43).
//
//	t, err := mqotel.New(&mqotel.Options{TracerProvider: tp, MeterProvider: mp})
//	p, err := t.NewProducer(b, nil)
//	c, err := t.NewPushConsumer(b, "OrderGroup", handler, nil)
//
// The constructors stand for those of mq.Broker, and what they return has the
// same methods: a program changes where it opens its producers and consumers, and
// nothing else. Methods that are not named below are those of package mq, and
// leave no trace.
//
// # Nothing global
//
// Providers and propagator are handed in; the globals of OpenTelemetry are neither
// read nor set. Without providers nothing is wrapped: a handler is the function
// that was handed in, and the methods of producers and consumers call those of
// package mq at once.
//
// # Spans
//
//	send              Send, SendAsync, SendOneWay      PRODUCER
//	create, send      SendBatch, for each message, for all   PRODUCER, CLIENT
//	poll, receive     Poll, Receive, if anything came  CLIENT
//	process           a handler                        CONSUMER
//	ack, nack, change_invisible, commit  what settles  CLIENT
//
// A span is called after its operation and topic: "send OrderTopic". What a push
// consumer settles after its handler has no span of its own: the engine does it
// once for many messages, and the handler's span has the verdict.
//
// # Context
//
// The creation context of a message travels in its properties, by default as
// traceparent and tracestate. Sending does not change the caller's message: it
// sends a copy. A message that has a creation context already, because the
// program put it there or sends on what it received, keeps it, and the span links
// to it. Where the context does not fit among the message's properties, the message
// is sent without.
//
// Whoever consumes gets a trace of its own, linked to the creation context of each
// message (Options.Parent: a handler's span is its child instead). The context
// that a handler is given carries its span, and the baggage of the message.
package mqotel
