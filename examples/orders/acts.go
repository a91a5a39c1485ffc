package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// customers is how many place orders at the same time in a flash sale. Their
// sends share their fdatasyncs: that is where the rate comes from.
const customers = 64

// usualDay places orders one after another while the points service is down.
func (s *shop) usualDay(ctx context.Context) error {
	if err := s.pointsJob.Close(); err != nil {
		return err
	}
	waits := make([]time.Duration, 0, s.plan.usual)
	for range s.plan.usual {
		s.placed++
		began := time.Now()
		if err := s.place(ctx, s.placed); err != nil {
			return err
		}
		waits = append(waits, time.Since(began))
	}
	if err := s.settled(ctx, stockGroup, logisticsGroup); err != nil {
		return err
	}
	missed, err := s.behind(pointsGroup)
	if err != nil {
		return err
	}
	slices.Sort(waits)
	s.say("a usual day, with the points service down")
	s.say("  asynchrony   %d orders; a customer waited %v (median, two messages) for the disk and for no service",
		s.plan.usual, waits[len(waits)/2].Round(time.Microsecond))
	s.say("  decoupling   nobody noticed: stock and logistics are done, points is %d messages behind", missed)

	began := time.Now()
	if err := s.hirePoints(); err != nil {
		return err
	}
	if err := s.settled(ctx, pointsGroup); err != nil {
		return err
	}
	s.say("  catching up  points is back and went through them in %v; %d attempts failed and came again",
		time.Since(began).Round(time.Millisecond), s.points.failures())
	if missed == 0 {
		return errors.New("messages should have waited for the points service")
	}
	return nil
}

// flashSale places a burst of orders as fast as the store takes them, and
// watches the stock service, which is slower, work it off.
func (s *shop) flashSale(ctx context.Context) error {
	began := time.Now()
	peak, err := s.rush(ctx)
	if err != nil {
		return err
	}
	taken := time.Since(began)
	peakLeft, err := s.behind(stockGroup)
	if err != nil {
		return err
	}
	peak = max(peak, peakLeft)
	if err := s.settled(ctx, stockGroup); err != nil {
		return err
	}
	drained := time.Since(began)
	messages := 2 * s.plan.burst
	s.say("a flash sale: %d orders at once", s.plan.burst)
	s.say("  burst        %d messages taken in %v: %.0f a second, each on the disk",
		messages, taken.Round(time.Millisecond), float64(messages)/taken.Seconds())
	s.say("  depth        at most %d messages waited for the stock service", peak)
	s.say("  drain        it was through after %v, at its own %.0f a second",
		drained.Round(time.Millisecond), float64(messages)/drained.Seconds())
	if taken >= drained || peak == 0 {
		return errors.New("the burst was not absorbed")
	}
	return s.settled(ctx, stockGroup, pointsGroup, logisticsGroup, notifyGroup)
}

// rush has the customers place the burst and returns how far the stock service
// was behind at most.
func (s *shop) rush(ctx context.Context) (peak int64, err error) {
	first := s.placed + 1
	s.placed += s.plan.burst
	last := int64(s.placed)
	var next atomic.Int64
	next.Store(int64(first))
	errs := make([]error, customers)
	var rushing sync.WaitGroup
	for i := range errs {
		rushing.Go(func() {
			for number := next.Add(1) - 1; number <= last && errs[i] == nil; number = next.Add(1) - 1 {
				errs[i] = s.place(ctx, int(number))
			}
		})
	}
	over := make(chan struct{})
	go func() {
		rushing.Wait()
		close(over)
	}()
	for {
		behind, err := s.behind(stockGroup)
		peak = max(peak, behind)
		select {
		case <-over:
			return peak, errors.Join(append(errs, err)...)
		case <-time.After(time.Millisecond):
		}
	}
}

// audit compares the services' books with the orders placed.
func (s *shop) audit() error {
	var wrong []error
	check := func(what string, got, want any) {
		if got != want {
			wrong = append(wrong, fmt.Errorf("%s: %v, want %v", what, got, want))
		}
	}
	var credit int64
	for number := 1; number <= s.placed; number++ {
		credit += price(number) / 100
	}
	orders, sum := s.points.total()
	check("points: orders credited", orders, s.placed)
	check("points: sum of credits", sum, credit)
	check("points: failed attempts", s.points.failures(), s.placed/10)
	check("stock: orders taken", s.stock.sold(), s.placed)
	check("stock: steps out of order", fmt.Sprint(s.stock.complaints()), "[]")
	for i, n := range s.notify {
		for _, tag := range []string{createOrder, payOrder, shipOrder} {
			check(frontEnds[i]+": "+tag, n.count(tag), s.placed)
		}
	}
	found, err := s.b.MessagesByKey(logisticsTopic, "order-1", 2)
	check("parcels of order 1", len(found), 1)
	if err := errors.Join(append(wrong, err)...); err != nil {
		return err
	}
	s.say("books: %d orders reserved, paid, credited, shipped and told twice over; none lost, none twice", s.placed)
	return nil
}

func (s *shop) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }
