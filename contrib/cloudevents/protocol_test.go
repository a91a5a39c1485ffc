package pocketmq_test

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	bindingtest "github.com/cloudevents/sdk-go/v2/binding/test"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/protocol"
	protocoltest "github.com/cloudevents/sdk-go/v2/protocol/test"
	"github.com/cloudevents/sdk-go/v2/test"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	pocketmq "github.com/pocketmq/mq/contrib/cloudevents"
	"github.com/pocketmq/mq/mqtest"
)

// pair returns a sender and a receiver of one topic.
func pair(t testing.TB, b *mq.Broker, topic string) (*pocketmq.Sender, *pocketmq.Receiver) {
	t.Helper()
	s, err := pocketmq.NewSender(b, topic, nil)
	require.NoError(t, err)
	return s, receiver(t, b, topic, nil)
}

func receiver(t testing.TB, b *mq.Broker, topic string, o *pocketmq.ReceiverOptions) *pocketmq.Receiver {
	t.Helper()
	r, err := pocketmq.NewReceiver(b, "G", topic, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close(context.Background())) })
	return r
}

// TestSendReceive is the SDK's: every event of its own in every version, as an
// event, as a message in binary and in structured mode, and written in the mode
// that it came in and in either that is asked for.
func TestSendReceive(t *testing.T) {
	t.Parallel()
	messages := map[string]func(t *testing.T, e event.Event) binding.Message{
		"event":  func(_ *testing.T, e event.Event) binding.Message { return binding.ToMessage(&e) },
		"binary": func(_ *testing.T, e event.Event) binding.Message { return bindingtest.MustCreateMockBinaryMessage(e) },
		"structured": func(t *testing.T, e event.Event) binding.Message {
			return bindingtest.MustCreateMockStructuredMessage(t, e)
		},
	}
	modes := map[string]struct {
		of   func(context.Context) context.Context
		want func(from string) binding.Encoding
	}{
		"as it is": {func(ctx context.Context) context.Context { return ctx }, func(from string) binding.Encoding {
			if from == "structured" {
				return binding.EncodingStructured
			}
			return binding.EncodingBinary
		}},
		"binary":     {binding.WithForceBinary, func(string) binding.Encoding { return binding.EncodingBinary }},
		"structured": {binding.WithForceStructured, func(string) binding.Encoding { return binding.EncodingStructured }},
	}
	for from, message := range messages {
		for to, mode := range modes {
			for _, e := range test.Events() {
				t.Run(fmt.Sprintf("%s/%s/%s", from, to, e.ID()), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { // the SDK sleeps a second
						e := test.ConvertEventExtensionsToString(t, e)
						s, r := pair(t, mqtest.OpenMemory(t, nil), "T")
						ctx := mode.of(t.Context())
						protocoltest.SendReceive(t, ctx, message(t, e), s, r, func(out binding.Message) {
							require.Equal(t, mode.want(from), out.ReadEncoding())
							for range 2 { // it can be read again
								got := test.MustToEvent(t, ctx, out)
								test.AssertEventEquals(t, e, test.ConvertEventExtensionsToString(t, got))
							}
						})
					})
				})
			}
		}
	}
}

