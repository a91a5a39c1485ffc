package mq_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

func TestPollReturnsWhatIsThere(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 100)
	c := pull(t, b, "G", "T", nil)
	ms, err := c.Poll(t.Context(), 30)
	require.NoError(t, err)
	require.Equal(t, bodiesTo(30), bodiesOf(ms))
	for i, m := range ms {
		require.Equal(t, mq.Offset(i), m.Offset)
	}
	require.Equal(t, bodiesTo(100)[30:], bodiesOf(poll(t, c, 70)))
	nothingMore(t, c)
}

// TestPollWakesUpByArrival: not by a timer. In the bubble time stands still as
// long as anybody can run, so an interval would show.
func TestPollWakesUpByArrival(t *testing.T) {
	t.Parallel()
	for _, durability := range []mq.Durability{mq.Written, mq.Synced} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, nil)
			require.NoError(t, b.CreateTopic("T", &mq.TopicConfig{Durability: durability}))
			c := pull(t, b, "G", "T", nil)
			began, waiting := time.Now(), time.Hour
			got := make(chan time.Duration)
			go func() {
				for range 3 {
					if _, err := c.Poll(t.Context(), 1); err != nil {
						t.Error(err)
					}
					got <- time.Since(began)
				}
			}()
			pass(waiting)
			p := newProducer(t, b, nil)
			_, err := p.Send(t.Context(), &mq.Message{Topic: "T"})
			require.NoError(t, err)
			require.Equal(t, waiting, <-got)
			require.NoError(t, p.SendOneWay(&mq.Message{Topic: "T"}))
			require.Equal(t, waiting, <-got)
			_, err = p.SendBatch(t.Context(), []*mq.Message{{Topic: "T"}})
			require.NoError(t, err)
			require.Equal(t, waiting, <-got)
		})
	}
}

// TestPollsShareWork: of many that wait, each message wakes one.
func TestPollsShareWork(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 4)
	c := pull(t, b, "G", "T", nil)
	got := make(chan *mq.Message)
	for range 8 {
		go func() {
			ms, err := c.Poll(t.Context(), 1)
			if err != nil || len(ms) != 1 {
				t.Errorf("%v, %v", ms, err)
			}
			got <- ms[0]
		}()
	}
	sendBodies(t, b, "T", 8)
	bodies := []string{}
	for range 8 {
		bodies = append(bodies, string((<-got).Body))
	}
	slices.Sort(bodies)
	require.Equal(t, bodiesTo(8), bodies)
}

func TestPollEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	c := pull(t, b, "G", "T", nil)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := c.Poll(ctx, 1)
		failed <- err
	}()
	cancel()
	require.Equal(t, context.Canceled, <-failed, "unwrapped")
	_, err := c.Poll(ctx, 1)
	require.Equal(t, context.Canceled, err)
	sendBodies(t, b, "T", 1)
	require.Len(t, poll(t, c, 1), 1, "nobody took the message away")
}

// TestCommit: one, several out of order, all; what was committed does not come
// again, and everything else does.
func TestCommit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 20)
	c := pull(t, b, "G", "T", nil)
	ms := poll(t, c, 10)
	require.NoError(t, c.Commit(t.Context(), ms[0]))
	committed, ahead := done(t, b, "G", "T")
	require.Equal(t, [2]int64{1, 0}, [2]int64{int64(committed), ahead})
	require.NoError(t, c.Commit(t.Context(), ms[7], ms[3], ms[8]))
	committed, ahead = done(t, b, "G", "T")
	require.Equal(t, [2]int64{1, 3}, [2]int64{int64(committed), ahead})
	require.NoError(t, c.Commit(t.Context(), ms[1], ms[2], ms[1]), "twice is no error")
	committed, ahead = done(t, b, "G", "T")
	require.Equal(t, [2]int64{4, 2}, [2]int64{int64(committed), ahead})
	require.Equal(t, int64(14), lag(t, b, "G"))

	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Commit(t.Context(), ms[4]), mq.ErrClosed)
	again := []string{"4", "5", "6", "9", "10"}
	c = pull(t, b, "G", "T", nil)
	require.Equal(t, again, bodiesOf(poll(t, c, 5)))
	require.NoError(t, b.Close())

	b = mqtest.OpenDir(t, dir, written())
	c = pull(t, b, "G", "T", nil)
	require.Equal(t, again, bodiesOf(poll(t, c, 5)))
	require.NoError(t, c.Commit(t.Context()), "everything polled so far")
	require.Equal(t, int64(9), lag(t, b, "G"))
	committed, ahead = done(t, b, "G", "T")
	require.Equal(t, [2]int64{11, 0}, [2]int64{int64(committed), ahead})
}

