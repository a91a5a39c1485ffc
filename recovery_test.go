package mq_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// handmade is a store that a test can damage, and what is in it:
//
//   - topic T, Written, with 2 queues: enough messages for segments to be
//     sealed, for checkpoints, and for queue files;
//   - topic U, Synced;
//   - topic Again, which was deleted and created again, and Gone, which was only
//     deleted;
//   - group G, which has consumed half of T but every tenth message, was reset
//     in U, and forgot Again with the topic; group Gone, which was deleted.
type handmade struct {
	t    *testing.T
	dir  string
	b    *mq.Broker
	p    *mq.Producer
	n    int // messages sent so far
	sent map[mq.MessageID]*mq.Message
	open map[place]bool // what G has yet to consume
	is   image
}

// image is what a broker says of itself.
type image struct {
	topics, groups []string
	routes         map[string][]mq.QueueInfo
	offsets        map[string][]mq.QueueOffset
}

func handOptions() *mq.Options {
	return &mq.Options{SegmentBytes: 1 << 20, Retention: mq.Retention{Age: -1}}
}

// makeStore makes a store of so many messages in T and leaves it open.
func makeStore(t *testing.T, messages int) *handmade {
	t.Helper()
	h := &handmade{t: t, dir: filepath.Join(t.TempDir(), "store"), sent: map[mq.MessageID]*mq.Message{}, open: map[place]bool{}}
	h.start(handOptions())
	require.NoError(t, h.b.CreateTopic("T", &mq.TopicConfig{Queues: 2, Durability: mq.Written}))
	require.NoError(t, h.b.CreateTopic("U", &mq.TopicConfig{Queues: 1}))
	for _, name := range []string{"Gone", "Again"} {
		require.NoError(t, h.b.CreateTopic(name, &mq.TopicConfig{Queues: 1, Durability: mq.Written}))
	}
	h.send("Again", 3)
	h.send("Gone", 3)
	g, gone := h.member("G", "T", "U", "Again"), h.member("Gone", "T")
	h.send("U", 5)
	h.poll(g, 8)
	require.NoError(t, g.Commit(t.Context()))
	require.NoError(t, gone.Close())
	require.NoError(t, h.b.DeleteGroup("Gone"))
	require.NoError(t, h.b.DeleteTopic("Gone"))
	require.NoError(t, h.b.DeleteTopic("Again"))
	maps.DeleteFunc(h.sent, func(_ mq.MessageID, m *mq.Message) bool { return m.Topic == "Gone" || m.Topic == "Again" })
	require.NoError(t, h.b.CreateTopic("Again", &mq.TopicConfig{Queues: 1, Durability: mq.Written}))
	h.send("Again", 2)
	h.send("T", messages/2)
	h.consume(g, messages/2)
	require.NoError(t, h.b.ResetOffset("G", "U", mq.AtOffset(mq.Queue{Topic: "U"}, 3)))
	h.open[place{"U", 0, 3}], h.open[place{"U", 0, 4}] = true, true
	h.send("T", messages-messages/2)
	for id, m := range h.sent {
		if m.Topic == "T" && !h.done(id, messages/2) {
			h.open[h.placeOf(id)] = true
		}
	}
	require.NoError(t, g.Close())
	if messages >= 2600 { // segments are sealed: a copy has a checkpoint that is complete
		mqtest.Eventually(t, func() bool { return h.b.Stats().Checkpoints > 0 }, "a checkpoint is written")
	}
	return h
}

func (h *handmade) start(o *mq.Options) {
	h.t.Helper()
	b, err := mq.Open(h.dir, o)
	require.NoError(h.t, err)
	h.b = b
	h.p, err = b.NewProducer(nil)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { require.NoError(h.t, b.Close()) })
}

// close closes the broker and notes what it said last.
func (h *handmade) close() {
	h.t.Helper()
	h.is = imageOf(h.t, h.b)
	require.NoError(h.t, h.b.Close())
}