// TestDraft: the properties are those that the draft names.
func TestDraft(t *testing.T) {
	t.Parallel()
	e := test.FullEvent()
	var m mq.Message
	require.NoError(t, pocketmq.WriteMessage(t.Context(), binding.ToMessage(&e), &m))
	require.Equal(t, map[string]string{
		"CE_specversion": "1.0", "CE_id": "full-event", "CE_type": "com.example.FullEvent", "CE_source": "http://example.com/source",
		"CE_time": "2020-03-21T12:34:56.78Z", "CE_subject": "topic", "CE_dataschema": "http://example.com/schema", "CE_contenttype": "text/json",
		"CE_exbool": "true", "CE_exint": "42", "CE_exstring": "exstring", "CE_exbinary": "AAECAw==", "CE_exurl": "http://example.com/source",
		"CE_extime": "2020-03-21T12:34:56.78Z",
	}, m.Properties)
	require.Equal(t, `"hello"`, string(m.Body))
	m = mq.Message{Properties: map[string]string{"mine": "stays"}}
	require.NoError(t, pocketmq.WriteMessage(binding.WithForceStructured(t.Context()), binding.ToMessage(&e), &m))
	require.Equal(t, map[string]string{"mine": "stays", "CE_contenttype": "application/cloudevents+json"}, m.Properties)
	require.JSONEq(t, string(test.MustJSON(t, e)), string(m.Body))

	for name, properties := range map[string]map[string]string{
		"the draft's example":      {"CE_contenttype": "application/cloudevents+json; charset=UTF-8"},
		"as it is written there":   {"CE_contentType": "application/cloudevents+json"},
		"with headers of binary":   {"CE_contenttype": "application/cloudevents+json", "CE_specversion": "1.0", "CE_id": "other"},
		"with what is of no event": {"CE_contenttype": "Application/CloudEvents+JSON", "x": "y"},
	} {
		got := pocketmq.NewMessage(&mq.Message{Properties: properties, Body: test.MustJSON(t, e)})
		require.Equal(t, binding.EncodingStructured, got.ReadEncoding(), name)
		test.AssertEventEquals(t, test.ConvertEventExtensionsToString(t, e), test.ConvertEventExtensionsToString(t, test.MustToEvent(t, t.Context(), got)))
	}
	got := pocketmq.NewMessage(&mq.Message{Body: []byte("{}"), Properties: map[string]string{
		"CE_specversion": "1.0", "CE_id": "1", "CE_type": "t", "CE_source": "/s", "CE_contentType": "application/json", "other": "property",
	}})
	require.Equal(t, "application/json", test.MustToEvent(t, t.Context(), got).DataContentType())
	require.Empty(t, test.MustToEvent(t, t.Context(), got).Extensions())
	require.NoError(t, got.Finish(nil))
	for _, properties := range []map[string]string{nil, {"x": "y"}, {"CE_id": "1"}, {"CE_contenttype": "text/plain"}} {
		got := pocketmq.NewMessage(&mq.Message{Properties: properties})
		require.Equal(t, binding.EncodingUnknown, got.ReadEncoding())
		require.ErrorIs(t, got.ReadBinary(t.Context(), nil), binding.ErrNotBinary)
		require.ErrorIs(t, got.ReadStructured(t.Context(), nil), binding.ErrNotStructured)
	}
}

// TestMetadata: attributes can be read, and changed on the way, without making
// an event.
func TestMetadata(t *testing.T) {
	t.Parallel()
	e := test.FullEvent()
	var m mq.Message
	require.NoError(t, pocketmq.WriteMessage(t.Context(), binding.ToMessage(&e), &m))
	bindingtest.RunTransformerTests(t, t.Context(), []bindingtest.TransformerTestArgs{{
		Name: "nothing", InputMessage: pocketmq.NewMessage(&m),
		WantEvent: test.ConvertEventExtensionsToString(t, e),
		AssertFunc: func(t *testing.T, got event.Event) {
			test.AssertEventEquals(t, test.ConvertEventExtensionsToString(t, e), test.ConvertEventExtensionsToString(t, got))
		},
	}})
	rewritten := mq.Message{}
	erase := binding.TransformerFunc(func(r binding.MessageMetadataReader, w binding.MessageMetadataWriter) error {
		require.Equal(t, "42", r.GetExtension("exint"))
		require.Nil(t, r.GetExtension("none"))
		require.NoError(t, w.SetExtension("exint", nil))
		return w.SetExtension("partitionkey", "p")
	})
	require.NoError(t, pocketmq.WriteMessage(t.Context(), pocketmq.NewMessage(&m), &rewritten, erase))
	require.NotContains(t, rewritten.Properties, "CE_exint")
	require.Equal(t, "p", rewritten.ShardingKey)
	require.Equal(t, "text/json", rewritten.Properties["CE_contenttype"])
}

// TestRefused: what has no place in the draft is said, and finishes the event.
func TestRefused(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	s, r := pair(t, b, "T")
	e := test.MinEvent()
	e.SetExtension("contenttype", "text/plain")
	var finished error
	err := s.Send(t.Context(), binding.WithFinish(binding.ToMessage(&e), func(err error) { finished = err }))
	require.ErrorIs(t, err, mq.ErrInvalidMessage)
	require.ErrorIs(t, finished, mq.ErrInvalidMessage)
	//lint:ignore SA1012 that is the test
	require.EqualError(t, s.Send(nil, binding.ToMessage(&e)), "nil Context")
	require.EqualError(t, s.Send(t.Context(), nil), "nil Message")
	//lint:ignore SA1012 that is the test
	_, err = r.Receive(nil)
	require.EqualError(t, err, "nil Context")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.Receive(ctx)
	require.Equal(t, io.EOF, err)
	require.NoError(t, s.Close(t.Context()))
	require.NoError(t, s.Close(t.Context()))
	e = test.MinEvent()
	require.ErrorIs(t, s.Send(t.Context(), binding.ToMessage(&e)), mq.ErrClosed)
	require.NoError(t, r.Close(t.Context()))
	_, err = r.Receive(t.Context())
	require.Equal(t, io.EOF, err)
	_, err = pocketmq.NewReceiver(b, "", "T", nil)
	require.ErrorIs(t, err, mq.ErrInvalidName)
	_, err = pocketmq.NewReceiver(b, "other", "T", &pocketmq.ReceiverOptions{Filter: mq.TagExpr("||")})
	require.ErrorIs(t, err, mq.ErrInvalidFilter)
}

