package mq_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// TestLagBehindDropped: what a group consumed ahead of its offset and is dropped
// since does not make up for what is there and not consumed.
func TestLagBehindDropped(t *testing.T) {
	t.Parallel()
	o := written()
	o.Retention = mq.Retention{MaxBytes: 4 << 20, DropUnconsumed: true}
	b := mqtest.OpenMemory(t, o)
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 100)
	c := pull(t, b, "G", "T", nil)
	require.NoError(t, c.Commit(t.Context(), poll(t, c, 100)[1:]...))
	require.NoError(t, c.Close())
	require.Equal(t, int64(1), lag(t, b, "G"))
	p := newProducer(t, b, nil)
	mqtest.Eventually(t, func() bool {
		_, err := p.Send(t.Context(), &mq.Message{Topic: "T", Body: make([]byte, 64<<10)})
		require.NoError(t, err)
		offsets, err := b.Offsets("G", "T")
		require.NoError(t, err)
		return offsets[0].Start > 100
	}, "what was consumed is dropped")
	offsets, err := b.Offsets("G", "T")
	require.NoError(t, err)
	require.Equal(t, int64(offsets[0].End-offsets[0].Start), offsets[0].Lag(), "%+v", offsets[0])
	require.Equal(t, offsets[0].Lag(), lag(t, b, "G"))
}
