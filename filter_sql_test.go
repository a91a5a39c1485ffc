package mq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// sendAmounts stores n messages to a topic: message i has the amount i, and every
// third one a region.
func sendAmounts(t testing.TB, b *mq.Broker, topic string, n int) {
	t.Helper()
	ms := numbered(topic, 0, n)
	for i, m := range ms {
		m.Properties = map[string]string{"amount": strconv.Itoa(i)}
		if i%3 == 0 {
			m.Properties["region"] = "eu"
		}
	}
	send(t, b, ms...)
}

// from are the bodies first, first+step … below n.
func from(first, step, n int) []string {
	bodies := []string{}
	for i := first; i < n; i += step {
		bodies = append(bodies, strconv.Itoa(i))
	}
	return bodies
}

// sortedBodies are the bodies in the order of their numbers.
func sortedBodies(ms []*mq.Message) []string {
	bodies := bodiesOf(ms)
	slices.SortFunc(bodies, func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return x - y
	})
	return bodies
}

// sqlConsumers are all kinds of consumers: each takes n messages of T that the
// filter wants, and acknowledges them.
var sqlConsumers = map[string]func(t *testing.T, b *mq.Broker, group string, f mq.Filter, n int) []*mq.Message{
	"push": func(t *testing.T, b *mq.Broker, group string, f mq.Filter, n int) []*mq.Message {
		return pushed(t, b, group, f, n, nil)
	},
	"push ordered": func(t *testing.T, b *mq.Broker, group string, f mq.Filter, n int) []*mq.Message {
		return pushed(t, b, group, f, n, &mq.PushOptions{Ordered: true})
	},
	"broadcast": func(t *testing.T, b *mq.Broker, group string, f mq.Filter, n int) []*mq.Message {
		return pushed(t, b, group, f, n, &mq.PushOptions{Model: mq.Broadcasting, Instance: "one"})
	},
	"pull": func(t *testing.T, b *mq.Broker, group string, f mq.Filter, n int) []*mq.Message {
		c, err := b.NewPullConsumer(group, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", f))
		ms := poll(t, c, n)
		nothingMore(t, c)
		require.NoError(t, c.Commit(t.Context()))
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		return ms
	},
	"simple": func(t *testing.T, b *mq.Broker, group string, f mq.Filter, n int) []*mq.Message {
		return simply(t, b, group, f, n, nil)
	},
	"simple ordered": func(t *testing.T, b *mq.Broker, group string, f mq.Filter, n int) []*mq.Message {
		return simply(t, b, group, f, n, &mq.SimpleOptions{Ordered: true})
	},
}

func pushed(t *testing.T, b *mq.Broker, group string, f mq.Filter, n int, o *mq.PushOptions) []*mq.Message {
	t.Helper()
	var in inbox
	c, err := b.NewPushConsumer(group, in.handle, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	require.NoError(t, c.Subscribe("T", f))
	in.await(t, n)
	consumedOrSkipped(t, b, group)
	return in.messages()
}

func simply(t *testing.T, b *mq.Broker, group string, f mq.Filter, n int, o *mq.SimpleOptions) []*mq.Message {
	t.Helper()
	c := simple(t, b, group, o)
	require.NoError(t, c.Subscribe("T", f))
	var all []*mq.Message
	for len(all) < n { // an ordered group hands out one of a queue at a time
		ms := receiveFrom(t, c, 1, time.Hour)
		require.NoError(t, c.Ack(t.Context(), ms...))
		all = append(all, ms...)
	}
	nothingToReceive(t, c)
	return all
}

// TestSQLFilters: every kind of consumer gets what the condition wants, as it was
// sent, and what it does not want is acknowledged.
func TestSQLFilters(t *testing.T) {
	t.Parallel()
	const n = 120
	rows := map[string][]string{
		"amount >= 100":               from(100, 1, n),
		"region = 'eu'":               from(0, 3, n),
		"region IS NULL AND amount<6": {"1", "2", "4", "5"},
		"amount BETWEEN 50 AND 52.5":  from(50, 1, 53),
	}
	for kind, consume := range sqlConsumers {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 2)
			sendAmounts(t, b, "T", n)
			group := 0
			for expr, want := range rows {
				group++
				name := fmt.Sprint("G", group)
				ms := consume(t, b, name, mq.SQL(expr), len(want))
				require.Equal(t, want, sortedBodies(ms), expr)
				require.Equal(t, string(ms[0].Body), ms[0].Properties["amount"])
				consumedOrSkipped(t, b, name)
			}
			require.Zero(t, b.Stats().Missed)
		})
	}
}

