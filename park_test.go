package mq_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// poison is a handler that fails for some keys as long as it is told to, and
// notes what it consumed.
type poison struct {
	journal
	bad func(m *mq.Message) bool

	poisonMu sync.Mutex
	freed    bool
	tried    []*mq.Message // that failed
}

func (p *poison) handle(_ context.Context, m *mq.Message) error {
	p.poisonMu.Lock()
	defer p.poisonMu.Unlock()
	if !p.freed && p.bad(m) {
		p.tried = append(p.tried, m)
		return errBroken
	}
	p.note(m)
	return nil
}

func (p *poison) free() {
	p.poisonMu.Lock()
	defer p.poisonMu.Unlock()
	p.freed = true
}

// failed returns what failed so far.
func (p *poison) failed() []*mq.Message {
	p.poisonMu.Lock()
	defer p.poisonMu.Unlock()
	return slices.Clone(p.tried)
}

func badKeys(prefix string) func(m *mq.Message) bool {
	return func(m *mq.Message) bool { return strings.HasPrefix(m.ShardingKey, prefix) }
}

// every returns the numbers from, from+step … below to.
func every(from, step, to int) (bodies []string) {
	for i := from; i < to; i += step {
		bodies = append(bodies, fmt.Sprint(i))
	}
	return bodies
}

func parked(t testing.TB, b *mq.Broker, group string) int {
	t.Helper()
	info, err := b.Group(group)
	require.NoError(t, err)
	return int(info.Parked)
}

// TestParkedStallNobody: a key that is blocked with far more behind it than may
// be out of its queue holds up no other, and when it is free its messages come in
// order, with all that they were.
func TestParkedStallNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 3000
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		p := poison{bad: badKeys("bad")}
		var got inbox
		push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
			if err := p.handle(ctx, m); err != nil {
				return err
			}
			return got.handle(ctx, m)
		}, &mq.PushOptions{Ordered: true, PrefetchMessages: 40})
		ms := numbered("T", 0, n)
		for i, m := range ms {
			m.ShardingKey = []string{"bad", "good", "better"}[i%3]
			m.Tag, m.Keys, m.Properties = "tag", []string{m.ShardingKey}, map[string]string{"p": string(m.Body)}
		}
		sent := send(t, b, ms...)
		pass(100 * time.Millisecond)
		require.Equal(t, every(1, 3, n), p.of("good"))
		require.Equal(t, every(2, 3, n), p.of("better"))
		require.Equal(t, int64(n/3), lag(t, b, "G"))
		require.Greater(t, parked(t, b, "G"), n/3-40)
		require.Equal(t, int64(parked(t, b, "G")), b.Stats().Parked)

		pass(time.Hour)
		p.free()
		pass(2 * time.Second)
		require.Equal(t, every(0, 3, n), p.of("bad"))
		require.Zero(t, lag(t, b, "G"))
		require.Zero(t, parked(t, b, "G"))
		for i, m := range p.failed() {
			require.Equal(t, []any{"0", i + 1}, []any{string(m.Body), m.Attempt}, "tried once a second")
		}
		require.InDelta(t, 3601, len(p.failed()), 1)
		for _, m := range got.messages() {
			var i int
			_, _ = fmt.Sscan(string(m.Body), &i)
			r := sent[i]
			require.Equal(t, []any{r.ID, r.Topic, r.Queue, r.Offset}, []any{m.ID, m.Topic, m.Queue, m.Offset})
			require.Equal(t, []any{ms[i].Tag, ms[i].ShardingKey, ms[i].Keys, ms[i].Properties}, []any{m.Tag, m.ShardingKey, m.Keys, m.Properties})
			if i > 0 {
				require.Nil(t, m.Origin, "message %d was delivered once", i)
				require.Equal(t, 1, m.Attempt)
				continue
			}
			require.Equal(t, len(p.failed())+1, m.Attempt)
			require.Equal(t, errBroken.Error(), m.Origin.LastError)
		}
	})
}

// TestParkedManyKeys: however many keys are blocked, their first messages too
// leave the room to others.
func TestParkedManyKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, keys = 6000, 500
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		p := poison{bad: badKeys("bad")}
		push(t, b, "G", "T", p.handle, &mq.PushOptions{Ordered: true, PrefetchMessages: 20})
		names := []string{"good"}
		for i := range keys - 1 {
			names = append(names, fmt.Sprint("bad", i))
		}
		sendKeyed(t, b, "T", 0, n, names...)
		pass(100 * time.Millisecond)
		require.Equal(t, every(0, keys, n), p.of("good"))
		pass(10 * time.Second)
		p.free()
		pass(2 * time.Second)
		require.Zero(t, lag(t, b, "G"))
		for i := range keys - 1 {
			require.Equal(t, every(i+1, keys, n), p.of(fmt.Sprint("bad", i)))
		}
	})
}

