package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/pocketmq/mq"
)

const (
	orderTopic     = "OrderTopic"
	logisticsTopic = "LogisticsTopic"

	createOrder = "CreateOrder"
	payOrder    = "PayOrder"
	shipOrder   = "ShipOrder"

	stockGroup     = "StockService"
	pointsGroup    = "PointsService"
	logisticsGroup = "LogisticsService"
	notifyGroup    = "NotificationService"
)

// frontEnds are the instances of the notification service: each keeps its own
// customers' connections, so each needs every message.
var frontEnds = []string{"front-1", "front-2"}

// shop is the store, the services and what they have to come to.
type shop struct {
	b        *mq.Broker
	plan     plan
	out      io.Writer
	checkout *mq.Producer

	stock     stock
	points    points
	logistics *logistics
	notify    []*notify
	pointsJob *mq.PushConsumer

	placed int // orders so far
}

func openShop(b *mq.Broker, p plan, out io.Writer) (*shop, error) {
	// Synced, the default: what a customer was told is on the disk.
	for _, name := range []string{orderTopic, logisticsTopic} {
		if err := b.CreateTopic(name, &mq.TopicConfig{Queues: 4, Durability: mq.Synced}); err != nil {
			return nil, fmt.Errorf("the store has to be a fresh one: %w", err)
		}
	}
	s := &shop{b: b, plan: p, out: out, stock: stock{cost: p.stepCost}}
	var err error
	if s.checkout, err = b.NewProducer(&mq.ProducerOptions{Group: "checkout"}); err != nil {
		return nil, err
	}
	dispatch, err := b.NewProducer(&mq.ProducerOptions{Group: "dispatch"})
	if err != nil {
		return nil, err
	}
	s.logistics = &logistics{producer: dispatch}

	// Four warehouse workers, and one order's steps in their order.
	ordered := &mq.PushOptions{Ordered: true, Concurrency: 4}
	if _, err := s.employ(stockGroup, s.stock.handle, ordered, orderTopic, mq.Tags(createOrder, payOrder)); err != nil {
		return nil, err
	}
	if _, err := s.employ(logisticsGroup, s.logistics.handle, nil, orderTopic, mq.Tags(payOrder)); err != nil {
		return nil, err
	}
	for _, name := range frontEnds {
		n := &notify{}
		s.notify = append(s.notify, n)
		broadcast := &mq.PushOptions{Model: mq.Broadcasting, Instance: name}
		c, err := s.employ(notifyGroup, n.handle, broadcast, orderTopic, mq.All)
		if err != nil {
			return nil, err
		}
		if err := c.Subscribe(logisticsTopic, mq.Tags(shipOrder)); err != nil {
			return nil, err
		}
	}
	return s, s.hirePoints()
}

// hirePoints starts the points service, for the first time or again.
func (s *shop) hirePoints() (err error) {
	soon := func(int) time.Duration { return 20 * time.Millisecond } // of a failed attempt; by default 10 s
	s.pointsJob, err = s.employ(pointsGroup, s.points.handle, &mq.PushOptions{Backoff: soon}, orderTopic, mq.Tags(payOrder))
	return err
}

// employ starts a service: one member of a group. Closing the broker ends it.
func (s *shop) employ(group string, h mq.Handler, o *mq.PushOptions, topic string, f mq.Filter) (*mq.PushConsumer, error) {
	c, err := s.b.NewPushConsumer(group, h, o)
	if err != nil {
		return nil, err
	}
	return c, c.Subscribe(topic, f)
}

// place is what a customer waits for: two messages on the disk. They share the
// order's sharding key, so they lie in one queue in this order.
func (s *shop) place(ctx context.Context, number int) error {
	for _, tag := range []string{createOrder, payOrder} {
		if _, err := s.checkout.Send(ctx, orderMessage(orderTopic, tag, number)); err != nil {
			return fmt.Errorf("%s of order %d: %w", tag, number, err)
		}
	}
	return nil
}

// price of an order in cents: any amounts will do, so long as they differ.
func price(number int) int64 { return 1000 + int64(number)*7%9000 }

func orderMessage(topic, tag string, number int) *mq.Message {
	key := fmt.Sprintf("order-%d", number)
	return &mq.Message{
		Topic: topic, Tag: tag, Keys: []string{key}, ShardingKey: key,
		Body: fmt.Appendf(nil, "%d %d", number, price(number)),
	}
}

func readOrder(m *mq.Message) (number int, cents int64, err error) {
	if _, err := fmt.Sscanf(string(m.Body), "%d %d", &number, &cents); err != nil {
		return 0, 0, fmt.Errorf("order %q: %w", m.Body, err)
	}
	return number, cents, nil
}

// settled waits until the groups have consumed all there is for them.
func (s *shop) settled(ctx context.Context, groups ...string) error {
	// Above what a retry waits, so that standing still means standing still.
	const patience = 20 * time.Second
	moved, before := time.Now(), int64(-1)
	for {
		behind, err := s.behind(groups...)
		if err != nil || behind == 0 {
			return err
		}
		if behind != before {
			before, moved = behind, time.Now()
		}
		if time.Since(moved) > patience {
			return fmt.Errorf("%v stand still, %d messages behind", groups, behind)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (s *shop) behind(groups ...string) (sum int64, err error) {
	for _, group := range groups {
		lag, _, err := s.b.Lag(group)
		if err != nil {
			return 0, err
		}
		sum += lag
	}
	return sum, nil
}
