package mq_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

func TestTopicCreated(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, &mq.Options{DefaultQueues: 3})
	require.NoError(t, b.CreateTopic("Defaults", nil))
	require.NoError(t, b.CreateTopic("Own", &mq.TopicConfig{Queues: 7, Durability: mq.Written}))
	send(t, b, &mq.Message{Topic: "First-Use"})

	require.Equal(t, []string{"Defaults", "First-Use", "Own"}, b.Topics())
	info, err := b.Topic("Defaults")
	require.NoError(t, err)
	require.Equal(t, mq.TopicInfo{Name: "Defaults", Queues: 3, Durability: mq.Synced}, info)
	info, err = b.Topic("Own")
	require.NoError(t, err)
	require.Equal(t, mq.TopicInfo{Name: "Own", Queues: 7, Durability: mq.Written}, info)
	info, err = b.Topic("First-Use")
	require.NoError(t, err)
	require.Equal(t, mq.TopicInfo{Name: "First-Use", Queues: 3, Durability: mq.Synced, Messages: 1}, info)
}

func TestTopicExists(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 2)
	require.ErrorIs(t, b.CreateTopic("T", nil), mq.ErrTopicExists)
	info, err := b.Topic("T")
	require.NoError(t, err)
	require.Equal(t, 2, info.Queues)
}

func TestTopicRoute(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 3)
	p := newProducer(t, b, &mq.ProducerOptions{Selector: func(*mq.Message, int) mq.QueueID { return 1 }})
	for range 5 {
		_, err := p.Send(t.Context(), &mq.Message{Topic: "T"})
		require.NoError(t, err)
	}
	route, err := b.Route("T")
	require.NoError(t, err)
	require.Equal(t, []mq.QueueInfo{
		{Queue: mq.Queue{Topic: "T", ID: 0}},
		{Queue: mq.Queue{Topic: "T", ID: 1}, End: 5},
		{Queue: mq.Queue{Topic: "T", ID: 2}},
	}, route)
}

func TestTopicListsItsGroups(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 1)
	pull(t, b, "B", "T", nil)
	pull(t, b, "A", "T", nil)
	pull(t, b, "C", "Other", nil)
	info, err := b.Topic("T")
	require.NoError(t, err)
	require.Equal(t, []string{"A", "B"}, info.Groups)
}

// TestTopicGrows: groups that consume the topic get its new queues, which start
// at 0 whatever the group's start was.
func TestTopicGrows(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 2)
	sendBodies(t, b, "T", 4)
	one := pull(t, b, "G", "T", &mq.PullOptions{From: mq.Latest})
	two := pull(t, b, "G", "T", nil)
	require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Queues: 4}))
	require.Equal(t, queuesOf("T", 0, 1), one.Assigned())
	require.Equal(t, queuesOf("T", 2, 3), two.Assigned())

	p := newProducer(t, b, &mq.ProducerOptions{Selector: func(*mq.Message, int) mq.QueueID { return 3 }})
	r, err := p.Send(t.Context(), &mq.Message{Topic: "T", Body: []byte("new")})
	require.NoError(t, err)
	require.Equal(t, mq.Offset(0), r.Offset)
	require.Equal(t, []string{"new"}, bodiesOf(poll(t, two, 1)))
	nothingMore(t, one)
}

// TestTopicGrowthOutlivesTheProcess: also when a sender uses the new queues.
func TestTopicGrowthOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 2)
	require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Queues: 5, Durability: mq.Synced}))
	sendBodies(t, b, "T", 10)
	require.NoError(t, b.Close())

	b = mqtest.OpenDir(t, dir, written())
	info, err := b.Topic("T")
	require.NoError(t, err)
	require.Equal(t, mq.TopicInfo{Name: "T", Queues: 5, Durability: mq.Synced, Messages: 10}, info)
}

func TestTopicCannotShrink(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 4)
	require.ErrorIs(t, b.UpdateTopic("T", mq.TopicConfig{Queues: 3}), mq.ErrInvalidArgument)
	info, err := b.Topic("T")
	require.NoError(t, err)
	require.Equal(t, 4, info.Queues)
}

