package mq_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
)

// waitingStore is a store of all that waits for a time: delayed messages, one
// that was recalled, one that was delivered, one to be tried again, one that is
// dead. Group P fails what begins with "bad".
type waitingStore struct {
	*handmade
	sent    map[string]mq.SendResult // by body
	begun   time.Time
	waits   []*mq.Message // as BrowseWaiting says
	dead    []*mq.Message
	recalls []mq.RecallHandle
}

func waitingOptions() *mq.Options {
	return &mq.Options{SegmentBytes: 1 << 20, Durability: mq.Written, Retention: mq.Retention{Age: -1}}
}

// bodyOf is found in a file by its name.
func bodyOf(name string) []byte { return []byte("<" + name + ">" + strings.Repeat("x", 300)) }

func nameOf(m *mq.Message) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(string(m.Body), "<"), ">")
	return name
}

func (w *waitingStore) add(name string, m mq.Message) {
	w.t.Helper()
	m.Body = bodyOf(name)
	if m.Topic == "" {
		m.Topic = "T"
	}
	w.sent[name] = send(w.t, w.b, &m)[0]
}

func (w *waitingStore) join() *inbox {
	w.t.Helper()
	in := &inbox{}
	handler := func(ctx context.Context, m *mq.Message) error {
		_ = in.handle(ctx, m) // never fails
		if strings.HasPrefix(nameOf(m), "bad") {
			return errBroken
		}
		return nil
	}
	push(w.t, w.b, "P", "T", handler, &mq.PushOptions{MaxAttempts: 2, Backoff: func(int) time.Duration { return 30 * time.Minute }})
	return in
}

// makeWaiting leaves a closed store, 45 minutes after it began.
func makeWaiting(t *testing.T) *waitingStore {
	t.Helper()
	w := &waitingStore{handmade: &handmade{t: t, dir: filepath.Join(t.TempDir(), "store")}, sent: map[string]mq.SendResult{}, begun: time.Now()}
	w.start(waitingOptions())
	createTopic(t, w.b, "T", 2)
	require.NoError(t, w.b.CreateTopic("S", &mq.TopicConfig{Queues: 1}))
	w.join()
	w.add("bad-dead", mq.Message{})
	w.add("delivered", mq.Message{Delay: time.Minute})
	w.add("recalled", mq.Message{Delay: 3 * time.Hour})
	w.add("synced", mq.Message{Topic: "S", Delay: 2 * time.Hour})
	for i := range 40 { // over some segments
		w.add(fmt.Sprint("waits-", i), mq.Message{Delay: 2*time.Hour + time.Duration(i%7)*time.Minute, Keys: []string{"k"}})
		send(t, w.b, &mq.Message{Topic: "Large", Body: make([]byte, 60_000)})
	}
	pass(40 * time.Minute)
	w.add("bad-retry", mq.Message{})
	h := w.sent["recalled"].RecallHandle()
	require.NoError(t, newProducer(t, w.b, nil).Recall(t.Context(), h))
	w.recalls = append(w.recalls, h, w.sent["delivered"].RecallHandle())
	pass(5 * time.Minute)
	w.look()
	require.Len(t, w.waits, 41)
	require.Len(t, w.dead, 1)
	require.NoError(t, w.b.Close())
	return w
}

// look notes what waits and what is dead.
func (w *waitingStore) look() {
	w.t.Helper()
	w.waits = append(waiting(w.t, w.b, "T"), waiting(w.t, w.b, "S")...)
	w.dead = deadLetters(w.t, w.b, "P")
}

// hit flips a bit of the nth record with a body.
func (w *waitingStore) hit(name string, nth int) {
	w.t.Helper()
	mark := []byte("<" + name + ">")
	for _, file := range w.files("commitlog") {
		b, err := os.ReadFile(file)
		require.NoError(w.t, err)
		for at := 0; ; at += len(mark) {
			i := bytes.Index(b[at:], mark)
			if i < 0 {
				break
			}
			if at += i; nth == 0 {
				b[at+100] ^= 1
				require.NoError(w.t, os.WriteFile(file, b, 0o600))
				return
			}
			nth--
		}
	}
	w.t.Fatalf("no such record of %s", name)
}

