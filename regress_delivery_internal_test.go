package mq

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/vfs"
)

// missedCount counts what Hooks.Missed is told, by offset.
type missedCount struct {
	missedMu sync.Mutex // protects times
	times    map[Offset]int
}

func (m *missedCount) hook(info MissedInfo) {
	m.missedMu.Lock()
	defer m.missedMu.Unlock()
	if m.times == nil {
		m.times = map[Offset]int{}
	}
	for off := info.From; off < info.To; off++ {
		m.times[off]++
	}
}

// requireOnce checks that exactly from <= offset < to were told, once each.
func (m *missedCount) requireOnce(t *testing.T, from, to Offset) {
	t.Helper()
	m.missedMu.Lock()
	defer m.missedMu.Unlock()
	require.Len(t, m.times, int(to-from))
	for off := from; off < to; off++ {
		require.Equal(t, 1, m.times[off], "offset %d", off)
	}
}

// countReads counts reads of the log's files. What is delivered comes from the
// mapping: only scans read.
func countReads(fs *testFS) *atomic.Int64 {
	var reads atomic.Int64
	hook := func() error {
		reads.Add(1)
		return nil
	}
	fs.read.Store(&hook)
	return &reads
}

// pollAll takes messages until there are no more.
func pollAll(t *testing.T, c *PullConsumer) (bodies []string) {
	t.Helper()
	for got := pollNow(t, c); len(got) > 0; got = pollNow(t, c) {
		bodies = append(bodies, got...)
	}
	return bodies
}

// TestZeroedQueueFile: entries that a queue file lost are looked for in the log,
// all of a run in one scan, and put back. Nothing is missed, nothing overtaken.
func TestZeroedQueueFile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var missed missedCount
		fs := newTestFS()
		b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1, Hooks: &Hooks{Missed: missed.hook}})
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		_, err = p.SendBatch(t.Context(), batchTo(1100))
		require.NoError(t, err)
		require.NoError(t, b.checkpoint(false))
		zeroEntries(t, fs, 100, 400)
		forgetEntries(t, b)

		reads := countReads(fs)
		require.Equal(t, numbersTo(1100), pollAll(t, subscribed(t, b, "G")))
		require.Equal(t, int64(1), reads.Swap(0), "one scan reads the whole log at once")
		require.Equal(t, numbersTo(1100), pollAll(t, subscribed(t, b, "Other")))
		require.Zero(t, reads.Load(), "the file is whole again")
		require.Zero(t, b.Stats().Missed)
		missed.requireOnce(t, 0, 0)
		require.NoError(t, b.Close())
	})
}

// TestZeroedBeforeTheStart: a group that goes back finds lost entries that it had
// begun behind, although others behind them have been looked for before, or are
// just then.
func TestZeroedBeforeTheStart(t *testing.T) {
	t.Parallel()
	first := AtOffset(Queue{Topic: "T"}, 0)
	reset := func(b *Broker, _ *PullConsumer) error { return b.ResetOffset("G", "T", first) }
	seek := func(_ *Broker, c *PullConsumer) error { return c.Seek(Queue{Topic: "T"}, 0) }
	for _, back := range []func(*Broker, *PullConsumer) error{reset, seek} {
		for _, searching := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				fs := newTestFS()
				b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1})
				p, err := b.NewProducer(nil)
				require.NoError(t, err)
				_, err = p.SendBatch(t.Context(), batchTo(1100))
				require.NoError(t, err)
				for i := range Offset(100) {
					require.NoError(t, queueOne(t, b).entries.Patch(100+i, consumequeue.Entry{}))
					require.NoError(t, queueOne(t, b).entries.Patch(800+i, consumequeue.Entry{}))
				}

				c := subscribed(t, b, "G")
				require.NoError(t, c.Seek(Queue{Topic: "T"}, 800))
				if searching {
					hook := func() error {
						fs.read.Store(nil)
						return back(b, c)
					}
					fs.read.Store(&hook)
				} else {
					require.Equal(t, numbersTo(1100)[800:], pollAll(t, c))
					require.NoError(t, back(b, c))
				}
				require.Equal(t, numbersTo(1100), pollAll(t, c))
				require.Zero(t, b.Stats().Missed)
				require.NoError(t, b.Close())
			})
		}
	}
}

