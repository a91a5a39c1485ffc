package mq

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

// TestTopicIsWhole: who finds a topic by its name while it is being made finds its
// queues too.
func TestTopicIsWhole(t *testing.T) {
	t.Parallel()
	b := openOn(t, vfs.NewMem(0), nil)
	for i := range 20 {
		name := fmt.Sprint("T", i)
		var found sync.WaitGroup
		found.Go(func() {
			for {
				if made := b.names.topic(name); made != nil {
					assert.Len(t, *made.queues.Load(), maxQueues)
					return
				}
				runtime.Gosched()
			}
		})
		require.NoError(t, b.CreateTopic(name, &TopicConfig{Queues: maxQueues, Durability: Written}))
		found.Wait()
	}
}
