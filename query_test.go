package mq_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

func TestMessageByID(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	p := newProducer(t, b, nil)
	var all []mq.SendResult
	for i := range 20 {
		rs, err := p.SendBatch(t.Context(), []*mq.Message{
			{Topic: "T", Tag: "tag", Keys: []string{"k"}, Body: fmt.Append(nil, 2*i)}, {Topic: "U", Body: fmt.Append(nil, 2*i+1)},
		})
		require.NoError(t, err)
		all = append(all, rs...)
	}
	check := func(b *mq.Broker) {
		for i, r := range all {
			m, err := b.MessageByID(r.ID)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), string(m.Body))
			require.Equal(t, r, mq.SendResult{ID: m.ID, Topic: m.Topic, Queue: m.Queue, Offset: m.Offset})
			require.Zero(t, m.Attempt, "it was not delivered")
		}
	}
	check(b)
	require.NoError(t, b.Close())
	check(mqtest.OpenDir(t, dir, written()))
}

// TestMessageByForeignID: made up, of another store, of an ack; none is found
// and none does harm.
func TestMessageByForeignID(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	other := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 5)
	c := pull(t, b, "G", "T", nil)
	poll(t, c, 5)
	require.NoError(t, c.Commit(t.Context()))
	own := sendBodies(t, b, "T", 1)[0].ID
	foreign := sendBodies(t, other, "T", 1)[0].ID
	_, err := b.MessageByID(foreign)
	require.ErrorIs(t, err, mq.ErrMessageNotFound)
	_, err = b.MessageByID(mq.MessageID{})
	require.ErrorIs(t, err, mq.ErrMessageNotFound)
	text := own.String()
	found := 0
	for position := range 3000 { // of everything there is, and beyond
		id, err := mq.ParseID(fmt.Sprintf("%s%016x", text[:24], position))
		require.NoError(t, err)
		m, err := b.MessageByID(id)
		if err == nil {
			found++
			require.Equal(t, "T", m.Topic)
			continue
		}
		require.ErrorIs(t, err, mq.ErrMessageNotFound, id.String())
	}
	require.Equal(t, 6, found)
	for _, wrong := range []string{"7fffffffffffffff", "00000000ffffffff"} {
		id, err := mq.ParseID(text[:24] + wrong)
		require.NoError(t, err)
		_, err = b.MessageByID(id)
		require.ErrorIs(t, err, mq.ErrMessageNotFound)
	}
	epoch, err := mq.ParseID(text[:16] + "0fffffff" + text[24:])
	require.NoError(t, err)
	_, err = b.MessageByID(epoch)
	require.ErrorIs(t, err, mq.ErrMessageNotFound, "an id of another epoch is another message")
}

func TestParseID(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	id := sendBodies(t, b, "T", 1)[0].ID
	parsed, err := mq.ParseID(id.String())
	require.NoError(t, err)
	require.Equal(t, id, parsed)
	text, err := json.Marshal(map[mq.MessageID]mq.MessageID{id: id})
	require.NoError(t, err)
	var back map[mq.MessageID]mq.MessageID
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, map[mq.MessageID]mq.MessageID{id: id}, back)

	good := id.String()
	for _, bad := range []string{
		"", "x", good[1:], good + "0", "g" + good[1:], strings.ToUpper("abcdef") + good[6:],
		good[:24] + "8000000000000000", strings.Repeat(" ", 40), strings.Repeat("é", 20),
	} {
		_, err := mq.ParseID(bad)
		require.ErrorIs(t, err, mq.ErrInvalidArgument, "%q", bad)
		var unread mq.MessageID
		require.ErrorIs(t, unread.UnmarshalText([]byte(bad)), mq.ErrInvalidArgument)
		require.True(t, unread.IsZero())
	}
}

// TestMessagesByKey: newest first, of one topic, with several keys, keys that
// are any bytes; also after the store was opened again.
func TestMessagesByKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 3)
	createTopic(t, b, "U", 1)
	odd := "\x00\xff ||"
	for i := range 100 {
		m := &mq.Message{Topic: "T", Keys: []string{fmt.Sprint("order-", i%10), odd, odd}, Body: fmt.Append(nil, i)}
		if i == 50 {
			m.Topic = "U"
		}
		if i == 60 {
			m.Keys = []string{""}
		}
		send(t, b, m)
	}
	check := func(b *mq.Broker) {
		t.Helper()
		rows := []struct {
			topic, key string
			max        int
			want       []string
		}{
			{"T", "order-3", 64, []string{"93", "83", "73", "63", "53", "43", "33", "23", "13", "3"}},
			{"T", "order-3", 2, []string{"93", "83"}},
			{"T", "order-0", 64, []string{"90", "80", "70", "40", "30", "20", "10", "0"}},
			{"U", "order-0", 64, []string{"50"}},
			{"U", odd, 64, []string{"50"}},
			{"T", odd, 3, []string{"99", "98", "97"}},
			{"T", "", 64, []string{"60"}},
			{"T", "none", 64, []string{}},
		}
		for _, row := range rows {
			found, err := b.MessagesByKey(row.topic, row.key, row.max)
			require.NoError(t, err)
			require.Equal(t, row.want, bodiesOf(found), "%s %q", row.topic, row.key)
		}
		found, err := b.MessagesByKey("T", odd, 64)
		require.NoError(t, err)
		require.Len(t, found, 64)
		_, err = b.MessagesByKey("None", "k", 1)
		require.ErrorIs(t, err, mq.ErrTopicNotFound)
		for _, max := range []int{0, -1, 65} {
			_, err := b.MessagesByKey("T", "k", max)
			require.ErrorIs(t, err, mq.ErrInvalidArgument)
		}
	}
	check(b)
	require.NoError(t, b.Close())
	b = mqtest.OpenDir(t, dir, written())
	check(b)
	send(t, b, &mq.Message{Topic: "T", Keys: []string{"order-3"}, Body: []byte("new")})
	found, err := b.MessagesByKey("T", "order-3", 2)
	require.NoError(t, err)
	require.Equal(t, []string{"new", "93"}, bodiesOf(found), "memory before files")
}

func TestStats(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, written())
	createTopic(t, b, "T", 3)
	sendBodies(t, b, "T", 10)
	c := pull(t, b, "G", "T", nil)
	poll(t, c, 10)
	require.NoError(t, c.Commit(t.Context()))
	require.NoError(t, b.Sync(t.Context()))
	s := b.Stats()
	require.Equal(t, []int{1, 3, 1, 1}, []int{s.Topics, s.Queues, s.Groups, s.Consumers})
	require.Equal(t, []int64{10, 10, 10, 10}, []int64{s.Sent, s.SentBytes, s.Acked, s.Messages})
	require.Equal(t, s.Written, s.Synced)
	require.Positive(t, s.Syncs)
	require.Positive(t, s.LogBytes)
	require.Equal(t, 1, s.Segments)
	require.NoError(t, s.Poisoned)
	require.Zero(t, s.PendingCallbacks)
	require.Empty(t, s.HeldBy)
}
