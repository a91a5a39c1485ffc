package mqprom

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// BenchmarkScrape is all that Prometheus gets, of groups that are behind in each of
// their topics' four message queues.
func BenchmarkScrape(b *testing.B) {
	for _, c := range []struct{ groups, topics int }{{1, 1}, {10, 10}, {100, 10}} {
		b.Run(fmt.Sprintf("groups=%d/topics=%d", c.groups, c.topics), func(b *testing.B) {
			broker := mqtest.OpenMemory(b, &mq.Options{Durability: mq.Written})
			var topics []string
			for i := range c.topics {
				topics = append(topics, fmt.Sprintf("T%d", i))
				send(b, broker, topics[i], 100)
			}
			for i := range c.groups {
				simple(b, broker, fmt.Sprintf("G%d", i), topics...)
			}
			r := registry(b, broker, nil)
			b.ReportAllocs()
			for b.Loop() {
				_, err := r.Gather()
				require.NoError(b, err)
			}
		})
	}
}
