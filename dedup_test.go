package mq_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// createDedup makes a topic of four queues with a window.
func createDedup(t testing.TB, b *mq.Broker, name string, w mq.DedupWindow) {
	t.Helper()
	require.NoError(t, b.CreateTopic(name, &mq.TopicConfig{Queues: 4, Dedup: w}))
}

func keyedMessage(topic, key string) *mq.Message {
	return &mq.Message{Topic: topic, DedupKey: key, Body: []byte("of " + key)}
}

// stored is how many messages a topic has.
func stored(t testing.TB, b *mq.Broker, topic string) int64 {
	t.Helper()
	info, err := b.Topic(topic)
	require.NoError(t, err)
	return info.Messages + info.Waiting
}

// again is the result of a repeat of what r was the result of.
func again(r mq.SendResult) mq.SendResult {
	r.Duplicate = true
	return r
}

// ways are all the ways to send one message. One-way sends tell nothing.
var ways = map[string]func(*testing.T, *mq.Producer, *mq.Message) mq.SendResult{
	"send": func(t *testing.T, p *mq.Producer, m *mq.Message) mq.SendResult {
		r, err := p.Send(t.Context(), m)
		require.NoError(t, err)
		return r
	},
	"batch": func(t *testing.T, p *mq.Producer, m *mq.Message) mq.SendResult {
		rs, err := p.SendBatch(t.Context(), []*mq.Message{m})
		require.NoError(t, err)
		require.Len(t, rs, 1)
		return rs[0]
	},
	"async": func(t *testing.T, p *mq.Producer, m *mq.Message) (r mq.SendResult) {
		done := make(chan error, 1)
		require.NoError(t, p.SendAsync(t.Context(), m, func(got mq.SendResult, err error) {
			r = got
			done <- err
		}))
		require.NoError(t, <-done)
		return r
	},
}

// TestDedup: whichever way a message is sent again, nothing is stored and the
// result is that of the first, also when the store was opened anew in between.
func TestDedup(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]*mq.Options{
		"synced": {}, "written": written(), "portable": {DisableMmap: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b := mqtest.OpenDir(t, dir, o)
			createDedup(t, b, "T", mq.DedupWindow{For: time.Hour})
			p := newProducer(t, b, nil)
			first := map[string]mq.SendResult{}
			for way, send := range ways {
				first[way] = send(t, p, keyedMessage("T", way))
				require.False(t, first[way].Duplicate)
			}
			require.NoError(t, p.SendOneWay(keyedMessage("T", "one-way")))
			all := func() {
				for key, r := range first {
					for way, send := range ways {
						require.Equal(t, again(r), send(t, p, keyedMessage("T", key)), "%s again by %s", key, way)
					}
					require.NoError(t, p.SendOneWay(keyedMessage("T", key)))
				}
				require.NoError(t, p.SendOneWay(keyedMessage("T", "one-way")))
				require.EqualValues(t, 4, stored(t, b, "T"))
			}
			all()
			require.EqualValues(t, 4, b.Stats().Sent)
			for _, lose := range []bool{false, true} { // from the checkpoint, from the log
				require.NoError(t, b.Close())
				if lose {
					loseJournal(t, dir)
				}
				b = mqtest.OpenDir(t, dir, o)
				p = newProducer(t, b, nil)
				all()
			}
			c := pull(t, b, "G", "T", nil)
			for _, m := range poll(t, c, 4) {
				require.Equal(t, "of "+m.DedupKey, string(m.Body))
			}
			nothingMore(t, c)
		})
	}
}

// TestDedupTopics: a key is one of its topic.
func TestDedupTopics(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createDedup(t, b, "A", mq.DedupWindow{For: time.Hour})
	createDedup(t, b, "B", mq.DedupWindow{For: time.Hour})
	rs := send(t, b, keyedMessage("A", "k"), keyedMessage("B", "k"), keyedMessage("A", "K"), keyedMessage("A", "k"))
	require.Equal(t, []bool{false, false, false, true}, []bool{rs[0].Duplicate, rs[1].Duplicate, rs[2].Duplicate, rs[3].Duplicate})
	require.NoError(t, b.DeleteTopic("A"))
	createDedup(t, b, "A", mq.DedupWindow{For: time.Hour})
	require.False(t, send(t, b, keyedMessage("A", "k"))[0].Duplicate, "another topic of that name")
}

