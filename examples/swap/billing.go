package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
)

// Topics. A stream of JetStream has no dots in its name, so they have none.
const (
	ordersTopic   = "orders"
	invoicesTopic = "invoices"
	poisonTopic   = "orders-poisoned"
)

type order struct {
	ID       int
	Customer string
	Cents    int
}

type invoice struct {
	Order    int
	Customer string
	Cents    int
}

var (
	errUnreadable = errors.New("no order")
	errOutOfPaper = errors.New("printer out of paper")
)

// billing turns orders into invoices. Two groups live from the invoices: the
// ledger adds them up, the archive keeps them. Every tenth order fails the first
// time, and one cannot be read at all.
//
// Everything is delivered at least once, so whoever counts knows what it had.
type billing struct {
	want int // invoices

	mu       sync.Mutex
	failed   map[int]bool
	ledger   map[int]invoice
	archive  map[int]bool
	poisoned map[string]string // payload, reason
	done     chan struct{}
	once     sync.Once
}

// bill runs the program on a transport until everything is in the books, and
// returns these.
func bill(ctx context.Context, t transport, orders int) (string, error) {
	b := &billing{
		want: orders, failed: map[int]bool{}, ledger: map[int]invoice{}, archive: map[int]bool{},
		poisoned: map[string]string{}, done: make(chan struct{}),
	}
	pub, err := t.publisher()
	if err != nil {
		return "", err
	}
	router, err := b.router(t, pub)
	if err != nil {
		return "", errors.Join(err, pub.Close())
	}
	if err := place(pub, orders); err != nil {
		return "", errors.Join(err, pub.Close())
	}
	stopped := make(chan error, 1)
	go func() { stopped <- router.Run(ctx) }()
	select {
	case <-b.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	err = errors.Join(err, router.Close(), <-stopped, pub.Close())
	return b.books(), err
}

// place publishes the orders, before anybody subscribes.
func place(pub message.Publisher, orders int) error {
	for i := range orders {
		body, err := json.Marshal(order{ID: i, Customer: fmt.Sprintf("customer %d", i%7), Cents: 100 + i})
		if err != nil {
			return err
		}
		if err := pub.Publish(ordersTopic, message.NewMessage(watermill.NewUUID(), body)); err != nil {
			return err
		}
		if i == orders/2 {
			if err := pub.Publish(ordersTopic, message.NewMessage(watermill.NewUUID(), []byte("a coffee stain"))); err != nil {
				return err
			}
		}
	}
	return nil
}

// router wires the handlers: each has a subscriber of its own, in a group of its
// own.
func (b *billing) router(t transport, pub message.Publisher) (*message.Router, error) {
	r, err := message.NewRouter(message.RouterConfig{CloseTimeout: 10 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	// What can never be handled goes to the poison queue; the rest comes again.
	poison, err := middleware.PoisonQueueWithFilter(pub, poisonTopic, func(err error) bool { return errors.Is(err, errUnreadable) })
	if err != nil {
		return nil, err
	}
	r.AddMiddleware(poison, middleware.Recoverer)
	for group, add := range map[string]func(message.Subscriber){
		"billing":    func(s message.Subscriber) { r.AddHandler("billing", ordersTopic, s, invoicesTopic, pub, b.bill) },
		"ledger":     func(s message.Subscriber) { r.AddConsumerHandler("ledger", invoicesTopic, s, b.enter) },
		"archive":    func(s message.Subscriber) { r.AddConsumerHandler("archive", invoicesTopic, s, b.keep) },
		"undertaker": func(s message.Subscriber) { r.AddConsumerHandler("undertaker", poisonTopic, s, b.bury) },
	} {
		s, err := t.subscriber(group)
		if err != nil {
			return nil, err
		}
		add(s)
	}
	return r, nil
}

func (b *billing) bill(m *message.Message) ([]*message.Message, error) {
	var o order
	if err := json.Unmarshal(m.Payload, &o); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if b.failsFirst(o.ID) {
		return nil, errOutOfPaper
	}
	body, err := json.Marshal(invoice{o.ID, o.Customer, o.Cents})
	if err != nil {
		return nil, err
	}
	return []*message.Message{message.NewMessage(watermill.NewUUID(), body)}, nil
}

// failsFirst reports whether the handler fails now.
func (b *billing) failsFirst(id int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id%10 != 0 {
		return false
	}
	if !b.failed[id] {
		b.failed[id] = true
		return true
	}
	return false
}

func (b *billing) enter(m *message.Message) error {
	return b.book(m, func(i invoice) { b.ledger[i.Order] = i })
}

func (b *billing) keep(m *message.Message) error {
	return b.book(m, func(i invoice) { b.archive[i.Order] = true })
}

func (b *billing) book(m *message.Message, enter func(invoice)) error {
	var i invoice
	if err := json.Unmarshal(m.Payload, &i); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	enter(i)
	b.checkLocked()
	return nil
}

func (b *billing) bury(m *message.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	reason, _, _ := strings.Cut(m.Metadata[middleware.ReasonForPoisonedKey], ":")
	b.poisoned[string(m.Payload)] = reason
	b.checkLocked()
	return nil
}

// checkLocked ends the program when everything is in.
func (b *billing) checkLocked() {
	if len(b.ledger) == b.want && len(b.archive) == b.want && len(b.poisoned) == 1 {
		b.once.Do(func() { close(b.done) })
	}
}

// books are the program's result.
func (b *billing) books() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	sums, total := map[string]int{}, 0
	for _, i := range b.ledger {
		sums[i.Customer] += i.Cents
		total += i.Cents
	}
	var lines []string
	for customer, cents := range sums {
		lines = append(lines, fmt.Sprintf("    %s owes %d.%02d", customer, cents/100, cents%100))
	}
	slices.Sort(lines)
	lines = append(lines, fmt.Sprintf("    %d invoices of %d.%02d, %d archived; %d orders failed once", len(b.ledger), total/100, total%100, len(b.archive), len(b.failed)))
	for payload, reason := range b.poisoned {
		lines = append(lines, fmt.Sprintf("    poisoned: %s: %s", payload, reason))
	}
	return strings.Join(lines, "\n") + "\n"
}
