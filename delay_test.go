package mq_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
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

// waiting browses what waits in a topic.
func waiting(t testing.TB, b *mq.Broker, topic string) []*mq.Message {
	t.Helper()
	var ms []*mq.Message
	for m, err := range b.BrowseWaiting(topic, time.Time{}, time.Time{}) {
		require.NoError(t, err)
		ms = append(ms, m)
	}
	return ms
}

// received is what a push consumer of the topic gets, and when.
type received struct {
	mu sync.Mutex
	at map[string]time.Time
	in inbox
}

func receive(t testing.TB, b *mq.Broker, topic string) *received {
	t.Helper()
	r := &received{at: map[string]time.Time{}}
	c, err := b.NewPushConsumer("G", r.handle, nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe(topic, mq.All))
	return r
}

func (r *received) handle(ctx context.Context, m *mq.Message) error {
	r.mu.Lock()
	r.at[string(m.Body)] = time.Now()
	r.mu.Unlock()
	return r.in.handle(ctx, m)
}

func (r *received) when(body string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at[body]
}

// TestDelayDelivers: a message comes at its time to the millisecond, never
// before, and whichever field says when.
func TestDelayDelivers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 2)
		got := receive(t, b, "T")
		start := time.Now()
		want := map[string]time.Duration{}
		var ms []*mq.Message
		add := func(m mq.Message, after time.Duration) {
			m.Topic, m.Body = "T", fmt.Appendf(nil, "%d", len(ms))
			want[string(m.Body)] = after
			ms = append(ms, &m)
		}
		add(mq.Message{}, 0)
		add(mq.Message{Delay: time.Nanosecond}, time.Millisecond)
		add(mq.Message{Delay: time.Millisecond}, time.Millisecond)
		add(mq.Message{Delay: time.Millisecond + 1}, 2*time.Millisecond)
		add(mq.Message{DeliverAt: start.Add(time.Hour)}, time.Hour)
		add(mq.Message{DeliverAt: start}, 0)
		add(mq.Message{DeliverAt: start.Add(-time.Hour)}, 0)
		add(mq.Message{Delay: 400 * 24 * time.Hour}, 400*24*time.Hour)
		for level, after := range []time.Duration{
			1 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 3 * time.Minute,
			4 * time.Minute, 5 * time.Minute, 6 * time.Minute, 7 * time.Minute, 8 * time.Minute, 9 * time.Minute, 10 * time.Minute,
			20 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour,
		} {
			add(mq.Message{DelayLevel: level + 1}, after)
		}
		add(mq.Message{DelayLevel: 19}, 2*time.Hour)
		for i, r := range send(t, b, ms...) {
			after := want[fmt.Sprint(i)]
			require.Equal(t, after > 0, r.Offset == -1)
			require.Equal(t, after > 0, !r.RecallHandle().DeliverAt().Equal(time.UnixMilli(0)))
		}
		pass(401 * 24 * time.Hour)
		require.Len(t, got.in.messages(), len(ms))
		for body, after := range want {
			late := got.when(body).Sub(start) - after
			require.GreaterOrEqual(t, late, time.Duration(0), "%s after %v", body, after)
			require.LessOrEqual(t, late, 2*time.Millisecond, "%s after %v", body, after)
		}
		require.Zero(t, b.Stats().Waiting)
		require.EqualValues(t, len(ms)-3, b.Stats().Delivered)
		require.EqualValues(t, len(ms), b.Stats().Sent)
	})
}

// TestDelayTenYears: a store that is closed for most of ten years.
func TestDelayTenYears(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenDir(t, dir, written())
		at := time.Now().AddDate(10, 0, 0)
		r := send(t, b, &mq.Message{Topic: "T", Body: []byte("x"), DeliverAt: at})
		require.NoError(t, b.Close())
		<-time.After(time.Until(at) - time.Hour)
		b = mqtest.OpenDir(t, dir, written())
		require.EqualValues(t, 1, b.Stats().Waiting)
		got := receive(t, b, "T")
		pass(time.Hour - time.Millisecond)
		require.Empty(t, got.in.messages())
		pass(3 * time.Millisecond)
		require.Len(t, got.in.messages(), 1)
		require.Equal(t, r[0].ID, got.in.messages()[0].ID)
		require.NoError(t, b.Close())
	})
}

