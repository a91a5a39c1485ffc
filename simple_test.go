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
func receive(t testing.TB, c *mq.SimpleConsumer, n int, invisible time.Duration) []*mq.Message {
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
	require.Equal(t, bodiesTo(100)[30:], bodiesOf(receive(t, c, 70, time.Hour)))
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

// TestAckIsOneFrame: of many messages, on several queues.
func TestAckIsOneFrame(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 4)
	sendBodies(t, b, "T", 400)
	c := simple(t, b, "G", nil, "T")
	ms := receive(t, c, 400, time.Hour)
	before := b.Stats()
	require.NoError(t, c.Ack(t.Context(), ms...))
	after := b.Stats()
	require.EqualValues(t, 400, after.Acked-before.Acked)
	require.Less(t, after.Written-before.Written, int64(256), "bytes of the log")
}

// TestInvisibleTimeIsUp: then a message comes again, to whoever asks, and the
// receipt of before does not hold any more.
func TestInvisibleTimeIsUp(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 1)
			send(t, b, &mq.Message{Topic: "T", ShardingKey: "a", Body: []byte("0")}, &mq.Message{Topic: "T", ShardingKey: "b", Body: []byte("1")})
			o := &mq.SimpleOptions{Ordered: ordered}
			one, two := simple(t, b, "G", o, "T"), simple(t, b, "G", o, "T")
			first := receive(t, one, 2, 10*time.Second)
			require.NoError(t, one.Ack(t.Context(), first[1]))
			began := time.Now()
			for attempt := 2; attempt < 20; attempt++ {
				again, err := two.Receive(t.Context(), 10, time.Duration(attempt)*time.Second)
				require.NoError(t, err)
				require.Equal(t, []string{"0"}, bodiesOf(again))
				require.Equal(t, attempt, again[0].Attempt)
				if attempt == 2 {
					require.Equal(t, 10*time.Second, time.Since(began))
				} else {
					require.Equal(t, time.Duration(attempt-1)*time.Second, time.Since(began))
				}
				began = time.Now()
				require.ErrorIs(t, one.Ack(t.Context(), first[0]), mq.ErrReceiptExpired)
				first[0] = again[0]
			}
			require.NoError(t, one.Ack(t.Context(), first[0]), "received by another member")
			pass(time.Hour)
			nothingToReceive(t, two)
			require.Zero(t, lag(t, b, "G"))
			require.Zero(t, invisible(t, b, "G"))
		})
	}
}

func TestChangeInvisible(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 3)
		c := simple(t, b, "G", nil, "T")
		ms := receive(t, c, 3, time.Minute)
		pass(59 * time.Second)
		began := time.Now()
		require.NoError(t, c.ChangeInvisible(t.Context(), ms[0], time.Hour)) // longer, from now on
		require.NoError(t, c.ChangeInvisible(t.Context(), ms[1], time.Millisecond))
		for _, want := range []struct {
			body string
			in   time.Duration
		}{{"1", time.Millisecond}, {"2", time.Second}, {"0", time.Hour}} {
			again, err := c.Receive(t.Context(), 1, 100*time.Hour)
			require.NoError(t, err)
			require.Equal(t, []any{want.body, 2}, []any{string(again[0].Body), again[0].Attempt})
			require.Equal(t, want.in, time.Since(began))
		}
		for _, m := range ms {
			require.ErrorIs(t, c.ChangeInvisible(t.Context(), m, time.Hour), mq.ErrReceiptExpired)
		}
	})
}

// TestReceiptChanged stays good for all calls.
func TestReceiptChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 1)
		c := simple(t, b, "G", nil, "T")
		m := receive(t, c, 1, time.Second)[0]
		for range 1000 {
			require.NoError(t, c.ChangeInvisible(t.Context(), m, time.Second))
			pass(999 * time.Millisecond)
		}
		require.EqualValues(t, 1, invisible(t, b, "G"))
		require.NoError(t, c.Ack(t.Context(), m))
	})
}

