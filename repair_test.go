package mq_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
)

// repaired repairs the store into another one, checks that it is sound, and goes
// on with it.
func (h *handmade) repaired() *mq.RepairReport {
	h.t.Helper()
	before := contents(h)
	dst := filepath.Join(h.t.TempDir(), "repaired")
	r, err := mq.Repair(h.t.Context(), h.dir, dst, nil)
	require.NoError(h.t, err)
	require.Equal(h.t, before, contents(h), "the damaged store is never changed")
	h.dir = dst
	found := h.verify()
	require.True(h.t, found.Closed)
	for _, p := range found.Problems {
		require.Equal(h.t, mq.Hole, p.Kind, "%v", p)
	}
	require.Equal(h.t, r.Found.Messages, found.Messages)
	return r
}

// forget takes lost messages out of what the store is expected to have.
func (h *handmade) forget(lost []mq.LostRange) {
	h.t.Helper()
	for _, l := range lost {
		for id, m := range h.sent {
			if m.Topic == l.Topic && m.Queue == l.Queue && m.Offset >= l.From && m.Offset < l.To {
				delete(h.open, h.placeOf(id))
				delete(h.sent, id)
			}
		}
	}
}

// withoutStarts are the offsets of groups, but for where queues start: a queue
// whose first messages are lost starts behind them.
func withoutStarts(is image) map[string][]mq.QueueOffset {
	all := map[string][]mq.QueueOffset{}
	for name, offsets := range is.offsets {
		for _, o := range offsets {
			o.Start = 0
			all[name] = append(all[name], o)
		}
	}
	return all
}

// TestRepairSound: of a store that is sound, everything is kept.
func TestRepairSound(t *testing.T) {
	t.Parallel()
	for _, journal := range []bool{true, false} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("journal=%v/killed=%v", journal, killed), func(t *testing.T) {
				t.Parallel()
				h := makeStore(t, 2600)
				if killed {
					h.kill()
				} else {
					h.close()
				}
				if !journal {
					loseJournal(t, h.dir)
				}
				r := h.repaired()
				require.Empty(t, r.Lost)
				require.Equal(t, int64(len(h.sent)), r.Found.Messages)
				require.Equal(t, mq.Recovery{Clean: true}, h.opensWhole())
				h.start(handOptions())
				h.send("T", 5) // no id comes back: send compares
				h.close()
			})
		}
	}
}

// TestRepairDamaged: what is damaged is lost and listed, everything else is as it
// was: ids, offsets, progress.
func TestRepairDamaged(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 2600)
	h.close()
	for name, damage := range map[string]func(c *handmade) (lost int){
		"message": func(c *handmade) int { c.damage(1300); return 1 },
		"two":     func(c *handmade) int { c.damage(280); c.damage(2000); return 2 },
		"first frames": func(c *handmade) int { // topics and groups are named there
			edit(c.t, c.files("commitlog")[0], func(b []byte) []byte { clear(b[:20_000]); return b })
			return -1
		},
		"middle of the second segment": func(c *handmade) int {
			edit(c.t, c.files("commitlog")[1], func(b []byte) []byte { clear(b[100_000:200_001]); return b })
			return -1
		},
		"end of the first segment": func(c *handmade) int {
			edit(c.t, c.files("commitlog")[0], func(b []byte) []byte { return b[:len(b)/2] })
			return -1
		},
		"second segment": func(c *handmade) int { require.NoError(c.t, os.Remove(c.files("commitlog")[1])); return -1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := h.copyOf()
			c.t = t
			n := damage(c)
			r := c.repaired()
			require.False(t, r.Found.OK())
			require.NotEmpty(t, r.Lost)
			if n >= 0 {
				require.Equal(t, int64(n), r.LostMessages)
			}
			had := len(c.sent)
			c.forget(r.Lost)
			require.Equal(t, int64(had-len(c.sent)), r.LostMessages)
			require.Equal(t, r.Found.Messages, int64(len(c.sent)))

			c.start(handOptions())
			require.True(t, c.b.Recovery().Clean)
			is := imageOf(t, c.b)
			require.Equal(t, c.is.topics, is.topics)
			require.Equal(t, c.is.groups, is.groups)
			for topic, route := range c.is.routes {
				for i := range route {
					require.Equal(t, route[i].End, is.routes[topic][i].End)
				}
			}
			require.Equal(t, withoutStarts(c.is), withoutStarts(is))
			for id, want := range c.sent {
				got, err := c.b.MessageByID(id)
				require.NoError(t, err, "%v", c.placeOf(id))
				require.Equal(t, want.Body, got.Body)
				require.Equal(t, c.placeOf(id), place{got.Topic, got.Queue, got.Offset})
				require.Equal(t, want.Keys, got.Keys)
			}
			g := c.member("G", "T", "U")
			open := map[place]bool{}
			for _, m := range c.poll(g, len(c.open)) {
				open[place{m.Topic, m.Queue, m.Offset}] = true
			}
			require.Equal(t, c.open, open)
			require.NoError(t, g.Close())
			require.NoError(t, c.b.Check(t.Context()))
			b, err := json.Marshal(r)
			require.NoError(t, err)
			require.Contains(t, string(b), `"lost":[`)
			require.Contains(t, r.String(), r.Lost[0].String())
			c.send("T", 5)
			c.send("Again", 1)

			// The new log says everything by itself.
			is = imageOf(t, c.b)
			require.NoError(t, c.b.Close())
			loseJournal(t, c.dir)
			c.start(handOptions())
			require.True(t, c.b.Recovery().Rebuilt)
			require.Equal(t, is, imageOf(t, c.b))
		})
	}
}

