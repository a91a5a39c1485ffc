package mqtest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
)

// TestLeakIsFound: of a broker that nobody closes, and of a handler that does
// not return, but not of a test that waits.
func TestLeakIsFound(t *testing.T) {
	t.Parallel()
	watch(t)
	b, err := mq.OpenMemory(nil)
	require.NoError(t, err)
	Eventually(t, func() bool { return len(running(t.Name())) > 0 }, "the broker's goroutines have begun")
	require.Empty(t, running(t.Name()+"/other"))

	waiting := make(chan struct{})
	go func() {
		close(waiting)
		c, err := b.NewPullConsumer("P", nil)
		if err == nil && c.Subscribe("Empty", mq.All) == nil {
			_, _ = c.Poll(context.Background(), 1)
		}
	}()
	<-waiting

	began, end := make(chan struct{}), make(chan struct{})
	c, err := b.NewPushConsumer("G", func(context.Context, *mq.Message) error {
		close(began)
		<-end
		return nil
	}, nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	_, err = p.Send(context.Background(), &mq.Message{Topic: "T"})
	require.NoError(t, err)
	<-began
	require.Contains(t, running(t.Name())[0], "mq.(*")
	close(end)
	require.NoError(t, b.Close()) // and watch finds nothing
}