// TestTopicDeletedUnderConsumers: who waits goes on waiting, and gets the
// messages of its other topics.
func TestTopicDeletedUnderConsumers(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "Gone", 2)
	createTopic(t, b, "Stays", 1)
	sendBodies(t, b, "Gone", 3)
	c := pull(t, b, "G", "Gone", nil)
	require.NoError(t, c.Subscribe("Stays", mq.All))
	ms := poll(t, c, 2)
	require.NoError(t, b.DeleteTopic("Gone"))

	require.Equal(t, queuesOf("Stays", 0), c.Assigned())
	nothingMore(t, c)
	require.ErrorIs(t, c.Commit(t.Context(), ms...), mq.ErrStale)
	require.Equal(t, []string{"Stays"}, b.Topics())
	_, err := b.Route("Gone")
	require.ErrorIs(t, err, mq.ErrTopicNotFound)
	_, err = b.Offsets("G", "Gone")
	require.ErrorIs(t, err, mq.ErrTopicNotFound)

	sendBodies(t, b, "Stays", 1)
	require.Equal(t, []string{"0"}, bodiesOf(poll(t, c, 1)))
}

// TestTopicMadeAgainIsAnotherTopic: nothing of the first one shines through,
// also after the store was opened again.
func TestTopicMadeAgainIsAnotherTopic(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 1)
	old := send(t, b, &mq.Message{Topic: "T", Keys: []string{"k"}, Body: []byte("old")})[0]
	c := pull(t, b, "G", "T", nil)
	polled := poll(t, c, 1)
	require.NoError(t, c.Commit(t.Context()))
	p := newProducer(t, b, nil) // it remembers the topic of its last send
	_, err := p.Send(t.Context(), &mq.Message{Topic: "T", Body: []byte("old too")})
	require.NoError(t, err)

	require.NoError(t, b.DeleteTopic("T"))
	createTopic(t, b, "T", 1)
	r, err := p.Send(t.Context(), &mq.Message{Topic: "T", Keys: []string{"k"}, Body: []byte("new")})
	require.NoError(t, err)
	require.Equal(t, mq.Offset(0), r.Offset)

	check := func(b *mq.Broker) {
		found, err := b.MessagesByKey("T", "k", 64)
		require.NoError(t, err)
		require.Equal(t, []string{"new"}, bodiesOf(found))
		_, err = b.MessageByID(old.ID)
		require.ErrorIs(t, err, mq.ErrMessageNotFound)
		info, err := b.Topic("T")
		require.NoError(t, err)
		require.Equal(t, int64(1), info.Messages)
	}
	check(b)
	require.ErrorIs(t, c.Commit(t.Context(), polled...), mq.ErrStale, "an ack of the old topic")
	offsets, err := b.Offsets("G", "T")
	require.NoError(t, err)
	require.Empty(t, offsets, "the group has not subscribed to this topic")
	require.NoError(t, c.Subscribe("T", mq.All))
	require.Equal(t, []string{"new"}, bodiesOf(poll(t, c, 1)))
	require.NoError(t, b.Close())

	b = mqtest.OpenDir(t, dir, written())
	check(b)
	c = pull(t, b, "G", "T", nil)
	require.Equal(t, []string{"new"}, bodiesOf(poll(t, c, 1)))
}

// TestTopicDeletedWhileHandled: handlers under way finish, and the consumer
// lives on.
func TestTopicDeletedWhileHandled(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 1)
	createTopic(t, b, "U", 1)
	h := newGate()
	c := push(t, b, "G", "T", h.handle, &mq.PushOptions{Concurrency: 2})
	require.NoError(t, c.Subscribe("U", mq.All))
	sendBodies(t, b, "T", 1)
	h.awaitBegun(t, 1)
	require.NoError(t, b.DeleteTopic("T"))
	h.open()
	sendBodies(t, b, "U", 1)
	h.awaitDone(t, 2)
	consumed(t, b, "G")
}

// TestTopicDurabilityChanges: what was visible stays visible.
func TestTopicDurabilityChanges(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	createTopic(t, b, "T", 1)
	c := pull(t, b, "G", "T", nil)
	sendBodies(t, b, "T", 1)
	require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Durability: mq.Synced}))
	info, err := b.Topic("T")
	require.NoError(t, err)
	require.Equal(t, mq.Synced, info.Durability)
	require.Equal(t, 1, info.Queues)
	sendBodies(t, b, "T", 1)
	require.Len(t, poll(t, c, 2), 2)
	require.NoError(t, b.UpdateTopic("T", mq.TopicConfig{Durability: mq.Written}))
	sendBodies(t, b, "T", 1)
	require.Len(t, poll(t, c, 1), 1)
}
