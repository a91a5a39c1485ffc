package main

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketmq/mq"
)

// shop bills orders, and counts how often it was asked to.
type shop struct {
	repaired atomic.Bool  // the account that was missing is there
	billed   atomic.Int64 // orders

	ordersMu sync.Mutex // protects orders
	orders   map[string]int
}

func (s *shop) counts() map[string]int {
	s.ordersMu.Lock()
	defer s.ordersMu.Unlock()
	return maps.Clone(s.orders)
}

// bill is the handler. What it returns says what becomes of the message.
func (s *shop) bill(ctx context.Context, m *mq.Message) error {
	name := string(m.Body)
	s.ordersMu.Lock()
	s.orders[name]++
	s.ordersMu.Unlock()
	switch {
	case name == "bank-away" && m.Attempt == 1:
		return errors.New("bank does not answer") // again, by the group's policy
	case name == "tomorrow" && m.Attempt == 1:
		return mq.RetryAfter(100 * time.Millisecond) // again, then
	case name == "forged":
		return mq.Discard(errors.New("signature does not match")) // never again
	case name == "slow":
		<-ctx.Done() // PushOptions.Timeout is over; the message waits for this handler
		return ctx.Err()
	case name == "broken" && !s.repaired.Load():
		return errors.New("no such account") // until it has no attempt left
	}
	s.billed.Add(1)
	return nil
}
