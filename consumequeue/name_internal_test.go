package consumequeue

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/coord"
)

// FuzzDir: whatever the topic is called, its folder has a name that every system
// takes, and that is known again.
func FuzzDir(f *testing.F) {
	f.Add("OrderTopic", int64(64))
	f.Add("../..", int64(0))
	f.Add("%RETRY%|x\x00/", int64(8))
	f.Fuzz(func(t *testing.T, topic string, id int64) {
		if id < 0 {
			return
		}
		name := Dir(topic, coord.TopicID(id))
		require.True(t, isDir(name))
		require.LessOrEqual(t, len(name), 255)
		for _, c := range []byte(name) {
			require.True(t, plain(c) || c == '%' || c == '@', "%q", name)
		}
	})
}

func FuzzFileName(f *testing.F) {
	f.Add(fileName(0))
	f.Add(fileName(FileEntries))
	f.Add("+0000000000000300000")
	f.Fuzz(func(t *testing.T, name string) {
		if base, ok := parseFileName(name); ok {
			require.Equal(t, name, fileName(base))
		}
	})
}
