package mq

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

// inHand is a push consumer whose handler keeps the message with the body
// "poison" until the test ends, and consumes others.
type inHand struct {
	handMu sync.Mutex // protects attempts
	// Of each body, the attempts it was delivered with.
	attempts map[string][]int
	got      chan struct{} // one per poison
	release  chan struct{}
}

func consumeInHand(t *testing.T, b *Broker, most int) *inHand {
	t.Helper()
	h := &inHand{attempts: map[string][]int{}, got: make(chan struct{}, 10), release: make(chan struct{})}
	c, err := b.NewPushConsumer("G", func(_ context.Context, m *Message) error {
		body := string(m.Body)
		h.handMu.Lock()
		h.attempts[body] = append(h.attempts[body], m.Attempt)
		h.handMu.Unlock()
		if body == "poison" {
			h.got <- struct{}{}
			<-h.release
		}
		return nil
	}, &PushOptions{MaxAttempts: most, Concurrency: 1})
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", All))
	t.Cleanup(func() { close(h.release) })
	return h
}

// killed is the file system as it is when the process is killed now.
func killed(fs *vfs.Mem) *vfs.Mem { return fs.Clone() }

// TestWhatKillsTheProcess: a message in hand when the process ends counts as
// tried. After as many ends as it has attempts it is a dead letter; what was in
// hand beside it is consumed.
func TestWhatKillsTheProcess(t *testing.T) {
	t.Parallel()
	killsTheProcess(t, "innocent", "bystander")
	killsTheProcess(t) // what is sent later comes right behind it
}

func killsTheProcess(t *testing.T, beside ...string) {
	t.Helper()
	const most = 3
	fs := vfs.NewMem(0)
	b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1})
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for _, body := range append([]string{"poison"}, beside...) {
		_, err = p.Send(t.Context(), &Message{Topic: "T", Body: []byte(body)})
		require.NoError(t, err)
	}
	for attempt := 1; attempt <= most; attempt++ {
		h := consumeInHand(t, b, most)
		<-h.got
		h.handMu.Lock()
		require.Equal(t, []int{attempt}, h.attempts["poison"])
		h.handMu.Unlock()
		fs = killed(fs)
		b = openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1})
		require.False(t, b.Recovery().Clean)
		if attempt == 1 {
			p, err := b.NewProducer(nil)
			require.NoError(t, err)
			_, err = p.Send(t.Context(), &Message{Topic: "T", Body: []byte("late")})
			require.NoError(t, err)
		}
	}
	h := consumeInHand(t, b, most)
	for lag := int64(1); lag > 0; {
		lag, _, err = b.Lag("G")
		require.NoError(t, err)
	}
	require.Empty(t, h.attempts["poison"], "it had its attempts")
	for _, body := range beside {
		require.Equal(t, []int{2}, h.attempts[body], "was in hand once, and from then on handed out alone")
	}
	require.Equal(t, []int{1}, h.attempts["late"], "was never in hand beside it")
	var dead []*Message
	for m, err := range b.DeadLetters("G") {
		require.NoError(t, err)
		dead = append(dead, m)
	}
	require.Len(t, dead, 1)
	require.Equal(t, "poison", string(dead[0].Body))
	require.Equal(t, &Origin{Topic: "T", Attempts: most, LastError: errCrashed.Error()}, dead[0].Origin)
}

// TestSuspectsTakeTurns: of all that was in hand when the process ended one is
// handed out at a time, whatever queues they are in.
func TestSuspectsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem(0)
		b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 3})
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		for range 3 {
			_, err = p.Send(t.Context(), &Message{Topic: "T"})
			require.NoError(t, err)
		}
		handled := make(chan struct{})
		var inHand atomic.Int64
		consume := func(b *Broker) {
			c, err := b.NewPushConsumer("G", func(ctx context.Context, _ *Message) error {
				inHand.Add(1)
				select {
				case <-handled:
				case <-ctx.Done():
				}
				return nil
			}, &PushOptions{Concurrency: 3})
			require.NoError(t, err)
			require.NoError(t, c.Subscribe("T", All))
		}
		settle := func() {
			time.Sleep(20 * time.Millisecond) // of the bubble: for workers that others wake
			synctest.Wait()
		}
		consume(b)
		settle()
		require.Equal(t, int64(3), inHand.Swap(0))
		again := openOn(t, killed(fs), &Options{Durability: Written})
		for range 3 {
			handled <- struct{}{} // the old process, which knows nothing of its end
		}
		consume(again)
		for turn := range int64(3) {
			settle()
			require.Equal(t, turn+1, inHand.Load())
			handled <- struct{}{}
		}
		settle()
		lag, _, err := again.Lag("G")
		require.NoError(t, err)
		require.Zero(t, lag)
	})
}

// TestHandsFold: what is in hand, message by message, however it is cut.
func TestHandsFold(t *testing.T) {
	t.Parallel()
	var p progress
	p.take(hand{span{From: 0, To: 10}, 1, 7})
	p.take(hand{span{From: 20, To: 30}, 1, 7})
	p.take(hand{span{From: 4, To: 5}, 2, 8})
	require.Equal(t, []hand{
		{span{From: 0, To: 4}, 1, 7}, {span{From: 4, To: 5}, 2, 8}, {span{From: 5, To: 10}, 1, 7}, {span{From: 20, To: 30}, 1, 7},
	}, p.hands)
	p.add(span{From: 0, To: 5})
	p.add(span{From: 8, To: 22})
	require.Equal(t, []hand{{span{From: 5, To: 8}, 1, 7}, {span{From: 22, To: 30}, 1, 7}}, p.hands)
	p.take(hand{span{From: 0, To: 6}, 3, 9})
	require.Equal(t, hand{span{From: 5, To: 6}, 3, 9}, p.hands[0], "what is done is in nobody's hands")
	p.add(span{From: 0, To: 100})
	require.Empty(t, p.hands)
}

// TestCleanEndIsNoAttempt: what was handed out and given back before a clean
// close starts from 1, but attempts from unclean ends before it stay.
func TestCleanEndIsNoAttempt(t *testing.T) {
	t.Parallel()
	s := state{}
	sub := &subscription{queues: []progress{{hands: []hand{{span{From: 0, To: 4}, 1, 7}, {span{From: 4, To: 9}, 2, 6}}}}}
	s.groups = map[coord.GroupID]*group{1: {subs: map[coord.TopicID]*subscription{1: sub}}}
	s.forgetHands(7)
	require.Equal(t, []hand{{span{From: 4, To: 9}, 2, 6}}, sub.queues[0].hands)
}