// kill goes on with what a kill of the process would leave.
func (h *handmade) kill() {
	h.t.Helper()
	dir := h.dir + "-killed"
	copyStore(h.t, h.dir, dir)
	h.close()
	h.dir = dir
}

// copyOf returns a copy of the closed store.
func (h *handmade) copyOf() *handmade {
	h.t.Helper()
	c := *h
	c.dir = filepath.Join(h.t.TempDir(), "copy")
	copyStore(h.t, h.dir, c.dir)
	c.sent, c.open = maps.Clone(h.sent), maps.Clone(h.open)
	return &c
}

func (h *handmade) send(topic string, n int) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	for range n {
		h.n++
		body := fmt.Sprintf("message-%06d.%s", h.n, strings.Repeat("x", 850))
		m := &mq.Message{Topic: topic, Tag: "tag", Keys: []string{fmt.Sprintf("key-%d", h.n)}, Body: []byte(body)}
		r, err := h.p.Send(ctx, m)
		require.NoError(h.t, err)
		require.Nil(h.t, h.sent[r.ID], "id %v again", r.ID)
		m.ID, m.Queue, m.Offset = r.ID, r.Queue, r.Offset
		h.sent[r.ID] = m
	}
}

func (h *handmade) placeOf(id mq.MessageID) place {
	m := h.sent[id]
	return place{m.Topic, m.Queue, m.Offset}
}

// done reports whether consume acknowledged the message of T.
func (h *handmade) done(id mq.MessageID, n int) bool {
	off := int(h.sent[id].Offset)
	return off < n/2 && off%10 != 9
}

func (h *handmade) member(group string, topics ...string) *mq.PullConsumer {
	h.t.Helper()
	c, err := h.b.NewPullConsumer(group, nil)
	require.NoError(h.t, err)
	for _, name := range topics {
		require.NoError(h.t, c.Subscribe(name, mq.All))
	}
	return c
}

// poll returns so many messages.
func (h *handmade) poll(c *mq.PullConsumer, n int) (all []*mq.Message) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	for len(all) < n {
		ms, err := c.Poll(ctx, min(32, n-len(all)))
		require.NoError(h.t, err, "%d of %d messages", len(all), n)
		all = append(all, ms...)
	}
	return all
}

// consume commits nine of ten of the first n messages of T.
func (h *handmade) consume(c *mq.PullConsumer, n int) {
	h.t.Helper()
	for _, m := range h.poll(c, n) {
		if int(m.Offset) < n/2 && m.Offset%10 != 9 {
			require.NoError(h.t, c.Commit(h.t.Context(), m))
		}
	}
}

func imageOf(t *testing.T, b *mq.Broker) image {
	t.Helper()
	is := image{topics: b.Topics(), groups: b.Groups(), routes: map[string][]mq.QueueInfo{}, offsets: map[string][]mq.QueueOffset{}}
	for _, name := range is.topics {
		route, err := b.Route(name)
		require.NoError(t, err)
		is.routes[name] = route
		for _, group := range is.groups {
			offsets, err := b.Offsets(group, name)
			require.NoError(t, err)
			is.offsets[group+" "+name] = offsets
		}
	}
	return is
}

// opensWhole opens the store and finds everything as it was.
func (h *handmade) opensWhole() mq.Recovery {
	h.t.Helper()
	h.start(handOptions())
	require.Equal(h.t, h.is, imageOf(h.t, h.b))
	for id, want := range h.sent {
		got, err := h.b.MessageByID(id)
		require.NoError(h.t, err, "%v", h.placeOf(id))
		require.Equal(h.t, want.Body, got.Body)
		require.Equal(h.t, h.placeOf(id), place{got.Topic, got.Queue, got.Offset})
	}
	h.delivers()
	require.NoError(h.t, h.b.Check(h.t.Context()))
	found := h.b.Recovery()
	require.NoError(h.t, h.b.Close())
	return found
}