// goesOn opens the store, looks whether all waits that did, lets the time come
// and returns how often everything was delivered until then. What is to come
// again is due at once.
func (w *waitingStore) goesOn(gone ...string) map[string]int {
	w.t.Helper()
	waits, dead := w.waits, w.dead
	w.start(waitingOptions())
	synctest.Wait()
	w.look()
	is := func(m *mq.Message) bool { return !contains(gone, nameOf(m)) }
	require.Equal(w.t, namesOf(waits, is), namesOf(w.waits, nil))
	require.EqualValues(w.t, len(w.waits)+1, w.b.Stats().Waiting, "and bad-retry")
	require.Equal(w.t, namesOf(dead, is), namesOf(w.dead, nil))
	for _, m := range w.waits {
		require.Equal(w.t, w.sent[nameOf(m)].ID, m.ID)
		require.True(w.t, w.sent[nameOf(m)].RecallHandle().DeliverAt().Equal(m.DeliverAt))
		found, err := w.b.MessageByID(m.ID)
		require.NoError(w.t, err)
		require.Equal(w.t, m.Body, found.Body)
	}
	p := newProducer(w.t, w.b, nil)
	for _, h := range w.recalls {
		require.ErrorIs(w.t, p.Recall(w.t.Context(), h), mq.ErrNotWaiting)
	}
	in := w.join()
	pass(time.Until(w.begun.Add(69 * time.Minute)))
	early := namesOf(in.messages(), nil)
	pass(time.Minute + 2*time.Millisecond) // when bad-retry is due
	require.Equal(w.t, len(early)+1, in.len(), "%v", early)
	retried := in.messages()[len(early)]
	require.Equal(w.t, []any{"bad-retry", 2}, []any{nameOf(retried), retried.Attempt})
	pass(4 * time.Hour)
	require.NoError(w.t, w.b.Check(w.t.Context()))
	require.Zero(w.t, w.b.Stats().Waiting)
	came := map[string]int{}
	for _, m := range in.messages() {
		came[nameOf(m)]++
		if at := w.sent[nameOf(m)].RecallHandle(); strings.HasPrefix(nameOf(m), "waits") {
			require.False(w.t, m.StoredAt.Before(at.DeliverAt()))
			require.Equal(w.t, at.ID(), m.ID)
		}
	}
	delete(came, "bad-retry")
	return came
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func namesOf(ms []*mq.Message, keep func(*mq.Message) bool) []string {
	names := []string{}
	for _, m := range ms {
		if keep == nil || keep(m) {
			names = append(names, nameOf(m))
		}
	}
	return names
}

// allThatWaits are delivered once each.
func allThatWaits(but ...string) map[string]int {
	came := map[string]int{}
	for i := range 40 {
		if name := fmt.Sprint("waits-", i); !contains(but, name) {
			came[name] = 1
		}
	}
	return came
}

// TestRepairWaiting: what waits in a sound store still waits in the repaired one,
// and comes at its time, once; what was delivered, recalled or given up does not
// come again. A store that was repaired can be repaired again.
func TestRepairWaiting(t *testing.T) {
	t.Parallel()
	for _, journal := range []bool{true, false} {
		t.Run(fmt.Sprintf("journal=%v", journal), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := makeWaiting(t)
				if !journal {
					loseJournal(t, w.dir)
				}
				var bytes []int64
				for range 3 {
					r := w.repaired()
					require.Empty(t, r.Lost)
					require.True(t, r.Found.OK() || !journal, "%v", r)
					bytes = append(bytes, r.Found.LogBytes)
				}
				require.Less(t, bytes[2]-bytes[1], int64(5_000), "what waits lies where it lay: %v", bytes)
				require.Equal(t, allThatWaits(), w.goesOn())
			})
		})
	}
}

// TestRepairOverdue: what became due meanwhile is delivered by who opens the
// repaired store, not by Repair.
func TestRepairOverdue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := makeWaiting(t)
		pass(5 * time.Hour)
		w.repaired()
		w.start(waitingOptions())
		in := w.join()
		pass(time.Second)
		came := map[string]int{}
		for _, m := range in.messages() {
			came[nameOf(m)]++
		}
		delete(came, "bad-retry")
		require.Equal(t, allThatWaits(), came)
		require.Zero(t, w.b.Stats().Waiting)
	})
}

// TestRepairWaitingDamaged: damage takes what it hits, and nothing else of what
// waits.
func TestRepairWaitingDamaged(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		hit   func(w *waitingStore)
		lost  int64    // offsets
		gone  []string // from what waits or is dead
		again []string // delivered once more
	}{
		"one that waits": {hit: func(w *waitingStore) { w.hit("waits-17", 0) }, gone: []string{"waits-17"}},
		"two that wait": {
			hit:  func(w *waitingStore) { w.hit("waits-3", 0); w.hit("waits-39", 0) },
			gone: []string{"waits-3", "waits-39"},
		},
		"one that was recalled":  {hit: func(w *waitingStore) { w.hit("recalled", 0) }},
		"one before it came":     {hit: func(w *waitingStore) { w.hit("delivered", 0) }},
		"one that is dead":       {hit: func(w *waitingStore) { w.hit("bad-dead", 3) }, lost: 1, gone: []string{"bad-dead"}},
		"one that was delivered": {hit: func(w *waitingStore) { w.hit("delivered", 1) }, lost: 1},
		"the last one delivered": {hit: func(w *waitingStore) { w.hit("bad-dead", 2) }, lost: 1, again: []string{"bad-dead"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := makeWaiting(t)
				row.hit(w)
				r := w.repaired()
				require.False(t, r.Found.OK())
				require.Equal(t, row.lost, r.LostMessages, "%v", r)
				r = w.repaired() // of a store with holes
				require.True(t, r.Found.OK(), "%v", r)
				want := allThatWaits(row.gone...)
				for _, name := range row.again {
					want[name]++
				}
				require.Equal(t, want, w.goesOn(row.gone...))
			})
		})
	}
}
