package mq

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// fill sends n messages of 100 KiB, which nobody consumes.
func fillTopic(t *testing.T, p *Producer, topic string, n int) {
	t.Helper()
	for range n {
		_, err := p.Send(t.Context(), &Message{Topic: topic, Body: make([]byte, 100*kib)})
		require.NoError(t, err)
	}
}

// TestDelayCarriedForward: what waits longer than its segment is kept is stored
// again, keeps its id and its handle, and comes once; also if the store is closed
// in between, or everything is folded from the log again.
func TestDelayCarriedForward(t *testing.T) {
	t.Parallel()
	for _, rebuilt := range []bool{false, true} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			opts := &Options{SegmentBytes: mib, Durability: Written, Retention: Retention{Age: time.Hour}}
			b, err := Open(dir, opts)
			require.NoError(t, err)
			p, err := b.NewProducer(nil)
			require.NoError(t, err)
			var rs []SendResult
			for i := range 600 { // more than a frame carries
				r, err := p.Send(t.Context(), &Message{
					Topic: "T", Keys: []string{"k"}, Body: fmt.Append(nil, i), Delay: 30*24*time.Hour + time.Duration(i)*time.Second,
				})
				require.NoError(t, err)
				rs = append(rs, r)
			}
			_, err = p.Send(t.Context(), &Message{Topic: "T", Body: []byte("soon"), Delay: time.Minute})
			require.NoError(t, err)
			require.NoError(t, p.Recall(t.Context(), rs[1].RecallHandle()))
			start := b.log.Start()
			for range 3 { // each time they are carried on
				fillTopic(t, p, "F", 100)
				time.Sleep(3 * time.Hour)
				synctest.Wait()
				require.Greater(t, b.log.Start(), start)
				start = b.log.Start()
				require.EqualValues(t, 599, b.Stats().Waiting)
				require.NoError(t, b.Check(t.Context()))
			}
			require.Less(t, rs[599].ID.position, start)
			m, err := b.MessageByID(rs[5].ID)
			require.NoError(t, err)
			require.Equal(t, "5", string(m.Body))
			require.True(t, m.DeliverAt.Equal(rs[5].RecallHandle().DeliverAt()))
			require.NoError(t, p.Recall(t.Context(), rs[2].RecallHandle()))
			require.ErrorIs(t, p.Recall(t.Context(), rs[2].RecallHandle()), ErrNotWaiting)
			require.ErrorIs(t, p.Recall(t.Context(), rs[1].RecallHandle()), ErrNotWaiting)
			require.NoError(t, b.Close())

			if rebuilt {
				require.NoError(t, os.RemoveAll(filepath.Join(dir, "journal")))
			}
			b, err = Open(dir, opts)
			require.NoError(t, err)
			require.Equal(t, rebuilt, b.Recovery().Rebuilt)
			require.EqualValues(t, 598, b.Stats().Waiting)
			require.NoError(t, b.Check(t.Context()))
			got := map[string]int{}
			c, err := b.NewPushConsumer("G", func(_ context.Context, m *Message) error {
				got[string(m.Body)]++
				return nil
			}, &PushOptions{Concurrency: 1})
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", All))
			time.Sleep(32 * 24 * time.Hour)
			synctest.Wait()
			require.NoError(t, b.Check(t.Context()))
			require.NoError(t, b.Close())
			for i := range 600 {
				want := 1
				if i == 1 || i == 2 {
					want = 0
				}
				require.Equal(t, want, got[fmt.Sprint(i)], "message %d", i)
			}
		})
	}
}

// TestDelayFullStore: a store that is full of what waits says so, does not churn,
// and goes on when its time has come.
func TestDelayFullStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, err := Open(dir, &Options{Durability: Written, Retention: Retention{MaxBytes: 4 * mib}})
		require.NoError(t, err)
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		n := 0
		for ; err == nil; n++ {
			_, err = p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, 50*kib), Delay: time.Hour})
		}
		n--
		require.ErrorIs(t, err, ErrFull)
		require.Greater(t, n, 30)
		synctest.Wait()
		written := b.log.Written()
		for range 10 {
			_, err = p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, 50*kib)})
			require.ErrorIs(t, err, ErrFull)
		}
		require.Equal(t, written, b.log.Written(), "nothing is moved about")
		require.Equal(t, HeldByWaiting, b.Stats().HeldBy)
		require.EqualValues(t, n, b.Stats().Waiting)
		got := 0
		c, err := b.NewPushConsumer("G", func(context.Context, *Message) error { got++; return nil }, &PushOptions{Concurrency: 1})
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Equal(t, n, got)
		require.Zero(t, b.Stats().Waiting)
		for range 200 {
			for {
				if _, err = p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, 50*kib)}); !errors.Is(err, ErrFull) {
					break
				}
				time.Sleep(time.Second)
			}
			require.NoError(t, err)
		}
		require.NoError(t, b.Check(t.Context()))
		require.NoError(t, b.Close())
	})
}

// TestDelayFloor: nothing gets a time below what has been taken out to be
// delivered, whatever the clock says.
func TestDelayFloor(t *testing.T) {
	t.Parallel()
	b, err := OpenMemory(&Options{Durability: Written})
	require.NoError(t, err)
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	floor := time.Now().Add(time.Hour).UnixMilli()
	b.log.Exclusive(func() { b.timer.near.floor = floor }) // the clock was an hour ahead
	r, err := p.Send(t.Context(), &Message{Topic: "T", Delay: time.Millisecond})
	require.NoError(t, err)
	require.Equal(t, floor, r.RecallHandle().at, "or it would lie below the mark and be lost")
	require.NoError(t, b.Close())
}
