package mq_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// badNames are refused wherever a topic or a group is named; the value says what
// of the name the error has to tell.
var badNames = map[string]string{
	"":                       "empty",
	" ":                      `" "`,
	"a b":                    `"a b"`,
	"a/b":                    `"a/b"`,
	"../escape":              `"../escape"`,
	"a.b":                    `"a.b"`,
	"naïve":                  `"na`,
	"nul\x00":                `nul\x00`,
	"new\nline":              `new\nline`,
	"#000001":                "#000001",
	strings.Repeat("x", 128): "128 bytes",
}

// unchanged checks that f changes nothing of what a store is.
func unchanged(t *testing.T, b *mq.Broker, f func()) {
	t.Helper()
	before, topics, groups := b.Stats(), b.Topics(), b.Groups()
	f()
	after := b.Stats()
	require.Equal(t, topics, b.Topics())
	require.Equal(t, groups, b.Groups())
	require.Equal(t, before.Written, after.Written, "something was logged")
	require.Equal(t, before.Consumers, after.Consumers)
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	handler := func(context.Context, *mq.Message) error { return nil }
	p := newProducer(t, b, nil)
	c, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	refused := func(name, says string, err error) {
		t.Helper()
		require.ErrorIs(t, err, mq.ErrInvalidName, "%q", name)
		require.ErrorContains(t, err, says, "%q", name)
	}
	unchanged(t, b, func() {
		for name, says := range badNames {
			refused(name, says, b.CreateTopic(name, nil))
			refused(name, says, c.Subscribe(name, mq.All))
			_, err := p.Send(t.Context(), &mq.Message{Topic: name})
			refused(name, says, err)
			refused(name, says, p.SendOneWay(&mq.Message{Topic: name}))
			refused(name, says, p.SendAsync(t.Context(), &mq.Message{Topic: name}, nil))
			_, err = b.NewPullConsumer(name, nil)
			refused(name, says, err)
			_, err = b.NewPushConsumer(name, handler, nil)
			refused(name, says, err)
			if name != "" { // an unnamed producer and member are fine
				_, err = b.NewProducer(&mq.ProducerOptions{Group: name})
				refused(name, says, err)
				_, err = b.NewPullConsumer("G", &mq.PullOptions{Instance: name})
				refused(name, says, err)
				_, err = b.NewPushConsumer("H", handler, &mq.PushOptions{Instance: name})
				refused(name, says, err)
			}
		}
		for _, name := range []string{
			"TBW102", "SCHEDULE_TOPIC_XXXX", "BenchmarkTest", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC",
			"TRANS_CHECK_MAX_TIME_TOPIC", "RMQ_SYS_TRACE_TOPIC", "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT", "CHECKPOINT_TOPIC",
			"rmq_sys_anything", "%RETRY%G", "%DLQ%G", "%LMQ%x",
		} {
			refused(name, name, b.CreateTopic(name, nil))
			_, err := p.Send(t.Context(), &mq.Message{Topic: name})
			refused(name, name, err)
		}
		for _, name := range []string{
			"DEFAULT_CONSUMER", "DEFAULT_PRODUCER", "TOOLS_CONSUMER", "FILTERSRV_CONSUMER", "__MONITOR_CONSUMER",
			"CLIENT_INNER_PRODUCER", "SELF_TEST_P_GROUP", "SELF_TEST_C_GROUP", "CID_ONS-HTTP-PROXY", "CID_ONSAPI_X", "CID_RMQ_SYS_X",
			strings.Repeat("g", 121),
		} {
			_, err := b.NewPullConsumer(name, nil)
			refused(name, name[:10], err)
			_, err = b.NewProducer(&mq.ProducerOptions{Group: name})
			refused(name, name[:10], err)
		}
	})
	require.NoError(t, c.Close())
}

// TestOddNames are legal, and so must be the folders made of them.
func TestOddNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	names := []string{"a|b", "%", "-", "_", "CON", "con", "a%2Fb", "%%%", "|", strings.Repeat("t", 127), "T", "t"}
	for _, name := range names {
		require.NoError(t, b.CreateTopic(name, &mq.TopicConfig{Queues: 1}))
		p := newProducer(t, b, nil)
		batch := numbered(name, 0, 2000) // more than a chunk of the index: it gets a file
		_, err := p.SendBatch(t.Context(), batch)
		require.NoError(t, err)
	}
	longest := strings.Repeat("g", 120)
	require.Len(t, poll(t, pull(t, b, longest, "a|b", nil), 2000), 2000)
	require.NoError(t, b.Close())
	b = mqtest.OpenDir(t, dir, written())
	require.Len(t, b.Topics(), len(names))
	require.Equal(t, []string{longest}, b.Groups())
}