// TestReceiptRefused: every way in which a receipt ends, and that a refused call
// changes nothing.
func TestReceiptRefused(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, b *mq.Broker, c *mq.SimpleConsumer, m *mq.Message){
		"acknowledged": func(t *testing.T, _ *mq.Broker, c *mq.SimpleConsumer, m *mq.Message) {
			require.NoError(t, c.Ack(t.Context(), m))
		},
		"given back": func(t *testing.T, _ *mq.Broker, c *mq.SimpleConsumer, m *mq.Message) {
			require.NoError(t, c.Nack(t.Context(), m))
		},
		"given back and received": func(t *testing.T, _ *mq.Broker, c *mq.SimpleConsumer, m *mq.Message) {
			require.NoError(t, c.Nack(t.Context(), m))
			require.Equal(t, 2, receive(t, c, 1, time.Hour)[0].Attempt)
		},
		"time is up": func(t *testing.T, _ *mq.Broker, c *mq.SimpleConsumer, m *mq.Message) {
			require.NoError(t, c.ChangeInvisible(t.Context(), m, time.Nanosecond))
			pass(time.Nanosecond)
		},
		"reset": func(t *testing.T, b *mq.Broker, _ *mq.SimpleConsumer, _ *mq.Message) {
			require.NoError(t, b.ResetOffset("G", "T", mq.Earliest))
		},
		"topic deleted": func(t *testing.T, b *mq.Broker, _ *mq.SimpleConsumer, _ *mq.Message) {
			require.NoError(t, b.DeleteTopic("T"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, ordered := range []bool{false, true} {
					b := mqtest.OpenMemory(t, written())
					createTopic(t, b, "T", 1)
					sendBodies(t, b, "T", 1)
					c := simple(t, b, "G", &mq.SimpleOptions{Ordered: ordered}, "T")
					m := receive(t, c, 1, time.Hour)[0]
					end(t, b, c, m)
					synctest.Wait()
					owed, out := lag(t, b, "G"), invisible(t, b, "G")
					for range 2 {
						require.ErrorIs(t, c.Ack(t.Context(), m), mq.ErrReceiptExpired)
						require.ErrorIs(t, c.Nack(t.Context(), m), mq.ErrReceiptExpired)
						require.ErrorIs(t, c.ChangeInvisible(t.Context(), m, time.Second), mq.ErrReceiptExpired)
					}
					require.Equal(t, []int64{owed, out}, []int64{lag(t, b, "G"), invisible(t, b, "G")})
					pass(2 * time.Hour)
					if owed > 0 {
						require.NoError(t, c.Ack(t.Context(), receive(t, c, 1, time.Hour)...))
					}
				}
			})
		})
	}
}

// TestAckLeavesOutExpired: what is good is acknowledged all the same. A message
// twice in one call is one that was acknowledged before.
func TestAckLeavesOutExpired(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 4)
	c := simple(t, b, "G", nil, "T")
	ms := receive(t, c, 4, time.Hour)
	require.NoError(t, c.Nack(t.Context(), ms[1]))
	err := c.Ack(t.Context(), ms[0], ms[1], ms[2], ms[2])
	require.ErrorIs(t, err, mq.ErrReceiptExpired)
	require.ErrorContains(t, err, "2 of 4")
	committed, ahead := done(t, b, "G", "T")
	require.Equal(t, []any{mq.Offset(1), int64(1)}, []any{committed, ahead})
	require.NoError(t, c.Ack(t.Context()))
	require.NoError(t, c.Nack(t.Context()))
}

// TestExpiryAgainstAck: exactly one of them has the message.
func TestExpiryAgainstAck(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		const count = 300
		for i := range count {
			send(t, b, &mq.Message{Topic: "T", ShardingKey: fmt.Sprint(i % 50), Body: fmt.Appendf(nil, "%d", i)})
		}
		var mu sync.Mutex
		acked, late := map[string]int{}, 0
		var running sync.WaitGroup
		for member := range 2 {
			c := simple(t, b, "G", &mq.SimpleOptions{Ordered: ordered}, "T")
			for range 2 {
				running.Add(1)
				go func() {
					defer running.Done()
					for round := 0; ; round++ {
						ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
						ms, err := c.Receive(ctx, 8, time.Microsecond<<((round+member)%12))
						cancel()
						if err != nil {
							return // everything is acknowledged
						}
						for _, m := range ms {
							err := c.Ack(context.Background(), m)
							mu.Lock()
							switch {
							case err == nil:
								acked[string(m.Body)]++
							case errors.Is(err, mq.ErrReceiptExpired):
								late++
							default:
								t.Error(err)
							}
							mu.Unlock()
						}
					}
				}()
			}
		}
		running.Wait()
		require.Len(t, acked, count)
		for body, n := range acked {
			require.Equal(t, 1, n, "acknowledgements of %s", body)
		}
		require.Zero(t, lag(t, b, "G"))
		t.Logf("ordered %v: %d acknowledgements came too late", ordered, late)
	}
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

