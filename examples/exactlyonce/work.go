package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/pocketmq/mq"
)

// work is what a child does: all of it, from the beginning, whatever was done
// before.
type work struct {
	dir    string
	orders int
	naive  bool
	last   int // the step that it does not survive; 0: none

	steps atomic.Int64
}

// step ends the process if this is the last one.
func (w *work) step(what string) {
	if int(w.steps.Add(1)) != w.last {
		return
	}
	fmt.Printf("step %d, %s\n", w.last, what)
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {} // until it is over
}

func (w *work) run(ctx context.Context) (err error) {
	db, err := openDB(ctx, w.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	w.step("the database is open")
	b, err := openStore(w.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	w.step("the queue is open")
	if err := w.send(ctx, b); err != nil {
		return err
	}
	if err := w.consume(ctx, b, db); err != nil {
		return err
	}
	w.step("all is consumed")
	info, err := b.Topic(topic)
	if err != nil {
		return err
	}
	if info.Messages != int64(w.orders) {
		return fmt.Errorf("%d messages are stored of %d orders", info.Messages, w.orders)
	}
	return nil
}

// send sends all orders: which of them a child before this one had sent, it does
// not know.
func (w *work) send(ctx context.Context, b *mq.Broker) error {
	p, err := b.NewProducer(nil)
	if err != nil {
		return err
	}
	for i := range w.orders {
		w.step("before " + orderName(i) + " is sent")
		if _, err := p.Send(ctx, &mq.Message{Topic: topic, DedupKey: orderName(i), Body: []byte(orderName(i))}); err != nil {
			return err
		}
		w.step(orderName(i) + " is sent, and nobody knows")
	}
	return nil
}

// pay is the effect: done twice, it is wrong.
func (w *work) pay(ctx context.Context, tx *sql.Tx, m *mq.Message) error {
	order := string(m.Body)
	w.step(order + " is marked, not paid")
	_, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET paid = paid + ?", order, price, price)
	w.step(order + " is paid, not committed")
	return err
}

// consume pays until the group has consumed everything.
func (w *work) consume(ctx context.Context, b *mq.Broker, db *sql.DB) error {
	ledger := &mq.SQLLedger{DB: db, Insert: "INSERT INTO done (key) VALUES (?) ON CONFLICT DO NOTHING"}
	once := mq.Once(group, ledger, nil, w.pay)
	if w.naive {
		once = func(ctx context.Context, m *mq.Message) error {
			return ledger.Transact(ctx, func(tx *sql.Tx) error { return w.pay(ctx, tx, m) })
		}
	}
	handler := func(ctx context.Context, m *mq.Message) error {
		w.step(string(m.Body) + " is delivered")
		if err := once(ctx, m); err != nil {
			return err
		}
		w.step(string(m.Body) + " is committed, not acknowledged")
		return nil
	}
	c, err := b.NewPushConsumer(group, handler, &mq.PushOptions{Concurrency: 1})
	if err != nil {
		return err
	}
	if err := c.Subscribe(topic, mq.All); err != nil {
		return err
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for seen := int64(0); seen < int64(w.orders); {
		lag, _, err := b.Lag(group)
		if err != nil {
			return err
		}
		for done := int64(w.orders) - lag; seen < done; seen++ {
			w.step(fmt.Sprintf("%d are acknowledged", seen+1))
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.Close()
}
