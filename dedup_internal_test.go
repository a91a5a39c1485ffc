package mq

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
	"github.com/pocketmq/mq/internal/vfs"
)

// plainWindow is what a window is to be: the whole list, looked through.
type plainWindow struct {
	record.Window
	sent []sentKey
}

func (p *plainWindow) cut() { p.sent = p.sent[max(0, len(p.sent)-p.Count):] }

func (p *plainWindow) find(hash uint64, now int64) coord.Position {
	for i := len(p.sent) - 1; i >= 0; i-- {
		if k := p.sent[i]; k.hash == hash && now-k.stored < p.For {
			return k.at
		}
	}
	return 0
}

// TestWindowModel: random work on a window and on a list that does the same. On
// the way it is captured, restored, and what lies behind any place of it is
// folded a second time.
func TestWindowModel(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	tp := &topic{id: 8}
	tp.configure(record.Window{For: 50, Count: 20})
	plain := plainWindow{Window: tp.window.Load().Window}
	now, at := int64(1), coord.Position(8)
	for step := range 200_000 {
		w := tp.window.Load()
		switch n := rnd.IntN(100); {
		case n < 60:
			k := sentKey{uint64(rnd.IntN(30)), at, now}
			at += 8
			w.add(k)
			plain.sent = append(plain.sent, k)
			plain.cut()
		case n < 80:
			now += rnd.Int64N(10)
		case n < 81:
			now += 200
		case n < 82:
			c := record.Window{For: 1 + rnd.Int64N(100), Count: 1 + rnd.IntN(300)}
			for before := -1; before != w.len(); w.expire(now) { // what is too old would be new again
				before = w.len()
			}
			for len(plain.sent) > 0 && now-plain.sent[0].stored >= plain.For {
				plain.sent = plain.sent[1:]
			}
			tp.configure(c)
			plain.Window = c
			plain.cut()
		case n < 84 && len(plain.sent) > 0: // a replay of what is known
			for _, k := range plain.sent[rnd.IntN(len(plain.sent)):] {
				if w.len() > 0 { // what is too old may come back, and is as old
					w.add(k)
				}
			}
		default:
			hash := uint64(rnd.IntN(30))
			require.Equal(t, plain.find(hash, now), w.find(hash, now, nil), "seed %d, step %d", seed, step)
		}
		require.LessOrEqual(t, w.len(), w.Count)
		require.LessOrEqual(t, len(w.newest), w.len())
		require.LessOrEqual(t, len(w.ring), w.Count)
	}
}

// TestDedupCollision: messages whose keys have the same hash are all stored, and
// each is told from its own repeats; also in one batch, and after reopening.
func TestDedupCollision(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() (*Broker, *Producer) {
		opts := (&Options{Durability: Written}).withDefaults(false)
		b := newBroker(opts, vfs.OS(), dir)
		b.dedupBits = 1
		require.NoError(t, b.own())
		require.NoError(t, b.open())
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		return b, p
	}
	b, p := open()
	require.NoError(t, b.CreateTopic("T", &TopicConfig{Dedup: DedupWindow{For: time.Hour, Count: 100}}))
	first := map[string]SendResult{}
	for i := range 40 {
		key := fmt.Sprint(i)
		rs, err := p.SendBatch(t.Context(), []*Message{
			{Topic: "T", DedupKey: key}, {Topic: "T", DedupKey: key + " too"}, {Topic: "T", DedupKey: key},
		})
		require.NoError(t, err)
		require.Equal(t, []bool{false, false, true}, []bool{rs[0].Duplicate, rs[1].Duplicate, rs[2].Duplicate})
		first[key], first[key+" too"] = rs[0], rs[1]
	}
	for range 2 {
		for key, want := range first {
			r, err := p.Send(t.Context(), &Message{Topic: "T", DedupKey: key})
			require.NoError(t, err)
			want.Duplicate = true
			require.Equal(t, want, r, key)
		}
		require.NoError(t, b.Close())
		b, p = open()
	}
	require.NoError(t, b.Close())
}

// TestDedupCheckpoint: a window of several items, captured while senders go on,
// is the same after a kill; the replay repeats a part of it.
func TestDedupCheckpoint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	killed := t.TempDir()
	b := openDir(t, dir)
	require.NoError(t, b.CreateTopic("T", &TopicConfig{Queues: 1, Durability: Written, Dedup: DedupWindow{For: time.Hour, Count: 10_000}}))
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	sendKeys := func(from, to int) {
		var ms []*Message
		for i := from; i < to; i++ {
			ms = append(ms, &Message{Topic: "T", DedupKey: fmt.Sprint(i)})
		}
		_, err := p.SendBatch(t.Context(), ms)
		require.NoError(t, err)
	}
	sendKeys(0, 9_000)
	writeFuzzy(t, b, func() { sendKeys(9_000, 10_500) })
	sendKeys(10_500, 11_000)
	require.NoError(t, b.Sync(t.Context()))
	want := sentOf(b, "T")
	require.Len(t, want, 10_000)
	require.NoError(t, os.CopyFS(killed, os.DirFS(dir)))

	b = openDir(t, killed)
	require.False(t, b.Recovery().Rebuilt)
	require.Equal(t, want, sentOf(b, "T"))
	again, err := b.NewProducer(nil)
	require.NoError(t, err)
	for key, dup := range map[int]bool{0: false, 1_001: true, 10_999: true} {
		r, err := again.Send(t.Context(), &Message{Topic: "T", DedupKey: fmt.Sprint(key)})
		require.NoError(t, err)
		require.Equal(t, dup, r.Duplicate, key)
	}
}