// TestSQLColumns: what the names of an expression stand for.
func TestSQLColumns(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	send(t, b,
		&mq.Message{Topic: "T", Body: []byte("full"), Tag: "A", Keys: []string{"k1", "k2"}, ShardingKey: "s", Properties: map[string]string{"p": "1", "empty": "", "TAGS": "mine", "z": "9", "a": "0"}},
		&mq.Message{Topic: "T", Body: []byte("one key"), Keys: []string{"k1"}},
		&mq.Message{Topic: "T", Body: []byte("bare")},
		&mq.Message{Topic: "T", Body: []byte("odd"), Properties: map[string]string{"p": "x", "P": "1", "a.b": "1"}},
	)
	everything := []string{"full", "one key", "bare", "odd"}
	group := 0
	for expr, want := range map[string][]string{
		"TAGS = 'A'":                           {"full"},
		"TAGS = 'A' AND p = 1":                 {"full"}, // it has a property TAGS as well
		"TAGS IS NULL":                         {"one key", "bare", "odd"},
		"KEYS = 'k1 k2'":                       {"full"},
		"KEYS CONTAINS 'k1'":                   {"full", "one key"},
		"KEYS IS NULL":                         {"bare", "odd"},
		"__SHARDINGKEY = 's'":                  {"full"},
		"__SHARDINGKEY IS NULL OR z = 9":       everything,
		"p = 1":                                {"full"},
		"P = 1":                                {"odd"},
		"p IS NOT NULL AND z > 5 AND a < z":    {"full"},
		"empty = ''":                           {"full"},
		"empty IS NULL":                        {"one key", "bare", "odd"},
		"TRUE":                                 everything,
		"NOT (TAGS = 'A')":                     {}, // unknown without a tag
		"TAGS IS NULL OR TAGS <> 'A' OR p = 1": everything,
	} {
		group++
		c, err := b.NewPullConsumer(fmt.Sprint("G", group), nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", mq.SQL(expr)))
		require.Equal(t, want, bodiesOf(poll(t, c, len(want))), expr)
		nothingMore(t, c)
		require.NoError(t, c.Close())
	}
}

// TestBadSQL changes nothing, and says where.
func TestBadSQL(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	c, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	for expr, at := range map[string]int{
		"": 0, "amount >": 8, "amount != 5": 7, "a = 'x": 4, strings.Repeat("(", 1000): 100, strings.Repeat("a=1 OR ", 3000): 16 << 10, "\xff": 0,
	} {
		f := mq.SQL(expr)
		unchanged(t, b, func() {
			for _, err := range []error{c.Subscribe("T", f), b.Resubscribe("G", "T", f)} {
				require.ErrorIs(t, err, mq.ErrInvalidFilter)
				var where *mq.ExpressionError
				require.ErrorAs(t, err, &where)
				require.Equal(t, at, where.Offset, "%.40q", expr)
				require.Less(t, len(err.Error()), 1000)
			}
		})
	}
	require.NoError(t, c.Close())
}

// TestSQLThatMatchesNothing holds nothing, whoever consumes.
func TestSQLThatMatchesNothing(t *testing.T) {
	t.Parallel()
	for _, n := range []int{10, 3000} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 2)
			none := mq.SQL("amount < 0")
			got := newCrowd()
			c, err := b.NewPushConsumer("Push", got.handle, &mq.PushOptions{PrefetchMessages: 8})
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", none))
			p, err := b.NewPullConsumer("Pull", nil)
			require.NoError(t, err)
			require.NoError(t, p.Subscribe("T", none))
			s, err := b.NewSimpleConsumer("Simple", &mq.SimpleOptions{PrefetchMessages: 8})
			require.NoError(t, err)
			require.NoError(t, s.Subscribe("T", none))
			var waiting sync.WaitGroup
			waiting.Go(func() {
				if ms, err := p.Poll(t.Context(), 32); !errors.Is(err, mq.ErrClosed) {
					t.Error(ms, err)
				}
			})
			waiting.Go(func() {
				if ms, err := s.Receive(t.Context(), 32, time.Hour); !errors.Is(err, mq.ErrClosed) {
					t.Error(ms, err)
				}
			})
			sendAmounts(t, b, "T", n)
			pass(time.Second) // SyncEvery, and a little
			for _, group := range []string{"Push", "Pull", "Simple"} {
				require.Zero(t, lag(t, b, group), group)
			}
			require.Empty(t, got.times)
			require.Zero(t, b.Stats().Missed)
			require.NoError(t, errors.Join(c.Close(), p.Close(), s.Close()))
			waiting.Wait()
		})
	}
}