// delivers checks that G gets what it has yet to consume and nothing else, that
// another group gets everything, in order, and that keys lead to their messages.
func (h *handmade) delivers() {
	h.t.Helper()
	got := map[place]bool{}
	g := h.member("G", "T", "U")
	defer func() { require.NoError(h.t, g.Close()) }()
	for _, m := range h.poll(g, len(h.open)) {
		got[place{m.Topic, m.Queue, m.Offset}] = true
	}
	require.Equal(h.t, h.open, got)
	lag, _, err := h.b.Lag("G")
	require.NoError(h.t, err)
	require.Equal(h.t, len(h.open), int(lag))

	next := map[mq.Queue]mq.Offset{}
	other := h.member("Other", "T", "U", "Again")
	defer func() {
		require.NoError(h.t, other.Close())
		require.NoError(h.t, h.b.DeleteGroup("Other"))
	}()
	for _, m := range h.poll(other, len(h.sent)) {
		q := mq.Queue{Topic: m.Topic, ID: m.Queue}
		require.Equal(h.t, next[q], m.Offset)
		next[q]++
		require.NotNil(h.t, h.sent[m.ID], "%v %d", q, m.Offset)
		require.Equal(h.t, h.sent[m.ID].Body, m.Body)
	}
	for id, m := range h.sent {
		if m.Offset%50 == 0 {
			found, err := h.b.MessagesByKey(m.Topic, m.Keys[0], 1)
			require.NoError(h.t, err)
			require.Len(h.t, found, 1, "key %s", m.Keys[0])
			require.Equal(h.t, id, found[0].ID)
		}
	}
}

// files returns the files below a folder of the store.
func (h *handmade) files(folder string) (names []string) {
	h.t.Helper()
	err := filepath.WalkDir(filepath.Join(h.dir, folder), func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	require.NoError(h.t, err)
	require.NotEmpty(h.t, names, "no files in %s", folder)
	return names
}

// edit changes a file.
func edit(t *testing.T, name string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, change(data), 0o600))
}

func TestRecoveryClean(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 200)
	require.True(t, h.b.Recovery().Clean)
	h.close()
	require.Equal(t, mq.Recovery{Clean: true}, h.opensWhole())
}

func TestRecoveryUnclean(t *testing.T) {
	t.Parallel()
	for _, n := range []int{200, 2600} {
		h := makeStore(t, n)
		h.kill()
		found := h.opensWhole()
		require.False(t, found.Clean)
		if n < 2600 { // with checkpoints the last one may have come after all that was sent
			require.NotZero(t, found.Replayed)
		}
		require.Empty(t, found.Cut)
		require.Empty(t, found.Corrupt)
	}
}

// TestRecoveryWithdrawn: a store that was opened is not clean until it is closed
// again, even if all that was sent meanwhile is lost, so that the log ends where
// the clean one did: its ids are not given out again.
func TestRecoveryWithdrawn(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 200)
	h.close()
	names := h.files("commitlog")
	last := filepath.Base(names[len(names)-1])
	info, err := os.Stat(names[len(names)-1])
	require.NoError(t, err)
	is, sent := h.is, maps.Clone(h.sent)

	h.start(handOptions())
	h.send("T", 5)
	lost := h.sent
	h.kill()
	require.NoError(t, os.Truncate(filepath.Join(h.dir, "commitlog", last), info.Size()))
	h.is, h.sent = is, sent
	require.False(t, h.opensWhole().Clean)
	h.start(handOptions())
	h.sent = lost // send compares with them
	h.send("T", 5)
}

// number is which message of the store it is.
func (h *handmade) number(id mq.MessageID) (n int) {
	h.t.Helper()
	_, err := fmt.Sscanf(string(h.sent[id].Body), "message-%06d.", &n)
	require.NoError(h.t, err)
	return n
}

// TestRecoveryLostJournal: the log alone rebuilds everything.
func TestRecoveryLostJournal(t *testing.T) {
	t.Parallel()
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean=%v", clean), func(t *testing.T) {
			t.Parallel()
			h := makeStore(t, 2600)
			if clean {
				h.close()
			} else {
				h.kill()
			}
			require.NoError(t, os.RemoveAll(filepath.Join(h.dir, "journal")))
			found := h.opensWhole()
			require.True(t, found.Rebuilt)
			require.False(t, found.Clean)
			require.True(t, h.opensWhole().Clean, "and the next time all is as ever")
		})
	}
}

