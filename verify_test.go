package mq_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// verify examines the store and demands that nothing of it changes.
func (h *handmade) verify() *mq.VerifyReport {
	h.t.Helper()
	before := contents(h)
	r, err := mq.Verify(h.t.Context(), h.dir, nil)
	require.NoError(h.t, err)
	require.Equal(h.t, before, contents(h))
	require.False(h.t, r.Changed)
	return r
}

// kinds are those of the problems, without repeats.
func kinds(r *mq.VerifyReport) []mq.ProblemKind {
	seen, all := map[mq.ProblemKind]bool{}, []mq.ProblemKind{}
	for _, p := range r.Problems {
		if !seen[p.Kind] {
			seen[p.Kind] = true
			all = append(all, p.Kind)
		}
	}
	return all
}

func TestVerifySound(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 4400)
	live, err := mq.Verify(t.Context(), h.dir, nil) // and nobody is disturbed
	require.NoError(t, err)
	for live.Changed { // a checkpoint was being written
		live, err = mq.Verify(t.Context(), h.dir, nil)
		require.NoError(t, err)
	}
	require.True(t, live.OK(), "%v", live)
	require.Equal(t, os.Getpid(), live.Owner)
	h.send("T", 1)
	h.close()

	closed := h.verify()
	require.True(t, closed.OK(), "%v", closed)
	require.Empty(t, closed.Problems)
	require.True(t, closed.Closed)
	require.Zero(t, closed.Owner)
	require.Equal(t, int64(len(h.sent)), closed.Messages)
	require.Equal(t, []int{3, 1}, []int{closed.Topics, closed.Groups})
	require.Positive(t, closed.Acks)
	require.Positive(t, closed.QueueFiles)
	require.Positive(t, closed.KeyFiles)
	require.Greater(t, closed.Frames, closed.Messages)
	for id := range h.sent {
		require.True(t, strings.HasPrefix(id.String(), closed.Store))
		break
	}

	killed := makeStore(t, 2600)
	killed.kill()
	r := killed.verify()
	require.True(t, r.OK(), "%v", r)
	require.False(t, r.Closed)
	require.Equal(t, int64(len(killed.sent)), r.Messages)
	require.NoError(t, os.RemoveAll(filepath.Join(killed.dir, "journal")))
	r = killed.verify()
	require.Equal(t, mq.DamagedJournal, kinds(r)[0], "%v", r) // and perhaps what was being written
	require.Equal(t, int64(len(killed.sent)), r.Messages)
	require.Equal(t, []int{3, 1}, []int{r.Topics, r.Groups})
}

// TestVerifyFinds: each kind of damage is reported under its name.
func TestVerifyFinds(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 4400)
	h.close()
	first := func(c *handmade, folder string) string { return c.files(folder)[0] }
	rows := map[string]struct {
		damage func(c *handmade)
		want   []mq.ProblemKind
		ok     bool
	}{
		"message": {func(c *handmade) { c.damage(280) }, []mq.ProblemKind{mq.DamagedLog, mq.Hole}, false},
		"header": {func(c *handmade) {
			edit(c.t, first(c, "commitlog"), func(b []byte) []byte { b[20] ^= 1; return b })
		}, []mq.ProblemKind{mq.DamagedHeader}, false},
		"first segment gone": {func(c *handmade) { require.NoError(c.t, os.Remove(first(c, "commitlog"))) },
			[]mq.ProblemKind{mq.MissingSegment, mq.Hole}, false},
		"second segment gone": {func(c *handmade) { require.NoError(c.t, os.Remove(c.files("commitlog")[1])) },
			[]mq.ProblemKind{mq.MissingSegment, mq.Hole}, false},
		"junk behind the end": {func(c *handmade) {
			names := c.files("commitlog")
			edit(c.t, names[len(names)-1], func(b []byte) []byte { return append(b, "junk"...) })
		}, []mq.ProblemKind{mq.TornTail}, true},
		"journal": {func(c *handmade) {
			edit(c.t, first(c, "journal"), func(b []byte) []byte { clear(b); return b })
		}, []mq.ProblemKind{mq.Leftover, mq.DamagedJournal, mq.TornTail}, false},
		"queue entry": {func(c *handmade) {
			edit(c.t, first(c, "consumequeue"), func(b []byte) []byte { b[100*20+1] ^= 1; return b })
		}, []mq.ProblemKind{mq.DamagedEntry}, false},
		"queue file short": {func(c *handmade) { require.NoError(c.t, os.Truncate(first(c, "consumequeue"), 777)) },
			[]mq.ProblemKind{mq.DamagedQueueFile}, false},
		"queue file gone": {func(c *handmade) { require.NoError(c.t, os.Remove(first(c, "consumequeue"))) },
			[]mq.ProblemKind{mq.DamagedQueueFile}, false},
		"key file": {func(c *handmade) {
			edit(c.t, first(c, "index"), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}, []mq.ProblemKind{mq.DamagedKeyFile}, false},
		"key file gone": {func(c *handmade) { require.NoError(c.t, os.Remove(first(c, "index"))) },
			[]mq.ProblemKind{mq.DamagedKeyFile}, false},
		"strangers": {func(c *handmade) {
			for _, name := range []string{"NOTES", "commitlog/x", "index/x", "journal/x", "consumequeue/x"} {
				require.NoError(c.t, os.WriteFile(filepath.Join(c.dir, name), []byte("?"), 0o600))
			}
		}, []mq.ProblemKind{mq.UnknownFile}, true},
		"leftover": {func(c *handmade) {
			name := filepath.Join(c.dir, "index", strings.Repeat("0", 20)+"-"+strings.Repeat("0", 19)+"9.tmp")
			require.NoError(c.t, os.WriteFile(name, nil, 0o600))
		}, []mq.ProblemKind{mq.Leftover}, true},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := h.copyOf()
			c.t = t
			row.damage(c)
			r := c.verify()
			require.Equal(t, row.want, kinds(r), "%v", r)
			require.Equal(t, row.ok, r.OK())
			for _, p := range r.Problems {
				require.NotEmpty(t, p.File, "%v", p)
				require.False(t, filepath.IsAbs(p.File))
			}
			b, err := json.Marshal(r)
			require.NoError(t, err)
			var back mq.VerifyReport
			require.NoError(t, json.Unmarshal(b, &back))
			require.Equal(t, r.Problems, back.Problems)
		})
	}
}

