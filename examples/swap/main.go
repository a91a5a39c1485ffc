// Command swap runs one program, written for Watermill, on PocketMQ and on NATS
// JetStream, both inside this process, and compares what comes out:
//
//	go run ./examples/swap                  on both, one after the other
//	go run ./examples/swap -on pocketmq     on one
//	go run ./examples/swap -on jetstream
//	go run ./examples/swap -quick           with fewer orders
//
// The program is billing.go. What differs between the two is a way to make a
// publisher and a subscriber: pocketmq.go and jetstream.go. docs/growing.md says
// when one would want the other. Neither opens a port.
//
// It exits with 1 if the books are wrong, or differ.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// transport is all that the program knows of where its messages go.
type transport interface {
	publisher() (message.Publisher, error)

	// subscriber is one of a group: each message goes to one subscriber of it.
	subscriber(group string) (message.Subscriber, error)

	close() error
}

// transports by the name that -on gives.
var transports = map[string]func(dir string) (transport, error){
	"pocketmq":  openPocketMQ,
	"jetstream": openJetStream,
}

func main() {
	on := flag.String("on", "both", "`pocketmq`, jetstream or both")
	quick := flag.Bool("quick", false, "200 orders instead of 2,000")
	flag.Parse()
	orders := 2000
	if *quick {
		orders = 200
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *on, orders, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "swap:", err)
		stop()
		os.Exit(1)
	}
}

// run runs the program on one transport, or on both to compare them.
func run(ctx context.Context, on string, orders int, out io.Writer) error {
	names := []string{on}
	if on == "both" {
		names = []string{"pocketmq", "jetstream"}
	}
	var first string
	for _, name := range names {
		began := time.Now()
		result, err := runOn(ctx, name, orders)
		if err != nil {
			return fmt.Errorf("on %s: %w", name, err)
		}
		fmt.Fprintf(out, "on %s, in %v:\n%s", name, time.Since(began).Round(time.Millisecond), result)
		if first != "" && result != first {
			return errors.New("the results differ")
		}
		first = result
	}
	if len(names) > 1 {
		fmt.Fprintln(out, "the same on both")
	}
	return nil
}

// runOn runs the program in a directory of its own.
func runOn(ctx context.Context, name string, orders int) (result string, err error) {
	open := transports[name]
	if open == nil {
		return "", errors.New("there is no such transport: pocketmq, jetstream or both")
	}
	dir, err := os.MkdirTemp("", "pocketmq-swap-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	t, err := open(filepath.Join(dir, "data"))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return bill(ctx, t, orders)
}
