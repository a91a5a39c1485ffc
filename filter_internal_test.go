package mq

import (
	"context"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/vfs"
)

// TestTagsThatShareAHash: the index cannot tell them apart, so the message
// itself is looked at; what turns out unwanted is acknowledged like anything
// that is filtered out.
func TestTagsThatShareAHash(t *testing.T) {
	t.Parallel()
	b := openOn(t, vfs.NewMem(0), &Options{Durability: Written})
	require.NoError(t, b.CreateTopic("T", &TopicConfig{Queues: 1}))
	forged := Tags("wanted")
	forged.hashes[0] = tagHash("other") // so that the index says yes to it
	forged.hashes = append(forged.hashes, tagHash("wanted"))
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for _, tag := range []string{"other", "wanted", "other", "third", "wanted", "other"} {
		_, err := p.Send(t.Context(), &Message{Topic: "T", Tag: tag, Body: []byte(tag)})
		require.NoError(t, err)
	}
	var handled, wrong atomic.Int64
	push, err := b.NewPushConsumer("Push", func(_ context.Context, m *Message) error {
		handled.Add(1)
		if m.Tag != "wanted" {
			wrong.Add(1)
		}
		return nil
	}, nil)
	require.NoError(t, err)
	require.NoError(t, push.Subscribe("T", forged))
	pull, err := b.NewPullConsumer("Pull", nil)
	require.NoError(t, err)
	require.NoError(t, pull.Subscribe("T", forged))
	ms, err := pull.Poll(t.Context(), 32)
	require.NoError(t, err)
	require.Len(t, ms, 2)
	require.NoError(t, pull.Commit(t.Context()))
	for _, group := range []string{"Pull", "Push"} {
		require.Eventually(t, func() bool {
			total, _, err := b.Lag(group)
			return err == nil && total == 0
		}, 20*time.Second, 10*time.Millisecond)
	}
	require.Equal(t, int64(2), handled.Load())
	require.Zero(t, wrong.Load())
	require.Zero(t, b.Stats().Missed)
	require.NoError(t, b.Close())
}

// TestUnwantedCostsNothing: whatever a fetch passes over because of its condition
// is looked at where it lies.
func TestUnwantedCostsNothing(t *testing.T) {
	b := openOn(t, vfs.NewMem(0), &Options{Durability: Written})
	require.NoError(t, b.CreateTopic("T", &TopicConfig{Queues: 1}))
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	const n = 64
	for i := range n {
		m := &Message{Topic: "T", Tag: "A", Keys: []string{"k", "l"}, Body: []byte("body"), Properties: map[string]string{"amount": strconv.Itoa(i), "region": "eu", "x": "y"}}
		_, err := p.Send(t.Context(), m)
		require.NoError(t, err)
	}
	q := (*b.names.topic("T").queues.Load())[0]
	claims := make([]claim, n)
	entries := make([]consumequeue.Entry, n)
	_, err = q.read(0, entries)
	require.NoError(t, err)
	for i := range claims {
		claims[i] = claim{Offset(i), entries[i], 1}
	}
	f, c := fetcher{b: b}, &cursor{queue: q}
	got := 0
	fetch := func(filter *Filter) float64 {
		least := math.Inf(1) // others in the process allocate as well
		for range 5 {
			least = min(least, testing.AllocsPerRun(20, func() {
				out := f.fetch(c, 0, filter, claims)
				got = len(out.messages)
			}))
		}
		return least
	}
	half, none := SQL("amount < 32 AND KEYS CONTAINS 'l'"), SQL("amount < 0 OR KEYS = 'k' OR TAGS = 'B'")
	unwanted := func(filter *Filter) int { out := f.fetch(c, 0, filter, claims); return len(out.unwanted) }
	require.Equal(t, n, unwanted(&none))
	require.Equal(t, n/2, unwanted(&half))
	require.Zero(t, fetch(&none))
	require.Zero(t, got)
	all := fetch(&All)
	require.Equal(t, n, got)
	require.LessOrEqual(t, fetch(&half), all/2+8)
	require.Equal(t, n/2, got)
}

// TestRestoredAndUnwanted: a message that its entry does not lead to, and that the
// filter does not want, is not missed.
func TestRestoredAndUnwanted(t *testing.T) {
	t.Parallel()
	for _, filter := range []Filter{SQL("wanted = TRUE"), Tags("A")} {
		b := openOn(t, vfs.NewMem(0), &Options{Durability: Written})
		require.NoError(t, b.CreateTopic("T", &TopicConfig{Queues: 1}))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		for i := range 9 {
			m := &Message{Topic: "T", Tag: "B", Body: []byte{byte(i)}}
			if i%3 == 0 {
				m.Tag, m.Properties = "A", map[string]string{"wanted": "true"}
			}
			_, err := p.Send(t.Context(), m)
			require.NoError(t, err)
		}
		q := (*b.names.topic("T").queues.Load())[0]
		var entries [9]consumequeue.Entry
		_, err = q.read(0, entries[:])
		require.NoError(t, err)
		f, c := fetcher{b: b}, &cursor{queue: q}
		var claims []claim
		for i := range entries {
			e := entries[(i+1)%len(entries)] // each leads to its neighbour
			claims = append(claims, claim{Offset(i), e, 1})
		}
		out := f.fetch(c, 0, &filter, claims)
		require.Empty(t, out.gone)
		require.Len(t, out.unwanted, 6)
		require.Len(t, out.messages, 3)
		require.Equal(t, []byte{3}, out.messages[1].Body)
		require.NoError(t, b.Close())
	}
}

// TestStoredFilters: what is written down of a filter is the filter, and what
// says nothing is refused.
func TestStoredFilters(t *testing.T) {
	t.Parallel()
	for _, f := range []Filter{All, Tags("A"), Tags("A", "B || C", strings.Repeat("t", 127)), SQL("a = 1")} {
		again, err := readFilter(f.stored())
		require.NoError(t, err)
		require.True(t, f.equal(again))
	}
	for _, s := range []string{"?", "T", "T\x05ab", "T\x00", "T\x01a\x02", "S", "Sa >", "X", "T\xff" + strings.Repeat("t", 255)} {
		_, err := readFilter(s)
		require.ErrorIs(t, err, ErrInvalidFilter, "%q", s)
	}
}

// FuzzStoredFilter: whatever stands in a record, it is refused or is a filter
// that is written down in the same way.
func FuzzStoredFilter(f *testing.F) {
	for _, filter := range []Filter{All, Tags("A", "B"), SQL("a > 5 OR TAGS = 'x'")} {
		f.Add(filter.stored())
	}
	f.Add("T\x05ab")
	f.Fuzz(func(t *testing.T, s string) {
		filter, err := readFilter(s)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalidFilter)
			return
		}
		if stored := filter.stored(); stored != storedUnknown {
			again, err := readFilter(stored)
			require.NoError(t, err)
			require.True(t, filter.equal(again))
		}
	})
}