// TestRecoveryLostJournalCarried: what retention carried forward lies in the log
// behind what it is needed for. The group's name was in the first segment, and
// its start in topic B in the second one.
func TestRecoveryLostJournalCarried(t *testing.T) {
	t.Parallel()
	h := &handmade{t: t, dir: filepath.Join(t.TempDir(), "store"), sent: map[mq.MessageID]*mq.Message{}, open: map[place]bool{}}
	o := handOptions()
	o.Retention.MaxBytes = 4 << 20
	h.start(o)
	for _, name := range []string{"A", "B"} {
		require.NoError(t, h.b.CreateTopic(name, &mq.TopicConfig{Queues: 1, Durability: mq.Written}))
	}
	policy := mq.RetryPolicy{MaxAttempts: 3, Delays: []time.Duration{time.Second}}
	require.NoError(t, h.b.UpdateGroup("G", mq.GroupConfig{Retry: policy}))
	g := h.member("G", "A")
	fill := func(segments int) {
		for h.b.Stats().Segments+int(h.b.Stats().Dropped) < segments {
			h.send("A", 100)
			require.NoError(t, g.Commit(t.Context(), h.poll(g, 100)...))
		}
	}
	fill(2)
	require.NoError(t, g.Subscribe("B", mq.All))
	h.send("B", 10)
	ms := h.poll(g, 10)
	require.NoError(t, g.Commit(t.Context(), ms[0], ms[1], ms[5]))
	fill(5)
	mqtest.Eventually(t, func() bool { return h.b.Stats().Dropped == 1 }, "the first segment is dropped")
	h.close()

	for _, lost := range []bool{false, true} {
		c := h.copyOf()
		if lost {
			require.NoError(t, os.RemoveAll(filepath.Join(c.dir, "journal")))
		}
		c.start(o)
		require.Equal(t, lost, c.b.Recovery().Rebuilt)
		require.Equal(t, h.is, imageOf(t, c.b))
		var offsets []mq.Offset
		for _, m := range c.poll(c.member("G", "A", "B"), 7) {
			require.Equal(t, "B", m.Topic)
			offsets = append(offsets, m.Offset)
		}
		require.Equal(t, []mq.Offset{2, 3, 4, 6, 7, 8, 9}, offsets)
		info, err := c.b.Group("G")
		require.NoError(t, err)
		require.Equal(t, policy, info.Retry)
		require.NoError(t, c.b.Check(t.Context()))
		require.NoError(t, c.b.Close())
	}
}

// TestRecoveryDamagedJournal: whatever bit of the checkpoints is wrong, they are
// not believed, or not needed.
func TestRecoveryDamagedJournal(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 40)
	h.close()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		c := h.copyOf()
		names := c.files("journal")
		edit(t, names[rnd.IntN(len(names))], func(data []byte) []byte {
			if len(data) > 0 {
				data[rnd.IntN(len(data))] ^= 1 << rnd.IntN(8)
			}
			return data
		})
		c.opensWhole()
	}
}