// TestDedupBatch: of a batch only what is new is stored, and the results are in
// its order; also if a message is in it twice.
func TestDedupBatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, nil)
	createDedup(t, b, "T", mq.DedupWindow{For: time.Hour})
	createDedup(t, b, "U", mq.DedupWindow{For: time.Hour})
	p := newProducer(t, b, nil)
	first := send(t, b, keyedMessage("T", "a"))[0]
	batch := []*mq.Message{
		keyedMessage("T", "b"), keyedMessage("T", "a"), keyedMessage("T", "b"), {Topic: "T"}, keyedMessage("U", "b"), {Topic: "T"}, keyedMessage("T", "a"),
	}
	rs, err := p.SendBatch(t.Context(), batch)
	require.NoError(t, err)
	var repeats []int
	for i, r := range rs {
		if r.Duplicate {
			repeats = append(repeats, i)
		}
	}
	require.Equal(t, []int{1, 2, 6}, repeats)
	require.Equal(t, again(first), rs[1])
	require.Equal(t, again(rs[0]), rs[2])
	require.Equal(t, again(first), rs[6])
	require.EqualValues(t, 4, stored(t, b, "T"))

	// One of two is left: a batch of one record.
	one, err := p.SendBatch(t.Context(), []*mq.Message{keyedMessage("T", "a"), keyedMessage("T", "c")})
	require.NoError(t, err)
	require.Equal(t, again(first), one[0])
	require.False(t, one[1].Duplicate)
	// Of a batch without anything new nothing is stored.
	end := b.Stats().LogBytes
	none, err := p.SendBatch(t.Context(), batch[4:5])
	require.NoError(t, err)
	require.Equal(t, again(rs[4]), none[0])
	require.Equal(t, end, b.Stats().LogBytes)
	loseJournalOf := func() {
		require.NoError(t, b.Close())
		loseJournal(t, dir)
		b = mqtest.OpenDir(t, dir, nil)
	}
	loseJournalOf()
	require.EqualValues(t, 5, stored(t, b, "T"))
	require.Equal(t, again(one[1]), send(t, b, keyedMessage("T", "c"))[0])
}

// TestDedupManySenders: however many send the same at once, it is stored once,
// and all are told the same.
func TestDedupManySenders(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, nil)
	createDedup(t, b, "T", mq.DedupWindow{For: time.Hour})
	const senders, keys = 8, 50
	var mu sync.Mutex
	ids := map[string]map[mq.MessageID]int{}
	firsts := 0
	var all sync.WaitGroup
	for range senders {
		p := newProducer(t, b, nil)
		all.Go(func() {
			for i := range keys {
				key := fmt.Sprint(i)
				rs, err := p.SendBatch(context.Background(), []*mq.Message{keyedMessage("T", key), {Topic: "T", Body: []byte("no key")}})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if ids[key] == nil {
					ids[key] = map[mq.MessageID]int{}
				}
				ids[key][rs[0].ID]++
				if !rs[0].Duplicate {
					firsts++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	require.Equal(t, keys, firsts)
	for key, of := range ids {
		require.Len(t, of, 1, key)
	}
	require.EqualValues(t, keys+senders*keys, stored(t, b, "T"))
}

// TestDedupWindowByTime: a key is known for as long as the window says, counted
// from the first message, and no longer.
func TestDedupWindowByTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, err := mq.Open(dir, nil)
		require.NoError(t, err)
		createDedup(t, b, "T", mq.DedupWindow{For: time.Minute})
		first := send(t, b, keyedMessage("T", "k"))[0]
		pass(59 * time.Second)
		require.Equal(t, again(first), send(t, b, keyedMessage("T", "k"))[0])
		pass(2 * time.Second) // the repeat has not prolonged it
		second := send(t, b, keyedMessage("T", "k"))[0]
		require.False(t, second.Duplicate)
		require.Equal(t, again(second), send(t, b, keyedMessage("T", "k"))[0])
		require.NoError(t, b.Close())

		pass(59 * time.Second) // closed
		b, err = mq.Open(dir, nil)
		require.NoError(t, err)
		require.Equal(t, again(second), send(t, b, keyedMessage("T", "k"))[0])
		pass(2 * time.Second)
		require.False(t, send(t, b, keyedMessage("T", "k"))[0].Duplicate)
		require.NoError(t, b.Close())
	})
}

// TestDedupWindowByCount: the last messages with a key count, and others do not.
func TestDedupWindowByCount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createDedup(t, b, "T", mq.DedupWindow{For: time.Hour, Count: 10})
	p := newProducer(t, b, nil)
	duplicate := func(key int) bool {
		r, err := p.Send(t.Context(), keyedMessage("T", fmt.Sprint(key)))
		require.NoError(t, err)
		return r.Duplicate
	}
	for i := range 100 {
		require.False(t, duplicate(i))
		sendBodies(t, b, "T", 1)
	}
	look := func() {
		for i := 90; i < 100; i++ {
			require.True(t, duplicate(i), "%d", i)
		}
	}
	look()
	require.NoError(t, b.Close())
	b = mqtest.OpenDir(t, dir, written())
	p = newProducer(t, b, nil)
	look()
	require.False(t, duplicate(89))
	require.False(t, duplicate(90), "89 has taken its place")
	require.True(t, duplicate(92))
	// A smaller window forgets the oldest, a larger one has yet to be filled.
	require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Dedup: mq.DedupWindow{Count: 2}}))
	info, err := b.Topic("T")
	require.NoError(t, err)
	require.Equal(t, mq.DedupWindow{For: time.Hour, Count: 2}, info.Dedup)
	require.True(t, duplicate(90))
	require.True(t, duplicate(89))
	require.False(t, duplicate(99))
	require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Dedup: mq.DedupWindow{For: 2 * time.Hour, Count: 3}}))
	require.True(t, duplicate(90))
	require.False(t, duplicate(1))
	require.True(t, duplicate(90))
	// What is not named stays, and it can be turned off.
	require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Queues: 5}))
	require.True(t, duplicate(90))
	require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Dedup: mq.DedupWindow{For: -1}}))
	_, err = p.Send(t.Context(), keyedMessage("T", "90"))
	require.ErrorIs(t, err, mq.ErrNoDedupWindow)
}