// TestDelayOverdue: what came due while the store was closed is delivered when it
// is opened, in the order of its time.
func TestDelayOverdue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenDir(t, dir, written())
		createTopic(t, b, "T", 1)
		for _, after := range []int{5, 3, 4, 1, 2} {
			send(t, b, &mq.Message{Topic: "T", Body: fmt.Append(nil, after), Delay: time.Duration(after) * time.Minute})
		}
		require.NoError(t, b.Close())
		<-time.After(time.Hour)
		b = mqtest.OpenDir(t, dir, written())
		got := receive(t, b, "T")
		pass(time.Millisecond)
		var bodies []string
		ms := got.in.messages()
		slices.SortFunc(ms, func(a, b *mq.Message) int { return int(a.Offset - b.Offset) })
		for _, m := range ms {
			bodies = append(bodies, string(m.Body))
		}
		require.Equal(t, []string{"1", "2", "3", "4", "5"}, bodies)
		require.NoError(t, b.Close())
	})
}

// TestDelayKeepsAll: the delivered message is the one that was sent, with the id
// that Send returned, found by it before and after, and by its keys after.
func TestDelayKeepsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		m := mq.Message{
			Topic: "T", Tag: "tag", Keys: []string{"k", "l"}, ShardingKey: "s", Body: []byte("body"),
			Properties: map[string]string{"a": "1", "b": ""}, Delay: time.Hour,
		}
		born := time.Now()
		r := send(t, b, &m)[0]
		w, err := b.MessageByID(r.ID)
		require.NoError(t, err)
		require.Equal(t, r.ID, w.ID)
		require.True(t, w.DeliverAt.Equal(born.Add(time.Hour)))
		require.EqualValues(t, -1, w.Offset)
		require.Equal(t, r.Queue, w.Queue)
		found, err := b.MessagesByKey("T", "k", 9)
		require.NoError(t, err)
		require.Empty(t, found)

		pass(time.Hour + 3*time.Millisecond)
		d, err := b.MessageByID(r.ID)
		require.NoError(t, err)
		require.Equal(t, r.ID, d.ID)
		require.Equal(t, []any{m.Tag, m.Keys, m.ShardingKey, m.Body, m.Properties}, []any{d.Tag, d.Keys, d.ShardingKey, d.Body, d.Properties})
		require.True(t, d.BornAt.Equal(born), "%v %v", d.BornAt, born)
		require.False(t, d.StoredAt.Before(born.Add(time.Hour)))
		require.True(t, d.DeliverAt.IsZero(), "sent again it must not be refused")
		require.EqualValues(t, 0, d.Offset)
		found, err = b.MessagesByKey("T", "l", 9)
		require.NoError(t, err)
		require.Len(t, found, 1)
		require.Equal(t, r.ID, found[0].ID)
	})
}

// TestDelayWays: every way to send takes delayed messages, and a batch mixes
// them with others.
func TestDelayWays(t *testing.T) {
	t.Parallel()
	for _, d := range []mq.Durability{mq.Written, mq.Synced} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, &mq.Options{Durability: d})
			require.NoError(t, b.CreateTopic("T", nil))
			got := receive(t, b, "T")
			p := newProducer(t, b, nil)
			message := func(body string) *mq.Message {
				return &mq.Message{Topic: "T", Body: []byte(body), Delay: time.Minute}
			}
			var done atomic.Int64
			require.NoError(t, p.SendAsync(t.Context(), message("async"), func(r mq.SendResult, err error) {
				require.NoError(t, err)
				require.NotZero(t, r.RecallHandle())
				done.Add(1)
			}))
			require.NoError(t, p.SendOneWay(message("one way")))
			rs, err := p.SendBatch(t.Context(), []*mq.Message{message("batch"), {Topic: "T", Body: []byte("now")}, message("batch 2")})
			require.NoError(t, err)
			require.EqualValues(t, []mq.Offset{-1, 0, -1}, []mq.Offset{rs[0].Offset, rs[1].Offset, rs[2].Offset})
			require.Zero(t, rs[1].RecallHandle())
			synctest.Wait()
			require.EqualValues(t, 1, done.Load())
			require.Len(t, got.in.messages(), 1)
			info, err := b.Topic("T")
			require.NoError(t, err)
			require.EqualValues(t, 4, info.Waiting)
			pass(time.Minute + time.Second)
			require.Len(t, got.in.messages(), 5)
		})
	}
}