// TestParkedLaterComeBehind: what is sent while messages of its key are parked,
// or are being delivered from there, does not come before them.
func TestParkedLaterComeBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		p := poison{bad: badKeys("bad")}
		var slow atomic.Bool
		push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
			if slow.Load() {
				<-time.After(time.Millisecond)
			}
			return p.handle(ctx, m)
		}, &mq.PushOptions{Ordered: true, PrefetchMessages: 10})
		sendKeyed(t, b, "T", 0, 100, "bad")
		pass(10 * time.Millisecond)
		slow.Store(true)
		p.free()
		for at := 100; at < 400; at += 100 { // slowly, and quickly, while parked ones are delivered
			pass(time.Second + 10*time.Millisecond)
			sendKeyed(t, b, "T", at, at+100, "bad")
		}
		pass(10 * time.Second)
		require.Equal(t, every(0, 1, 400), p.of("bad"))
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestParkedFewComeBehind: too few to be parked themselves, they go on where they
// are when the parked ones are through.
func TestParkedFewComeBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		p := poison{bad: badKeys("bad")}
		push(t, b, "G", "T", p.handle, &mq.PushOptions{Ordered: true, PrefetchMessages: 40})
		sendKeyed(t, b, "T", 0, 100, "bad")
		pass(10 * time.Millisecond)
		sendKeyed(t, b, "T", 100, 102, "bad")
		p.free()
		pass(2 * time.Second)
		require.Equal(t, bodiesTo(102), p.of("bad"))
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestParkedOwnerPaused: whoever has the queue knows what is parked, also if the
// member that is to deliver it does nothing.
func TestParkedOwnerPaused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		p := poison{bad: badKeys("bad")}
		c := push(t, b, "G", "T", p.handle, &mq.PushOptions{Ordered: true, PrefetchMessages: 8})
		sendKeyed(t, b, "T", 0, 100, "bad")
		pass(10 * time.Millisecond)
		require.NoError(t, c.Close())
		p.free()
		o := &mq.PushOptions{Ordered: true, Strategy: func(members []string, queues []mq.Queue) map[string][]mq.Queue {
			if queues[0].Topic == "T" {
				return map[string][]mq.Queue{members[len(members)-1]: queues}
			}
			return map[string][]mq.Queue{members[0]: queues}
		}}
		idle, err := b.NewPushConsumer("G", p.handle, o)
		require.NoError(t, err)
		defer func() { require.NoError(t, idle.Close()) }()
		require.NoError(t, idle.Pause())
		require.NoError(t, idle.Subscribe("T", mq.All))
		push(t, b, "G", "T", p.handle, o)
		sendKeyed(t, b, "T", 100, 102, "bad", "good")
		pass(time.Second)
		require.Empty(t, p.of("bad"))
		require.Equal(t, []string{"101"}, p.of("good"))
		require.NoError(t, idle.Resume())
		pass(time.Second)
		require.Equal(t, bodiesTo(101), p.of("bad"))
	})
}

// TestParkedNoKey: messages without a key are the order of their queue, and not
// parked where nobody comes behind them; where keys are in the queue too, they are
// like one.
func TestParkedNoKey(t *testing.T) {
	t.Parallel()
	for _, mixed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 1)
			p := poison{bad: func(m *mq.Message) bool { return m.ShardingKey == "" }}
			push(t, b, "G", "T", p.handle, &mq.PushOptions{Ordered: true, PrefetchMessages: 10})
			if mixed {
				sendKeyed(t, b, "T", 0, 100, "", "key")
			} else {
				sendBodies(t, b, "T", 100)
			}
			pass(10 * time.Second)
			require.Equal(t, mixed, slices.Contains(b.Topics(), mq.ParkedTopic("G", "T")))
			p.free()
			pass(2 * time.Second)
			require.Zero(t, lag(t, b, "G"))
			if mixed {
				require.Equal(t, every(0, 2, 100), p.of(""))
				require.Equal(t, every(1, 2, 100), p.of("key"))
			} else {
				require.Equal(t, bodiesTo(100), p.of(""))
			}
		})
	}
}

