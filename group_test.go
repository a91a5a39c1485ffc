package mq_test

import (
	"context"
	"fmt"
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

func TestTwoMembersShareFourQueues(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 4)
	ignore := func(context.Context, *mq.Message) error { return nil }
	one := push(t, b, "G", "T", ignore, nil)
	require.Equal(t, queuesOf("T", 0, 1, 2, 3), one.Assigned())
	two := push(t, b, "G", "T", ignore, nil)
	require.Equal(t, queuesOf("T", 0, 1), one.Assigned())
	require.Equal(t, queuesOf("T", 2, 3), two.Assigned())
	require.NoError(t, one.Close())
	require.Empty(t, one.Assigned())
	require.Equal(t, queuesOf("T", 0, 1, 2, 3), two.Assigned())
}

// averagely is RocketMQ's AllocateMessageQueueAveragely, word for word: what the
// member with this index gets.
func averagely(members []string, queues []mq.Queue, index int) []mq.Queue {
	mod := len(queues) % len(members)
	size := 1
	if len(queues) > len(members) {
		size = len(queues) / len(members)
		if mod > 0 && index < mod {
			size++
		}
	}
	start := index*size + mod
	if mod > 0 && index < mod {
		start = index * size
	}
	got := []mq.Queue{}
	for i := range min(size, len(queues)-start) {
		got = append(got, queues[(start+i)%len(queues)])
	}
	return got
}

func TestAveragelyIsRocketMQs(t *testing.T) {
	t.Parallel()
	for count := 1; count <= 20; count++ {
		for n := range 40 {
			members, queues := membersTo(count), queuesTo(n)
			dealt := mq.Averagely(members, queues)
			for i, m := range members {
				require.Equal(t, averagely(members, queues, i), append([]mq.Queue{}, dealt[m]...), "member %d of %d, %d queues", i, count, n)
			}
		}
	}
}

func TestByCircleIsRocketMQs(t *testing.T) {
	t.Parallel()
	for count := 1; count <= 10; count++ {
		for n := range 20 {
			members, queues := membersTo(count), queuesTo(n)
			dealt := mq.ByCircle(members, queues)
			for i, m := range members {
				want := []mq.Queue{}
				for at := i; at < n; at++ {
					if at%count == i {
						want = append(want, queues[at])
					}
				}
				require.Equal(t, want, append([]mq.Queue{}, dealt[m]...))
			}
		}
	}
}

func membersTo(n int) (members []string) {
	for i := range n {
		members = append(members, fmt.Sprintf("m%02d", i))
	}
	return members
}

func queuesTo(n int) []mq.Queue {
	queues := []mq.Queue{}
	for i := range n {
		queues = append(queues, mq.Queue{Topic: "T", ID: mq.QueueID(i)})
	}
	return queues
}

// TestStrategies: what a function says is done as far as it makes sense, and one
// that panics takes nothing down.
func TestStrategies(t *testing.T) {
	t.Parallel()
	type deal = map[string][]mq.Queue
	rows := []struct {
		name     string
		strategy mq.Strategy
		a, b     []mq.Queue
	}{
		{"averagely", nil, queuesOf("T", 0, 1), queuesOf("T", 2, 3)},
		{"by circle", mq.ByCircle, queuesOf("T", 0, 2), queuesOf("T", 1, 3)},
		{"manual", mq.Manual(deal{"a": queuesOf("T", 3), "b": queuesOf("T", 0, 2)}), queuesOf("T", 3), queuesOf("T", 0, 2)},
		{"manual over topics", mq.Manual(deal{"a": queuesOf("U", 0), "b": queuesOf("T", 0)}), queuesOf(""), queuesOf("T", 0)},
		{"function", func(members []string, queues []mq.Queue) deal {
			return deal{members[len(members)-1]: queues}
		}, queuesOf(""), queuesOf("T", 0, 1, 2, 3)},
		{"queues twice", func(_ []string, queues []mq.Queue) deal {
			return deal{"a": queues[:3], "b": append(queues[1:], queues...)}
		}, queuesOf("T", 0, 1, 2), queuesOf("T", 3)},
		{"what is not there", func([]string, []mq.Queue) deal {
			return deal{"c": queuesOf("T", 0), "a": queuesOf("T", -1, 4, 1), "b": nil}
		}, queuesOf("T", 1), queuesOf("")},
		{"nothing", func([]string, []mq.Queue) deal { return nil }, queuesOf(""), queuesOf("")},
		{"averagely among nobody", func(_ []string, queues []mq.Queue) deal { return mq.Averagely(nil, queues) }, queuesOf(""), queuesOf("")},
		{"by circle among nobody", func(_ []string, queues []mq.Queue) deal { return mq.ByCircle(nil, queues) }, queuesOf(""), queuesOf("")},
		{"averagely, and more", func(members []string, queues []mq.Queue) deal {
			dealt := mq.Averagely(members, queues)
			dealt["a"] = append(dealt["a"], queues[3])
			return dealt
		}, queuesOf("T", 0, 1, 3), queuesOf("T", 2)},
		{"panics", func([]string, []mq.Queue) deal { panic("strategy") }, queuesOf("T", 0, 1), queuesOf("T", 2, 3)},
		{"scribbles and panics", func(members []string, queues []mq.Queue) deal {
			clear(members)
			clear(queues)
			panic("strategy")
		}, queuesOf("T", 0, 1), queuesOf("T", 2, 3)},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := mqtest.OpenMemory(t, nil)
			createTopic(t, b, "T", 4)
			one := pull(t, b, "G", "T", &mq.PullOptions{Instance: "a", Strategy: row.strategy})
			two := pull(t, b, "G", "T", &mq.PullOptions{Instance: "b"})
			require.Equal(t, row.a, one.Assigned())
			require.Equal(t, row.b, two.Assigned())
			require.NoError(t, two.Close(), "no lock was left behind")
		})
	}
}