// TestCommitOfNothing is no error: there was nothing to poll yet.
func TestCommitOfNothing(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	c := pull(t, b, "G", "T", nil)
	require.NoError(t, c.Commit(t.Context()))
	require.NoError(t, c.Commit(t.Context(), []*mq.Message{}...))
}

// TestCommitIsOfWhatWasPolled: what Seek went past was not.
func TestCommitIsOfWhatWasPolled(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 20)
	c := pull(t, b, "G", "T", nil)
	poll(t, c, 3)
	require.NoError(t, c.Seek(mq.Queue{Topic: "T"}, 10))
	poll(t, c, 2)
	require.NoError(t, c.Commit(t.Context()))
	committed, ahead := done(t, b, "G", "T")
	require.Equal(t, [2]int64{3, 2}, [2]int64{int64(committed), ahead})
	require.NoError(t, c.Seek(mq.Queue{Topic: "T"}, 3))
	require.Equal(t, []string{"3", "4"}, bodiesOf(poll(t, c, 2)))
	require.NoError(t, c.Commit(t.Context()))
	committed, ahead = done(t, b, "G", "T")
	require.Equal(t, [2]int64{5, 2}, [2]int64{int64(committed), ahead})
}

// TestCommitOfStrangers: messages that were not delivered to this group.
func TestCommitOfStrangers(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 2)
	other := poll(t, pull(t, b, "Other", "T", nil), 1)
	c := pull(t, b, "G", "T", nil)
	own := poll(t, c, 2)
	for _, stranger := range []*mq.Message{nil, {Topic: "T"}, other[0]} {
		require.ErrorIs(t, c.Commit(t.Context(), own[0], stranger), mq.ErrNotAssigned)
	}
	require.Equal(t, int64(2), lag(t, b, "G"), "nothing of a refused commit counts")
}

// TestCommitGoesByTheDelivery and not by fields that a receiver may change.
func TestCommitGoesByTheDelivery(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 3)
	c := pull(t, b, "G", "T", nil)
	ms := poll(t, c, 3)
	*ms[0] = *ms[2]
	ms[2].Offset, ms[2].Queue, ms[2].Topic = 0, 9, "U"
	require.NoError(t, c.Commit(t.Context(), ms[2]))
	committed, ahead := done(t, b, "G", "T")
	require.Equal(t, [2]int64{0, 1}, [2]int64{int64(committed), ahead})
}

// TestUncommittedComesAgain when its member leaves, to the one that has the
// queue then; its first owner may still commit it.
func TestUncommittedComesAgain(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	sendBodies(t, b, "T", 8)
	one, two := pull(t, b, "G", "T", nil), pull(t, b, "G", "T", nil)
	first := poll(t, one, 4)
	poll(t, two, 4)
	require.NoError(t, one.Commit(t.Context(), first[0]))
	require.NoError(t, two.Commit(t.Context()))
	require.NoError(t, one.Close())
	again := poll(t, two, 3)
	require.Equal(t, bodiesOf(first[1:]), bodiesOf(again))
	nothingMore(t, two)
	require.NoError(t, two.Commit(t.Context()))
	require.Zero(t, lag(t, b, "G"))
}

// TestLateCommit: what a member commits after its queue has moved does not come
// again, neither to who has it now nor to itself when it has it back.
func TestLateCommit(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	sendBodies(t, b, "T", 8) // even ones in queue 0
	one := pull(t, b, "G", "T", nil)
	all := poll(t, one, 8)
	at := func(ms []*mq.Message, q mq.QueueID) []*mq.Message {
		return slices.DeleteFunc(slices.Clone(ms), func(m *mq.Message) bool { return m.Queue != q })
	}
	two := pull(t, b, "G", "T", nil) // has queue 1 now
	moved := at(all, 1)
	require.NoError(t, one.Commit(t.Context(), moved[0], moved[2]))
	again := poll(t, two, 2)
	require.Equal(t, bodiesOf([]*mq.Message{moved[1], moved[3]}), bodiesOf(again))
	nothingMore(t, two)
	require.NoError(t, two.Close()) // one has it back, and has queue 0 still
	require.NoError(t, one.Commit(t.Context(), again[0]))
	require.Equal(t, bodiesOf(again[1:]), bodiesOf(poll(t, one, 1)))
	nothingMore(t, one)
}