// TestDedupDelayed: a delayed message is told from its repeats when it is sent,
// whatever has become of the first.
func TestDedupDelayed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, err := mq.Open(dir, nil)
		require.NoError(t, err)
		createDedup(t, b, "T", mq.DedupWindow{For: time.Hour})
		delayed := func(key string) *mq.Message {
			m := keyedMessage("T", key)
			m.Delay = time.Minute
			return m
		}
		rs := send(t, b, delayed("a"), delayed("b"), delayed("a"), keyedMessage("T", "a"))
		require.Equal(t, again(rs[0]), rs[2])
		require.Equal(t, again(rs[0]), rs[3], "sent at once it is a repeat as well")
		require.Equal(t, rs[0].RecallHandle(), rs[2].RecallHandle())
		p := newProducer(t, b, nil)
		require.NoError(t, p.Recall(t.Context(), rs[1].RecallHandle()))
		require.Equal(t, again(rs[1]), send(t, b, delayed("b"))[0], "recalled: it was sent")
		require.EqualValues(t, 1, stored(t, b, "T"))
		pass(2 * time.Minute)
		for range 2 {
			require.Equal(t, again(rs[0]), send(t, b, delayed("a"))[0], "delivered")
			require.EqualValues(t, 1, stored(t, b, "T"))
			require.NoError(t, b.Close())
			loseJournal(t, dir)
			b, err = mq.Open(dir, nil)
			require.NoError(t, err)
		}
		c := pull(t, b, "G", "T", nil)
		require.Equal(t, "a", poll(t, c, 1)[0].DedupKey)
		require.NoError(t, b.Close())
	})
}

// TestDedupRetries: what fails comes again with its key, and is a repeat of
// nothing; no more is a dead letter that is sent again.
func TestDedupRetries(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createDedup(t, b, "T", mq.DedupWindow{For: time.Hour})
	var mu sync.Mutex
	var got []string
	broken := true
	push(t, b, "G", "T", func(_ context.Context, m *mq.Message) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, m.DedupKey+" "+m.ID.String())
		if broken {
			return errors.New("not this time")
		}
		return nil
	}, &mq.PushOptions{MaxAttempts: 2, Backoff: func(int) time.Duration { return time.Millisecond }})
	first := send(t, b, keyedMessage("T", "k"))[0]
	mqtest.Eventually(t, func() bool {
		n := 0
		for range b.DeadLetters("G") {
			n++
		}
		return n == 1
	}, "a dead letter")
	require.Equal(t, again(first), send(t, b, keyedMessage("T", "k"))[0])
	mu.Lock()
	broken = false
	mu.Unlock()
	for m, err := range b.DeadLetters("G") {
		require.NoError(t, err)
		require.Equal(t, "k", m.DedupKey)
	}
	sent, err := b.ResendDeadLetters(t.Context(), "G")
	require.NoError(t, err)
	require.Equal(t, 1, sent)
	mqtest.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 3 }, "it comes again")
	mu.Lock()
	defer mu.Unlock()
	for _, g := range got {
		require.Equal(t, "k "+first.ID.String(), g)
	}
}

