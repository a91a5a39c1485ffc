package mq_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// patience is how long a test waits for what must happen: far longer than it
// takes on a busy machine.
const patience = 20 * time.Second

// within polls cond until it holds or the time is over.
func within(limit time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(limit)
	for !cond() {
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(time.Millisecond)
	}
	return true
}

// pass lets time go by in a synctest bubble, until all that happens by then has
// happened.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// written are options under which sends do not wait for the disk.
func written() *mq.Options { return &mq.Options{Durability: mq.Written} }

// createTopic makes a Written topic of so many queues.
func createTopic(t testing.TB, b *mq.Broker, name string, queues int) {
	t.Helper()
	require.NoError(t, b.CreateTopic(name, &mq.TopicConfig{Queues: queues, Durability: mq.Written}))
}

func newProducer(t testing.TB, b *mq.Broker, o *mq.ProducerOptions) *mq.Producer {
	t.Helper()
	p, err := b.NewProducer(o)
	require.NoError(t, err)
	return p
}

// send stores messages one by one.
func send(t testing.TB, b *mq.Broker, ms ...*mq.Message) []mq.SendResult {
	t.Helper()
	p := newProducer(t, b, nil)
	results := make([]mq.SendResult, 0, len(ms))
	for _, m := range ms {
		r, err := p.Send(t.Context(), m)
		require.NoError(t, err)
		results = append(results, r)
	}
	return results
}

// sendBodies stores n messages with the bodies 0, 1, 2 …
func sendBodies(t testing.TB, b *mq.Broker, topic string, n int) []mq.SendResult {
	t.Helper()
	return send(t, b, numbered(topic, 0, n)...)
}

// numbered are messages with the bodies from, from+1 … to-1.
func numbered(topic string, from, to int) []*mq.Message {
	var ms []*mq.Message
	for i := from; i < to; i++ {
		ms = append(ms, &mq.Message{Topic: topic, Body: fmt.Appendf(nil, "%d", i)})
	}
	return ms
}

// bodiesTo are the bodies of numbered(_, 0, n).
func bodiesTo(n int) []string { return bodiesOf(numbered("", 0, n)) }

// bodiesOf are the bodies of ms, in their order.
func bodiesOf(ms []*mq.Message) []string {
	bodies := []string{}
	for _, m := range ms {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

// inbox is a handler that keeps what it gets.
type inbox struct {
	mu  sync.Mutex
	got []*mq.Message
}

func (in *inbox) handle(_ context.Context, m *mq.Message) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.got = append(in.got, m)
	return nil
}

func (in *inbox) messages() []*mq.Message {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.got)
}

func (in *inbox) len() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.got)
}

// bodies are sorted as the handler got them, by queue unless there is one.
func (in *inbox) bodies() []string { return bodiesOf(in.messages()) }

// await waits for n messages.
func (in *inbox) await(t testing.TB, n int) {
	t.Helper()
	if !within(patience, func() bool { return in.len() >= n }) {
		t.Fatalf("%d messages arrived, want %d", in.len(), n)
	}
}

// push adds a push consumer that subscribes to all of a topic; the test closes
// it.
func push(t testing.TB, b *mq.Broker, group, topic string, h mq.Handler, o *mq.PushOptions) *mq.PushConsumer {
	t.Helper()
	c, err := b.NewPushConsumer(group, h, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	require.NoError(t, c.Subscribe(topic, mq.All))
	return c
}

// pull adds a pull consumer that subscribes to all of a topic; the test closes
// it.
func pull(t testing.TB, b *mq.Broker, group, topic string, o *mq.PullOptions) *mq.PullConsumer {
	t.Helper()
	c, err := b.NewPullConsumer(group, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	require.NoError(t, c.Subscribe(topic, mq.All))
	return c
}

// poll takes exactly n messages, in as many polls as it takes.
func poll(t testing.TB, c *mq.PullConsumer, n int) []*mq.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var all []*mq.Message
	for len(all) < n {
		ms, err := c.Poll(ctx, n-len(all))
		require.NoError(t, err, "after %d of %d messages", len(all), n)
		all = append(all, ms...)
	}
	return all
}

// nothingMore checks that there is nothing to poll: a poll whose context has a
// moment left looks at every queue before it gives up.
func nothingMore(t testing.TB, c *mq.PullConsumer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	ms, err := c.Poll(ctx, 32)
	require.ErrorIs(t, err, context.DeadlineExceeded, "unexpected: %v", bodiesOf(ms))
}

// lag is how far the group is behind in all its topics.
func lag(t testing.TB, b *mq.Broker, group string) int64 {
	t.Helper()
	total, _, err := b.Lag(group)
	require.NoError(t, err)
	return total
}

// consumed waits until the group has acknowledged everything.
func consumed(t testing.TB, b *mq.Broker, group string) {
	t.Helper()
	if !within(patience, func() bool { return lag(t, b, group) == 0 }) {
		total, queues, _ := b.Lag(group)
		t.Fatalf("group %s is behind by %d: %+v", group, total, queues)
	}
}

// done says how many messages of the topic's queue 0 the group has consumed.
func done(t testing.TB, b *mq.Broker, group, topic string) (committed mq.Offset, ahead int64) {
	t.Helper()
	offsets, err := b.Offsets(group, topic)
	require.NoError(t, err)
	require.NotEmpty(t, offsets)
	return offsets[0].Committed, offsets[0].Ahead
}

// queuesOf are queues of one topic.
func queuesOf(topic string, ids ...mq.QueueID) []mq.Queue {
	queues := []mq.Queue{}
	for _, id := range ids {
		queues = append(queues, mq.Queue{Topic: topic, ID: id})
	}
	return queues
}

// gate is a handler that holds every message until it is opened.
type gate struct {
	inbox // messages begun
	key   chan struct{}
	once  sync.Once

	doneMu sync.Mutex
	done   int
}

func newGate() *gate { return &gate{key: make(chan struct{})} }

func (g *gate) handle(ctx context.Context, m *mq.Message) error {
	_ = g.inbox.handle(ctx, m)
	if err := passing(ctx, g.key); err != nil {
		return err
	}
	g.doneMu.Lock()
	defer g.doneMu.Unlock()
	g.done++
	return nil
}

// passing waits in a handler for its gate, or for the end of the test.
func passing(ctx context.Context, gate <-chan struct{}) error {
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open lets all messages pass, now and later.
func (g *gate) open() { g.once.Do(func() { close(g.key) }) }

func (g *gate) awaitBegun(t testing.TB, n int) {
	t.Helper()
	g.await(t, n)
}

func (g *gate) awaitDone(t testing.TB, n int) {
	t.Helper()
	mqtest.Eventually(t, func() bool {
		g.doneMu.Lock()
		defer g.doneMu.Unlock()
		return g.done >= n
	}, "%d messages handled", n)
}

// loseJournal removes the checkpoints of a closed store.
func loseJournal(t testing.TB, dir string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "journal")))
}