func TestSeek(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 10)
	c := pull(t, b, "G", "T", nil)
	q := mq.Queue{Topic: "T"}
	poll(t, c, 10)
	require.NoError(t, c.Commit(t.Context()))
	require.NoError(t, c.Seek(q, 3))
	require.Equal(t, bodiesTo(10)[3:], bodiesOf(poll(t, c, 7)), "also what was committed")
	require.NoError(t, c.Seek(q, 10))
	nothingMore(t, c)
	require.ErrorIs(t, c.Seek(q, 11), mq.ErrOffsetOutOfRange)
	require.ErrorIs(t, c.Seek(q, -1), mq.ErrOffsetOutOfRange)
	nothingMore(t, c)
	require.ErrorIs(t, c.Seek(mq.Queue{Topic: "T", ID: 1}, 0), mq.ErrNotAssigned)
	require.ErrorIs(t, c.Seek(mq.Queue{Topic: "U"}, 0), mq.ErrNotAssigned)
	committed, _ := done(t, b, "G", "T")
	require.Equal(t, mq.Offset(10), committed, "Seek is not stored")
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	sendBodies(t, b, "T", 4)
	c := pull(t, b, "G", "T", nil)
	require.NoError(t, c.Pause(mq.Queue{Topic: "T", ID: 0}))
	for _, m := range poll(t, c, 2) {
		require.Equal(t, mq.QueueID(1), m.Queue)
	}
	nothingMore(t, c)
	require.ErrorIs(t, c.Pause(queuesOf("T", 1, 2)...), mq.ErrNotAssigned)
	sendBodies(t, b, "T", 2)
	require.Len(t, poll(t, c, 1), 1, "a refused Pause pauses nothing")
	nothingMore(t, c)

	got := make(chan []*mq.Message)
	go func() {
		ms, err := c.Poll(t.Context(), 32)
		if err != nil {
			t.Error(err)
		}
		got <- ms
	}()
	require.NoError(t, c.Resume(mq.Queue{Topic: "T", ID: 0}))
	for _, m := range <-got {
		require.Equal(t, mq.QueueID(0), m.Queue)
	}
}

// TestPausedQueueMoves: who gets it has not paused it.
func TestPausedQueueMoves(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 1)
	one := pull(t, b, "G", "T", nil)
	two := pull(t, b, "G", "T", nil)
	require.NoError(t, one.Pause(mq.Queue{Topic: "T"}))
	require.NoError(t, one.Close())
	require.Len(t, poll(t, two, 1), 1)
}

func TestAssign(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 4)
	createTopic(t, b, "U", 1)
	sendBodies(t, b, "T", 8)
	sendBodies(t, b, "U", 1)
	c, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, c.Assign(queuesOf("T", 1, 3)...))
	require.Equal(t, queuesOf("T", 1, 3), c.Assigned())
	for _, m := range poll(t, c, 4) {
		require.Contains(t, []mq.QueueID{1, 3}, m.Queue)
	}
	nothingMore(t, c)

	two, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	require.ErrorIs(t, two.Assign(queuesOf("T", 0, 1)...), mq.ErrNotAssigned, "another member has queue 1")
	require.Empty(t, two.Assigned())
	three := pull(t, b, "G", "T", nil)
	require.Equal(t, queuesOf("T", 0, 2), three.Assigned(), "what nobody was assigned is dealt")

	require.NoError(t, c.Assign(mq.Queue{Topic: "U"}, mq.Queue{Topic: "T", ID: 3}), "replaces the list")
	require.Equal(t, append(queuesOf("T", 3), queuesOf("U", 0)...), c.Assigned())
	require.Equal(t, queuesOf("T", 0, 1, 2), three.Assigned())
	require.ErrorIs(t, c.Subscribe("T", mq.All), mq.ErrInvalidArgument)
	require.ErrorIs(t, three.Assign(queuesOf("T", 1)...), mq.ErrInvalidArgument)
	require.NoError(t, c.Assign())
	require.Empty(t, c.Assigned())
	require.NoError(t, c.Close())
	require.NoError(t, two.Close())
}

// TestAssignedBadly: what does not exist changes nothing.
func TestAssignedBadly(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	c, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, c.Assign(queuesOf("T", 0)...))
	require.ErrorIs(t, c.Assign(queuesOf("T", 1, 2)...), mq.ErrQueueNotFound)
	require.ErrorIs(t, c.Assign(mq.Queue{Topic: "U"}), mq.ErrTopicNotFound)
	require.ErrorIs(t, c.Assign(mq.Queue{Topic: "T", ID: -1}), mq.ErrQueueNotFound)
	require.Equal(t, queuesOf("T", 0), c.Assigned())
	require.Equal(t, []string{"T"}, b.Topics())
	require.NoError(t, c.Close())
}