// TestRecoveryQueueFiles: the files of a queue may be wrong in any way. What
// they lack is found in the log.
func TestRecoveryQueueFiles(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 4400)
	h.close()
	older := t.TempDir() // as the files were a while ago
	require.NoError(t, copyTree(filepath.Join(h.dir, "consumequeue"), filepath.Join(older, "consumequeue")))
	h.start(handOptions())
	h.send("T", 4400)
	for id, m := range h.sent {
		if m.Topic == "T" && m.Offset >= 2200 {
			h.open[h.placeOf(id)] = true
		}
	}
	h.close()
	rnd := rand.New(rand.NewPCG(1, 2))
	garbage := func(b []byte) {
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
	}
	entry := 20
	rows := map[string]func(c *handmade, name string){
		"stale": func(c *handmade, name string) {
			rel, err := filepath.Rel(c.dir, name)
			require.NoError(t, err)
			require.NoError(t, copyFile(filepath.Join(older, rel), name))
		},
		"cut":    func(c *handmade, name string) { require.NoError(t, os.Truncate(name, 777)) },
		"empty":  func(c *handmade, name string) { require.NoError(t, os.Truncate(name, 0)) },
		"longer": func(c *handmade, name string) { edit(t, name, func(b []byte) []byte { return append(b, b...) }) },
		"gone":   func(c *handmade, name string) { require.NoError(t, os.Remove(name)) },
		"zeros in it": func(c *handmade, name string) {
			edit(t, name, func(b []byte) []byte { clear(b[100*entry : 300*entry]); return b })
		},
		"garbage in it": func(c *handmade, name string) {
			edit(t, name, func(b []byte) []byte { garbage(b[100*entry : 140*entry]); return b })
		},
		"garbage at its ends": func(c *handmade, name string) {
			edit(t, name, func(b []byte) []byte {
				garbage(b[:3*entry])
				garbage(b[len(b)-3*entry:])
				return b
			})
		},
		"entries swapped": func(c *handmade, name string) {
			edit(t, name, func(b []byte) []byte {
				one := slices.Clone(b[200*entry : 201*entry])
				copy(b[200*entry:], b[700*entry:701*entry])
				copy(b[700*entry:], one)
				return b
			})
		},
		"neighbours swapped": func(c *handmade, name string) {
			edit(t, name, func(b []byte) []byte {
				for at := 100 * entry; at < 110*entry; at += 2 * entry {
					one := slices.Clone(b[at : at+entry])
					copy(b[at:], b[at+entry:at+2*entry])
					copy(b[at+entry:], one)
				}
				return b
			})
		},
		"no folder": func(c *handmade, _ string) { require.NoError(t, os.RemoveAll(filepath.Join(c.dir, "consumequeue"))) },
	}
	for name, damage := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := h.copyOf()
			c.t = t
			damage(c, c.files("consumequeue")[0])
			c.start(handOptions())
			require.Equal(t, c.is, imageOf(t, c.b))
			c.delivers()
			require.NoError(t, c.b.Check(t.Context()))
			require.Zero(t, c.b.Stats().Missed)
		})
	}
}

// TestRecoveryIndexFiles: keys lead to their messages although files of the
// index are gone or damaged.
func TestRecoveryIndexFiles(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 2600)
	h.close()
	rows := map[string]func(c *handmade){
		"all gone": func(c *handmade) { require.NoError(t, os.RemoveAll(filepath.Join(c.dir, "index"))) },
		"first gone": func(c *handmade) {
			require.NoError(t, os.Remove(c.files("index")[0]))
		},
		"last gone": func(c *handmade) {
			names := c.files("index")
			require.NoError(t, os.Remove(names[len(names)-1]))
		},
		"bit flipped": func(c *handmade) {
			edit(t, c.files("index")[0], func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		},
		"cut": func(c *handmade) { require.NoError(t, os.Truncate(c.files("index")[0], 1000)) },
	}
	for name, damage := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := h.copyOf()
			c.t = t
			damage(c)
			c.opensWhole()
		})
	}
}

// damage flips a bit in the body of a message of T, and returns the message, the
// file, and where its record begins in it.
func (h *handmade) damage(number int) (m *mq.Message, file string, at int64) {
	h.t.Helper()
	for id := range h.sent {
		if h.number(id) == number {
			m = h.sent[id]
		}
	}
	needle := m.Body[:len("message-000000.")]
	for _, name := range h.files("commitlog") {
		data, err := os.ReadFile(name)
		require.NoError(h.t, err)
		if i := bytes.Index(data, needle); i >= 0 {
			data[i+len(needle)+10] ^= 1
			require.NoError(h.t, os.WriteFile(name, data, 0o600))
			var position int64
			_, err := fmt.Sscanf(m.ID.String()[24:], "%x", &position)
			require.NoError(h.t, err)
			var base int64
			_, err = fmt.Sscanf(filepath.Base(name), "%d", &base)
			require.NoError(h.t, err)
			return m, name, position - base
		}
	}
	h.t.Fatalf("message %d is in no file", number)
	return nil, "", 0
}