// TestVerifyPlaces: what is damaged is told by file, offset and message.
func TestVerifyPlaces(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 300)
	h.close()
	lost, file, at := h.damage(280)
	r := h.verify()
	require.Len(t, r.Problems, 2, "%v", r)
	rel, err := filepath.Rel(h.dir, file)
	require.NoError(t, err)
	p := r.Problems[0]
	require.Equal(t, mq.DamagedLog, p.Kind)
	require.Equal(t, []any{filepath.ToSlash(rel), at}, []any{p.File, p.Offset})
	hole := r.Problems[1]
	require.Equal(t, []any{"T", lost.Queue, lost.Offset, lost.Offset + 1}, []any{hole.Topic, hole.Queue, hole.From, hole.To})
	require.Equal(t, []any{filepath.ToSlash(rel), at}, []any{hole.File, hole.Offset})
	require.Contains(t, r.String(), "DAMAGED")
	require.Contains(t, r.String(), hole.String())
}

func TestVerifyErrors(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	file := filepath.Join(empty, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, dir := range []string{filepath.Join(empty, "none"), empty, file, ""} {
		_, err := mq.Verify(t.Context(), dir, nil)
		require.ErrorIs(t, err, mq.ErrNoStore, "%q", dir)
	}
	h := makeStore(t, 300)
	h.close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := mq.Verify(ctx, h.dir, nil)
	require.ErrorIs(t, err, context.Canceled)
	_, err = mq.Verify(t.Context(), h.dir, &mq.VerifyOptions{MaxProblems: -1})
	require.ErrorIs(t, err, mq.ErrInvalidOptions)

	edit(t, h.files("commitlog")[0], func(b []byte) []byte { clear(b[1000 : len(b)-1000]); return b })
	edit(t, h.files("commitlog")[0], func(b []byte) []byte { clear(b[:64]); return b })
	steps := map[string]bool{}
	r, err := mq.Verify(t.Context(), h.dir, &mq.VerifyOptions{MaxProblems: 1, BufferBytes: 1, Progress: func(p mq.Progress) { steps[p.Step] = true }})
	require.NoError(t, err)
	require.Len(t, r.Problems, 1)
	require.Positive(t, r.More)
	require.Len(t, steps, 3)
}

// TestVerifyEveryKind: a store with every kind of record in its log is sound,
// closed or killed, and so is what Repair makes of it.
func TestVerifyEveryKind(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 200)
	p := newProducer(t, h.b, nil)
	for _, delay := range []time.Duration{0, 0, time.Hour} {
		_, err := p.Send(t.Context(), &mq.Message{Topic: "T", Body: []byte("x"), DeliverAt: time.Now().Add(delay)})
		require.NoError(t, err)
	}
	fails := func(context.Context, *mq.Message) error { return errors.New("not now") }
	c := push(t, h.b, "Push", "T", fails, nil)
	mqtest.Eventually(t, func() bool { return h.b.Stats().Failed > 100 }, "messages come again")
	h.kill()
	killed := h.verify()
	require.True(t, killed.OK(), "%v", killed)
	require.NoError(t, c.Close())
	_, err := mq.Repair(t.Context(), h.dir, h.dir+"-repaired", nil)
	require.NoError(t, err)
	for _, dir := range []string{h.dir + "-repaired", strings.TrimSuffix(h.dir, "-killed")} {
		r, err := mq.Verify(t.Context(), dir, nil)
		require.NoError(t, err)
		require.Empty(t, r.Problems, "%v", r)
	}
}
