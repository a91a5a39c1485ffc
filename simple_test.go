package mq_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// simple adds a simple consumer that subscribes to all of the topics; the test
// closes it.
func simple(t testing.TB, b *mq.Broker, group string, o *mq.SimpleOptions, topics ...string) *mq.SimpleConsumer {
	t.Helper()
	c, err := b.NewSimpleConsumer(group, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	for _, topic := range topics {
		require.NoError(t, c.Subscribe(topic, mq.All))
	}
	return c
}

// receive takes exactly n messages, in as many calls as it takes.
func receiveFrom(t testing.TB, c *mq.SimpleConsumer, n int, invisible time.Duration) []*mq.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var all []*mq.Message
	for len(all) < n {
		ms, err := c.Receive(ctx, n-len(all), invisible)
		require.NoError(t, err, "after %d of %d messages", len(all), n)
		all = append(all, ms...)
	}
	return all
}

// nothingToReceive checks that every message is consumed, invisible or blocked.
func nothingToReceive(t testing.TB, c *mq.SimpleConsumer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	ms, err := c.Receive(ctx, 32, time.Hour)
	require.ErrorIs(t, err, context.DeadlineExceeded, "unexpected: %v", bodiesOf(ms))
}

// invisible counts what is with receivers of the group.
func invisible(t testing.TB, b *mq.Broker, group string) int64 {
	t.Helper()
	info, err := b.Group(group)
	require.NoError(t, err)
	require.Equal(t, info.Invisible, b.Stats().Invisible)
	return info.Invisible
}

func TestReceiveAndAck(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 100)
	c := simple(t, b, "G", nil, "T")
	ms, err := c.Receive(t.Context(), 30, time.Hour)
	require.NoError(t, err)
	require.Equal(t, bodiesTo(30), bodiesOf(ms))
	for i, m := range ms {
		require.Equal(t, []any{mq.Offset(i), 1}, []any{m.Offset, m.Attempt})
	}
	require.Equal(t, bodiesTo(100)[30:], bodiesOf(receiveFrom(t, c, 70, time.Hour)))
	nothingToReceive(t, c)
	require.EqualValues(t, 100, invisible(t, b, "G"))

	// In any order, one by one or many at once.
	require.NoError(t, c.Ack(t.Context(), ms[7]))
	committed, ahead := done(t, b, "G", "T")
	require.Equal(t, []any{mq.Offset(0), int64(1)}, []any{committed, ahead})
	require.NoError(t, c.Ack(t.Context(), append(slices.Clone(ms[:7]), ms[8:]...)...))
	committed, ahead = done(t, b, "G", "T")
	require.Equal(t, []any{mq.Offset(30), int64(0)}, []any{committed, ahead})
	require.EqualValues(t, 70, invisible(t, b, "G"))
	require.EqualValues(t, 70, lag(t, b, "G"))
}

// TestSimpleMembersShareQueues: a topic of one queue feeds them all.
func TestSimpleMembersShareQueues(t *testing.T) {
	t.Parallel()
	var dealt mq.RebalancedInfo
	o := written()
	o.Hooks = &mq.Hooks{Rebalanced: func(info mq.RebalancedInfo) { dealt = info }}
	b := mqtest.OpenMemory(t, o)
	createTopic(t, b, "T", 1)
	var cs []*mq.SimpleConsumer
	for range 3 {
		cs = append(cs, simple(t, b, "G", nil, "T"))
	}
	for _, c := range cs {
		require.Equal(t, queuesOf("T", 0), c.Assigned())
		require.Equal(t, queuesOf("T", 0), dealt.Queues[c.Name()])
	}
	info, err := b.Group("G")
	require.NoError(t, err)
	require.Len(t, info.Members, 3)
	require.True(t, info.Members[0].Simple)

	// All of them wait; each message wakes one.
	got := make(chan string)
	for range 4 {
		for _, c := range cs {
			go func() {
				ms, err := c.Receive(t.Context(), 1, time.Hour)
				if err != nil || len(ms) != 1 {
					t.Errorf("%v, %v", ms, err)
				}
				got <- string(ms[0].Body)
			}()
		}
	}
	sendBodies(t, b, "T", 12)
	bodies := []string{}
	for range 12 {
		bodies = append(bodies, <-got)
	}
	require.ElementsMatch(t, bodiesTo(12), bodies)
}