func TestDelayBadInput(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	p := newProducer(t, b, nil)
	soon := time.Now().Add(time.Hour)
	for name, m := range map[string]mq.Message{
		"two":            {Delay: time.Second, DelayLevel: 1},
		"two others":     {Delay: time.Second, DeliverAt: soon},
		"and two more":   {DelayLevel: 1, DeliverAt: soon},
		"negative":       {Delay: -1},
		"level":          {DelayLevel: -1},
		"too far":        {DeliverAt: time.Now().AddDate(10, 0, 1)},
		"too long":       {Delay: math.MaxInt64},
		"farthest":       {DeliverAt: time.Unix(1<<60, 0)},
		"far and a time": {DeliverAt: time.Unix(-1<<60, 0), Delay: 1},
	} {
		m.Topic = "T"
		_, err := p.Send(t.Context(), &m)
		require.ErrorIs(t, err, mq.ErrInvalidMessage, name)
		require.ErrorIs(t, p.SendOneWay(&m), mq.ErrInvalidMessage, name)
	}
	require.Empty(t, b.Topics(), "nothing has changed")
	for err := range errorsOf(b.BrowseWaiting("T", time.Time{}, time.Time{})) {
		require.ErrorIs(t, err, mq.ErrTopicNotFound)
	}
}

// TestRecall: what is taken back never comes; everything else does.
func TestRecall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenDir(t, dir, written())
		var ms []*mq.Message
		for i := range 20 {
			ms = append(ms, &mq.Message{Topic: "T", Body: fmt.Append(nil, i), Delay: time.Minute})
		}
		rs := send(t, b, ms...)
		p := newProducer(t, b, nil)
		for _, i := range []int{3, 7} {
			require.NoError(t, p.Recall(t.Context(), rs[i].RecallHandle()))
			require.ErrorIs(t, p.Recall(t.Context(), rs[i].RecallHandle()), mq.ErrNotWaiting)
			_, err := b.MessageByID(rs[i].ID)
			require.ErrorIs(t, err, mq.ErrMessageNotFound)
		}
		require.EqualValues(t, 18, b.Stats().Waiting)
		require.Len(t, waiting(t, b, "T"), 18)
		require.NoError(t, b.Close())

		b = mqtest.OpenDir(t, dir, written())
		p = newProducer(t, b, nil)
		require.EqualValues(t, 18, b.Stats().Waiting)
		require.ErrorIs(t, p.Recall(t.Context(), rs[3].RecallHandle()), mq.ErrNotWaiting)
		require.NoError(t, p.Recall(t.Context(), rs[11].RecallHandle()))
		got := receive(t, b, "T")
		pass(2 * time.Minute)
		require.Len(t, got.in.messages(), 17)
		for _, i := range []string{"3", "7", "11"} {
			require.Zero(t, got.when(i))
		}
		require.ErrorIs(t, p.Recall(t.Context(), rs[4].RecallHandle()), mq.ErrNotWaiting, "delivered")
		require.Zero(t, b.Stats().Waiting)
		require.NoError(t, b.Close())
		require.ErrorIs(t, p.Recall(t.Context(), rs[4].RecallHandle()), mq.ErrClosed)
	})
}