// TestSQLRetries: what was wanted once comes again, whatever the condition says
// of its copy, and with a filter as without.
func TestSQLRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendAmounts(t, b, "T", 10)
		var mu sync.Mutex
		attempts := map[string]int{}
		c, err := b.NewPushConsumer("G", func(_ context.Context, m *mq.Message) error {
			mu.Lock()
			defer mu.Unlock()
			attempts[string(m.Body)]++
			if m.Attempt < 3 {
				return errors.New("not yet")
			}
			return nil
		}, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", mq.SQL("amount > 7")))
		pass(time.Minute)
		require.NoError(t, b.Resubscribe("G", "T", mq.SQL("amount > 100")))
		pass(time.Hour)
		require.Equal(t, map[string]int{"8": 3, "9": 3}, attempts)
		require.Zero(t, lag(t, b, "G"))
		require.NoError(t, c.Close())
	})
}

// TestSQLMismatch: two members may write the same condition differently, and not
// mean different ones.
func TestSQLMismatch(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	one, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	two, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, one.Subscribe("T", mq.SQL("amount > 5 AND region = 'eu'")))
	require.NoError(t, two.Subscribe("T", mq.SQL("amount>5 and (region='eu') -- in Europe")))
	for _, f := range []mq.Filter{mq.All, mq.Tags("A"), mq.SQL("amount > 5"), mq.SQL("amount > 6 AND region = 'eu'")} {
		err := two.Subscribe("T", f)
		require.ErrorIs(t, err, mq.ErrSubscriptionMismatch)
		require.ErrorContains(t, err, "amount > 5 AND region = 'eu'")
	}
	require.NoError(t, b.Resubscribe("G", "T", mq.SQL("amount < 3")))
	require.ErrorIs(t, two.Subscribe("T", mq.All), mq.ErrSubscriptionMismatch)
	sendAmounts(t, b, "T", 12)
	require.Len(t, append(poll(t, one, 1), poll(t, two, 1)...), 2)
	require.NoError(t, errors.Join(one.Close(), two.Close()))
}

// TestFilterIsKept: what a group subscribed with last is known over restarts,
// resets, checkpoints and a rebuild of everything.
func TestFilterIsKept(t *testing.T) {
	t.Parallel()
	many := make([]string, 500)
	for i := range many {
		many[i] = fmt.Sprintf("%03d%s", i, strings.Repeat("x", 100))
	}
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 2)
	filters := []mq.Filter{mq.All, mq.Tags("A", "B || C", "d\x00e"), mq.SQL("amount > 5 AND TAGS = 'it''s'"), mq.SQL("a = '" + strings.Repeat("x", 16<<10-6) + "'")}
	for i, f := range append(filters, mq.Tags(many...)) {
		group := fmt.Sprint("G", i)
		c, err := b.NewPullConsumer(group, nil)
		require.NoError(t, err)
		if i != 0 {
			require.NoError(t, c.Subscribe("T", mq.SQL("x = 1"))) // before it was something else
		}
		require.NoError(t, c.Subscribe("T", f))
		now, err := b.Filter(group, "T")
		require.NoError(t, err)
		require.Equal(t, f.String(), now.String())
		unchanged(t, b, func() { require.NoError(t, c.Subscribe("T", f)) })
		require.NoError(t, c.Close())
		require.NoError(t, b.ResetOffset(group, "T", mq.Latest))
	}
	kept := func() {
		t.Helper()
		for i, f := range filters {
			group := fmt.Sprint("G", i)
			got, err := b.Filter(group, "T")
			require.NoError(t, err)
			require.Equal(t, f.String(), got.String())
			c, err := b.NewPullConsumer(group, nil)
			require.NoError(t, err)
			unchanged(t, b, func() { require.NoError(t, c.Subscribe("T", got), "it means the same") })
			require.NoError(t, c.Close())
		}
		_, err := b.Filter("G4", "T")
		require.ErrorIs(t, err, mq.ErrInvalidFilter, "too long to be kept")
	}
	kept()
	require.NoError(t, b.Close())
	b = mqtest.OpenDir(t, dir, written()) // from the checkpoint
	kept()
	require.NoError(t, b.Close())
	loseJournal(t, dir)
	b = mqtest.OpenDir(t, dir, written()) // from the log alone
	kept()
	_, err := b.Filter("None", "T")
	require.ErrorIs(t, err, mq.ErrGroupNotFound)
	_, err = b.Filter("G0", "None")
	require.ErrorIs(t, err, mq.ErrTopicNotFound)
	createTopic(t, b, "U", 1)
	_, err = b.Filter("G0", "U")
	require.ErrorIs(t, err, mq.ErrNotAssigned)
}
