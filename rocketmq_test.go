package mq_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// TestSixteenRetries: RocketMQ's table of delays, to the second, and what it keeps
// of the message; 17 deliveries in all.
func TestSixteenRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		f := &always{began: time.Now()}
		push(t, b, "G", "T", f.handle, nil)
		sent := send(t, b, &mq.Message{Topic: "T", Tag: "tag", Keys: []string{"key"}, Properties: map[string]string{"p": "v"}, Body: []byte("0")})[0]
		pass(24 * time.Hour)
		minutes := []float64{1. / 6, 1. / 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 60, 120}
		want, at := []time.Duration{0}, time.Duration(0)
		for _, m := range minutes {
			at += time.Duration(m * float64(time.Minute))
			want = append(want, at)
		}
		require.Equal(t, want, f.times())
		require.Equal(t, 4*time.Hour+45*time.Minute+40*time.Second, at)
		for _, m := range f.messages() {
			require.Equal(t, sent.ID, m.ID)
			require.Equal(t, []any{"T", "tag", []string{"key"}, map[string]string{"p": "v"}}, []any{m.Topic, m.Tag, m.Keys, m.Properties})
		}
		require.Equal(t, []string{"%DLQ%G", "%RETRY%G", "T"}, b.Topics())
		dead := deadLetters(t, b, "G")
		require.Len(t, dead, 1)
		require.Equal(t, sent.ID, dead[0].ID)
		require.Equal(t, &mq.Origin{Topic: "T", Attempts: 17, LastError: "no"}, dead[0].Origin)
	})
}

// TestVerdictsAreDelayLevels: RocketMQ's delayLevelWhenNextConsume: below 0 is a
// dead letter at once, above 0 that delay, 0 the table by the number of attempts.
func TestVerdictsAreDelayLevels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		verdicts := []error{mq.RetryAfter(3 * time.Second), errors.New("by the table"), mq.RetryAfter(0), mq.Discard(errors.New("bad"))}
		f := &always{began: time.Now()}
		push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
			_ = f.handle(ctx, m)
			return verdicts[m.Attempt-1]
		}, nil)
		sendBodies(t, b, "T", 1)
		pass(24 * time.Hour)
		require.Equal(t, seconds(0, 3, 33, 33), f.times())
		require.Equal(t, "mq: discarded: bad", deadLetters(t, b, "G")[0].Origin.LastError)
	})
}

// TestOrderedSuspendsAKey: RocketMQ suspends the queue for a second, again and
// again without an end; here it is the key.
func TestOrderedSuspendsAKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		f := &always{began: time.Now()}
		var others inbox
		push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
			if string(m.Body) == "poison" {
				return f.handle(ctx, m)
			}
			return others.handle(ctx, m)
		}, &mq.PushOptions{Ordered: true})
		for _, body := range []string{"poison", "behind", "other"} {
			key := "a"
			if body == "other" {
				key = "b"
			}
			send(t, b, &mq.Message{Topic: "T", ShardingKey: key, Body: []byte(body)})
		}
		pass(100*time.Second + 500*time.Millisecond)
		times := f.times()
		require.Len(t, times, 101)
		for i := range times {
			require.Equal(t, time.Duration(i)*time.Second, times[i])
		}
		require.Equal(t, []string{"other"}, others.bodies())
		require.Empty(t, deadLetters(t, b, "G"))
	})
}

// TestNamedTestsExist: docs/rocketmq.md names the tests of what it says.
func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	var code strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		code.Write(text)
	}
	for _, doc := range []string{"docs/rocketmq.md", "docs/retries.md"} {
		text, err := os.ReadFile(doc)
		require.NoError(t, err)
		named := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllSubmatch(text, -1)
		require.NotEmpty(t, named, doc)
		for _, n := range named {
			require.Contains(t, code.String(), "func "+string(n[1])+"(", doc)
		}
	}
}