// forgetEntries has others take the memory of entries that are in files.
func forgetEntries(t *testing.T, b *Broker) {
	t.Helper()
	other := b.entries.Queue("Other", 1<<40, 0)
	for range keptBytes/consumequeue.EntrySize + 2000 {
		other.Append(consumequeue.Entry{})
	}
	require.NoError(t, b.entries.Flush())
}

// zeroEntries overwrites entries of the only queue file.
func zeroEntries(t *testing.T, fs *testFS, from, to int64) {
	t.Helper()
	dir := "consumequeue"
	for {
		list, err := fs.List(dir)
		require.NoError(t, err)
		require.Len(t, list, 1, dir)
		dir = filepath.Join(dir, list[0].Name)
		if !list[0].Dir {
			break
		}
	}
	f, err := fs.Open(dir)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, (to-from)*consumequeue.EntrySize), from*consumequeue.EntrySize)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// TestLostStretchIsMissedOnce: offsets whose messages are nowhere are passed
// over after one scan, and each is counted and told of once.
func TestLostStretchIsMissedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var missed missedCount
		fs := newTestFS()
		b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1, Hooks: &Hooks{Missed: missed.hook}})
		sendNumbers(t, b, 0, 5)
		b.log.Exclusive(func() { queueOne(t, b).entries.Advance(305) })
		sendNumbers(t, b, 5, 10)

		reads := countReads(fs)
		c := subscribed(t, b, "G")
		require.Equal(t, numbersTo(10), pollAll(t, c))
		require.Equal(t, int64(1), reads.Load(), "one scan")
		require.Equal(t, int64(300), b.Stats().Missed)
		missed.requireOnce(t, 5, 305)
		require.NoError(t, c.Commit(t.Context()))
		require.Zero(t, lagOf(t, b), "what was missed is done with")
		require.NoError(t, b.Close())
	})
}

// TestSkippedIsAckedOnLeaving: what a filter passed over is not left behind when
// the last member goes before it was time to acknowledge it.
func TestSkippedIsAckedOnLeaving(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
		sendNumbers(t, b, 0, 9)
		c, err := b.NewPushConsumer("G", func(context.Context, *Message) error { return nil }, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", Tags("wanted")))
		synctest.Wait()
		require.Equal(t, int64(9), lagOf(t, b))
		require.NoError(t, c.Close())
		require.Zero(t, lagOf(t, b))
		require.NoError(t, b.Close())
	})
}

// TestSkippedIsAckedBesideOthers: nor when the last one goes that subscribes to the
// topic, and others of the group stay.
func TestSkippedIsAckedBesideOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
		sendNumbers(t, b, 0, 9)
		handler := func(context.Context, *Message) error { return nil }
		stays, err := b.NewPushConsumer("G", handler, nil)
		require.NoError(t, err)
		require.NoError(t, stays.Subscribe("Other", All))
		c, err := b.NewPushConsumer("G", handler, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", Tags("wanted")))
		synctest.Wait()
		require.Equal(t, int64(9), lagOf(t, b))
		require.NoError(t, c.Close())
		require.Zero(t, lagOf(t, b))
		require.NoError(t, b.Close())
	})
}

// TestSkippedIsAckedByTheNext: what was skipped is acknowledged in time also where
// its queue had no owner when it was time, and nothing comes behind it.
func TestSkippedIsAckedByTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
		sendNumbers(t, b, 0, 9)
		lists := Manual(map[string][]Queue{"owner": {{Topic: "T"}}})
		join := func(instance string) *PushConsumer {
			c, err := b.NewPushConsumer("G", func(context.Context, *Message) error { return nil },
				&PushOptions{Instance: instance, Strategy: lists})
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", Tags("wanted")))
			return c
		}
		join("stays")
		c := join("owner")
		synctest.Wait()
		require.Equal(t, int64(9), lagOf(t, b))
		require.NoError(t, c.Close())
		<-time.After(time.Minute)
		join("owner")
		<-time.After(time.Minute)
		require.Zero(t, lagOf(t, b))
		require.NoError(t, b.Close())
	})
}