func TestRecallBadInput(t *testing.T) {
	t.Parallel()
	b, other := mqtest.OpenMemory(t, written()), mqtest.OpenMemory(t, written())
	p := newProducer(t, b, nil)
	now := send(t, b, &mq.Message{Topic: "T"})[0]
	later := send(t, b, &mq.Message{Topic: "T", Delay: time.Hour})[0]
	foreign := send(t, other, &mq.Message{Topic: "T", Delay: time.Hour})[0].RecallHandle()
	text := later.RecallHandle().String()
	for _, h := range []mq.RecallHandle{{}, now.RecallHandle(), foreign} {
		require.ErrorIs(t, p.Recall(t.Context(), h), mq.ErrNotWaiting)
	}
	// Places where there is no such message: another record, none, beyond the end.
	for _, position := range []string{now.ID.String()[24:], "0000000000000041", "00000fffffffffff", "7fffffffffffffff", "0000000000000000"} {
		h, err := mq.ParseRecallHandle(text[:24] + position + text[40:])
		require.NoError(t, err)
		require.ErrorIs(t, p.Recall(t.Context(), h), mq.ErrNotWaiting)
	}
	otherEpoch, err := mq.ParseRecallHandle(text[:16] + "00000009" + text[24:])
	require.NoError(t, err)
	require.ErrorIs(t, p.Recall(t.Context(), otherEpoch), mq.ErrNotWaiting)
	for _, bad := range []string{"", text[1:], text + "0", text[:55] + "g", text[:54] + "AA", "g" + text[1:], text[:40] + "8000000000000000"} {
		_, err := mq.ParseRecallHandle(bad)
		require.ErrorIs(t, err, mq.ErrInvalidArgument, bad)
	}
	raw, err := json.Marshal(later.RecallHandle())
	require.NoError(t, err)
	var back mq.RecallHandle
	require.NoError(t, json.Unmarshal(raw, &back))
	require.Equal(t, later.RecallHandle(), back)
	require.Equal(t, later.ID, back.ID())
	require.EqualValues(t, 1, b.Stats().Waiting, "nothing has changed")
	require.NoError(t, p.Recall(t.Context(), back))
}

// TestRecallRace: of a recall and a delivery exactly one wins.
func TestRecallRace(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	got := receive(t, b, "T")
	p := newProducer(t, b, nil)
	const senders, each = 4, 300
	var recalled atomic.Int64
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			var handles []mq.RecallHandle
			for i := range each {
				r, err := p.Send(t.Context(), &mq.Message{Topic: "T", Delay: time.Duration(1+i%3) * time.Millisecond})
				if err != nil {
					t.Error(err)
					return
				}
				handles = append(handles, r.RecallHandle())
				if i%3 == 0 {
					switch err := p.Recall(t.Context(), handles[len(handles)/2]); {
					case err == nil:
						recalled.Add(1)
					case !isNotWaiting(err):
						t.Error(err)
					}
				}
				if err := p.Recall(t.Context(), r.RecallHandle()); err == nil {
					recalled.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.True(t, within(patience, func() bool { return b.Stats().Waiting == 0 }))
	want := int64(senders*each) - recalled.Load()
	require.True(t, within(patience, func() bool { return int64(got.in.len()) == want }), "%d of %d", got.in.len(), want)
	require.EqualValues(t, want, b.Stats().Delivered)
}

// TestBrowseWaiting: in due order, between two times, of one topic.
func TestBrowseWaiting(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	start := time.Now().Truncate(time.Millisecond).Add(time.Hour)
	var ms []*mq.Message
	for i := range 3000 {
		at := start.Add(time.Duration(i*7919%3000) * time.Second)
		ms = append(ms, &mq.Message{Topic: []string{"T", "U"}[i%2], Body: fmt.Append(nil, at.Unix()-start.Unix()), DeliverAt: at})
	}
	send(t, b, ms...)
	var all []int
	for i := range 3000 {
		if i*7919%3000%2 == 0 { // the same parity as i
			all = append(all, i*7919%3000)
		}
	}
	slices.Sort(all)
	for _, row := range []struct{ from, to int }{{0, 3000}, {10, 20}, {11, 21}, {2990, 9999}, {5, 5}} {
		var want, got []int
		for _, s := range all {
			if s >= row.from && s < row.to {
				want = append(want, s)
			}
		}
		for m, err := range b.BrowseWaiting("T", start.Add(time.Duration(row.from)*time.Second), start.Add(time.Duration(row.to)*time.Second)) {
			require.NoError(t, err)
			require.Equal(t, "T", m.Topic)
			got = append(got, int(m.DeliverAt.Sub(start).Seconds()))
		}
		require.Equal(t, want, got, row)
	}
	require.Len(t, waiting(t, b, "T"), 1500)
	for range b.BrowseWaiting("T", time.Time{}, time.Time{}) {
		break
	}
}

// TestDelayTopicDeleted: what waits in a topic goes with it, and a new topic of
// the name does not get it.
func TestDelayTopicDeleted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenDir(t, dir, written())
		for i := range 10 {
			send(t, b, &mq.Message{Topic: "T", Delay: time.Minute}, &mq.Message{Topic: "U", Body: fmt.Append(nil, i), Delay: time.Minute})
		}
		require.NoError(t, b.DeleteTopic("T"))
		require.EqualValues(t, 10, b.Stats().Waiting)
		createTopic(t, b, "T", 1)
		require.Empty(t, waiting(t, b, "T"))
		receive(t, b, "T")
		pass(30 * time.Second)
		require.NoError(t, b.Close())
		b = mqtest.OpenDir(t, dir, written())
		got := receive(t, b, "T")
		others := &received{at: map[string]time.Time{}}
		c, err := b.NewPushConsumer("H", others.handle, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("U", mq.All))
		require.EqualValues(t, 10, b.Stats().Waiting)
		pass(time.Hour)
		require.Empty(t, got.in.messages())
		require.Len(t, others.in.messages(), 10)
		require.Zero(t, b.Stats().Waiting)
		require.NoError(t, b.Close())
	})
}