// TestRepairWithoutNames: neither the journal nor the beginning of the log is
// left: messages are kept under the name of their queue's folder.
func TestRepairWithoutNames(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 4400)
	h.close()
	loseJournal(t, h.dir)
	edit(t, h.files("commitlog")[0], func(b []byte) []byte { clear(b[:4096]); return b })
	r := h.repaired()
	require.Contains(t, r.Renamed, "T")
	require.Contains(t, r.String(), "topic without a name")
	h.start(handOptions())
	ms := h.poll(h.member("New", "T"), 4300)
	for _, m := range ms {
		require.Equal(t, h.sent[m.ID].Body, m.Body)
	}
}

func TestRepairRefuses(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 200)
	h.close()
	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "file"), nil, 0o600))
	for _, dst := range []string{"", h.dir, filepath.Join(h.dir, "in"), full, filepath.Join(full, "file")} {
		_, err := mq.Repair(t.Context(), h.dir, dst, nil)
		require.ErrorIs(t, err, mq.ErrDirectory, "%q", dst)
	}
	_, err := mq.Repair(t.Context(), full, filepath.Join(t.TempDir(), "x"), nil)
	require.ErrorIs(t, err, mq.ErrNoStore)
	nothing := h.copyOf()
	edit(t, nothing.files("commitlog")[0], func(b []byte) []byte { clear(b); return b })
	_, err = mq.Repair(t.Context(), nothing.dir, filepath.Join(t.TempDir(), "x"), nil)
	require.ErrorIs(t, err, mq.ErrCorrupt)
}

// TestRepairInterrupted: what an interrupted repair leaves is no store, and is
// repaired again.
func TestRepairInterrupted(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 2600)
	h.close()
	h.damage(1300)
	steps := 0
	_, err := mq.Repair(t.Context(), h.dir, filepath.Join(t.TempDir(), "x"), &mq.RepairOptions{Progress: func(mq.Progress) { steps++ }})
	require.NoError(t, err)
	require.Greater(t, steps, 2)
	for at := range steps {
		dst := filepath.Join(t.TempDir(), "dst")
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, err := mq.Repair(ctx, h.dir, dst, &mq.RepairOptions{Progress: func(mq.Progress) {
			if n++; n > at {
				cancel()
			}
		}})
		cancel()
		require.ErrorIs(t, err, context.Canceled)
		_, err = mq.Open(dst, handOptions())
		require.ErrorIs(t, err, mq.ErrDirectory)
		require.False(t, errors.Is(err, mq.ErrLocked))
		r, err := mq.Repair(t.Context(), h.dir, dst, nil)
		require.NoError(t, err)
		require.Equal(t, int64(1), r.LostMessages)
		b, err := mq.Open(dst, handOptions())
		require.NoError(t, err)
		require.NoError(t, b.Close())
	}
}

// TestRepairInterruptedAtOnce: before the first thing that says what it is.
func TestRepairInterruptedAtOnce(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 200)
	h.close()
	dst := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dst, "LOCK"), nil, 0o600))
	r, err := mq.Repair(t.Context(), h.dir, dst, nil)
	require.NoError(t, err)
	require.Zero(t, r.LostMessages)
}
