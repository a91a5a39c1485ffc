// Command poison consumes a message that ends the process, and ends up with a
// working shop and that message among the dead letters.
//
//	go run ./examples/poison
//
// It starts itself as a child that consumes orders. One order takes the child
// down: not with a panic, which a queue could catch, but with SIGKILL, as the
// kernel does when memory is out. Whoever supervises it starts it again, and
// without help that would go on for ever: the message was never acknowledged, so
// it comes again first. Here what is in a handler's hands when the process ends
// counts as tried, so after three ends the message is given up and the others,
// which did nothing but stand beside it, are consumed.
//
// It exits with 1 if it comes out otherwise.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/pocketmq/mq"
)

const (
	topic    = "OrderTopic"
	group    = "billing"
	orders   = 20
	poison   = "order-7"
	attempts = 3
	patience = time.Minute // for everything

	failed = 1 // exit status; a child that is killed has another one
)

func main() {
	dir := flag.String("dir", "", "`directory` of the store; it is kept (default: a temporary one)")
	child := flag.Bool("child", false, "be the child (for the program itself)")
	flag.Bool("quick", false, "changes nothing: it is quick")
	flag.Parse()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := error(nil)
	if *child {
		err = consume(ctx, *dir)
	} else {
		err = run(ctx, *dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "poison:", err)
		cancel()
		os.Exit(failed)
	}
}

// run sends the orders, starts the child until it ends by itself, and looks at
// what is left.
func run(ctx context.Context, dir string) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "pocketmq-poison-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if err := send(ctx, dir); err != nil {
		return err
	}
	ends := 0
	for {
		killed, err := start(ctx, dir)
		if err != nil {
			return err
		}
		if !killed {
			break
		}
		if ends++; ends > attempts {
			return fmt.Errorf("the process ended %d times, a message has %d attempts", ends, attempts)
		}
		fmt.Printf("the process was killed for the %d. time; starting it again\n", ends)
	}
	return look(dir, ends)
}

func send(ctx context.Context, dir string) (err error) {
	b, err := mq.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	p, err := b.NewProducer(nil)
	if err != nil {
		return err
	}
	for i := range orders {
		if _, err := p.Send(ctx, &mq.Message{Topic: topic, Body: fmt.Appendf(nil, "order-%d", i)}); err != nil {
			return err
		}
	}
	return nil
}

// start runs the child and tells whether it was killed.
func start(ctx context.Context, dir string) (killed bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	cmd := exec.CommandContext(ctx, self, "-child", "-dir", dir) //nolint:gosec // itself
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() != failed && ctx.Err() == nil {
		return true, nil
	}
	return false, err
}

// consume is the child: it ends when the group has nothing left to do.
func consume(ctx context.Context, dir string) (err error) {
	b, err := mq.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	handler := func(_ context.Context, m *mq.Message) error {
		if string(m.Body) == poison {
			self, err := os.FindProcess(os.Getpid())
			return errors.Join(err, self.Kill())
		}
		fmt.Printf("  billed %s, attempt %d\n", m.Body, m.Attempt)
		if m.Attempt > 2 {
			return mq.Discard(errors.New("it only stood beside the other, and that once"))
		}
		return nil
	}
	c, err := b.NewPushConsumer(group, handler, &mq.PushOptions{MaxAttempts: attempts})
	if err != nil {
		return err
	}
	if err := c.Subscribe(topic, mq.All); err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		lag, _, err := b.Lag(group)
		if err != nil || lag == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look compares what is left with what should be.
func look(dir string, ends int) (err error) {
	b, err := mq.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	var dead []string
	for m, err := range b.DeadLetters(group) {
		if err != nil {
			return err
		}
		dead = append(dead, string(m.Body))
		fmt.Printf("dead letter: %s, %d attempts, last error %q\n", m.Body, m.Origin.Attempts, m.Origin.LastError)
	}
	if ends != attempts || len(dead) != 1 || dead[0] != poison {
		return fmt.Errorf("%d ends and dead letters %q, want %d and %q", ends, dead, attempts, poison)
	}
	fmt.Printf("%d orders billed, one given up\n", orders-1)
	return nil
}
