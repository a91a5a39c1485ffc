package pocketmq_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/pocketmq/mq"
	pocketmq "github.com/pocketmq/mq/contrib/watermill"
)

type placeOrder struct{ ID, Item string }

type orderPlaced struct{ ID, Item string }

// shop is a program of Watermill's components: a router with retries and a poison
// queue, commands and events. Only open knows where the messages go.
type shop struct {
	pub      message.Publisher
	open     func(group string) (message.Subscriber, error)
	commands *cqrs.CommandBus
	events   *cqrs.EventBus
	done     chan string
}

const poisoned = "orders.poisoned"

func (s *shop) place(ctx context.Context, c *placeOrder) error {
	if c.Item == "" {
		return errors.New("nothing ordered")
	}
	return s.events.Publish(ctx, &orderPlaced{c.ID, c.Item})
}

func (s *shop) pack(_ context.Context, e *orderPlaced) error {
	s.done <- fmt.Sprintf("order %s: %s is packed", e.ID, e.Item)
	return nil
}

func (s *shop) bury(m *message.Message) error {
	s.done <- fmt.Sprintf("poisoned: %s: %s", m.Payload, m.Metadata[middleware.ReasonForPoisonedKey])
	return nil
}

func (s *shop) router() (*message.Router, error) {
	r, err := message.NewRouter(message.RouterConfig{CloseTimeout: 10 * time.Second}, nil)
	if err != nil {
		return nil, err
	}
	poison, err := middleware.PoisonQueue(s.pub, poisoned)
	if err != nil {
		return nil, err
	}
	r.AddMiddleware(poison, middleware.Retry{MaxRetries: 2, InitialInterval: time.Millisecond}.Middleware, middleware.Recoverer)
	sub, err := s.open("undertaker")
	if err != nil {
		return nil, err
	}
	r.AddConsumerHandler("undertaker", poisoned, sub, s.bury)
	return r, s.handlers(r)
}

// handlers gives each handler a group of its own, called as it is.
func (s *shop) handlers(r *message.Router) (err error) {
	json := cqrs.JSONMarshaler{}
	s.commands, err = cqrs.NewCommandBusWithConfig(s.pub, cqrs.CommandBusConfig{
		Marshaler: json,
		GeneratePublishTopic: func(p cqrs.CommandBusGeneratePublishTopicParams) (string, error) {
			return "commands." + p.CommandName, nil
		},
	})
	if err != nil {
		return err
	}
	s.events, err = cqrs.NewEventBusWithConfig(s.pub, cqrs.EventBusConfig{
		Marshaler: json,
		GeneratePublishTopic: func(p cqrs.GenerateEventPublishTopicParams) (string, error) {
			return "events." + p.EventName, nil
		},
	})
	if err != nil {
		return err
	}
	commands, err := cqrs.NewCommandProcessorWithConfig(r, cqrs.CommandProcessorConfig{
		Marshaler: json,
		GenerateSubscribeTopic: func(p cqrs.CommandProcessorGenerateSubscribeTopicParams) (string, error) {
			return "commands." + p.CommandName, nil
		},
		SubscriberConstructor: func(p cqrs.CommandProcessorSubscriberConstructorParams) (message.Subscriber, error) {
			return s.open(p.HandlerName)
		},
	})
	if err != nil {
		return err
	}
	events, err := cqrs.NewEventProcessorWithConfig(r, cqrs.EventProcessorConfig{
		Marshaler: json,
		GenerateSubscribeTopic: func(p cqrs.EventProcessorGenerateSubscribeTopicParams) (string, error) {
			return "events." + p.EventName, nil
		},
		SubscriberConstructor: func(p cqrs.EventProcessorSubscriberConstructorParams) (message.Subscriber, error) {
			return s.open(p.HandlerName)
		},
	})
	if err != nil {
		return err
	}
	return errors.Join(
		commands.AddHandlers(cqrs.NewCommandHandler("place", s.place)),
		events.AddHandlers(cqrs.NewEventHandler("pack", s.pack)),
	)
}

// Example runs Watermill's router with retries, a poison queue, commands and
// events over PocketMQ.
func Example() {
	b, err := mq.OpenMemory(nil) // or mq.Open("data", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	pub, err := pocketmq.NewPublisher(b, nil)
	if err != nil {
		log.Fatal(err)
	}
	s := &shop{pub: pub, done: make(chan string), open: func(group string) (message.Subscriber, error) {
		return pocketmq.NewSubscriber(b, &pocketmq.SubscriberOptions{Group: group, Logger: watermill.NopLogger{}})
	}}
	r, err := s.router()
	if err != nil {
		log.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- r.Run(context.Background()) }()
	<-r.Running()

	for _, c := range []*placeOrder{{"1", "teapot"}, {"2", ""}} {
		if err := s.commands.Send(context.Background(), c); err != nil {
			log.Fatal(err)
		}
		fmt.Println(<-s.done)
	}
	if err := errors.Join(r.Close(), <-stopped); err != nil {
		log.Fatal(err)
	}
	// Output:
	// order 1: teapot is packed
	// poisoned: {"ID":"2","Item":""}: nothing ordered
}