// TestRecoveryDamagedMessage: one message is damaged, and it alone is missed.
func TestRecoveryDamagedMessage(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]bool{"below the checkpoint": false, "replayed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := makeStore(t, 300)
			require.NoError(t, h.b.Sync(t.Context()))
			h.send("T", 2) // whose frames say that what is before them was synced
			if kill {
				h.kill()
			} else {
				h.close()
			}
			lost, file, at := h.damage(280)
			var mu sync.Mutex // protects missed
			var missed []mq.MissedInfo
			o := handOptions()
			o.Hooks = &mq.Hooks{Missed: func(i mq.MissedInfo) {
				mu.Lock()
				defer mu.Unlock()
				missed = append(missed, i)
			}}
			h.start(o)
			found := h.b.Recovery()
			require.Empty(t, found.Cut)
			if kill {
				require.Len(t, found.Corrupt, 1)
				require.Equal(t, file, found.Corrupt[0].File)
				require.Equal(t, at, found.Corrupt[0].Offset)
				require.ErrorIs(t, found.Corrupt[0], mq.ErrCorrupt)
			}
			require.Equal(t, h.is.routes, imageOf(t, h.b).routes)

			in := new(inbox)
			push(t, h.b, "Push", "T", in.handle, nil)
			in.await(t, 301)
			for _, m := range in.messages() {
				require.NotEqual(t, lost.Body, m.Body)
				require.Equal(t, h.sent[m.ID].Body, m.Body)
			}
			mqtest.Eventually(t, func() bool {
				lag, _, err := h.b.Lag("Push")
				return err == nil && lag == 0
			}, "the damaged message is passed for good")
			c := h.member("Pull", "T")
			require.Len(t, h.poll(c, 301), 301)
			require.NoError(t, c.Seek(mq.Queue{Topic: "T", ID: lost.Queue}, lost.Offset))
			require.Equal(t, lost.Offset+1, h.poll(c, 1)[0].Offset)

			mu.Lock()
			require.Len(t, missed, 3)
			for i, m := range missed {
				require.Equal(t, mq.Queue{Topic: "T", ID: lost.Queue}, m.Queue)
				require.Equal(t, []mq.Offset{lost.Offset, lost.Offset + 1}, []mq.Offset{m.From, m.To})
				require.ErrorIs(t, m.Err, mq.ErrCorrupt, "%d", i)
			}
			mu.Unlock()
			require.Equal(t, int64(3), h.b.Stats().Missed)
			_, err := h.b.MessageByID(lost.ID)
			require.True(t, errors.Is(err, mq.ErrCorrupt) || errors.Is(err, mq.ErrMessageNotFound), "%v", err)
			if !kill {
				require.ErrorIs(t, h.b.Check(t.Context()), mq.ErrCorrupt)
			}
		})
	}
}

// TestRecoveryTornTail: nothing proves that the last frame was ever synced, so
// it was not. Its offset is given out again, its id is not.
func TestRecoveryTornTail(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 100)
	h.kill()
	torn, file, at := h.damage(h.n)
	delete(h.sent, torn.ID)
	h.start(handOptions())
	found := h.b.Recovery()
	require.Empty(t, found.Corrupt)
	require.Len(t, found.Cut, 1)
	require.Equal(t, at, found.Cut[0].From%(1<<20), "in %s", file)
	_, err := h.b.MessageByID(torn.ID)
	require.ErrorIs(t, err, mq.ErrMessageNotFound)
	route, err := h.b.Route("T")
	require.NoError(t, err)
	require.Equal(t, torn.Offset, route[torn.Queue].End)
	for range 2 {
		r, err := h.p.Send(t.Context(), &mq.Message{Topic: "T", Body: []byte("after")})
		require.NoError(t, err)
		require.NotEqual(t, torn.ID, r.ID)
		if r.Queue == torn.Queue {
			require.Equal(t, torn.Offset, r.Offset)
		}
	}
	require.NoError(t, h.b.Check(t.Context()))
}