// TestFinish: an ACK consumes, anything else comes again after a while, and once
// is enough.
func TestFinish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, nil)
		s, err := pocketmq.NewSender(b, "T", nil)
		require.NoError(t, err)
		r := receiver(t, b, "T", &pocketmq.ReceiverOptions{Backoff: mq.Fixed(time.Minute)})
		e := test.MinEvent()
		require.NoError(t, s.Send(t.Context(), binding.ToMessage(&e)))
		start := time.Now()
		for attempt, result := range []error{protocol.ResultNACK, io.ErrUnexpectedEOF, protocol.ResultACK} {
			m, err := r.Receive(t.Context())
			require.NoError(t, err)
			require.Equal(t, attempt+1, m.(*pocketmq.Message).Received().Attempt)
			require.InDelta(t, time.Duration(attempt)*time.Minute, time.Since(start), float64(20*time.Millisecond))
			require.NoError(t, m.Finish(result))
			require.NoError(t, m.Finish(nil))
		}
		lag, _, err := b.Lag("G")
		require.NoError(t, err)
		require.Zero(t, lag)
	})
}

// TestCloseGivesBack: what a receiver has not finished when it is closed comes
// again at once, though the group has others.
func TestCloseGivesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, nil)
		s, leaves := pair(t, b, "T")
		e := test.MinEvent()
		require.NoError(t, s.Send(t.Context(), binding.ToMessage(&e)))
		m, err := leaves.Receive(t.Context())
		require.NoError(t, err)
		stays := receiver(t, b, "T", nil)
		eof := make(chan error)
		go func() { _, err := leaves.Receive(context.Background()); eof <- err }()
		synctest.Wait()
		start := time.Now()
		require.NoError(t, leaves.Close(t.Context()))
		require.Equal(t, io.EOF, <-eof)
		require.NoError(t, m.Finish(nil))
		again, err := stays.Receive(t.Context())
		require.NoError(t, err)
		require.Zero(t, time.Since(start))
		require.NoError(t, again.Finish(nil))
		lag, _, err := b.Lag("G")
		require.NoError(t, err)
		require.Zero(t, lag)
	})
}

// TestClient: the SDK's client sends and receives over it, in order by key, and
// what its function refuses comes again.
func TestClient(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, nil)
	s, err := pocketmq.NewSender(b, "T", &pocketmq.SenderOptions{Prepare: func(_ context.Context, m *mq.Message) error {
		m.Tag = m.Properties["CE_type"]
		return nil
	}})
	require.NoError(t, err)
	out, err := cloudevents.NewClient(s)
	require.NoError(t, err)
	const events = 60
	for i := range events {
		e := cloudevents.NewEvent()
		e.SetID(fmt.Sprint(i))
		e.SetType([]string{"wanted", "other"}[i%2])
		e.SetSource("/test")
		e.SetExtension("partitionkey", "one")
		require.False(t, cloudevents.IsUndelivered(out.Send(t.Context(), e)))
	}
	r := receiver(t, b, "T", &pocketmq.ReceiverOptions{Ordered: true, Filter: mq.Tags("wanted"), Backoff: mq.Immediate})
	in, err := cloudevents.NewClient(r)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	failed := false
	require.NoError(t, in.StartReceiver(ctx, func(e cloudevents.Event) protocol.Result { // one at a time: there is one key
		if e.ID() == "10" && !failed {
			failed = true
			return protocol.ResultNACK
		}
		if got = append(got, e.ID()); len(got) == events/2 {
			cancel()
		}
		return nil
	}))
	for i, id := range got {
		require.Equal(t, fmt.Sprint(2*i), id)
	}
	require.Len(t, got, events/2)
	require.True(t, failed)
}

func BenchmarkSendReceive(b *testing.B) {
	broker := mqtest.Open(b, &mq.Options{Durability: mq.Written})
	s, r := pair(b, broker, "T")
	protocoltest.BenchmarkSendReceive(b, s, r)
}