// TestTimerFilesLost: the files of the timer index are made again from the log,
// one by one or all of them.
func TestTimerFilesLost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var rs []mq.SendResult
		for round := range 3 {
			b := mqtest.OpenDir(t, dir, written())
			for i := range 20 {
				rs = append(rs, send(t, b, &mq.Message{Topic: "T", Body: fmt.Append(nil, round, i), Delay: time.Duration(60+i) * time.Minute})...)
			}
			require.NoError(t, newProducer(t, b, nil).Recall(t.Context(), rs[round*20+5].RecallHandle()))
			require.NoError(t, b.Close())
		}
		files, err := filepath.Glob(filepath.Join(dir, "timer", "*-*"))
		require.NoError(t, err)
		require.Len(t, files, 3)
		require.NoError(t, os.Remove(files[1]))
		raw, err := os.ReadFile(files[2])
		require.NoError(t, err)
		raw[len(raw)/2] ^= 1
		require.NoError(t, os.WriteFile(files[2], raw, 0o600))
		b := mqtest.OpenDir(t, dir, written())
		require.Len(t, waiting(t, b, "T"), 57)
		require.NoError(t, b.Close())

		require.NoError(t, os.RemoveAll(filepath.Join(dir, "timer")))
		b = mqtest.OpenDir(t, dir, written())
		require.EqualValues(t, 57, b.Stats().Waiting)
		got := receive(t, b, "T")
		pass(3 * time.Hour)
		require.Len(t, got.in.messages(), 57)
		require.NoError(t, b.Close())
	})
}

// TestDelayRebuilt: without a journal all is folded from the log again.
func TestDelayRebuilt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenDir(t, dir, written())
		var rs []mq.SendResult
		for i := range 50 {
			rs = append(rs, send(t, b, &mq.Message{Topic: []string{"T", "U"}[i%2], Body: fmt.Append(nil, i), Delay: time.Duration(1+i) * time.Minute})...)
		}
		p := newProducer(t, b, nil)
		require.NoError(t, p.Recall(t.Context(), rs[5].RecallHandle()))
		require.NoError(t, p.Recall(t.Context(), rs[40].RecallHandle()))
		pass(20*time.Minute + time.Second)
		require.EqualValues(t, 29, b.Stats().Waiting)
		require.EqualValues(t, 19, b.Stats().Messages)
		require.NoError(t, b.Close())
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "journal")))
		b = mqtest.OpenDir(t, dir, written())
		require.True(t, b.Recovery().Rebuilt)
		require.EqualValues(t, 29, b.Stats().Waiting)
		info, err := b.Topic("U")
		require.NoError(t, err)
		require.EqualValues(t, 15, info.Waiting)
		got := receive(t, b, "T")
		for _, i := range []int{10, 30} { // delivered, and waiting
			m, err := b.MessageByID(rs[i].ID)
			require.NoError(t, err)
			require.Equal(t, fmt.Append(nil, i), m.Body)
		}
		pass(time.Hour)
		require.Len(t, got.in.messages(), 24)
		require.NoError(t, b.Close())
	})
}

func isNotWaiting(err error) bool { return errors.Is(err, mq.ErrNotWaiting) }

func errorsOf[V any](seq iter.Seq2[V, error]) iter.Seq[error] {
	return func(yield func(error) bool) {
		for _, err := range seq {
			if !yield(err) {
				return
			}
		}
	}
}
