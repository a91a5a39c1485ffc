package pocketmq

import (
	"context"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pocketmq/mq"
)

// UUIDProperty is the property that carries a Watermill message's UUID.
const UUIDProperty = "_watermill_message_uuid"

// Marshaler turns messages of Watermill into messages of PocketMQ and back. It is
// called from several goroutines at once.
type Marshaler interface {
	// Marshal returns what is stored. The publisher sets its Topic, its
	// ShardingKey if PublisherOptions.ShardingKey is set, and when it is delivered
	// if the metadata say so and Marshal did not.
	Marshal(topic string, m *message.Message) (*mq.Message, error)

	// Unmarshal returns what a subscriber is given. It may keep m and all that
	// is in it. An error is as good as a Nack, a second later or more.
	Unmarshal(m *mq.Message) (*message.Message, error)
}

// DefaultMarshaler stores metadata as properties, the UUID among them, and the
// payload as body. Any metadata are legal, UUIDProperty apart; together with
// the UUID they take at most 32,767 bytes. An empty payload comes back empty and
// not nil.
//
// A message that was not sent through Watermill has its MessageID as UUID. A
// subscriber finds its tag, keys and the rest with FromContext.
type DefaultMarshaler struct{}

// Marshal implements Marshaler. Errors: mq.ErrInvalidMessage.
func (DefaultMarshaler) Marshal(_ string, m *message.Message) (*mq.Message, error) {
	if had, taken := m.Metadata[UUIDProperty]; taken {
		return nil, fmt.Errorf("%w: metadata %s: %.80q is where the UUID is kept", mq.ErrInvalidMessage, UUIDProperty, had)
	}
	properties := make(map[string]string, len(m.Metadata)+1)
	for name, value := range m.Metadata {
		properties[name] = value
	}
	properties[UUIDProperty] = m.UUID
	return &mq.Message{Properties: properties, Body: m.Payload}, nil
}

// Unmarshal implements Marshaler.
func (DefaultMarshaler) Unmarshal(m *mq.Message) (*message.Message, error) {
	uuid, ours := m.Properties[UUIDProperty]
	if !ours {
		uuid = m.ID.String()
	}
	payload := message.Payload(m.Body)
	if payload == nil {
		payload = message.Payload{}
	}
	msg := message.NewMessage(uuid, payload)
	// The properties are the receiver's; the message keeps its own, for FromContext.
	for name, value := range m.Properties {
		if name != UUIDProperty {
			msg.Metadata[name] = value
		}
	}
	return msg, nil
}

type receivedKey struct{}

// FromContext returns the PocketMQ message behind a message of Watermill, by the
// context of the latter: where it lies, how often it was delivered, its tag and
// keys. It is not to be changed. Nil: the context is of no message of a
// Subscriber.
func FromContext(ctx context.Context) *mq.Message {
	m, _ := ctx.Value(receivedKey{}).(*mq.Message)
	return m
}