// TestMembersBeyondQueues wait, and take over.
func TestMembersBeyondQueues(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 1)
	one, two := pull(t, b, "G", "T", nil), pull(t, b, "G", "T", nil)
	require.Empty(t, two.Assigned())
	require.NoError(t, one.Close())
	require.Equal(t, queuesOf("T", 0), two.Assigned())
}

// TestTopicsAreDealtOneByOne among those who subscribe to them.
func TestTopicsAreDealtOneByOne(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 2)
	createTopic(t, b, "U", 2)
	one, two := pull(t, b, "G", "T", nil), pull(t, b, "G", "U", nil)
	require.Equal(t, queuesOf("T", 0, 1), one.Assigned())
	require.Equal(t, queuesOf("U", 0, 1), two.Assigned())
	require.NoError(t, one.Subscribe("U", mq.All))
	require.Equal(t, append(queuesOf("T", 0, 1), queuesOf("U", 0)...), one.Assigned())
	require.Equal(t, queuesOf("U", 1), two.Assigned())
}

func TestGroupKinds(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	ignore := func(context.Context, *mq.Message) error { return nil }
	kinds := map[string]func() (interface{ Close() error }, error){
		"push": func() (interface{ Close() error }, error) { return b.NewPushConsumer("G", ignore, nil) },
		"push ordered": func() (interface{ Close() error }, error) {
			return b.NewPushConsumer("G", ignore, &mq.PushOptions{Ordered: true})
		},
		"push broadcasting": func() (interface{ Close() error }, error) {
			return b.NewPushConsumer("G", ignore, &mq.PushOptions{Model: mq.Broadcasting, Instance: "i"})
		},
		"pull": func() (interface{ Close() error }, error) { return b.NewPullConsumer("G", nil) },
		"pull broadcasting": func() (interface{ Close() error }, error) {
			return b.NewPullConsumer("G", &mq.PullOptions{Model: mq.Broadcasting, Instance: "i"})
		},
	}
	for name, join := range kinds {
		first, err := join()
		require.NoError(t, err, name)
		for other, join := range kinds {
			if other != name {
				_, err := join()
				require.ErrorIs(t, err, mq.ErrGroupKind, "%s beside %s", other, name)
			}
		}
		info, err := b.Group("G")
		require.NoError(t, err)
		require.Len(t, info.Members, 1, "who was refused is no member")
		require.NoError(t, first.Close(), "afterwards the group may be of another kind")
	}
}