// TestSimpleMembersOfDifferentTopics get only what they subscribe to, and no
// wake-up is lost on one that cannot take what it was woken for.
func TestSimpleMembersOfDifferentTopics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "A", 2)
		createTopic(t, b, "B", 2)
		a, both := simple(t, b, "G", nil, "A"), simple(t, b, "G", nil, "A", "B")
		onlyB := simple(t, b, "G", nil, "B")
		require.Equal(t, queuesOf("A", 0, 1), a.Assigned())
		var mu sync.Mutex
		got := map[string]int{}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for _, c := range []*mq.SimpleConsumer{a, both, onlyB, a, onlyB} {
			running.Add(1)
			go func() {
				defer running.Done()
				for {
					ms, err := c.Receive(ctx, 1, time.Hour)
					if err != nil {
						return
					}
					mu.Lock()
					got[ms[0].Topic]++
					mu.Unlock()
					if c == a && ms[0].Topic != "A" || c == onlyB && ms[0].Topic != "B" {
						t.Errorf("%s got a message of %s", c.Name(), ms[0].Topic)
					}
				}
			}()
		}
		for range 200 {
			send(t, b, &mq.Message{Topic: "A"}, &mq.Message{Topic: "B"})
		}
		synctest.Wait()
		require.Equal(t, map[string]int{"A": 200, "B": 200}, got)
		// Who waits already gets what it subscribes to now.
		late := simple(t, b, "G", nil)
		createTopic(t, b, "C", 1)
		arrived := make(chan error)
		go func() {
			_, err := late.Receive(ctx, 1, time.Hour)
			arrived <- err
		}()
		synctest.Wait()
		send(t, b, &mq.Message{Topic: "C"})
		require.NoError(t, late.Subscribe("C", mq.All))
		require.NoError(t, <-arrived)
		cancel()
		running.Wait()
	})
}

// quitting is a context that ends, by its error, at the moment at which somebody
// is woken: what else takes a race.
type quitting struct {
	context.Context
	over atomic.Bool
}

func (q *quitting) Err() error {
	if q.over.Load() {
		return context.Canceled
	}
	return nil
}

// TestReceivePassesWakeUpOn: one that is woken and gives up at the same moment
// does not keep the message from another.
func TestReceivePassesWakeUpOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		simpler, puller := simple(t, b, "G", nil, "T"), pull(t, b, "H", "T", nil)
		for _, take := range []func(context.Context) ([]*mq.Message, error){
			func(ctx context.Context) ([]*mq.Message, error) { return simpler.Receive(ctx, 1, time.Hour) },
			func(ctx context.Context) ([]*mq.Message, error) { return puller.Poll(ctx, 1) },
		} {
			if b.Stats().Sent > 0 {
				poll(t, puller, 1)
			}
			patient, impatient := make(chan error, 1), make(chan error, 1)
			go func() { _, err := take(t.Context()); patient <- err }()
			synctest.Wait()
			ctx := &quitting{Context: context.Background()}
			go func() { _, err := take(ctx); impatient <- err }()
			synctest.Wait()
			ctx.over.Store(true) // who came last is woken first
			send(t, b, &mq.Message{Topic: "T"})
			require.ErrorIs(t, <-impatient, context.Canceled)
			require.NoError(t, <-patient)
		}
	})
}

// TestSimpleMembersComeAndGo: a consumer that closes while a Receive of it is
// under way keeps no message back.
func TestSimpleMembersComeAndGo(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 2)
		const count = 1000
		for i := range count {
			send(t, b, &mq.Message{Topic: "T", ShardingKey: fmt.Sprint(i % 20), Body: fmt.Appendf(nil, "%d", i)})
		}
		o := &mq.SimpleOptions{Ordered: ordered}
		stays := simple(t, b, "G", o, "T")
		var got atomic.Int64
		take := func(c *mq.SimpleConsumer) error {
			ms, err := c.Receive(t.Context(), 3, time.Hour)
			if err != nil {
				return err
			}
			got.Add(int64(len(ms)))
			return stays.Ack(t.Context(), ms...)
		}
		var running sync.WaitGroup
		for range 2 {
			running.Go(func() {
				for got.Load() < count-100 && !t.Failed() {
					c, err := b.NewSimpleConsumer("G", o)
					if err == nil {
						err = c.Subscribe("T", mq.All)
					}
					if err != nil {
						t.Error(err)
						return
					}
					var receiving sync.WaitGroup
					for range 2 {
						receiving.Go(func() {
							for err := error(nil); err == nil; {
								if err = take(c); err != nil && !errors.Is(err, mq.ErrClosed) {
									t.Error(err)
								}
							}
						})
					}
					runtime.Gosched()
					if err := c.Close(); err != nil {
						t.Error(err)
					}
					receiving.Wait()
				}
			})
		}
		running.Wait()
		for got.Load() < count {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			ms, err := stays.Receive(ctx, 100, time.Hour)
			cancel()
			require.NoError(t, err, "%d of %d", got.Load(), count)
			got.Add(int64(len(ms)))
			require.NoError(t, stays.Ack(t.Context(), ms...))
		}
		require.EqualValues(t, count, got.Load())
		require.Zero(t, lag(t, b, "G"))
	}
}