// lagOf is how far group G is behind.
func lagOf(t *testing.T, b *Broker) int64 {
	t.Helper()
	total, _, err := b.Lag("G")
	require.NoError(t, err)
	return total
}

// TestAckWithoutRoomIsStoredLater: the disk is full, the reserve for
// acknowledgements too. Delivery goes on meanwhile, and when there is room again
// everything handled is acknowledged, without coming again.
func TestAckWithoutRoomIsStoredLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS()
		b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1, SegmentBytes: mib})
		const n = 200
		sendNumbers(t, b, 0, n)
		subscribed(t, b, "Eater")
		var handled atomic.Int64
		free := make(chan struct{})
		c, err := b.NewPushConsumer("G", func(context.Context, *Message) error {
			handled.Add(1)
			<-free
			return nil
		}, &PushOptions{Concurrency: 1})
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		synctest.Wait()
		require.Equal(t, int64(1), handled.Load())

		fs.Fail(func(c vfs.Call) error {
			if c.Op == vfs.OpCreate {
				return syscall.ENOSPC
			}
			return nil
		})
		sent := int64(n + eat(t, b))
		close(free)
		<-time.After(10 * readAgainAfter)
		synctest.Wait()
		require.Equal(t, sent, handled.Load(), "what is stored is delivered")
		require.Equal(t, sent, lagOf(t, b), "no acknowledgement found room")

		fs.Fail(nil)
		<-time.After(3 * readAgainAfter) // the first attempt only asks for room
		synctest.Wait()
		require.Zero(t, lagOf(t, b))
		require.Equal(t, sent, handled.Load(), "nothing came twice")
		require.NoError(t, b.Close())
	})
}

// eat fills a disk on which no segment can be made, the reserve included. It
// returns how many messages that took.
func eat(t *testing.T, b *Broker) (sent int) {
	t.Helper()
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for size := 64 * kib; size > 0; size /= 8 {
		for err = nil; err == nil; sent++ {
			_, err = p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, size)})
		}
		sent-- // the one that failed
		require.ErrorIs(t, err, ErrDiskFull)
	}
	for err = nil; err == nil; {
		err = b.ResetOffset("Eater", "T", Earliest)
	}
	require.ErrorIs(t, err, ErrDiskFull)
	return sent
}

// TestSmallestCache: CacheBytes -1 is a cache that holds next to nothing, not
// the default one, and everything can be read through it.
func TestSmallestCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for cacheBytes, again := range map[int64]bool{-1: true, 0: false} {
			b := openOn(t, newTestFS(), &Options{
				Durability: Written, DefaultQueues: 1, DisableMmap: true, CacheBytes: cacheBytes,
			})
			p, err := b.NewProducer(nil)
			require.NoError(t, err)
			for range 8 {
				_, err := p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, 60*kib)})
				require.NoError(t, err)
			}
			require.Len(t, pollAll(t, subscribed(t, b, "G")), 8)
			first := b.log.Stats().CacheMisses
			require.Positive(t, first)
			require.Len(t, pollAll(t, subscribed(t, b, "Other")), 8)
			require.Equal(t, again, b.log.Stats().CacheMisses > first, "CacheBytes %d", cacheBytes)
		}
	})
}

// TestBacklogIsHandledAtOnce: slow handlers run Concurrency at once, also where
// the messages were there before any worker had parked, so that none was ever
// woken. The workers are started last here, which otherwise is a matter of luck.
func TestBacklogIsHandledAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{Durability: Written})
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		for range 400 {
			_, err := p.Send(t.Context(), &Message{Topic: "T"})
			require.NoError(t, err)
		}
		var running atomic.Int64
		c := &PushConsumer{
			member:  b.newMember("G", "", groupKind{}),
			backoff: RetryDelays,
			handler: func(ctx context.Context, _ *Message) error {
				running.Add(1)
				<-ctx.Done()
				return errors.New("not now")
			},
		}
		c.limit, c.member.stop = 2, c.stopWorkers
		b.members.Lock()
		require.NoError(t, b.join(c.member))
		b.members.Unlock()
		require.NoError(t, c.Subscribe("T", All))
		c.start(20)
		<-time.After(time.Second)
		synctest.Wait()
		require.Equal(t, int64(20), running.Load())
		require.NoError(t, b.Close())
	})
}