// TestParkedDies: attempts count across parking, the last one makes a dead letter
// with the place it came from, and the next message of the key goes on.
func TestParkedDies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 2)
		p := poison{bad: func(m *mq.Message) bool { return string(m.Body) == "0" || string(m.Body) == "50" }}
		push(t, b, "G", "T", p.handle, &mq.PushOptions{Ordered: true, PrefetchMessages: 8, MaxAttempts: 5})
		sendKeyed(t, b, "T", 0, 100, "bad")
		pass(3500 * time.Millisecond)
		require.Len(t, p.failed(), 4)
		require.Empty(t, p.of("bad"))
		pass(1 * time.Second)
		require.Equal(t, every(1, 1, 50), p.of("bad"))
		pass(10 * time.Second)
		require.Equal(t, append(every(1, 1, 50), every(51, 1, 100)...), p.of("bad"))
		require.Len(t, p.failed(), 10)
		dead := deadLetters(t, b, "G")
		require.Equal(t, []string{"0", "50"}, bodiesOf(dead))
		for _, m := range dead {
			require.Equal(t, []any{"T", 5, errBroken.Error()}, []any{m.Origin.Topic, m.Origin.Attempts, m.Origin.LastError})
			require.Equal(t, p.failed()[0].Queue, m.Origin.Queue)
		}
		require.Equal(t, mq.Offset(50), dead[1].Origin.Offset)
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestParkedSurvive: what is parked is found again when the store is opened, and
// stays in order with what comes then.
func TestParkedSurvive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const n, keys = 2000, 7
	names := []string{"bad0", "bad1", "c", "d", "e", "f", "g"}
	o := &mq.PushOptions{Ordered: true, PrefetchMessages: 16, Backoff: func(int) time.Duration { return time.Millisecond }}
	var got []string // by all lives
	for life := range 4 {
		b := mqtest.OpenDir(t, dir, written())
		if life == 0 {
			createTopic(t, b, "T", 1)
		}
		p := poison{bad: badKeys("bad")}
		c := push(t, b, "G", "T", p.handle, o)
		sendKeyed(t, b, "T", life*n, (life+1)*n, names...)
		if life == 3 {
			p.free()
			consumed(t, b, "G")
			got = p.of("bad0")
			require.Len(t, p.of("bad1"), len(every(1, keys, 4*n)))
			require.True(t, slices.IsSortedFunc(p.of("bad1"), byNumber))
		} else {
			mqtest.Eventually(t, func() bool { return len(p.of("c"))+len(p.of("d")) >= 2*n/keys }, "others go on")
		}
		require.NoError(t, c.Close())
		require.NoError(t, b.Close())
	}
	require.Equal(t, every(0, keys, 4*n), got)
}

func byNumber(a, b string) int {
	var x, y int
	_, _ = fmt.Sscan(a, &x)
	_, _ = fmt.Sscan(b, &y)
	return x - y
}

// TestParkedReset: parked messages are moved with their queue.
func TestParkedReset(t *testing.T) {
	t.Parallel()
	for name, to := range map[string]mq.Whence{
		"earliest": mq.Earliest, "latest": mq.Latest, "offset": mq.AtOffset(mq.Queue{Topic: "T"}, 40),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := mqtest.OpenMemory(t, written())
				createTopic(t, b, "T", 2)
				p := poison{bad: badKeys("bad")}
				push(t, b, "G", "T", p.handle, &mq.PushOptions{Ordered: true, PrefetchMessages: 8})
				first, other := "bad"+keyOf(0), "bad"+keyOf(1)
				sendKeyed(t, b, "T", 0, 100, first)
				sendKeyed(t, b, "T", 100, 200, other)
				pass(10 * time.Millisecond)
				require.Greater(t, parked(t, b, "G"), 180)
				pass(2500 * time.Millisecond) // their first messages were tried from there
				require.NoError(t, b.ResetOffset("G", "T", to))
				pass(10 * time.Millisecond)
				p.free()
				pass(2 * time.Second)
				want := map[string][]string{
					"earliest": every(0, 1, 100), "latest": {}, "offset": every(40, 1, 100),
				}[name]
				require.Equal(t, want, p.of(first))
				if name == "latest" {
					require.Empty(t, p.of(other))
				} else {
					require.Equal(t, every(100, 1, 200), p.of(other))
				}
				require.Zero(t, lag(t, b, "G"))
			})
		})
	}
}