// TestDedupRetention: what retention has dropped may be sent again.
func TestDedupRetention(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := small(mq.Retention{MaxBytes: 8 << 20})
	b := mqtest.OpenDir(t, dir, o)
	require.NoError(t, b.CreateTopic("T", &mq.TopicConfig{Queues: 1, Dedup: mq.DedupWindow{For: time.Hour}}))
	first := send(t, b, keyedMessage("T", "k"))[0]
	fill(t, b, "T", 1, 20)
	require.Equal(t, again(first), send(t, b, keyedMessage("T", "k"))[0])
	fill(t, b, "T", 1, 400)
	mqtest.Eventually(t, func() bool { return b.Stats().Dropped > 0 }, "old segments are dropped")
	second := send(t, b, keyedMessage("T", "k"))[0]
	require.False(t, second.Duplicate)
	require.NoError(t, b.Close())
	b = mqtest.OpenDir(t, dir, o)
	require.Equal(t, again(second), send(t, b, keyedMessage("T", "k"))[0])
}

// TestDedupBadInput: an error that says what is wrong, and nothing changed.
func TestDedupBadInput(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createDedup(t, b, "T", mq.DedupWindow{For: time.Hour})
	createTopic(t, b, "None", 1)
	p := newProducer(t, b, nil)
	for name, row := range map[string]struct {
		m    *mq.Message
		want error
		says string
	}{
		"no window":     {keyedMessage("None", "k"), mq.ErrNoDedupWindow, `topic "None"`},
		"no topic":      {keyedMessage("New", "k"), mq.ErrNoDedupWindow, `topic "New"`},
		"no name":       {keyedMessage("", "k"), mq.ErrInvalidName, ""},
		"too long":      {keyedMessage("T", strings.Repeat("k", 1025)), mq.ErrInvalidMessage, "deduplication key of 1025 bytes, at most 1024"},
		"10 KiB":        {keyedMessage("T", strings.Repeat("k", 10<<10)), mq.ErrInvalidMessage, "10240 bytes"},
		"of the engine": {keyedMessage("%RETRY%G", "k"), mq.ErrInvalidName, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.Send(t.Context(), row.m)
			require.ErrorIs(t, err, row.want)
			require.ErrorContains(t, err, row.says)
			_, err = p.SendBatch(t.Context(), []*mq.Message{keyedMessage("T", "fine"), row.m})
			require.ErrorIs(t, err, row.want)
			require.ErrorIs(t, p.SendOneWay(row.m), row.want)
			require.ErrorIs(t, p.SendAsync(t.Context(), row.m, func(mq.SendResult, error) { t.Error("called") }), row.want)
		})
	}
	require.Equal(t, []string{"None", "T"}, b.Topics())
	require.Zero(t, stored(t, b, "T"))
	require.False(t, send(t, b, keyedMessage("T", strings.Repeat("k", 1024)))[0].Duplicate)
	require.False(t, send(t, b, keyedMessage("T", "fine"))[0].Duplicate)

	for name, w := range map[string]mq.DedupWindow{
		"negative":        {For: -2},
		"negative count":  {For: time.Hour, Count: -1},
		"count too large": {For: time.Hour, Count: mq.MaxDedupCount + 1},
		"count alone":     {Count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, b.CreateTopic("Other", &mq.TopicConfig{Dedup: w}), mq.ErrInvalidArgument)
			require.ErrorIs(t, b.UpdateTopic("None", mq.TopicConfig{Dedup: w}), mq.ErrInvalidArgument)
		})
	}
	info, err := b.Topic("T")
	require.NoError(t, err)
	require.Equal(t, mq.DedupWindow{For: time.Hour, Count: mq.DefaultDedupCount}, info.Dedup)
	require.NoError(t, b.CreateTopic("Least", &mq.TopicConfig{Dedup: mq.DedupWindow{For: 1, Count: 1}}))
	info, err = b.Topic("Least")
	require.NoError(t, err)
	require.Equal(t, mq.DedupWindow{For: time.Millisecond, Count: 1}, info.Dedup)
}

// TestDedupForEver: the longest window there can be is one.
func TestDedupForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createDedup(t, b, "T", mq.DedupWindow{For: math.MaxInt64})
		first := send(t, b, keyedMessage("T", "k"))[0]
		pass(1000 * time.Hour)
		require.Equal(t, again(first), send(t, b, keyedMessage("T", "k"))[0])
		for _, round := range []struct{ set, kept time.Duration }{
			{1, time.Millisecond},
			{time.Millisecond, time.Millisecond},
			{time.Millisecond + 1, 2 * time.Millisecond},
			{math.MaxInt64, math.MaxInt64 / time.Millisecond * time.Millisecond},
		} {
			require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Dedup: mq.DedupWindow{For: round.set}}))
			info, err := b.Topic("T")
			require.NoError(t, err)
			require.Equal(t, round.kept, info.Dedup.For)
		}
	})
}
