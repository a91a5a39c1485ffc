package pocketmq

import (
	"context"
	"errors"
	"fmt"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/protocol"

	"github.com/pocketmq/mq"
)

// Errors of a caller's slip, as the SDK's own protocols have them.
var (
	errNilContext = errors.New("nil Context")
	errNilMessage = errors.New("nil Message")
)

// SenderOptions says how a sender works. Nil means the defaults.
type SenderOptions struct {
	// Group is the producer's name, for people. May be empty.
	Group string

	// Prepare has the last word on a message before it is sent: its tag, keys,
	// sharding key, delay, or another topic. The body and the properties that begin
	// with CE_ are the event. May be nil.
	Prepare func(ctx context.Context, m *mq.Message) error
}

// Sender stores events in a topic. It is safe for concurrent use.
type Sender struct {
	producer *mq.Producer
	topic    string
	opts     SenderOptions
}

var _ protocol.SendCloser = (*Sender)(nil)

// NewSender returns a sender on b, which stays the caller's to close. The topic
// is created when the first event is sent, unless mq.Options.NoAutoCreate.
// Errors: mq.ErrClosed.
func NewSender(b *mq.Broker, topic string, options *SenderOptions) (*Sender, error) {
	s := &Sender{topic: topic}
	if options != nil {
		s.opts = *options
	}
	var err error
	s.producer, err = b.NewProducer(&mq.ProducerOptions{Group: s.opts.Group})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Send implements protocol.Sender: nil, which is an ACK, means that the event is
// stored as durably as its topic asks for. The event is finished with what Send
// returns.
//
// Errors: those of WriteMessage, of Prepare, and of mq.Producer.Send.
func (s *Sender) Send(ctx context.Context, event binding.Message, transformers ...binding.Transformer) (err error) {
	if ctx == nil {
		return errNilContext
	}
	if event == nil {
		return errNilMessage
	}
	defer func() { err = errors.Join(err, event.Finish(err)) }()
	m := &mq.Message{Topic: s.topic}
	if err := WriteMessage(ctx, event, m, transformers...); err != nil {
		return fmt.Errorf("send to %s: %w", s.topic, err)
	}
	if s.opts.Prepare != nil {
		if err := s.opts.Prepare(ctx, m); err != nil {
			return err
		}
	}
	_, err = s.producer.Send(ctx, m)
	return err
}

// Close implements protocol.Closer. It may be called more than once. The broker
// stays open.
func (s *Sender) Close(context.Context) error { return s.producer.Close() }
