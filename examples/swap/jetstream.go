package main

import (
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// jetTransport is a NATS server in this process with its data in a directory. It
// does not listen: connections are pipes. A cluster is reached by giving
// nats.Connect its URLs instead of nats.InProcessServer.
type jetTransport struct{ s *server.Server }

func openJetStream(dir string) (transport, error) {
	s, err := server.NewServer(&server.Options{JetStream: true, StoreDir: dir, DontListen: true, NoLog: true, NoSigs: true})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		s.Shutdown()
		return nil, errors.New("the server does not become ready")
	}
	return &jetTransport{s}, nil
}

func (t *jetTransport) connect() (*nats.Conn, error) {
	return nats.Connect("", nats.InProcessServer(t.s))
}

// config names a durable consumer for each group and topic.
func (t *jetTransport) config(group string) wmnats.JetStreamConfig {
	return wmnats.JetStreamConfig{
		AutoProvision: true, DurablePrefix: group,
		DurableCalculator: func(group, topic string) string { return group + "-" + topic },
	}
}

func (t *jetTransport) publisher() (message.Publisher, error) {
	c, err := t.connect()
	if err != nil {
		return nil, err
	}
	return wmnats.NewPublisherWithNatsConn(c, wmnats.PublisherPublishConfig{
		Marshaler: &wmnats.NATSMarshaler{}, SubjectCalculator: wmnats.DefaultSubjectCalculator, JetStream: t.config(""),
	}, watermill.NopLogger{})
}

func (t *jetTransport) subscriber(group string) (message.Subscriber, error) {
	c, err := t.connect()
	if err != nil {
		return nil, err
	}
	return wmnats.NewSubscriberWithNatsConn(c, wmnats.SubscriberSubscriptionConfig{
		Unmarshaler: &wmnats.NATSMarshaler{}, SubjectCalculator: wmnats.DefaultSubjectCalculator, QueueGroupPrefix: group,
		SubscribersCount: 1, AckWaitTimeout: 30 * time.Second, SubscribeTimeout: 30 * time.Second, JetStream: t.config(group),
	}, watermill.NopLogger{})
}

func (t *jetTransport) close() error {
	t.s.Shutdown()
	t.s.WaitForShutdown()
	return nil
}