// TestSimpleFilter: what is not wanted is passed and acknowledged.
func TestSimpleFilter(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	for i := range 30 {
		send(t, b, &mq.Message{Topic: "T", Tag: []string{"a", "b", "c"}[i%3], Body: fmt.Appendf(nil, "%d", i)})
	}
	c := simple(t, b, "G", nil)
	require.NoError(t, c.Subscribe("T", mq.Tags("a", "c")))
	require.ErrorIs(t, simple(t, b, "G", nil).Subscribe("T", mq.All), mq.ErrSubscriptionMismatch)
	ms := receiveFrom(t, c, 20, time.Hour)
	for _, m := range ms {
		require.NotEqual(t, "b", m.Tag)
	}
	require.NoError(t, c.Ack(t.Context(), ms...))
	consumed(t, b, "G")
}

// TestSimpleAfterRestart: what was not acknowledged comes at once; what was does
// not come again, in a copy of the files either, which is what kill -9 leaves.
func TestSimpleAfterRestart(t *testing.T) {
	t.Parallel()
	dir, copied := t.TempDir(), t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 10)
	c := simple(t, b, "G", nil, "T")
	ms := receiveFrom(t, c, 8, 1000*time.Hour)
	require.NoError(t, c.Ack(t.Context(), ms[0], ms[2], ms[5]))
	copyStore(t, dir, copied)
	require.NoError(t, b.Close())
	require.ErrorIs(t, c.Ack(t.Context(), ms[1]), mq.ErrClosed)
	for _, dir := range []string{dir, copied} {
		b := mqtest.OpenDir(t, dir, written())
		c := simple(t, b, "G", nil, "T")
		again := receiveFrom(t, c, 7, time.Hour)
		require.Equal(t, []string{"1", "3", "4", "6", "7", "8", "9"}, bodiesOf(again))
		for i, attempt := range []int{2, 2, 2, 2, 2, 1, 1} {
			require.Equal(t, attempt, again[i].Attempt, "what was received was an attempt, whatever the end")
		}
		nothingToReceive(t, c)
		require.ErrorIs(t, c.Ack(t.Context(), ms[1]), mq.ErrNotAssigned, "received of another broker")
		require.NoError(t, c.Ack(t.Context(), again...))
		require.Zero(t, lag(t, b, "G"))
		require.NoError(t, b.Close())
	}
}

// TestSimpleClose: what a closed member received stays invisible as long as the
// group has others, and they may acknowledge it.
func TestSimpleClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 2)
		one, two := simple(t, b, "G", nil, "T"), simple(t, b, "G", nil, "T")
		ms := receiveFrom(t, one, 2, time.Minute)
		waiting := make(chan error)
		go func() {
			_, err := one.Receive(t.Context(), 1, time.Minute)
			waiting <- err
		}()
		synctest.Wait()
		require.NoError(t, one.Close())
		require.ErrorIs(t, <-waiting, mq.ErrClosed)
		_, err := one.Receive(t.Context(), 1, time.Minute)
		require.ErrorIs(t, err, mq.ErrClosed)
		require.ErrorIs(t, one.Ack(t.Context(), ms[0]), mq.ErrClosed)
		require.ErrorIs(t, one.Nack(t.Context(), ms[0]), mq.ErrClosed)
		require.ErrorIs(t, one.ChangeInvisible(t.Context(), ms[0], time.Minute), mq.ErrClosed)
		require.NoError(t, one.Close())
		nothingToReceive(t, two)
		require.NoError(t, two.Ack(t.Context(), ms[0]))
		began := time.Now()
		again, err := two.Receive(t.Context(), 1, time.Hour)
		require.NoError(t, err)
		require.Equal(t, []string{"1"}, bodiesOf(again))
		require.LessOrEqual(t, time.Since(began), time.Minute)
		require.Greater(t, time.Since(began), 59*time.Second)

		// The last one: what is out comes at once to who joins then.
		require.NoError(t, two.Close())
		require.Zero(t, b.Stats().Invisible)
		three := simple(t, b, "G", nil, "T")
		require.Equal(t, "1", string(receiveFrom(t, three, 1, time.Hour)[0].Body))
		require.ErrorIs(t, three.Ack(t.Context(), ms[1]), mq.ErrReceiptExpired)
		nothingToReceive(t, three)
	})
}