// keyOf returns an ending that makes "bad" a key of that queue of two.
func keyOf(queue mq.QueueID) string {
	for i := 0; ; i++ {
		if mq.ByShardingKey(&mq.Message{ShardingKey: fmt.Sprint("bad", i)}, 2) == queue {
			return fmt.Sprint(i)
		}
	}
}

// TestParkedGoWithTopicAndGroup: nothing is left of what was parked.
func TestParkedGoWithTopicAndGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		o := &mq.PushOptions{Ordered: true, PrefetchMessages: 8}
		block := func(group, topic string) *mq.PushConsumer {
			p := poison{bad: badKeys("bad")}
			c := push(t, b, group, topic, p.handle, o)
			sendKeyed(t, b, topic, 0, 100, "bad")
			pass(10 * time.Millisecond)
			require.Contains(t, b.Topics(), mq.ParkedTopic(group, topic))
			return c
		}
		createTopic(t, b, "T", 1)
		createTopic(t, b, "U", 1)
		one := block("G", "T")
		block("H", "T")
		two := block("G", "U")
		require.NoError(t, b.DeleteTopic("T"))
		require.Equal(t, []string{mq.ParkedTopic("G", "U"), "U"}, b.Topics())
		createTopic(t, b, "T", 1)
		var in inbox
		push(t, b, "G", "T", in.handle, o)
		sendKeyed(t, b, "T", 0, 100, "bad")
		pass(10 * time.Millisecond)
		require.Equal(t, every(0, 1, 100), in.bodies(), "nothing of the old topic, and nothing waits for it")
		require.NoError(t, one.Close())
		require.NoError(t, two.Close())
		require.ErrorIs(t, b.DeleteGroup("G"), mq.ErrGroupActive)
	})
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		p := poison{bad: badKeys("bad")}
		c := push(t, b, "G", "T", p.handle, &mq.PushOptions{Ordered: true, PrefetchMessages: 8})
		sendKeyed(t, b, "T", 0, 100, "bad")
		pass(10 * time.Millisecond)
		require.NoError(t, c.Close())
		require.NoError(t, b.DeleteGroup("G"))
		require.Equal(t, []string{"T"}, b.Topics())
	})
}

// TestParkedUnsubscribe: they come again to who subscribes again, and to members
// that take over.
func TestParkedUnsubscribe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		p := poison{bad: badKeys("bad")}
		o := &mq.PushOptions{Ordered: true, PrefetchMessages: 8}
		c := push(t, b, "G", "T", p.handle, o)
		sendKeyed(t, b, "T", 0, 100, "bad", "good")
		pass(10 * time.Millisecond)
		require.NoError(t, c.Unsubscribe("T"))
		require.Empty(t, c.Assigned())
		tried := len(p.failed())
		pass(10 * time.Second)
		require.Len(t, p.failed(), tried)
		push(t, b, "G", "T", p.handle, o)
		require.NoError(t, c.Close())
		pass(10 * time.Second)
		require.Greater(t, len(p.failed()), tried)
		p.free()
		pass(2 * time.Second)
		require.Equal(t, every(0, 2, 100), p.of("bad"))
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestParkedOtherKinds: a group that was ordered, and is not any more, or is a
// simple one now, gets what was parked; in an ordered one still in order.
func TestParkedOtherKinds(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"unordered", "simple", "simple ordered"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 1)
			p := poison{bad: badKeys("bad")}
			c := push(t, b, "G", "T", p.handle, &mq.PushOptions{Ordered: true, PrefetchMessages: 8})
			sendKeyed(t, b, "T", 0, 300, "bad1", "bad2", "bad3")
			mqtest.Eventually(t, func() bool { return parked(t, b, "G") > 290 }, "parked")
			require.NoError(t, c.Close())
			sendKeyed(t, b, "T", 300, 330, "bad1", "bad2", "bad3")
			if kind == "unordered" {
				var in inbox
				push(t, b, "G", "T", in.handle, nil)
				in.await(t, 330)
				consumed(t, b, "G")
				require.Len(t, in.bodies(), 330)
				return
			}
			s, err := b.NewSimpleConsumer("G", &mq.SimpleOptions{Ordered: kind != "simple", PrefetchMessages: 50})
			require.NoError(t, err)
			defer func() { require.NoError(t, s.Close()) }()
			require.NoError(t, s.Subscribe("T", mq.All))
			var j journal
			for n := 0; n < 330; {
				ms, err := s.Receive(t.Context(), 10, time.Minute)
				require.NoError(t, err)
				for _, m := range ms {
					j.note(m)
				}
				n += len(ms)
				require.NoError(t, s.Ack(t.Context(), ms...))
			}
			require.Zero(t, lag(t, b, "G"))
			for i, key := range []string{"bad1", "bad2", "bad3"} {
				require.Len(t, j.of(key), 110)
				if kind != "simple" {
					require.Equal(t, every(i, 3, 330), j.of(key))
				}
			}
		})
	}
}