// TestSimpleOrdered: one message of a key at a time, whatever happens to it;
// other keys go on.
func TestSimpleOrdered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		for i := range 4 {
			for _, key := range []string{"a", "b", "c"} {
				send(t, b, &mq.Message{Topic: "T", ShardingKey: key, Body: fmt.Appendf(nil, "%s%d", key, i)})
			}
		}
		o := &mq.SimpleOptions{Ordered: true}
		one, two := simple(t, b, "G", o, "T"), simple(t, b, "G", o, "T")
		ms := receive(t, one, 3, time.Minute)
		require.Equal(t, []string{"a0", "b0", "c0"}, bodiesOf(ms))
		nothingToReceive(t, two)

		// a is stuck, b fails, c goes on.
		require.NoError(t, one.Nack(t.Context(), ms[1]))
		for _, want := range []string{"c0", "c1", "c2", "c3"} {
			if want != "c0" {
				ms[2] = receive(t, two, 1, time.Hour)[0]
				for string(ms[2].Body) == "b0" {
					require.NoError(t, two.ChangeInvisible(t.Context(), ms[2], time.Minute))
					ms[2] = receive(t, two, 1, time.Hour)[0]
				}
			}
			require.Equal(t, want, string(ms[2].Body))
			require.NoError(t, two.Ack(t.Context(), ms[2]))
		}
		nothingToReceive(t, one)
		pass(time.Minute)
		var order []string
		for range 8 {
			m := receive(t, two, 1, time.Minute)[0]
			order = append(order, string(m.Body))
			require.Equal(t, m.Offset <= 1, m.Attempt > 1, "%s, attempt %d", m.Body, m.Attempt)
			require.NoError(t, one.Ack(t.Context(), m))
		}
		require.True(t, slices.IsSortedFunc(order, func(x, y string) int {
			if x[0] != y[0] {
				return 0
			}
			return int(x[1]) - int(y[1])
		}), "%v", order)
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestSimpleOrderedIsStrict under load: while a message of a key is out, no other
// of it is, even though receivers fail, wait too long, and come and go.
func TestSimpleOrderedIsStrict(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	const keys, each = 10, 40
	for i := range each {
		for k := range keys {
			send(t, b, &mq.Message{Topic: "T", ShardingKey: fmt.Sprint(k), Body: fmt.Appendf(nil, "%d", i)})
		}
	}
	var mu sync.Mutex
	next := map[string]int{} // by key: acknowledged so far
	total := 0
	var running sync.WaitGroup
	for member := range 3 {
		running.Add(1)
		go func() {
			defer running.Done()
			for life := 0; ; life++ {
				c, err := b.NewSimpleConsumer("G", &mq.SimpleOptions{Ordered: true})
				if err == nil {
					err = c.Subscribe("T", mq.All)
				}
				if err != nil {
					t.Error(err)
					return
				}
				for round := range 50 {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
					ms, err := c.Receive(ctx, 4, time.Hour)
					cancel()
					if err != nil {
						break
					}
					for i, m := range ms {
						if (round+i+member)%3 == 0 {
							if err := c.Nack(context.Background(), m); err != nil {
								t.Error(err)
							}
							continue
						}
						mu.Lock()
						if fmt.Sprint(next[m.ShardingKey]) != string(m.Body) {
							t.Errorf("key %s: got %s, want %d", m.ShardingKey, m.Body, next[m.ShardingKey])
						}
						next[m.ShardingKey]++
						total++
						if err := c.Ack(context.Background(), m); err != nil {
							t.Error(err)
						}
						mu.Unlock()
					}
				}
				mu.Lock()
				finished := total == keys*each || t.Failed()
				mu.Unlock()
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				if finished {
					return
				}
			}
		}()
	}
	running.Wait()
	require.Zero(t, lag(t, b, "G"))
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

// TestNackTakesTurns: a message that is given back for ever does not keep others
// from being received, even one at a time.
func TestNackTakesTurns(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 50)
	c := simple(t, b, "G", nil, "T")
	good := 0
	for attempts := 0; good < 49; attempts++ {
		require.Less(t, attempts, 200)
		m := receive(t, c, 1, time.Hour)[0]
		if string(m.Body) == "0" {
			require.NoError(t, c.Nack(t.Context(), m))
			continue
		}
		good++
		require.NoError(t, c.Ack(t.Context(), m))
	}
	require.EqualValues(t, 1, lag(t, b, "G"))
}