// TestRecoverySuccessor: a segment that was prepared and never used is no part
// of the log.
func TestRecoverySuccessor(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 700) // more than half a segment: the next one is prepared
	mqtest.Eventually(t, func() bool { return len(h.files("commitlog")) == 2 }, "a successor is prepared")
	require.Equal(t, 1, h.b.Stats().Segments)
	h.kill()
	require.Len(t, h.files("commitlog"), 2)
	h.opensWhole()

	// And one that is empty, or half made.
	for _, size := range []int64{0, 30, 4096} {
		c := h.copyOf()
		names := c.files("commitlog")
		next := filepath.Join(c.dir, "commitlog", fmt.Sprintf("%020d", 1<<20))
		if !slices.Contains(names, next) {
			require.NoError(t, os.WriteFile(next, make([]byte, size), 0o600))
		} else {
			require.NoError(t, os.Truncate(next, size))
		}
		c.opensWhole()
	}
}

// TestRecoveryVersion: a store of a version to come is refused, and not a byte of
// it is changed.
func TestRecoveryVersion(t *testing.T) {
	t.Parallel()
	for _, clean := range []bool{true, false} {
		h := makeStore(t, 2600)
		if clean {
			h.close()
		} else {
			h.kill()
		}
		// The copy of a store in use may end with a segment that is being made.
		names := slices.DeleteFunc(h.files("commitlog"), func(name string) bool {
			info, err := os.Stat(name)
			return err != nil || info.Size() < 64
		})
		edit(t, names[len(names)-1], func(b []byte) []byte {
			binary.LittleEndian.PutUint32(b[8:], 99)
			binary.LittleEndian.PutUint64(b[56:], xxhash.Sum64(b[:56]))
			return b
		})
		for _, damaged := range []bool{false, true} {
			if damaged { // the journal of another version means nothing to us
				edit(t, h.files("journal")[0], func(b []byte) []byte { return b[:len(b)/2] })
			}
			before := contents(h)
			_, err := mq.Open(h.dir, handOptions())
			require.ErrorIs(t, err, mq.ErrVersion)
			require.ErrorContains(t, err, "99")
			require.Equal(t, before, contents(h), "clean: %v, damaged journal: %v", clean, damaged)
		}
	}
}

// contents is a hash of every file of the store, but LOCK.
func contents(h *handmade) map[string]uint64 {
	h.t.Helper()
	all := map[string]uint64{}
	for _, name := range h.files(".") {
		if filepath.Base(name) == "LOCK" {
			continue
		}
		data, err := os.ReadFile(name)
		require.NoError(h.t, err)
		all[name] = xxhash.Sum64(data)
	}
	return all
}

// TestRecoveryEpochs: power cuts take Written messages back, and what is sent
// afterwards has their offsets, but never their ids.
func TestRecoveryEpochs(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 20)
	everSent := maps.Clone(h.sent)
	for range 5 {
		require.NoError(t, h.b.Sync(t.Context()))
		whole := h.n
		kept := maps.Clone(h.sent)
		h.send("T", 20)
		for id := range h.sent {
			if h.number(id) > whole {
				require.Nil(t, everSent[id], "%v was given out before", id)
				everSent[id] = h.sent[id]
			}
		}
		h.kill()
		// The first message that was not synced is lost, and so is all behind it.
		_, file, at := h.damage(whole + 1)
		edit(t, file, func(b []byte) []byte { clear(b[at:]); return b })
		h.sent = kept
		h.start(handOptions())
		require.False(t, h.b.Recovery().Clean)
		require.Empty(t, h.b.Recovery().Corrupt)
		for id := range everSent {
			m, err := h.b.MessageByID(id)
			if kept[id] == nil {
				require.ErrorIs(t, err, mq.ErrMessageNotFound)
			} else {
				require.NoError(t, err)
				require.Equal(t, kept[id].Body, m.Body)
			}
		}
		require.NoError(t, h.b.Check(t.Context()))
	}
}