// TestParkedConsumedOutOfOrder: what a member of another kind has consumed of a
// blocked key, behind messages that it has not, does not come again when the group
// is ordered once more, and all the others come.
func TestParkedConsumedOutOfOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		p := poison{bad: badKeys("bad")}
		ordered := &mq.PushOptions{Ordered: true, PrefetchMessages: 4} // so one that waits is a part that is parked
		c := push(t, b, "G", "T", p.handle, ordered)
		sendKeyed(t, b, "T", 0, 20, "bad")
		pass(100 * time.Millisecond)
		require.Equal(t, 20, parked(t, b, "G"))
		require.NoError(t, c.Close())

		s, err := b.NewSimpleConsumer("G", nil)
		require.NoError(t, err)
		require.NoError(t, s.Subscribe("T", mq.All))
		ms, err := s.Receive(t.Context(), 20, time.Minute)
		require.NoError(t, err)
		require.Equal(t, bodiesTo(20), bodiesOf(ms))
		require.NoError(t, s.Ack(t.Context(), ms[3:5]...))
		require.NoError(t, s.Close())

		p.free()
		push(t, b, "G", "T", p.handle, ordered)
		pass(time.Minute)
		require.Equal(t, slices.Delete(bodiesTo(20), 3, 5), p.of("bad"))
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestParkedRefused: who is refused for another filter gets nothing that is parked
// either.
func TestParkedRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 2)
		p := poison{bad: badKeys("bad")}
		o := &mq.PushOptions{Ordered: true, PrefetchMessages: 4} // so one that waits is a part that is parked
		push(t, b, "G", "T", p.handle, o)
		sendKeyed(t, b, "T", 0, 100, "bad1", "bad2", "bad3")
		pass(100 * time.Millisecond)
		require.Equal(t, 100, parked(t, b, "G"))
		c, err := b.NewPushConsumer("G", p.handle, o)
		require.NoError(t, err)
		require.ErrorIs(t, c.Subscribe("T", mq.Tags("other")), mq.ErrSubscriptionMismatch)
		require.Empty(t, c.Assigned())
		require.NoError(t, c.Close())
	})
}

// TestParkedNames: nobody but the engine makes the topic or sends to it, and it
// cannot be filtered, for its index has no tags.
func TestParkedNames(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	name := mq.ParkedTopic("G", "T")
	require.ErrorIs(t, b.CreateTopic(name, nil), mq.ErrInvalidName)
	_, err := newProducer(t, b, nil).Send(t.Context(), &mq.Message{Topic: name})
	require.ErrorIs(t, err, mq.ErrInvalidName)
	_, err = b.NewPullConsumer("%PARK%G", nil)
	require.ErrorIs(t, err, mq.ErrInvalidName)
	_, err = b.Topic(name)
	require.ErrorIs(t, err, mq.ErrTopicNotFound)
	c, err := b.NewPullConsumer("H", nil)
	require.NoError(t, err)
	require.ErrorIs(t, c.Subscribe(name, mq.Tags("a")), mq.ErrInvalidFilter)
	require.NoError(t, c.Close())
}

// TestParkedGrow: a topic that gets more queues parks in as many.
func TestParkedGrow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		p := poison{bad: badKeys("bad")}
		push(t, b, "G", "T", p.handle, &mq.PushOptions{Ordered: true, PrefetchMessages: 8})
		sendKeyed(t, b, "T", 0, 50, "bad")
		pass(10 * time.Millisecond)
		require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Queues: 3}))
		var names []string
		for i := range 10 {
			names = append(names, fmt.Sprint("bad", i))
		}
		sendKeyed(t, b, "T", 0, 1000, names...)
		pass(10 * time.Millisecond)
		info, err := b.Topic(mq.ParkedTopic("G", "T"))
		require.NoError(t, err)
		require.Equal(t, 3, info.Queues)
		require.Greater(t, parked(t, b, "G"), 1000)
		p.free()
		pass(3 * time.Second)
		require.Zero(t, lag(t, b, "G"))
		for i, name := range names {
			require.Equal(t, every(i, 10, 1000), p.of(name))
		}
	})
}