// TestResetWhileAHandlerIsStuck: what others were offered of its batch is not
// wanted any more. They were given it all the same, began nothing of it, and
// came back for it at once, for as long as the handler took.
func TestResetWhileAHandlerIsStuck(t *testing.T) {
	t.Parallel()
	b := openOn(t, newTestFS(), &Options{Durability: Written})
	require.NoError(t, b.CreateTopic("T", &TopicConfig{Queues: 1, Durability: Written}))
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for range 3 {
		_, err := p.Send(t.Context(), &Message{Topic: "T"})
		require.NoError(t, err)
	}
	free := make(chan struct{})
	defer close(free)
	c, err := b.NewPushConsumer("G", func(context.Context, *Message) error {
		<-free
		return nil
	}, &PushOptions{Concurrency: 2})
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", All))
	g := c.group
	require.Eventually(t, func() bool { // both are stuck, in one batch
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(c.offered) == 1 && c.offered[0].workers == 2
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, b.ResetOffset("G", "T", Latest))
	g.mu.Lock()
	defer g.mu.Unlock()
	require.True(t, c.helpLocked() == nil, "given what nobody wants")
	require.Empty(t, c.offered)
}

// heldFS calls held before a file of the key index is removed: retention is about to
// be done then, and holds no lock that others want.
type heldFS struct {
	*testFS
	held func()
}

func (fs *heldFS) Remove(name string) error {
	if strings.HasPrefix(filepath.ToSlash(name), "index/") && !strings.HasSuffix(name, ".tmp") {
		fs.held()
	}
	return fs.testFS.Remove(name)
}

// TestRoomUnderMembers: whoever changes who consumes what must not wait for room
// that only retention can make, for retention asks who consumes what.
func TestRoomUnderMembers(t *testing.T) {
	t.Parallel()
	longName := strings.Repeat("T", 100) // with which a record is larger than the smallest message
	for name, change := range map[string]func(b *Broker) error{
		"topic grows":  func(b *Broker) error { return b.UpdateTopic(longName, TopicConfig{Queues: 2}) },
		"group begins": func(b *Broker) error { _, err := b.NewPullConsumer(longName, nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dropping, goOn := make(chan struct{}), make(chan struct{})
			once := sync.OnceFunc(func() {
				close(dropping)
				<-goOn
			})
			opts := (&Options{
				Durability: Written, DefaultQueues: 1, SegmentBytes: mib, Retention: Retention{MaxBytes: 4 * mib, Age: -1},
			}).withDefaults(true)
			b := newBroker(opts, &heldFS{newTestFS(), once}, "")
			require.NoError(t, b.open())
			p, err := b.NewProducer(nil)
			require.NoError(t, err)
			// Until retention is held up, and no room is left at all.
			for size := 64 * kib; size > 0; size /= 8 {
				require.Eventually(t, func() bool {
					var err error
					for err == nil {
						err = p.SendOneWay(&Message{Topic: longName, Keys: []string{"k"}, Body: make([]byte, size)})
					}
					select {
					case <-dropping:
						return !errors.Is(err, ErrFull) && b.log.Stats().Refused > 50
					default:
						return false
					}
				}, time.Minute, time.Millisecond)
			}
			done := make(chan error, 1)
			waits := b.log.Stats().RoomWaits
			go func() { done <- change(b) }()
			require.Eventually(t, func() bool { return len(done) > 0 || b.log.Stats().RoomWaits > waits }, time.Minute, time.Millisecond)
			close(goOn)
			select {
			case err := <-done:
				require.NoError(t, err)
			case <-time.After(10 * time.Second):
				t.Fatal("it waits for retention, and retention for it")
			}
			require.NoError(t, b.Close())
		})
	}
}

// TestFailedCommitKeepsWhatWasSkipped: what a filter passed over goes with an
// acknowledgement. Where that finds no room it goes with the next one, or its
// offsets would hold the log until the store is opened again.
func TestFailedCommitKeepsWhatWasSkipped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS()
		b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1, SegmentBytes: mib})
		sendNumbers(t, b, 0, 1)
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		_, err = p.Send(t.Context(), &Message{Topic: "T", Tag: "wanted"})
		require.NoError(t, err)
		subscribed(t, b, "Eater")
		c, err := b.NewPullConsumer("G", nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", Tags("wanted")))
		fs.Fail(func(c vfs.Call) error {
			if c.Op == vfs.OpCreate {
				return syscall.ENOSPC
			}
			return nil
		})
		synctest.Wait()
		eat(t, b)
		ms, err := c.Poll(t.Context(), 1)
		require.NoError(t, err)
		require.Len(t, ms, 1)
		require.ErrorIs(t, c.Commit(t.Context(), ms...), ErrDiskFull)
		fs.Fail(nil)
		_ = c.Commit(t.Context(), ms...) // asks for room
		synctest.Wait()
		require.NoError(t, c.Commit(t.Context(), ms...))
		offsets, err := b.Offsets("G", "T")
		require.NoError(t, err)
		require.NoError(t, b.Close())
		require.Equal(t, Offset(2), offsets[0].Committed)
	})
}

