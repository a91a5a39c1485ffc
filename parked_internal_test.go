package mq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// damageLast takes away what is before the last such bytes of the log: the head of
// their record.
func damageLast(t *testing.T, fs *testFS, of string) {
	t.Helper()
	list, err := fs.List("commitlog")
	require.NoError(t, err)
	for _, e := range list {
		f, err := fs.Open(filepath.Join("commitlog", e.Name))
		require.NoError(t, err)
		data := make([]byte, e.Size)
		n, _ := f.ReadAt(data, 0)
		if at := bytes.LastIndex(data[:n], []byte(of)); at >= 0 {
			_, err = f.WriteAt(make([]byte, 64), int64(at)-64)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			return
		}
		require.NoError(t, f.Close())
	}
	t.Fatalf("%q is not in the log", of)
}

// TestParkedLost: a parked message that is damaged is missed once, however often
// what is before it comes again, and what is behind it comes to the last.
func TestParkedLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var missed missedCount
		fs := newTestFS()
		b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1, SegmentBytes: mib, Hooks: &Hooks{Missed: missed.hook}})
		var freed atomic.Bool
		var got []string
		c, err := b.NewPushConsumer("G", func(_ context.Context, m *Message) error {
			if !freed.Load() {
				return errors.New("blocked")
			}
			got = append(got, string(m.Body))
			return nil
		}, &PushOptions{Ordered: true, PrefetchMessages: parkShare})
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		var want []string
		for i := range 20 {
			body := fmt.Sprintf("message %d of the key", i)
			_, err := p.Send(t.Context(), &Message{Topic: "T", ShardingKey: "K", Body: []byte(body)})
			require.NoError(t, err)
			if i != 3 {
				want = append(want, body)
			}
		}
		<-time.After(100 * time.Millisecond)
		require.Equal(t, int64(20), b.Stats().Parked)
		g := b.names.group(groupKey{name: "G"})
		g.mu.Lock() // so that nobody reads meanwhile
		damageLast(t, fs, "message 3 of the key")
		g.mu.Unlock()
		<-time.After(10 * time.Second)
		freed.Store(true)
		<-time.After(10 * time.Second)
		require.Equal(t, want, got)
		missed.requireOnce(t, 3, 4)
		require.Zero(t, lagOf(t, b))
		require.NoError(t, b.Close())
	})
}

// TestParkedWhileNotReadable: messages are parked while the queue that they go to
// waits for its file. The rest of their key waits for them all the same.
func TestParkedWhileNotReadable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
		var freed atomic.Bool
		var got []string
		c, err := b.NewPushConsumer("G", func(_ context.Context, m *Message) error {
			if !freed.Load() {
				return errors.New("blocked")
			}
			if m.ShardingKey == "K" {
				got = append(got, m.Tag)
			}
			return nil
		}, &PushOptions{Ordered: true, PrefetchMessages: 40, Backoff: Fixed(time.Second / 2)})
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		for range 20 {
			_, err := p.Send(t.Context(), &Message{Topic: "T", ShardingKey: "first"})
			require.NoError(t, err)
		}
		<-time.After(100 * time.Millisecond)
		require.Greater(t, b.Stats().Parked, int64(20-40/parkShare))

		g := b.names.group(groupKey{name: "G"})
		g.mu.Lock()
		g.topics[b.names.topic(ParkedTopic("G", "T"))].cursors[0].pauseLocked()
		g.mu.Unlock()
		for _, tag := range numbersTo(30) {
			_, err := p.Send(t.Context(), &Message{Topic: "T", ShardingKey: "K", Tag: tag, Body: make([]byte, parkBytes/8)})
			require.NoError(t, err)
		}
		<-time.After(100 * time.Millisecond)
		require.Greater(t, b.Stats().Parked, int64(50-40/parkShare))
		freed.Store(true)
		<-time.After(time.Minute)
		require.Equal(t, numbersTo(30), got)
		require.Zero(t, lagOf(t, b))
		require.NoError(t, b.Close())
	})
}

// TestParkedDropped: what retention drops of a blocked key is missed once, also if
// more of the key is parked before anybody comes for it.
func TestParkedDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var missed missedCount
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1, Hooks: &Hooks{Missed: missed.hook}})
		var freed atomic.Bool
		var got []string
		c, err := b.NewPushConsumer("G", func(_ context.Context, m *Message) error {
			if !freed.Load() {
				return errors.New("blocked")
			}
			got = append(got, m.Tag)
			return nil
		}, &PushOptions{Ordered: true, PrefetchMessages: parkShare})
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		tags := numbersTo(30)
		for i, tag := range tags {
			if i == 20 {
				<-time.After(100 * time.Millisecond)
				require.Equal(t, int64(20), b.Stats().Parked)
				(*b.names.topic(ParkedTopic("G", "T")).queues.Load())[0].entries.Trim(10) // as retention does
			}
			_, err := p.Send(t.Context(), &Message{Topic: "T", ShardingKey: "K", Tag: tag})
			require.NoError(t, err)
		}
		<-time.After(100 * time.Millisecond)
		freed.Store(true)
		<-time.After(10 * time.Second)
		require.Equal(t, tags[10:], got)
		missed.requireOnce(t, 0, 10)
		require.Zero(t, lagOf(t, b))
		committed, err := b.Offsets("G", ParkedTopic("G", "T"))
		require.NoError(t, err)
		require.Equal(t, Offset(30), committed[0].Committed)
		require.NoError(t, b.Close())
	})
}

// TestParkedHoleWhileNotReadable: a lost entry of a parked message is looked for in
// the log. Where that cannot be read just now, it is tried again after a while, and
// not at once without end.
func TestParkedHoleWhileNotReadable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var missed missedCount
		fs := newTestFS()
		b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1, Hooks: &Hooks{Missed: missed.hook}})
		var freed atomic.Bool
		var got []string
		c, err := b.NewPushConsumer("G", func(_ context.Context, m *Message) error {
			if !freed.Load() && m.ShardingKey == "K" {
				return errors.New("blocked")
			}
			got = append(got, m.Tag)
			return nil
		}, &PushOptions{Ordered: true, Concurrency: 1, PrefetchMessages: parkShare})
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		for _, tag := range numbersTo(20) {
			_, err := p.Send(t.Context(), &Message{Topic: "T", ShardingKey: "K", Tag: tag})
			require.NoError(t, err)
		}
		<-time.After(100 * time.Millisecond)
		require.Equal(t, int64(20), b.Stats().Parked)
		g := b.names.group(groupKey{name: "G"})
		lost := g.topics[b.names.topic(ParkedTopic("G", "T"))].cursors[0].queue
		b.log.Exclusive(func() { lost.entries.Advance(21) })

		const failing = 100
		var reads atomic.Int64
		hook := func() error {
			if reads.Add(1) <= failing {
				return syscall.EMFILE
			}
			return nil
		}
		fs.read.Store(&hook)
		_, err = p.Send(t.Context(), &Message{Topic: "T", ShardingKey: "other", Tag: "other"})
		require.NoError(t, err)
		<-time.After(readAgainAfter / 2)
		require.Positive(t, reads.Load())
		require.LessOrEqual(t, reads.Load(), int64(2))
		<-time.After(failing * readAgainAfter)
		require.Equal(t, []string{"other"}, got)
		freed.Store(true)
		<-time.After(10 * time.Second)
		require.Equal(t, append([]string{"other"}, numbersTo(20)...), got)
		missed.requireOnce(t, 20, 21)
		require.Zero(t, lagOf(t, b))
		require.NoError(t, b.Close())
	})
}