func TestInstanceInUse(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	for _, model := range []mq.Model{mq.Clustering, mq.Broadcasting} {
		one, err := b.NewPullConsumer("G", &mq.PullOptions{Model: model, Instance: "a"})
		require.NoError(t, err)
		_, err = b.NewPullConsumer("G", &mq.PullOptions{Model: model, Instance: "a"})
		require.ErrorIs(t, err, mq.ErrInstanceInUse)
		require.ErrorContains(t, err, `"a"`)
		other, err := b.NewPullConsumer("H", &mq.PullOptions{Model: model, Instance: "a"})
		require.NoError(t, err, "in another group it is another one")
		require.NoError(t, one.Close())
		one, err = b.NewPullConsumer("G", &mq.PullOptions{Model: model, Instance: "a"})
		require.NoError(t, err)
		require.Equal(t, "a", one.Name())
		require.NoError(t, one.Close())
		require.NoError(t, other.Close())
	}
}

func TestGroupsAreListed(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 4)
	one := pull(t, b, "G", "T", nil)
	two := pull(t, b, "G", "T", &mq.PullOptions{Instance: "b"})
	require.NoError(t, two.Subscribe("U", mq.All))
	push(t, b, "H", "T", func(context.Context, *mq.Message) error { return nil },
		&mq.PushOptions{Model: mq.Broadcasting, Instance: "i"})
	require.Equal(t, []string{"G", "H"}, b.Groups())
	info, err := b.Group("G")
	require.NoError(t, err)
	u := mq.Queue{Topic: "U"}
	want := []mq.MemberInfo{
		{Name: one.Name(), Pull: true, Queues: queuesOf("T", 0, 1)},
		{Name: "b", Pull: true, Queues: append(queuesOf("T", 2, 3), u, mq.Queue{Topic: "U", ID: 1}, mq.Queue{Topic: "U", ID: 2}, mq.Queue{Topic: "U", ID: 3})},
	}
	slices.SortFunc(want, func(a, b mq.MemberInfo) int { return int(a.Name[0]) - int(b.Name[0]) })
	require.Equal(t, mq.GroupInfo{Name: "G", Topics: []string{"T", "U"}, Members: want}, info)
	info, err = b.Group("H")
	require.NoError(t, err)
	require.Equal(t, mq.Broadcasting, info.Members[0].Model)
	_, err = b.Group("None")
	require.ErrorIs(t, err, mq.ErrGroupNotFound)
}

func TestGroupDeleted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 3)
	c := pull(t, b, "G", "T", nil)
	ms := poll(t, c, 3)
	require.NoError(t, c.Commit(t.Context()))
	require.ErrorIs(t, b.DeleteGroup("G"), mq.ErrGroupActive)
	require.NoError(t, c.Close())
	require.NoError(t, b.DeleteGroup("G"))
	require.ErrorIs(t, b.DeleteGroup("G"), mq.ErrGroupNotFound)
	require.Empty(t, b.Groups())
	_, _, err := b.Lag("G")
	require.ErrorIs(t, err, mq.ErrGroupNotFound)

	c = pull(t, b, "G", "T", nil)
	require.ErrorIs(t, c.Commit(t.Context(), ms...), mq.ErrStale, "delivered to the group of that name before")
	require.Equal(t, bodiesTo(3), bodiesOf(poll(t, c, 3)), "it begins anew")
	require.NoError(t, c.Commit(t.Context()))
	require.NoError(t, c.Close())
	require.NoError(t, b.DeleteGroup("G"))
	require.NoError(t, b.Close())
	require.Empty(t, mqtest.OpenDir(t, dir, written()).Groups())
}

// TestGroupStarts where its first member says, for good.
func TestGroupStarts(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 2)
	sendBodies(t, b, "T", 10)
	ms := poll(t, pull(t, b, "Look", "T", nil), 10)
	// The clock of the log is coarse: wait until a message has another time.
	var later time.Time
	p := newProducer(t, b, nil)
	mqtest.Eventually(t, func() bool {
		r, err := p.Send(t.Context(), &mq.Message{Topic: "T", Body: []byte("late")})
		require.NoError(t, err)
		m, err := b.MessageByID(r.ID)
		require.NoError(t, err)
		later = m.StoredAt
		return later.After(ms[9].StoredAt)
	}, "time passes")
	total := b.Stats().Messages
	rows := []struct {
		from mq.Whence
		want int64
	}{
		{mq.Earliest, total},
		{mq.Latest, 0},
		{mq.At(ms[0].StoredAt.Add(-time.Hour)), total},
		{mq.At(ms[0].StoredAt), total},
		{mq.At(later), 1},
		{mq.At(later.Add(-time.Microsecond)), 1},
		{mq.At(later.Add(time.Microsecond)), 0},
		{mq.At(later.Add(time.Hour)), 0},
	}
	for i, row := range rows {
		group := fmt.Sprint("G", i)
		c := pull(t, b, group, "T", &mq.PullOptions{From: row.from})
		require.Equal(t, row.want, lag(t, b, group), row.from.String())
		poll(t, c, int(row.want))
		nothingMore(t, c)
		require.NoError(t, c.Close())
		c = pull(t, b, group, "T", &mq.PullOptions{From: mq.Earliest})
		require.Equal(t, row.want, lag(t, b, group), "the first start counts")
		require.NoError(t, c.Close())
	}
}