// TestParkedBesideEverything: random keys fail at random, in small windows, while
// members come and go and the store is closed and opened: each key's messages are
// handled one at a time, in order, and consumed once.
func TestParkedBesideEverything(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	const keys, perLife, lives = 40, 1500, 3
	var mu sync.Mutex
	handling := map[string]bool{}
	next := map[string]int{}
	sick := map[string]int{} // deliveries that fail
	var faults []string
	sent := map[string]int{}
	dice := rand.New(rand.NewPCG(seed, 1)) // under mu
	handler := func(ctx context.Context, m *mq.Message) error {
		mu.Lock()
		key := m.ShardingKey
		var i int
		_, _ = fmt.Sscan(string(m.Body), &i)
		if handling[key] {
			faults = append(faults, fmt.Sprintf("key %s: two at a time", key))
		}
		if i != next[key] {
			faults = append(faults, fmt.Sprintf("key %s: got %d (attempt %d), want %d", key, i, m.Attempt, next[key]))
		}
		handling[key] = true
		nap := dice.IntN(30) == 0
		mu.Unlock()
		if nap {
			<-time.After(time.Duration(100) * time.Microsecond)
		}
		mu.Lock()
		defer mu.Unlock()
		handling[key] = false
		if sick[key] > 0 {
			sick[key]--
			return errors.New("sick")
		}
		if dice.IntN(50) == 0 {
			sick[key] = dice.IntN(40)
			return errors.New("falls ill")
		}
		next[key] = i + 1
		return nil
	}
	for life := range lives {
		b := mqtest.OpenDir(t, dir, &mq.Options{Durability: mq.Written, SegmentBytes: 1 << 20})
		if life == 0 {
			createTopic(t, b, "T", 2)
		}
		o := &mq.PushOptions{
			Ordered: true, Concurrency: 1 + rnd.IntN(6), PrefetchMessages: 1 + rnd.IntN(60),
			Backoff: func(int) time.Duration { return time.Millisecond },
		}
		var members []*mq.PushConsumer
		join := func() { members = append(members, push(t, b, "G", "T", handler, o)) }
		join()
		p := newProducer(t, b, nil)
		for i := range perLife {
			key := fmt.Sprint(rnd.IntN(1 + rnd.IntN(keys)))
			_, err := p.Send(t.Context(), &mq.Message{Topic: "T", ShardingKey: key, Body: fmt.Append(nil, sent[key])})
			require.NoError(t, err)
			sent[key]++
			switch {
			case i%100 == 0 && len(members) < 4:
				join()
			case i%130 == 0 && len(members) > 1:
				require.NoError(t, members[0].Close())
				members = members[1:]
			case i%170 == 0:
				require.NoError(t, members[0].Pause())
				require.NoError(t, members[0].Resume())
			}
		}
		if life == lives-1 {
			consumed(t, b, "G")
		}
		for _, c := range members {
			require.NoError(t, c.Close())
		}
		require.NoError(t, b.Close())
	}
	require.Empty(t, faults)
	require.Equal(t, sent, next)
}

// TestParkedTrack: what is parked is not consumed.
func TestParkedTrack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		p := poison{bad: badKeys("bad")}
		push(t, b, "G", "T", p.handle, &mq.PushOptions{Ordered: true, PrefetchMessages: 8})
		ms := numbered("T", 0, 60)
		for i, m := range ms {
			m.ShardingKey = []string{"bad", "good"}[i%2]
		}
		sent := send(t, b, ms...)
		states := func(from int) (states []mq.TrackState) {
			for i := from; i < len(sent); i += 2 {
				tracks, err := b.MessageTrack(sent[i].ID)
				require.NoError(t, err)
				require.Len(t, tracks, 1)
				states = append(states, tracks[0].State)
			}
			return states
		}
		pass(100 * time.Millisecond)
		require.Greater(t, parked(t, b, "G"), 20)
		require.Equal(t, slices.Repeat([]mq.TrackState{mq.Consumed}, 30), states(1))
		require.Equal(t, append([]mq.TrackState{mq.Retrying}, slices.Repeat([]mq.TrackState{mq.NotConsumedYet}, 29)...), states(0))
		p.free()
		pass(2 * time.Second)
		require.Equal(t, slices.Repeat([]mq.TrackState{mq.Consumed}, 30), states(0))
	})
}
