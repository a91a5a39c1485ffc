package mq_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
)

// files returns what is below dir: sizes, times of change and bytes.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = fmt.Sprint(info.Size(), info.ModTime().UnixNano(), info.Mode()) + string(b)
		return err
	}))
	return all
}

// shop is a store with two groups, of which one lags.
func shop(t *testing.T, dir string) (b *mq.Broker, ids []mq.MessageID) {
	t.Helper()
	b, err := mq.Open(dir, &mq.Options{SegmentBytes: 1 << 20, DefaultQueues: 2})
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for i := range 100 {
		r, err := p.Send(t.Context(), &mq.Message{Topic: "Orders", Keys: []string{fmt.Sprint("k", i)}, Body: make([]byte, 10_000)})
		require.NoError(t, err)
		ids = append(ids, r.ID)
	}
	for group, n := range map[string]int{"all": 100, "some": 30} {
		c, err := b.NewPullConsumer(group, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("Orders", mq.All))
		for n > 0 {
			got, err := c.Poll(t.Context(), n)
			require.NoError(t, err)
			require.NoError(t, c.Commit(t.Context(), got...))
			n -= len(got)
		}
	}
	return b, ids
}

// lookAtShop holds a snapshot of shop against what was sent and acknowledged.
func lookAtShop(t *testing.T, dir string, ids []mq.MessageID) {
	t.Helper()
	s, err := mq.OpenReadOnly(dir, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	assert.Equal(t, []string{"Orders"}, s.Topics())
	assert.Equal(t, []string{"all", "some"}, s.Groups())
	lag, _, err := s.Lag("some")
	require.NoError(t, err)
	assert.EqualValues(t, 70, lag)
	lag, _, err = s.Lag("all")
	require.NoError(t, err)
	assert.Zero(t, lag)
	for i, id := range ids {
		m, err := s.MessageByID(id)
		require.NoError(t, err, "message %d", i)
		assert.Len(t, m.Body, 10_000)
	}
	got, err := s.MessagesByKey("Orders", "k42", 10)
	require.NoError(t, err)
	require.Len(t, got, 1)
	assert.Equal(t, ids[42], got[0].ID)
	browsed := 0
	for m, err := range s.Browse("Orders", time.Time{}, time.Time{}, mq.All) {
		require.NoError(t, err)
		assert.Equal(t, ids[browsed], m.ID)
		browsed++
	}
	assert.Len(t, ids, browsed)
	backlog, _, err := s.Backlog("some")
	require.NoError(t, err)
	assert.EqualValues(t, 70, backlog.Messages)
	tracks, err := s.MessageTrack(ids[0])
	require.NoError(t, err)
	require.Len(t, tracks, 2)
	assert.Equal(t, mq.Consumed, tracks[0].State)
	first, err := s.MessageAt(mq.Queue{Topic: "Orders", ID: 0}, 0)
	require.NoError(t, err)
	assert.Contains(t, ids, first.ID)
	assert.Empty(t, s.Recovery().Corrupt)
	off, err := s.OffsetAt(mq.Queue{Topic: "Orders", ID: 0}, time.Now().Add(time.Hour))
	require.NoError(t, err)
	assert.EqualValues(t, 50, off)
}

// Looking at a store changes no byte and no time of it, whether it is open,
// closed, or was left by a process that was killed.
func TestReadOnlyChangesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, ids := shop(t, dir)
	require.NoError(t, b.Sync(t.Context()))
	killed := t.TempDir()
	require.NoError(t, os.CopyFS(killed, os.DirFS(dir)))
	lookAtShop(t, dir, ids)
	require.NoError(t, b.Close())
	for _, dir := range []string{dir, killed} {
		before := files(t, dir)
		lookAtShop(t, dir, ids)
		require.Equal(t, before, files(t, dir))
	}
	again, err := mq.Open(dir, nil)
	require.NoError(t, err)
	assert.True(t, again.Recovery().Clean)
	require.NoError(t, again.Close())

	require.NoError(t, os.RemoveAll(filepath.Join(killed, "journal")))
	require.NoError(t, os.RemoveAll(filepath.Join(killed, "consumequeue")))
	lookAtShop(t, killed, ids) // all of it from the log
}

// What was acknowledged before a snapshot is opened is in it, while the owner
// sends, consumes, rolls segments and writes checkpoints.
func TestReadOnlyBesideItsOwner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := mq.Open(dir, &mq.Options{SegmentBytes: 1 << 20, Durability: mq.Written, DefaultQueues: 1})
	require.NoError(t, err)
	require.NoError(t, b.CreateTopic("t", nil))
	c, err := b.NewPushConsumer("g", func(context.Context, *mq.Message) error { return nil }, nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("t", mq.All))

	var mu sync.Mutex // protects newest
	var newest mq.SendResult
	ctx, stop := context.WithCancel(t.Context())
	var sender sync.WaitGroup
	sender.Go(func() {
		p, err := b.NewProducer(nil)
		if !assert.NoError(t, err) {
			return
		}
		body := make([]byte, 1000)
		for ctx.Err() == nil {
			r, err := p.Send(ctx, &mq.Message{Topic: "t", Body: body})
			if err == nil {
				mu.Lock()
				newest = r
				mu.Unlock()
			}
		}
	})
	for seen := mq.Offset(0); seen < 3000; {
		mu.Lock()
		before := newest
		mu.Unlock()
		s, err := mq.OpenReadOnly(dir, nil)
		require.NoError(t, err)
		require.Empty(t, s.Recovery().Corrupt)
		if before.ID != (mq.MessageID{}) {
			m, err := s.MessageByID(before.ID)
			require.NoError(t, err)
			require.Equal(t, before.Offset, m.Offset)
			route, err := s.Route("t")
			require.NoError(t, err)
			require.Greater(t, route[0].End, before.Offset)
		}
		require.NoError(t, s.Close())
		seen = before.Offset
	}
	stop()
	sender.Wait()
	require.NoError(t, b.Close())
	b, err = mq.Open(dir, nil)
	require.NoError(t, err)
	assert.True(t, b.Recovery().Clean)
	require.NoError(t, b.Close())
}

func TestReadOnlyRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, dir := range []string{"", dir, filepath.Join(dir, "missing")} {
		_, err := mq.OpenReadOnly(dir, nil)
		require.ErrorIs(t, err, mq.ErrNoStore)
	}
	_, err := mq.OpenReadOnly(dir, &mq.Options{SegmentBytes: -1})
	require.ErrorIs(t, err, mq.ErrInvalidOptions)

	_, ids := shop(t, dir)
	s, err := mq.OpenReadOnly(dir, nil)
	require.NoError(t, err)
	_, _, err = s.Lag("nobody")
	require.ErrorIs(t, err, mq.ErrGroupNotFound)
	_, err = s.Topic("nothing")
	require.ErrorIs(t, err, mq.ErrTopicNotFound)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, err = s.MessageByID(ids[0])
	require.ErrorIs(t, err, mq.ErrClosed)
	_, err = s.MessagesByKey("Orders", "k1", 1)
	require.ErrorIs(t, err, mq.ErrClosed)
}