func TestBadMessages(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, &mq.Options{MaxBodyBytes: 1000})
	createTopic(t, b, "T", 1)
	p := newProducer(t, b, nil)
	long := strings.Repeat("x", 40_000)
	rows := []struct {
		name string
		m    *mq.Message
		want error
		says string
	}{
		{"nil", nil, mq.ErrInvalidMessage, "nil"},
		{"body", &mq.Message{Topic: "T", Body: make([]byte, 1001)}, mq.ErrTooLarge, "1001"},
		{"tag", &mq.Message{Topic: "T", Tag: long[:128]}, mq.ErrInvalidMessage, "128"},
		{"sharding key", &mq.Message{Topic: "T", ShardingKey: long[:1025]}, mq.ErrInvalidMessage, "1025"},
		{"key", &mq.Message{Topic: "T", Keys: []string{long[:32_768]}}, mq.ErrInvalidMessage, "3276"},
		{"property name", &mq.Message{Topic: "T", Properties: map[string]string{long: ""}}, mq.ErrInvalidMessage, "4000"},
		{"property value", &mq.Message{Topic: "T", Properties: map[string]string{"": long}}, mq.ErrInvalidMessage, "4000"},
		{"together", &mq.Message{Topic: "T", Keys: []string{long[:20_000]}, Properties: map[string]string{"p": long[:20_000]}}, mq.ErrInvalidMessage, "4000"},
	}
	unchanged(t, b, func() {
		for _, row := range rows {
			_, err := p.Send(t.Context(), row.m)
			require.ErrorIs(t, err, row.want, row.name)
			require.ErrorContains(t, err, row.says, row.name)
			require.ErrorIs(t, p.SendOneWay(row.m), row.want, row.name)
			require.ErrorIs(t, p.SendAsync(t.Context(), row.m, func(mq.SendResult, error) { t.Error("called") }), row.want, row.name)
			_, err = p.SendBatch(t.Context(), []*mq.Message{row.m})
			require.ErrorIs(t, err, row.want, row.name)
		}
		for _, id := range []mq.QueueID{-1, 1, 1 << 30} {
			chooser := newProducer(t, b, &mq.ProducerOptions{Selector: func(*mq.Message, int) mq.QueueID { return id }})
			_, err := chooser.Send(t.Context(), &mq.Message{Topic: "T"})
			require.ErrorIs(t, err, mq.ErrQueueNotFound)
		}
	})
	largest := &mq.Message{
		Topic: "T", Body: make([]byte, 1000), Tag: long[:127], ShardingKey: long[:1024],
		Keys: []string{long[:16_000]}, Properties: map[string]string{"p": long[:16_000]},
	}
	_, err := p.Send(t.Context(), largest)
	require.NoError(t, err, "what is within the limits is fine")
}

func TestBadTopicCalls(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, &mq.Options{NoAutoCreate: true})
	createTopic(t, b, "T", 2)
	p := newProducer(t, b, nil)
	c, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	unchanged(t, b, func() {
		_, err := p.Send(t.Context(), &mq.Message{Topic: "None"})
		require.ErrorIs(t, err, mq.ErrTopicNotFound)
		require.ErrorContains(t, err, `"None"`)
		_, err = p.SendBatch(t.Context(), []*mq.Message{{Topic: "T"}, {Topic: "None"}})
		require.ErrorIs(t, err, mq.ErrTopicNotFound)
		require.ErrorIs(t, c.Subscribe("None", mq.All), mq.ErrTopicNotFound)
		require.ErrorIs(t, c.Assign(mq.Queue{Topic: "None"}), mq.ErrTopicNotFound)
		require.ErrorIs(t, b.DeleteTopic("None"), mq.ErrTopicNotFound)
		require.ErrorIs(t, b.UpdateTopic("None", mq.TopicConfig{}), mq.ErrTopicNotFound)
		_, err = b.Topic("None")
		require.ErrorIs(t, err, mq.ErrTopicNotFound)
		_, err = b.Route("None")
		require.ErrorIs(t, err, mq.ErrTopicNotFound)
		for _, queues := range []int{-1, 1025} {
			err := b.CreateTopic("U", &mq.TopicConfig{Queues: queues})
			require.ErrorIs(t, err, mq.ErrInvalidArgument)
			require.ErrorContains(t, err, "queues")
			require.ErrorIs(t, b.UpdateTopic("T", mq.TopicConfig{Queues: queues}), mq.ErrInvalidArgument)
		}
		require.ErrorIs(t, b.CreateTopic("U", &mq.TopicConfig{Durability: 3}), mq.ErrInvalidArgument)
	})
	require.NoError(t, b.CreateTopic("U", &mq.TopicConfig{Queues: 1024}))
	require.NoError(t, c.Close())
}