func TestGroupsAreIndependent(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	stuck := newGate()
	push(t, b, "Stuck", "T", stuck.handle, nil)
	var fine inbox
	push(t, b, "Fine", "T", fine.handle, nil)
	sendBodies(t, b, "T", 50)
	fine.await(t, 50)
	consumed(t, b, "Fine")
	require.Equal(t, int64(50), lag(t, b, "Stuck"))
	stuck.open()
	consumed(t, b, "Stuck")
}

// crowd counts every delivery of a topic's messages and notices what comes in
// another order than it was sent in.
type crowd struct {
	mu       sync.Mutex
	times    map[string]int // by body
	last     map[string]int // by sharding key: number of the newest
	handling map[string]bool
	faults   []string
}

func newCrowd() *crowd {
	return &crowd{times: map[string]int{}, last: map[string]int{}, handling: map[string]bool{}}
}

func (c *crowd) handle(_ context.Context, m *mq.Message) error {
	body, key := string(m.Body), m.ShardingKey
	c.mu.Lock()
	c.times[body]++
	if key != "" {
		var n int
		_, _ = fmt.Sscan(body, &n)
		if before, ok := c.last[key]; ok && n <= before {
			c.faults = append(c.faults, fmt.Sprintf("key %s: %d after %d", key, n, before))
		}
		if c.handling[key] {
			c.faults = append(c.faults, fmt.Sprintf("key %s: two at once", key))
		}
		c.last[key], c.handling[key] = n, true
	}
	c.mu.Unlock()
	c.mu.Lock() // somebody else may come in between
	c.handling[key] = false
	c.mu.Unlock()
	return nil
}

func (c *crowd) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.times)
}

// verify checks that each of n messages came exactly once, and in order.
func (c *crowd) verify(t *testing.T, n int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for body, times := range c.times {
		require.Equal(t, 1, times, "message %s", body)
	}
	require.Len(t, c.times, n)
	require.Empty(t, c.faults)
}

// TestMembersComeAndGoUnderLoad: no message twice, none lost, and no two of a key
// out of order or at once if the group is ordered.
func TestMembersComeAndGoUnderLoad(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprint("ordered=", ordered), func(t *testing.T) {
			t.Parallel()
			const n, keys = 6000, 37
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 5)
			crowd := newCrowd()
			o := &mq.PushOptions{Ordered: ordered, Concurrency: 4}
			push(t, b, "G", "T", crowd.handle, o)
			var sent atomic.Int64
			var sender sync.WaitGroup
			sender.Go(func() {
				p, _ := b.NewProducer(nil)
				for i, m := range numbered("T", 0, n) {
					if ordered {
						m.ShardingKey = fmt.Sprint(i % keys)
					}
					if _, err := p.Send(t.Context(), m); err != nil {
						t.Error(err)
					}
					sent.Add(1)
				}
			})
			var living []*mq.PushConsumer
			for i := 0; sent.Load() < n || i < 30; i++ {
				if len(living) < 4 {
					living = append(living, push(t, b, "G", "T", crowd.handle, o))
					continue
				}
				require.NoError(t, living[i%4].Close())
				living = slices.Delete(living, i%4, i%4+1)
			}
			sender.Wait()
			mqtest.Eventually(t, func() bool { return crowd.len() == n }, "all messages")
			consumed(t, b, "G")
			crowd.verify(t, n)
			require.Zero(t, b.Stats().Missed)
		})
	}
}

