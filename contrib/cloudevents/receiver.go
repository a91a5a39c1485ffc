package pocketmq

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/protocol"

	"github.com/pocketmq/mq"
)

// lent is how long an event stays its receiver's: until it is finished. No
// time-out takes it away.
const lent = 100 * 365 * 24 * time.Hour

// ReceiverOptions says how a receiver works. Nil means the defaults.
type ReceiverOptions struct {
	// From is where the group starts in a topic it never subscribed to before.
	// Default mq.Earliest.
	From mq.Whence

	// Filter chooses messages by tag. Default mq.All.
	Filter mq.Filter

	// Ordered hands out events of one sharding key (the extension partitionkey)
	// one at a time and in order. The SDK's client runs a function for several
	// events at once all the same, of different keys.
	Ordered bool

	// MaxOut bounds how many events of one message queue are received and not
	// finished: the SDK's client receives as fast as it can, and does not wait for
	// its functions unless told to. Default 1,000.
	MaxOut int

	// Backoff is how long an event waits that was finished with a NACK or an
	// error. Default mq.Exponential(100 * time.Millisecond, time.Minute, 0.2).
	Backoff mq.Backoff

	// AckDurability mq.Synced waits for the disk with every ACK. Default mq.Written.
	AckDurability mq.Durability
}

// Receiver receives events of a topic for a group. It is safe for concurrent use.
type Receiver struct {
	consumer *mq.SimpleConsumer
	backoff  mq.Backoff

	closing   context.Context // ends with Close; not of a call
	close     context.CancelFunc
	receiving sync.WaitGroup // calls of Receive

	mu     sync.Mutex // guards what follows, and Add against Wait of receiving
	closed bool
	out    map[*mq.Message]struct{} // received and not finished
}

var _ protocol.ReceiveCloser = (*Receiver)(nil)

// NewReceiver makes a member of the group that subscribes to the topic: each
// event goes to one receiver of the group. The broker stays the caller's to
// close.
//
// Errors: those of mq.Broker.NewSimpleConsumer and its Subscribe.
func NewReceiver(b *mq.Broker, group, topic string, options *ReceiverOptions) (*Receiver, error) {
	var o ReceiverOptions
	if options != nil {
		o = *options
	}
	if o.Backoff == nil {
		o.Backoff = mq.Exponential(100*time.Millisecond, time.Minute, 0.2)
	}
	c, err := b.NewSimpleConsumer(group, &mq.SimpleOptions{
		From: o.From, Ordered: o.Ordered, PrefetchMessages: o.MaxOut, AckDurability: o.AckDurability,
		MaxAttempts: -1, // a NACK says nothing of giving up
	})
	if err != nil {
		return nil, err
	}
	if err := c.Subscribe(topic, o.Filter); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	r := &Receiver{consumer: c, backoff: o.Backoff, out: map[*mq.Message]struct{}{}}
	r.closing, r.close = context.WithCancel(context.Background())
	return r, nil
}

// Receive implements protocol.Receiver: it waits for a message. One that is no
// event is returned too; the SDK's client finishes it with a NACK, or with an ACK
// if it was made WithAckMalformedEvent. When ctx ends, or the receiver or the broker
// is closed, the error is io.EOF.
func (r *Receiver) Receive(ctx context.Context) (binding.Message, error) {
	if ctx == nil {
		return nil, errNilContext
	}
	if !r.begin() {
		return nil, io.EOF
	}
	defer r.receiving.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.closing, cancel)()
	ms, err := r.consumer.Receive(ctx, 1, lent)
	switch {
	case errors.Is(err, mq.ErrClosed), err != nil && ctx.Err() != nil:
		return nil, io.EOF
	case err != nil:
		return nil, err
	}
	m := ms[0]
	r.mu.Lock()
	r.out[m] = struct{}{}
	r.mu.Unlock()
	return newMessage(m, func(result error) error { return r.finish(m, result) }), nil
}

// begin counts a Receive, unless the receiver is closed.
func (r *Receiver) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.receiving.Add(1)
	return true
}

// finish settles a message once, whatever became of the context that it was
// received in.
func (r *Receiver) finish(m *mq.Message, result error) error {
	r.mu.Lock()
	_, open := r.out[m]
	delete(r.out, m)
	r.mu.Unlock()
	switch {
	case !open:
		return nil
	case protocol.IsACK(result):
		return r.consumer.Ack(context.Background(), m)
	}
	if d := r.backoff(m.Attempt); d > 0 {
		return r.consumer.ChangeInvisible(context.Background(), m, d)
	}
	return r.consumer.Nack(context.Background(), m)
}

// Close implements protocol.Closer. Events that are not finished come again at
// once, to another receiver of the group or the next one; to Finish them does
// nothing any more. It may be called more than once.
func (r *Receiver) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.close()
	r.receiving.Wait()
	r.mu.Lock()
	out := slices.Collect(maps.Keys(r.out))
	clear(r.out)
	r.mu.Unlock()
	err := r.consumer.Nack(context.WithoutCancel(ctx), out...)
	if errors.Is(err, mq.ErrClosed) || errors.Is(err, mq.ErrReceiptExpired) {
		err = nil // closed before, or the offsets were reset
	}
	return errors.Join(err, r.consumer.Close())
}