// TestSimpleShutdown: it does not wait for receivers' time.
func TestSimpleShutdown(t *testing.T) {
	t.Parallel()
	b, err := mq.OpenMemory(written())
	require.NoError(t, err)
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 1)
	c, err := b.NewSimpleConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	receiveFrom(t, c, 1, time.Hour)
	waiting := make(chan error)
	go func() {
		_, err := c.Receive(context.Background(), 1, time.Hour)
		waiting <- err
	}()
	require.NoError(t, b.Shutdown(t.Context()))
	require.ErrorIs(t, <-waiting, mq.ErrClosed)
	require.ErrorIs(t, c.Ack(t.Context()), mq.ErrClosed)
}

func TestSimpleGroupsAreOfTheirOwnKind(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	simple(t, b, "simple", nil, "T")
	pull(t, b, "pull", "T", nil)
	push(t, b, "push", "T", func(context.Context, *mq.Message) error { return nil }, nil)
	for _, group := range []string{"pull", "push"} {
		_, err := b.NewSimpleConsumer(group, nil)
		require.ErrorIs(t, err, mq.ErrGroupKind)
		require.ErrorContains(t, err, group)
	}
	_, err := b.NewSimpleConsumer("simple", &mq.SimpleOptions{Ordered: true})
	require.ErrorIs(t, err, mq.ErrGroupKind)
	_, err = b.NewPullConsumer("simple", nil)
	require.ErrorIs(t, err, mq.ErrGroupKind)
	require.ErrorContains(t, err, "Clustering simple")
	_, err = b.NewPushConsumer("simple", func(context.Context, *mq.Message) error { return nil }, nil)
	require.ErrorIs(t, err, mq.ErrGroupKind)

	// One kind after the other: progress is the group's.
	sendBodies(t, b, "T", 2)
	c := simple(t, b, "G", nil, "T")
	m := receiveFrom(t, c, 1, time.Hour)[0]
	require.NoError(t, c.Ack(t.Context(), m))
	require.NoError(t, c.Close())
	p := pull(t, b, "G", "T", nil)
	require.Equal(t, []string{"1"}, bodiesOf(poll(t, p, 1)))
	require.NoError(t, p.Close())
	require.Equal(t, []string{"1"}, bodiesOf(receiveFrom(t, simple(t, b, "G", nil, "T"), 1, time.Hour)))
}

