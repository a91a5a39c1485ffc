// Command orders is a shop in one process. Placing an order publishes
// CreateOrder and PayOrder, shipping it publishes ShipOrder, and four services
// that do not know each other live from these messages:
//
//	checkout ──CreateOrder, PayOrder──► OrderTopic ──► stock      one order's steps in order
//	                                               ├─► points     PayOrder only; some attempts fail
//	                                               ├─► logistics  PayOrder only ──ShipOrder──► LogisticsTopic
//	                                               └─► notify     broadcast to two front ends, both topics
//
//	go run ./examples/orders          a few thousand orders
//	go run ./examples/orders -quick   a few hundred
//
// It shows decoupling (orders go on while a service is down), asynchrony (the
// customer waits for the disk, not for the services) and peak shaving (a burst
// is taken at once and worked off at the pace of the slowest), with figures.
// It ends by itself, checks every service's books, and exits with 1 if one of
// them is wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/pocketmq/mq"
)

// plan says how much goes on.
type plan struct {
	usual    int           // orders of a usual day, while points is down
	burst    int           // orders of a flash sale, all at once
	stepCost time.Duration // what one step of an order costs the stock service
}

var (
	fullPlan  = plan{usual: 200, burst: 5000, stepCost: time.Millisecond}
	quickPlan = plan{usual: 50, burst: 500, stepCost: time.Millisecond}
)

func main() {
	quick := flag.Bool("quick", false, "a few hundred orders instead of a few thousand")
	dir := flag.String("dir", "", "`directory` of the store; it is kept (default: a temporary one)")
	flag.Parse()
	p := fullPlan
	if *quick {
		p = quickPlan
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *dir, p, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, p plan, out io.Writer) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "pocketmq-orders-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	b, err := mq.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	s, err := openShop(b, p, out)
	if err != nil {
		return err
	}
	for _, act := range []func(context.Context) error{s.usualDay, s.flashSale} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return s.audit()
}