// TestLastMemberLeavesWhileHandling: who joins before the handler has returned
// does not get its message again.
func TestLastMemberLeavesWhileHandling(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 200)
		o := &mq.PushOptions{Ordered: ordered, Concurrency: 1}
		begun, release := make(chan string), make(chan struct{})
		free := sync.OnceFunc(func() { close(release) })
		one := push(t, b, "G", "T", func(_ context.Context, m *mq.Message) error {
			begun <- string(m.Body)
			<-release // whatever its context says
			return nil
		}, o)
		t.Cleanup(free)
		require.Equal(t, "0", <-begun)
		closed := make(chan error)
		go func() { closed <- one.Close() }()
		rest := newCrowd()
		mqtest.Eventually(t, func() bool { return len(one.Assigned()) == 0 }, "the first member has given up its queue")
		push(t, b, "G", "T", rest.handle, o)
		t.Cleanup(free) // before they are closed, should the test fail
		if ordered {
			require.Equal(t, int64(200), lag(t, b, "G"), "the rest comes after what is handled")
		} else {
			mqtest.Eventually(t, func() bool { return lag(t, b, "G") == 1 }, "the rest waits for nobody")
		}
		free()
		require.NoError(t, <-closed)
		consumed(t, b, "G")
		rest.verify(t, 199)
	}
}

// TestRebalancedHook tells what each member has, outside of all locks.
func TestRebalancedHook(t *testing.T) {
	t.Parallel()
	var b *mq.Broker
	var mu sync.Mutex
	var seen []mq.RebalancedInfo
	b = mqtest.OpenMemory(t, &mq.Options{Hooks: &mq.Hooks{Rebalanced: func(info mq.RebalancedInfo) {
		used := make(chan struct{})
		go func() { // a hook may use the broker
			_, _ = b.Group(info.Group)
			_ = b.Stats()
			close(used)
		}()
		select {
		case <-used:
		case <-time.After(5 * time.Second):
			t.Error("a lock is held")
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, info)
	}}})
	createTopic(t, b, "T", 2)
	pull(t, b, "G", "T", &mq.PullOptions{Instance: "a"})
	two := pull(t, b, "G", "T", &mq.PullOptions{Instance: "b"})
	require.NoError(t, two.Close())
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, "G", seen[0].Group)
	require.Contains(t, dealt(seen), map[string][]mq.Queue{"a": queuesOf("T", 0), "b": queuesOf("T", 1)})
	require.Equal(t, map[string][]mq.Queue{"a": queuesOf("T", 0, 1)}, seen[len(seen)-1].Queues)
}

func dealt(infos []mq.RebalancedInfo) (all []map[string][]mq.Queue) {
	for _, info := range infos {
		all = append(all, info.Queues)
	}
	return all
}

// TestStrategyKnowsNoRetries: what a list says of a topic is no reason that messages
// of it that failed, or were parked, come to nobody.
func TestStrategyKnowsNoRetries(t *testing.T) {
	t.Parallel()
	lists := mq.Manual(map[string][]mq.Queue{"a": queuesOf("T", 1), "b": queuesOf("T", 0)})
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 2)
			p := poison{bad: badKeys("bad")}
			o := mq.PushOptions{Instance: "a", Strategy: lists, Ordered: ordered, PrefetchMessages: 4} // so one that waits is a part that is parked
			one := push(t, b, "G", "T", p.handle, &o)
			o.Instance = "b"
			two := push(t, b, "G", "T", p.handle, &o)
			sendKeyed(t, b, "T", 0, 40, "bad1", "bad2", "bad3", "bad4")
			pass(time.Second / 2)
			require.NotEmpty(t, p.failed())
			if ordered {
				require.Equal(t, 40, parked(t, b, "G"))
				require.Equal(t, append(queuesOf(mq.ParkedTopic("G", "T"), 1), queuesOf("T", 1)...), one.Assigned())
				require.Equal(t, append(queuesOf(mq.ParkedTopic("G", "T"), 0), queuesOf("T", 0)...), two.Assigned())
			}
			p.free()
			pass(time.Hour)
			for i := range 4 {
				require.Len(t, p.of(fmt.Sprint("bad", i+1)), 10)
			}
			require.Zero(t, lag(t, b, "G"))
		})
	}
}

// TestManualIsCopied: lists are the caller's again when Manual has returned.
func TestManualIsCopied(t *testing.T) {
	t.Parallel()
	lists := map[string][]mq.Queue{"a": queuesOf("T", 0), "b": queuesOf("T", 1)}
	deal := mq.Manual(lists)
	lists["a"][0].ID = 7
	delete(lists, "b")
	require.Equal(t, map[string][]mq.Queue{"a": queuesOf("T", 0), "b": queuesOf("T", 1)}, deal(nil, nil))
}