// sentOf is what is in the window of a topic.
func sentOf(b *Broker, topic string) (sent []sentKey) {
	w := b.names.topic(topic).window.Load()
	b.log.Exclusive(func() {
		for n := w.first; n < w.next; n++ {
			sent = append(sent, *w.sent(n))
		}
	})
	return sent
}

// TestDedupRepeatWaits: nobody is told that a message is safe before it is, also
// not whoever repeats one that another sender still waits for.
func TestDedupRepeatWaits(t *testing.T) {
	t.Parallel()
	b := openDir(t, t.TempDir())
	require.NoError(t, b.CreateTopic("S", &TopicConfig{Durability: Synced, Dedup: DedupWindow{For: time.Hour}}))
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	var one [1]outgoing
	require.NoError(t, p.prepare(t.Context(), &Message{Topic: "S", DedupKey: "k"}, &one[0]))
	end, err := b.appendMessages(t.Context(), commitlog.Wait, one[:])
	require.NoError(t, err)
	require.Less(t, b.log.Synced(), end, "its sender has not synced it yet")
	r, err := p.Send(t.Context(), &Message{Topic: "S", DedupKey: "k"})
	require.NoError(t, err)
	require.True(t, r.Duplicate)
	require.GreaterOrEqual(t, b.log.Synced(), end)
}

// TestDedupWhileDropping: what retention has chosen is known until it is gone. A
// crash may bring it back, and then it would be there twice.
func TestDedupWhileDropping(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS()
		b := openOn(t, fs, &Options{SegmentBytes: mib, Retention: Retention{Age: time.Hour}})
		require.NoError(t, b.CreateTopic("T", &TopicConfig{Queues: 1, Durability: Written, Dedup: DedupWindow{For: 24 * time.Hour}}))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		send := func() SendResult {
			r, err := p.Send(t.Context(), &Message{Topic: "T", DedupKey: "k"})
			require.NoError(t, err)
			return r
		}
		first := send()
		fillTopic(t, p, "T", 50)
		time.Sleep(time.Minute) // all is synced

		held := make(chan struct{})
		hook := func() error { <-held; return nil }
		fs.sync.Store(&hook)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Positive(t, queueOne(t, b).entries.Min(), "chosen")
		require.Zero(t, b.Stats().Dropped)
		repeat := send()
		require.True(t, repeat.Duplicate)
		require.Equal(t, first.ID, repeat.ID)

		fs.sync.Store(nil)
		close(held)
		synctest.Wait()
		require.Positive(t, b.Stats().Dropped)
		require.False(t, send().Duplicate)
	})
}

// TestCheckWindow: Check notices a key that the window does not know, or knows
// wrongly, and one of no message.
func TestCheckWindow(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(w *window, last coord.Position){
		"missing":       func(w *window, _ coord.Position) { w.sent(w.first + 1).at = w.sent(w.first).at },
		"missing, last": func(w *window, _ coord.Position) { w.next-- },
		"another key":   func(w *window, _ coord.Position) { w.sent(w.next-1).hash++ },
		"no message":    func(w *window, last coord.Position) { w.add(sentKey{1, last, time.Now().UnixMilli()}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openOn(t, vfs.NewMem(0), nil)
			require.NoError(t, b.CreateTopic("T", &TopicConfig{Queues: 1, Durability: Written, Dedup: DedupWindow{For: time.Hour, Count: 3}}))
			p, err := b.NewProducer(nil)
			require.NoError(t, err)
			var last coord.Position // of a message without a key
			for i := range 5 {
				rs, err := p.SendBatch(t.Context(), []*Message{{Topic: "T", DedupKey: fmt.Sprint(i)}, {Topic: "T"}})
				require.NoError(t, err)
				last = rs[1].ID.position
			}
			require.NoError(t, b.Check(t.Context()))
			b.log.Exclusive(func() { harm(b.names.topic("T").window.Load(), last) })
			require.ErrorIs(t, b.Check(t.Context()), ErrCorrupt)
		})
	}
}

// TestRestoreWindowErrors: an item of a checkpoint that nobody wrote.
func TestRestoreWindowErrors(t *testing.T) {
	t.Parallel()
	b, err := OpenMemory(nil)
	require.NoError(t, err)
	require.NoError(t, b.CreateTopic("T", nil))
	require.NoError(t, b.CreateTopic("D", &TopicConfig{Dedup: DedupWindow{For: time.Hour}}))
	item := func(id coord.TopicID, n int) []byte {
		return append([]byte{itemWindow, byte(id), byte(id >> 8), byte(id >> 16), 0, 0, 0, 0, 0}, make([]byte, n)...)
	}
	d := b.names.topic("D").id
	require.NoError(t, b.restoreWindow(item(d, 24)))
	for name, payload := range map[string][]byte{
		"cut short": item(d, 0)[:8], "half an entry": item(d, 12), "no topic": item(d+8, 24), "no window": item(b.names.topic("T").id, 24),
	} {
		require.ErrorIs(t, b.restoreWindow(payload), errCheckpoint, name)
	}
	require.NoError(t, b.Close())
}

// TestWindowMemory is the bound that DedupWindow documents.
func TestWindowMemory(t *testing.T) { //nolint:paralleltest // measures the heap of the process
	const n = 100_000
	for _, sent := range []int{n, 5 * n / 2, 10 * n} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		w := newWindow(record.Window{For: 1 << 40, Count: n})
		for i := range sent {
			w.add(sentKey{rand.Uint64(), coord.Position(8 * i), int64(i)})
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		each := float64(after.HeapAlloc-before.HeapAlloc) / n
		t.Logf("%d sent: %.0f bytes for each of %d", sent, each, w.len())
		require.Less(t, each, 80.0)
		runtime.KeepAlive(w)
	}
}
