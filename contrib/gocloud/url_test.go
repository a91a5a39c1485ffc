package mqpubsub

import (
	"context"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"gocloud.dev/pubsub"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// TestURLDirectory: URLs of one directory share a broker, which is closed with the
// last of them, and what was sent is there the next time.
func TestURLDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.ToSlash(t.TempDir())
	if dir[0] != '/' {
		dir = "/" + dir // C:/…
	}
	ctx := t.Context()
	topic, err := pubsub.OpenTopic(ctx, "pocketmq://"+dir+"?topic=T&key=k")
	require.NoError(t, err)
	require.NoError(t, topic.Send(ctx, &pubsub.Message{Body: []byte("one"), Metadata: map[string]string{"k": "v"}}))
	_, err = mq.Open(filepath.FromSlash(dir), nil)
	require.ErrorIs(t, err, mq.ErrLocked)

	sub, err := pubsub.OpenSubscription(ctx, "pocketmq://"+dir+"/./?topic=T&group=G&ordered=true&tags=*&ackdeadline=1h&nackdelay=1s&from=earliest")
	require.NoError(t, err)
	m := receive(t, sub)
	var native *mq.Message
	require.True(t, m.As(&native))
	require.Equal(t, "v", native.ShardingKey)
	m.Ack()
	require.NoError(t, topic.Send(ctx, &pubsub.Message{Body: []byte("two")}))
	require.NoError(t, topic.Shutdown(ctx))
	require.Equal(t, "two", string(receive(t, sub).Body))
	require.NoError(t, sub.Shutdown(ctx))

	b := mqtest.OpenDir(t, filepath.FromSlash(dir), nil) // nobody has it any more
	require.True(t, b.Recovery().Clean)
	lag, _, err := b.Lag("G")
	require.NoError(t, err)
	require.EqualValues(t, 1, lag, "the second message was not acknowledged")
}

// TestURLMemory: a store in memory stays when its last topic is shut down, is one
// by its name, and goes with the opener.
func TestURLMemory(t *testing.T) {
	t.Parallel()
	o := &URLOpener{}
	var mux pubsub.URLMux
	mux.RegisterTopic(MemScheme, o)
	mux.RegisterSubscription(MemScheme, o)
	ctx := t.Context()
	topic, err := mux.OpenTopic(ctx, "pubsub+pocketmq+mem://a?topic=T")
	require.NoError(t, err)
	require.NoError(t, topic.Send(ctx, &pubsub.Message{Body: []byte("one")}))
	require.NoError(t, topic.Shutdown(ctx))
	sub, err := mux.OpenSubscription(ctx, "pocketmq+mem://a?topic=T&group=G")
	require.NoError(t, err)
	receive(t, sub).Ack()
	elsewhere, err := mux.OpenSubscription(ctx, "pocketmq+mem://b?topic=T&group=G")
	require.NoError(t, err)
	var a, b *mq.Broker
	require.True(t, sub.As(&a) && elsewhere.As(&b))
	require.NotSame(t, a, b)
	require.NoError(t, sub.Shutdown(ctx))
	require.NoError(t, elsewhere.Shutdown(ctx))
	require.NoError(t, o.Close())
	_, err = a.NewProducer(nil)
	require.ErrorIs(t, err, mq.ErrClosed)
	_, err = b.NewProducer(nil)
	require.ErrorIs(t, err, mq.ErrClosed)
}

// TestURLOfBroker: an opener with a broker takes URLs that name none, and does not
// close it.
func TestURLOfBroker(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	o := &URLOpener{Broker: b, SubscriptionOptions: SubscriptionOptions{Ordered: true}}
	topic, err := o.OpenTopicURL(t.Context(), parse(t, "pocketmq:?topic=T"))
	require.NoError(t, err)
	sub, err := o.OpenSubscriptionURL(t.Context(), parse(t, "pocketmq:?topic=T&group=G"))
	require.NoError(t, err)
	require.NoError(t, topic.Send(t.Context(), &pubsub.Message{Body: []byte("one")}))
	receive(t, sub).Ack()
	require.NoError(t, topic.Shutdown(context.Background()))
	require.NoError(t, sub.Shutdown(context.Background()))
	require.NoError(t, o.Close())
	_, err = b.NewProducer(nil)
	require.NoError(t, err)
	_, err = o.OpenTopicURL(t.Context(), parse(t, "pocketmq:///elsewhere?topic=T"))
	require.ErrorIs(t, err, ErrURL)
}

// TestURLRefused: every way to get a URL wrong, and none of them leaves a store
// open.
func TestURLRefused(t *testing.T) {
	t.Parallel()
	o := &URLOpener{}
	refused := func(want error, u string, open func(*url.URL) error) {
		t.Helper()
		require.ErrorIs(t, open(parse(t, u)), want, u)
	}
	topic := func(u *url.URL) error { _, err := o.OpenTopicURL(t.Context(), u); return err }
	sub := func(u *url.URL) error { _, err := o.OpenSubscriptionURL(t.Context(), u); return err }
	for _, u := range []string{
		"pocketmq+mem://a", "pocketmq+mem://a?topic=", "pocketmq+mem://a?topic=T&group=G", "pocketmq+mem://a?topic=T&topic=U",
		"pocketmq+mem://?topic=T", "pocketmq:?topic=T", "pocketmq+mem://u@a?topic=T", "pocketmq+mem://a:1?topic=T", "pocketmq+mem:a?topic=T", "pocketmq+mem://a?topic=T#f",
	} {
		refused(ErrURL, u, topic)
	}
	for _, u := range []string{
		"pocketmq+mem://a?topic=T", "pocketmq+mem://a?group=G", "pocketmq+mem://a?topic=T&group=G&key=k",
		"pocketmq+mem://a?topic=T&group=G&ordered=perhaps", "pocketmq+mem://a?topic=T&group=G&from=middle",
		"pocketmq+mem://a?topic=T&group=G&ackdeadline=5", "pocketmq+mem://a?topic=T&group=G&nackdelay=x",
	} {
		refused(ErrURL, u, sub)
	}
	require.Empty(t, o.stores)
	dir := filepath.ToSlash(t.TempDir())
	refused(mq.ErrInvalidName, "pocketmq://"+dir+"?topic=T&group=no%20group", sub)
	refused(mq.ErrInvalidFilter, "pocketmq://"+dir+"?topic=T&group=G&tags=A%7C%7C", sub)
	refused(mq.ErrInvalidOptions, "pocketmq://"+dir+"?topic=T&group=G&ackdeadline=-1s", sub)
	require.Empty(t, o.stores)
	o.Options = &mq.Options{DefaultQueues: -5}
	refused(mq.ErrInvalidOptions, "pocketmq://"+dir+"?topic=T", topic)
	require.Empty(t, o.stores)
	require.NoError(t, o.Close())
}

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	require.NoError(t, err)
	return u
}