// TestRetriesSubscribedLater: the retry topic was made, and a member could not
// subscribe to it at that moment. It does so before a message is sent there.
func TestRetriesSubscribedLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
		var handled atomic.Int64
		c, err := b.NewPushConsumer("G", func(context.Context, *Message) error {
			if handled.Add(1) > 1 {
				return nil
			}
			_, err := b.derivedTopic(context.Background(), RetryTopic("G"), 1)
			return errors.Join(errors.New("not now"), err)
		}, nil)
		require.NoError(t, err)
		sendNumbers(t, b, 0, 1)
		require.NoError(t, c.Subscribe("T", All))
		<-time.After(time.Hour)
		require.Equal(t, int64(2), handled.Load())
		require.NoError(t, b.Close())
	})
}

// TestStaleCommitIsSynced: a Commit that leaves out messages of before a reset has
// the others as safe as it is asked for.
func TestStaleCommitIsSynced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
		c, err := b.NewPullConsumer("G", &PullOptions{AckDurability: Synced})
		require.NoError(t, err)
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		var polled []*Message
		for _, topic := range []string{"Reset", "Other"} {
			require.NoError(t, c.Subscribe(topic, All))
			_, err = p.Send(t.Context(), &Message{Topic: topic})
			require.NoError(t, err)
			ms, err := c.Poll(t.Context(), 1)
			require.NoError(t, err)
			polled = append(polled, ms...)
		}
		require.NoError(t, b.ResetOffset("G", "Reset", Earliest))
		require.ErrorIs(t, c.Commit(t.Context(), polled...), ErrStale)
		require.Equal(t, b.log.Written(), b.log.Synced())
		require.NoError(t, b.Close())
	})
}

// TestCloseTellsOfLostAcks: what a full disk kept from being acknowledged until the
// consumer closed comes again, and Close says so.
func TestCloseTellsOfLostAcks(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			fs := newTestFS()
			b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1, SegmentBytes: mib})
			sendNumbers(t, b, 0, 1)
			subscribed(t, b, "Eater")
			full := make(chan struct{})
			c, err := b.NewPushConsumer("G", func(context.Context, *Message) error { <-full; return nil }, nil)
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", All))
			synctest.Wait()
			fs.Fail(func(c vfs.Call) error {
				if c.Op == vfs.OpCreate {
					return syscall.ENOSPC
				}
				return nil
			})
			eat(t, b)
			close(full)
			<-time.After(time.Minute)
			if !whole {
				require.ErrorIs(t, c.Close(), ErrDiskFull)
				require.ErrorIs(t, c.Close(), ErrDiskFull)
				require.NoError(t, b.Close())
			} else {
				require.ErrorIs(t, b.Close(), ErrDiskFull)
			}
		})
	}
}