func TestBadConsumers(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	handler := func(context.Context, *mq.Message) error { return nil }
	elsewhere := mq.AtOffset(mq.Queue{Topic: "T"}, 1)
	unchanged(t, b, func() {
		_, err := b.NewPushConsumer("G", nil, nil)
		require.ErrorIs(t, err, mq.ErrInvalidArgument)
		for says, o := range map[string]mq.PushOptions{
			"Concurrency": {Concurrency: -1}, "PrefetchMessages": {PrefetchMessages: -1}, "PrefetchBytes": {PrefetchBytes: -1},
			"odel": {Model: 2}, "AckDurability": {AckDurability: 3}, "start": {From: elsewhere},
		} {
			_, err := b.NewPushConsumer("G", handler, &o)
			require.ErrorIs(t, err, mq.ErrInvalidOptions, says)
			require.ErrorContains(t, err, says)
		}
		for says, o := range map[string]mq.PullOptions{"odel": {Model: 2}, "AckDurability": {AckDurability: 3}, "start": {From: elsewhere}} {
			_, err := b.NewPullConsumer("G", &o)
			require.ErrorIs(t, err, mq.ErrInvalidOptions, says)
		}
	})
	c := pull(t, b, "G", "T", nil)
	for _, max := range []int{0, -1} {
		_, err := c.Poll(t.Context(), max)
		require.ErrorIs(t, err, mq.ErrInvalidArgument)
	}
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	rows := map[string]mq.Options{
		"Durability":            {Durability: 3},
		"DefaultQueues":         {DefaultQueues: 1025},
		"MaxBodyBytes":          {MaxBodyBytes: 15<<20 + 1},
		"SyncEvery":             {SyncEvery: -1},
		"SegmentBytes":          {SegmentBytes: 1000},
		"CacheBytes":            {CacheBytes: -2},
		"Retention.Age":         {Retention: mq.Retention{Age: -2}},
		"Retention.MaxBytes":    {Retention: mq.Retention{MaxBytes: 1000}},
		"Retention.GroupExpiry": {Retention: mq.Retention{GroupExpiry: -2}},
	}
	for field, o := range rows {
		dir := filepath.Join(t.TempDir(), "store")
		_, err := mq.Open(dir, &o)
		require.ErrorIs(t, err, mq.ErrInvalidOptions, field)
		require.ErrorContains(t, err, field)
		_, err = os.Stat(dir)
		require.ErrorIs(t, err, os.ErrNotExist, "nothing was made")
		_, err = mq.OpenMemory(&o)
		require.ErrorIs(t, err, mq.ErrInvalidOptions, field)
	}
}

// TestOptionsAreCopied: what a caller does to them later has no effect.
func TestOptionsAreCopied(t *testing.T) {
	t.Parallel()
	o := &mq.Options{DefaultQueues: 2, Hooks: &mq.Hooks{}}
	b := mqtest.OpenMemory(t, o)
	o.DefaultQueues = 9
	o.Hooks.Rebalanced = func(mq.RebalancedInfo) { t.Error("called") }
	pull(t, b, "G", "T", nil)
	info, err := b.Topic("T")
	require.NoError(t, err)
	require.Equal(t, 2, info.Queues)
}

func TestBadDirectories(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	file := filepath.Join(root, "file")
	require.NoError(t, os.WriteFile(file, []byte("mine"), 0o600))
	for dir, says := range map[string]string{"": "empty", file: file, filepath.Join(file, "below"): file, "nul\x00": "nul"} {
		_, err := mq.Open(dir, nil)
		require.ErrorIs(t, err, mq.ErrDirectory, "%q", dir)
		require.ErrorContains(t, err, says)
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "mine", string(text))

	for _, name := range []string{"commitlog", "consumequeue", "index", "journal", "LOCK"} {
		dir := t.TempDir()
		if name == "LOCK" {
			require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		} else {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600))
		}
		_, err := mq.Open(dir, nil)
		require.ErrorIs(t, err, mq.ErrDirectory, name)
	}
}

// TestNewerVersion: a store of a format that is not known here is left alone.
func TestNewerVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, nil)
	sendBodies(t, b, "T", 3)
	require.NoError(t, b.Close())
	segment := filepath.Join(dir, "commitlog", strings.Repeat("0", 20))
	original, err := os.ReadFile(segment)
	require.NoError(t, err)
	newer := append([]byte(nil), original...)
	newer[8]++ // version, and a hash that says it is no damage: see docs/format.md
	binary.LittleEndian.PutUint64(newer[56:], xxhash.Sum64(newer[:56]))
	require.NoError(t, os.WriteFile(segment, newer, 0o600))
	before := listing(t, dir)
	_, err = mq.Open(dir, nil)
	require.ErrorIs(t, err, mq.ErrVersion)
	require.Equal(t, before, listing(t, dir), "nothing was changed")
	require.NoError(t, os.WriteFile(segment, original, 0o600))
	mqtest.OpenDir(t, dir, nil)
}

// listing is what lies in a folder: names, sizes and times.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" {
			return err
		}
		content, err := os.ReadFile(name)
		files[name] = string(content)
		return err
	}))
	return files
}

// TestBadTimes: of any size and sign; none overflows into nonsense.
func TestBadTimes(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 3)
	q := mq.Queue{Topic: "T"}
	for at, want := range map[time.Time]mq.Offset{
		{}:                      0,
		time.Unix(-1<<40, 0):    0,
		time.Unix(1<<40, 0):     3,
		time.UnixMilli(1 << 62): 3,
	} {
		off, err := b.OffsetAt(q, at)
		require.NoError(t, err)
		require.Equal(t, want, off, at.String())
	}
}
