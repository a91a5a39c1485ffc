package mq_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

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
