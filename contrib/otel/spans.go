package mqotel

import (
	"context"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/pocketmq/mq"
)

// operation is one of those that have spans: its name, type and kind.
type operation struct {
	name string
	kind trace.SpanKind
	typ  attribute.KeyValue
}

var (
	opCreate = &operation{"create", trace.SpanKindProducer, semconv.MessagingOperationTypeCreate}
	// Its context is the creation context; otherwise it is opSendCreated.
	opSend          = &operation{"send", trace.SpanKindProducer, semconv.MessagingOperationTypeSend}
	opSendCreated   = &operation{"send", trace.SpanKindClient, semconv.MessagingOperationTypeSend}
	opPoll          = &operation{"poll", trace.SpanKindClient, semconv.MessagingOperationTypeReceive}
	opReceive       = &operation{"receive", trace.SpanKindClient, semconv.MessagingOperationTypeReceive}
	opProcess       = &operation{"process", trace.SpanKindConsumer, semconv.MessagingOperationTypeProcess}
	opAck           = &operation{"ack", trace.SpanKindClient, semconv.MessagingOperationTypeSettle}
	opNack          = &operation{"nack", trace.SpanKindClient, semconv.MessagingOperationTypeSettle}
	opChangeVisible = &operation{"change_invisible", trace.SpanKindClient, semconv.MessagingOperationTypeSettle}
	opCommit        = &operation{"commit", trace.SpanKindClient, semconv.MessagingOperationTypeSettle}
)

func (o *operation) attributes() []attribute.KeyValue {
	return []attribute.KeyValue{semconv.MessagingOperationName(o.name), o.typ}
}

// spanName is "operation topic", or the operation alone if there are several
// topics.
func (o *operation) spanName(topic string) string {
	if topic == "" {
		return o.name
	}
	return o.name + " " + topic
}

// attributes begins the attributes of a span.
func (t *Telemetry) attributes(o *operation, topic string) []attribute.KeyValue {
	kvs := make([]attribute.KeyValue, 0, 16)
	kvs = append(kvs, t.common...)
	kvs = append(kvs, o.attributes()...)
	if topic != "" {
		kvs = append(kvs, semconv.MessagingDestinationName(topic))
	}
	return kvs
}

// appendMessage appends the attributes of one message that its sender chose.
func appendMessage(kvs []attribute.KeyValue, m *mq.Message) []attribute.KeyValue {
	kvs = append(kvs, semconv.MessagingMessageBodySize(len(m.Body)))
	if m.Tag != "" {
		kvs = append(kvs, semconv.MessagingRocketMQMessageTag(m.Tag))
	}
	if len(m.Keys) > 0 {
		kvs = append(kvs, semconv.MessagingRocketMQMessageKeys(m.Keys...))
	}
	if m.ShardingKey != "" {
		kvs = append(kvs, semconv.MessagingRocketMQMessageGroup(m.ShardingKey))
	}
	// A message may be both in order and delayed; RocketMQ's may not. Its type is
	// what it waits for.
	switch {
	case m.DelayLevel != 0:
		return append(kvs, semconv.MessagingRocketMQMessageTypeDelay, semconv.MessagingRocketMQMessageDelayTimeLevel(m.DelayLevel))
	case !m.DeliverAt.IsZero():
		return append(kvs, semconv.MessagingRocketMQMessageTypeDelay, semconv.MessagingRocketMQMessageDeliveryTimestamp(int(m.DeliverAt.UnixMilli())))
	case m.Delay != 0:
		return append(kvs, semconv.MessagingRocketMQMessageTypeDelay, semconv.MessagingRocketMQMessageDeliveryTimestamp(int(time.Now().Add(m.Delay).UnixMilli())))
	case m.ShardingKey != "":
		return append(kvs, semconv.MessagingRocketMQMessageTypeFifo)
	}
	return append(kvs, semconv.MessagingRocketMQMessageTypeNormal)
}

// appendPlace appends which message it is.
func appendPlace(kvs []attribute.KeyValue, id mq.MessageID, queue mq.QueueID) []attribute.KeyValue {
	return append(kvs, semconv.MessagingMessageID(id.String()), semconv.MessagingDestinationPartitionID(strconv.Itoa(int(queue))))
}

// creation returns the creation context that a message carries, invalid if it
// carries none, and a context with all that it carries, baggage too.
func (t *Telemetry) creation(m *mq.Message) (trace.SpanContext, context.Context) {
	if len(m.Properties) == 0 {
		return trace.SpanContext{}, context.Background()
	}
	carried := t.propagator.Extract(context.Background(), propagation.MapCarrier(m.Properties))
	return trace.SpanContextFromContext(carried), carried
}

// links returns a link to the creation context of each message that has one, with
// the attributes that are the message's own.
func (t *Telemetry) links(ms []*mq.Message) []trace.Link {
	var links []trace.Link
	for _, m := range ms {
		if m == nil {
			continue
		}
		if created, _ := t.creation(m); created.IsValid() {
			link := trace.Link{SpanContext: created}
			if !m.ID.IsZero() {
				link.Attributes = []attribute.KeyValue{semconv.MessagingMessageID(m.ID.String())}
			}
			links = append(links, link)
		}
	}
	return links
}

// end ends a span, which failed if there is an error.
func end(span trace.Span, err error) {
	if err != nil {
		span.SetAttributes(errorType(err))
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// commonTopic is the topic of all messages; empty if they have several, or there
// are none.
func commonTopic(ms []*mq.Message) string {
	topic := ""
	for i, m := range ms {
		switch {
		case m == nil, i > 0 && m.Topic != topic:
			return ""
		}
		topic = m.Topic
	}
	return topic
}
