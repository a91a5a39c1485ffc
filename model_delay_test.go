package mq_test

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// The model's part of delayed messages: some come at once, so that where they lie
// is known before anything else happens; others wait for longer than the test
// takes, and are counted, browsed, recalled, carried forward and lost with their
// topic.

// refWaiting is a message that waits.
type refWaiting struct {
	topic *refTopic
	sent  *mq.Message
	mq.SendResult
}

// sendDelayed sends a message that comes a few milliseconds later, and waits for
// it.
func (m *model) sendDelayed() {
	t := m.aTopic()
	if t == nil {
		return
	}
	msg := m.message(t.name)
	msg.Delay = time.Duration(1+m.rnd.IntN(3)) * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := m.p.Send(ctx, msg)
	if m.full(err) {
		return
	}
	require.NoError(m, err)
	require.EqualValues(m, -1, r.Offset)
	msg.Delay = 0
	var got *mq.Message
	mqtest.Eventually(m, func() bool {
		got, err = m.b.MessageByID(r.ID)
		return err == nil && got.Offset >= 0
	}, "the delayed message")
	r.Offset = got.Offset
	m.stored(t, msg, r)
	require.ErrorIs(m, m.p.Recall(ctx, r.RecallHandle()), mq.ErrNotWaiting)
}

// sendToWait sends a message that waits until the test is over.
func (m *model) sendToWait() {
	t := m.aTopic()
	if t == nil {
		return
	}
	msg := m.message(t.name)
	msg.Delay = time.Hour + time.Duration(m.rnd.IntN(5))*time.Hour
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := m.p.Send(ctx, msg)
	if m.full(err) {
		return
	}
	require.NoError(m, err)
	require.False(m, m.ids[r.ID], "id %v again", r.ID)
	m.ids[r.ID] = true
	m.waiting[r.ID] = &refWaiting{t, msg, r}
	require.EqualValues(m, len(m.waiting), m.b.Stats().Waiting)
}

// recall takes one of them back.
func (m *model) recall() {
	for id, w := range m.waiting { // any
		require.NoError(m, m.p.Recall(context.Background(), w.RecallHandle()))
		require.ErrorIs(m, m.p.Recall(context.Background(), w.RecallHandle()), mq.ErrNotWaiting)
		delete(m.waiting, id)
		_, err := m.b.MessageByID(id)
		require.ErrorIs(m, err, mq.ErrMessageNotFound)
		break
	}
}

// forgetWaiting is what deleting a topic does.
func (m *model) forgetWaiting(t *refTopic) {
	for id, w := range m.waiting {
		if w.topic == t {
			delete(m.waiting, id)
		}
	}
}

// compareWaiting browses everything.
func (m *model) compareWaiting() {
	require.EqualValues(m, len(m.waiting), m.b.Stats().Waiting)
	found := 0
	for name, t := range m.topics {
		last, n := time.Time{}, 0
		for got, err := range m.b.BrowseWaiting(name, time.Time{}, time.Time{}) {
			require.NoError(m, err)
			w := m.waiting[got.ID]
			require.NotNil(m, w, "%v waits in %s", got.ID, name)
			require.Same(m, t, w.topic)
			require.Equal(m, fmt.Sprint(w.sent.Tag, w.sent.Keys, w.sent.Properties), fmt.Sprint(got.Tag, got.Keys, got.Properties))
			require.Equal(m, w.sent.Body, got.Body)
			require.True(m, got.DeliverAt.Equal(w.RecallHandle().DeliverAt()))
			require.False(m, got.DeliverAt.Before(last), "in the order of time")
			last = got.DeliverAt
			n++
		}
		info, err := m.b.Topic(name)
		require.NoError(m, err)
		require.EqualValues(m, n, info.Waiting)
		found += n
	}
	require.Equal(m, len(m.waiting), found)
}