// TestSimpleBounds: a queue that has as much out as may be waits for
// acknowledgements; what comes again is not held up by that.
func TestSimpleBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		for range 20 {
			send(t, b, &mq.Message{Topic: "T", Body: make([]byte, 1000)})
		}
		for _, ordered := range []bool{false, true} {
			messages := simple(t, b, fmt.Sprint("messages", ordered), &mq.SimpleOptions{PrefetchMessages: 10, Ordered: ordered}, "T")
			bytes := simple(t, b, fmt.Sprint("bytes", ordered), &mq.SimpleOptions{PrefetchBytes: 5500, Ordered: ordered}, "T")
			if ordered { // all messages are of one key
				receive(t, messages, 1, time.Minute)
				nothingToReceive(t, messages)
				receive(t, bytes, 1, time.Minute)
				nothingToReceive(t, bytes)
				continue
			}
			ms := receive(t, messages, 10, time.Minute)
			nothingToReceive(t, messages)
			receive(t, bytes, 6, time.Minute)
			nothingToReceive(t, bytes)
			require.NoError(t, messages.Ack(t.Context(), ms[3], ms[8]))
			receive(t, messages, 2, time.Hour)
			nothingToReceive(t, messages)
			pass(time.Minute)
			require.Equal(t, 2, receive(t, messages, 8, time.Hour)[7].Attempt)
			nothingToReceive(t, messages)
		}
	})
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
	ms := receive(t, c, 20, time.Hour)
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
	ms := receive(t, c, 8, 1000*time.Hour)
	require.NoError(t, c.Ack(t.Context(), ms[0], ms[2], ms[5]))
	copyStore(t, dir, copied)
	require.NoError(t, b.Close())
	require.ErrorIs(t, c.Ack(t.Context(), ms[1]), mq.ErrClosed)
	for _, dir := range []string{dir, copied} {
		b := mqtest.OpenDir(t, dir, written())
		c := simple(t, b, "G", nil, "T")
		again := receive(t, c, 7, time.Hour)
		require.Equal(t, []string{"1", "3", "4", "6", "7", "8", "9"}, bodiesOf(again))
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
		ms := receive(t, one, 2, time.Minute)
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
		require.Equal(t, "1", string(receive(t, three, 1, time.Hour)[0].Body))
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
	receive(t, c, 1, time.Hour)
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
	m := receive(t, c, 1, time.Hour)[0]
	require.NoError(t, c.Ack(t.Context(), m))
	require.NoError(t, c.Close())
	p := pull(t, b, "G", "T", nil)
	require.Equal(t, []string{"1"}, bodiesOf(poll(t, p, 1)))
	require.NoError(t, p.Close())
	require.Equal(t, []string{"1"}, bodiesOf(receive(t, simple(t, b, "G", nil, "T"), 1, time.Hour)))
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
	foreign := receive(t, simple(t, other, "G", nil, "T"), 1, time.Hour)[0]
	another := receive(t, simple(t, b, "H", nil, "T"), 1, time.Hour)[0]
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
	require.Equal(t, bodiesTo(3), bodiesOf(receive(t, again, 3, time.Hour)))
}

// TestSimpleReset: messages come again at once, by other receipts.
func TestSimpleReset(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		for i := range 10 {
			send(t, b, &mq.Message{Topic: "T", ShardingKey: fmt.Sprint(i), Body: fmt.Appendf(nil, "%d", i)})
		}
		c := simple(t, b, "G", &mq.SimpleOptions{Ordered: ordered, PrefetchMessages: 10}, "T")
		ms := receive(t, c, 10, time.Hour)
		nothingToReceive(t, c)
		require.NoError(t, b.ResetOffset("G", "T", mq.AtOffset(mq.Queue{Topic: "T"}, 4)))
		require.Zero(t, invisible(t, b, "G"))
		require.ErrorIs(t, c.Ack(t.Context(), ms...), mq.ErrReceiptExpired)
		again := receive(t, c, 6, time.Hour)
		require.Equal(t, bodiesTo(10)[4:], bodiesOf(again))
		require.Equal(t, 1, again[0].Attempt)
		require.NoError(t, c.Ack(t.Context(), again...))
		require.Zero(t, lag(t, b, "G"))
	}
}

func TestSimpleTopicGrows(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	one, two := simple(t, b, "G", nil, "T"), simple(t, b, "G", nil, "T")
	require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Queues: 3, Durability: mq.Written}))
	require.Equal(t, queuesOf("T", 0, 1, 2), one.Assigned())
	sendBodies(t, b, "T", 30)
	ms := append(receive(t, one, 15, time.Hour), receive(t, two, 15, time.Hour)...)
	require.ElementsMatch(t, bodiesTo(30), bodiesOf(ms))
	require.NoError(t, one.Ack(t.Context(), ms...))
}