func TestMessagesIterator(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 100)
	c := pull(t, b, "G", "T", nil)
	var bodies []string
	for m, err := range c.Messages(t.Context()) {
		require.NoError(t, err)
		bodies = append(bodies, string(m.Body))
		require.NoError(t, c.Commit(t.Context(), m))
		if len(bodies) == 50 {
			break
		}
	}
	require.Equal(t, bodiesTo(50), bodies)
	require.Equal(t, int64(50), lag(t, b, "G"))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := 0
	for m, err := range c.Messages(ctx) {
		require.Nil(t, m)
		require.Equal(t, context.Canceled, err)
		n++
	}
	require.Equal(t, 1, n, "the error is the last thing")
}

// TestMessagesEndOnClose, and nobody loops on errors.
func TestMessagesEndOnClose(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	c := pull(t, b, "G", "T", nil)
	ended := make(chan error)
	go func() {
		for _, err := range c.Messages(t.Context()) {
			ended <- err
		}
		ended <- nil
	}()
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-ended, mq.ErrClosed)
	require.NoError(t, <-ended)
}

// TestPullKeepsUpWithSenders: sends race with polls and with members that come
// and go; nothing is lost, and order per queue is kept within a membership.
func TestPullKeepsUpWithSenders(t *testing.T) {
	t.Parallel()
	const n = 3000
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 4)
	go func() {
		p, _ := b.NewProducer(nil)
		for _, m := range numbered("T", 0, n) {
			if _, err := p.Send(t.Context(), m); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	seen := map[string]bool{}
	for len(seen) < n {
		c := pull(t, b, "G", "T", nil)
		last := map[mq.QueueID]mq.Offset{}
		for range 20 {
			if len(seen) == n {
				break
			}
			ms, err := c.Poll(t.Context(), 64)
			require.NoError(t, err)
			for _, m := range ms {
				require.False(t, seen[string(m.Body)], "%s was committed", m.Body)
				seen[string(m.Body)] = true
				if before, ok := last[m.Queue]; ok {
					require.Equal(t, before+1, m.Offset, fmt.Sprint("queue ", m.Queue))
				}
				last[m.Queue] = m.Offset
			}
			require.NoError(t, c.Commit(t.Context(), ms...))
		}
		require.NoError(t, c.Close())
	}
	require.Zero(t, lag(t, b, "G"))
}

// TestAssignRefused: queues of a topic that others filter are refused, and what was
// assigned before stays so.
func TestAssignRefused(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	createTopic(t, b, "U", 1)
	other, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, other.Subscribe("T", mq.Tags("a")))
	c, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, c.Assign(mq.Queue{Topic: "U"}))
	require.ErrorIs(t, c.Assign(mq.Queue{Topic: "T"}), mq.ErrSubscriptionMismatch)
	third, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, third.Close()) // queues are dealt out anew
	require.Equal(t, []mq.Queue{{Topic: "U"}}, c.Assigned())
	require.Equal(t, []mq.Queue{{Topic: "T"}}, other.Assigned())
	require.NoError(t, c.Close())
	require.NoError(t, other.Close())
}

// TestCommitToAGroupMadeAgain: what was delivered to a group that is gone is not
// acknowledged by one that has its name.
func TestCommitToAGroupMadeAgain(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 1)
	c := pull(t, b, "G", "T", nil)
	ms := poll(t, c, 1)
	require.NoError(t, c.Close())
	require.NoError(t, b.DeleteGroup("G"))
	c = pull(t, b, "G", "T", nil)
	require.ErrorIs(t, c.Commit(t.Context(), ms...), mq.ErrStale)
	require.NoError(t, c.Commit(t.Context(), poll(t, c, 1)...))
}

// TestAssignedTopicMadeAgain: who was assigned queues of a topic that was deleted
// has none of the topic that has its name now.
func TestAssignedTopicMadeAgain(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	createTopic(t, b, "U", 1)
	one, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, one.Assign(append(queuesOf("T", 0, 1), queuesOf("U", 0)...)...))
	require.NoError(t, b.DeleteTopic("T"))
	createTopic(t, b, "T", 2)
	two, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, two.Assign(queuesOf("T", 0)...))
	three := pull(t, b, "G", "T", nil)
	require.Equal(t, queuesOf("U", 0), one.Assigned())
	require.Equal(t, queuesOf("T", 0), two.Assigned())
	require.Equal(t, queuesOf("T", 1), three.Assigned())
	require.ErrorIs(t, one.Subscribe("T", mq.All), mq.ErrInvalidArgument, "it is still one that is assigned its queues")
}