func TestSimpleBadInput(t *testing.T) {
	t.Parallel()
	b, other := mqtest.OpenMemory(t, written()), mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	createTopic(t, other, "T", 1)
	sendBodies(t, b, "T", 3)
	sendBodies(t, other, "T", 1)
	for _, o := range []*mq.SimpleOptions{
		{PrefetchMessages: -1}, {PrefetchBytes: -1}, {AckDurability: 9}, {From: mq.AtOffset(mq.Queue{Topic: "T"}, 0)},
	} {
		_, err := b.NewSimpleConsumer("G", o)
		require.ErrorIs(t, err, mq.ErrInvalidOptions, "%+v", o)
	}
	for _, name := range []string{"", "with space"} {
		_, err := b.NewSimpleConsumer(name, nil)
		require.ErrorIs(t, err, mq.ErrInvalidName)
	}
	require.Empty(t, b.Groups())

	c := simple(t, b, "G", &mq.SimpleOptions{Instance: "me"}, "T")
	_, err := b.NewSimpleConsumer("G", &mq.SimpleOptions{Instance: "me"})
	require.ErrorIs(t, err, mq.ErrInstanceInUse)
	require.Equal(t, []string{"G", "me"}, []string{c.Group(), c.Name()})
	ctx := t.Context()
	for _, bad := range []struct {
		max int
		d   time.Duration
	}{{0, time.Second}, {-1, time.Second}, {math.MinInt, time.Second}, {1, 0}, {1, -1}, {1, math.MinInt64}} {
		_, err := c.Receive(ctx, bad.max, bad.d)
		require.ErrorIs(t, err, mq.ErrInvalidArgument, "%+v", bad)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = c.Receive(ended, 1, time.Second)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, invisible(t, b, "G"))

	ms, err := c.Receive(ctx, math.MaxInt, math.MaxInt64) // for ever
	require.NoError(t, err)
	require.Len(t, ms, 3)
	foreign := receiveFrom(t, simple(t, other, "G", nil, "T"), 1, time.Hour)[0]
	another := receiveFrom(t, simple(t, b, "H", nil, "T"), 1, time.Hour)[0]
	polled := poll(t, pull(t, b, "P", "T", nil), 1)[0]
	found, err := b.MessageByID(ms[0].ID)
	require.NoError(t, err)
	for _, m := range []*mq.Message{nil, {}, {Topic: "T", ID: ms[0].ID}, foreign, another, polled, found} {
		require.ErrorIs(t, c.Ack(ctx, ms[0], m), mq.ErrNotAssigned, "%+v", m)
		require.ErrorIs(t, c.Nack(ctx, ms[0], m), mq.ErrNotAssigned)
		require.ErrorIs(t, c.ChangeInvisible(ctx, m, time.Second), mq.ErrNotAssigned)
	}
	for _, d := range []time.Duration{0, -1, math.MinInt64} {
		require.ErrorIs(t, c.ChangeInvisible(ctx, ms[0], d), mq.ErrInvalidArgument)
	}
	require.ErrorIs(t, c.Ack(ended, ms[0]), context.Canceled)
	require.ErrorIs(t, c.Nack(ended, ms[0]), context.Canceled)
	require.ErrorIs(t, c.ChangeInvisible(ended, ms[0], time.Second), context.Canceled)
	require.EqualValues(t, 3, lag(t, b, "G"))
	require.NoError(t, c.ChangeInvisible(ctx, ms[0], math.MaxInt64))

	// What the receiver does to its message does not matter.
	ms[1].Offset, ms[1].Queue, ms[1].Topic, ms[1].Attempt = 99, 99, "no", 99
	kept := *ms[2]
	require.NoError(t, c.Ack(ctx, ms[0], ms[1], &kept))
	require.Zero(t, lag(t, b, "G"))

	// A group that was deleted is another one afterwards.
	require.NoError(t, c.Close())
	require.NoError(t, b.DeleteGroup("G"))
	again := simple(t, b, "G", nil, "T")
	require.ErrorIs(t, again.Ack(ctx, ms[0]), mq.ErrReceiptExpired)
	require.Equal(t, bodiesTo(3), bodiesOf(receiveFrom(t, again, 3, time.Hour)))
}

func TestSimpleTopicGrows(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	one, two := simple(t, b, "G", nil, "T"), simple(t, b, "G", nil, "T")
	require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Queues: 3, Durability: mq.Written}))
	require.Equal(t, queuesOf("T", 0, 1, 2), one.Assigned())
	sendBodies(t, b, "T", 30)
	ms := append(receiveFrom(t, one, 15, time.Hour), receiveFrom(t, two, 15, time.Hour)...)
	require.ElementsMatch(t, bodiesTo(30), bodiesOf(ms))
	require.NoError(t, one.Ack(t.Context(), ms...))
}

// TestReceiveIsFrugal: a message that is received alone costs, and pins when it
// is kept, about its own size.
func TestReceiveIsFrugal(t *testing.T) { //nolint:paralleltest // measures the heap of the process
	b := mqtest.OpenMemory(t, written())
	sendBodies(t, b, "T", 400)
	c := simple(t, b, "G", nil, "T")
	least := uint64(math.MaxUint64)
	for range 4 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 100 {
			_, err := c.Receive(t.Context(), 1, time.Hour)
			require.NoError(t, err)
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	require.Less(t, least, uint64(100*4096))
}

// TestSimpleClosed: a closed consumer has no queues, and who wakes up in it touches
// nothing of the group, whoever its members are by then.
func TestSimpleClosed(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 2)
	closed := simple(t, b, "G", nil, "T")
	require.Len(t, closed.Assigned(), 2)
	require.NoError(t, closed.Close())
	other := simple(t, b, "G", nil, "T")
	require.Len(t, other.Assigned(), 2)
	require.Empty(t, closed.Assigned())
	ctx := &endsWaiting{Context: t.Context(), waits: func() {
		require.NoError(t, other.Close())
		_, err := b.NewPullConsumer("G", nil)
		require.NoError(t, err)
	}}
	_, err := other.Receive(ctx, 1, time.Second)
	require.ErrorIs(t, err, mq.ErrClosed)
	require.Empty(t, closed.Assigned())
	require.Empty(t, other.Assigned())
}

// endsWaiting is a context that ends when somebody begins to wait for it.
type endsWaiting struct {
	context.Context
	waits func()
	ended bool
}

func (c *endsWaiting) Done() <-chan struct{} {
	c.waits()
	c.ended = true
	return nil
}

func (c *endsWaiting) Err() error {
	if c.ended {
		return context.Canceled
	}
	return nil
}
