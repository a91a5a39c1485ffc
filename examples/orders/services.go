package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pocketmq/mq"
)

// stock reserves goods when an order is created and takes them when it is paid.
// It is the slow one: every step costs it time.
type stock struct {
	cost time.Duration

	mu       sync.Mutex // guards everything below
	reserved map[int]bool
	taken    int
	wrong    []string // steps that came out of order or twice
}

func (s *stock) handle(_ context.Context, m *mq.Message) error {
	number, _, err := readOrder(m)
	if err != nil {
		return err
	}
	time.Sleep(s.cost) // the database of the warehouse
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reserved == nil {
		s.reserved = map[int]bool{}
	}
	open, known := s.reserved[number]
	switch {
	case m.Tag == createOrder && !known:
		s.reserved[number] = true
	case m.Tag == payOrder && open:
		s.reserved[number] = false
		s.taken++
	default:
		s.wrong = append(s.wrong, fmt.Sprintf("%s of order %d", m.Tag, number))
	}
	return nil
}

func (s *stock) sold() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

func (s *stock) complaints() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrong
}

// errBusy is what the points database says now and then.
var errBusy = errors.New("points database is busy")

// points credits a point per paid euro. Every tenth order fails at its first
// delivery and comes again. Deliveries may repeat, after a crash for one, so
// the books are kept by order number.
type points struct {
	mu      sync.Mutex // guards everything below
	credits map[int]int64
	failed  int
}

func (p *points) handle(_ context.Context, m *mq.Message) error {
	number, cents, err := readOrder(m)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if number%10 == 0 && m.Attempt == 1 {
		p.failed++
		return errBusy
	}
	if p.credits == nil {
		p.credits = map[int]int64{}
	}
	p.credits[number] = cents / 100
	return nil
}

func (p *points) total() (orders int, sum int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, credit := range p.credits {
		sum += credit
	}
	return len(p.credits), sum
}

func (p *points) failures() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// logistics sends the parcel of a paid order and says so. It is a consumer that
// is a producer too: its message is acknowledged only when its own is stored.
type logistics struct {
	producer *mq.Producer
}

func (l *logistics) handle(ctx context.Context, m *mq.Message) error {
	number, _, err := readOrder(m)
	if err != nil {
		return err
	}
	_, err = l.producer.Send(ctx, orderMessage(logisticsTopic, shipOrder, number))
	return err
}

// notify tells the customers of one front end what became of their orders.
type notify struct {
	mu   sync.Mutex // guards everything below
	told map[string]int
}

func (n *notify) handle(_ context.Context, m *mq.Message) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.told == nil {
		n.told = map[string]int{}
	}
	n.told[m.Tag]++
	return nil
}

func (n *notify) count(tag string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.told[tag]
}
