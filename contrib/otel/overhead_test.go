package mqotel

import (
	"context"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// sender and receiver are what both a broker's own types and the instrumented ones
// have.
type sender interface {
	Send(context.Context, *mq.Message) (mq.SendResult, error)
	SendAsync(context.Context, *mq.Message, func(mq.SendResult, error)) error
	SendOneWay(*mq.Message) error
	SendBatch(context.Context, []*mq.Message) ([]mq.SendResult, error)
}

type receiver interface {
	Receive(context.Context, int, time.Duration) ([]*mq.Message, error)
	Ack(context.Context, ...*mq.Message) error
	Nack(context.Context, ...*mq.Message) error
}

// TestOffWrapsNothing: without providers, and with those that do nothing, a handler
// is the function that was handed in.
func TestOffWrapsNothing(t *testing.T) {
	t.Parallel()
	handler := func(context.Context, *mq.Message) error { return nil }
	same := func(t *Telemetry) bool {
		return reflect.ValueOf(t.Handler("G", handler)).Pointer() == reflect.ValueOf(handler).Pointer()
	}
	for name, o := range map[string]*Options{
		"nil": nil, "zero": {},
		"noop": {TracerProvider: tracenoop.NewTracerProvider(), MeterProvider: metricnoop.NewMeterProvider()},
	} {
		tel, err := New(o)
		require.NoError(t, err, name)
		require.True(t, same(tel), name)
	}
	require.True(t, same(nil), "no telemetry at all")
	tel, err := New(&Options{TracerProvider: sdktrace.NewTracerProvider()})
	require.NoError(t, err)
	require.False(t, same(tel))
}

// TestOffAllocatesNothing: what is instrumented, with nothing to emit, allocates
// exactly what package mq does.
func TestOffAllocatesNothing(t *testing.T) {
	b := mqtest.OpenMemory(t, &mq.Options{Durability: mq.Written})
	off, err := New(nil)
	require.NoError(t, err)
	plain, err := b.NewProducer(nil)
	require.NoError(t, err)
	wrapped, err := off.NewProducer(b, nil)
	require.NoError(t, err)
	ctx, callback := t.Context(), func(mq.SendResult, error) {}
	allocs := func(f func() error) float64 {
		return testing.AllocsPerRun(200, func() {
			if err := f(); err != nil {
				t.Fatal(err)
			}
		})
	}
	// The message is made anew each time, so that one which escapes is counted.
	sends := map[string]func(sender) float64{
		"Send": func(s sender) float64 {
			return allocs(func() error { _, err := s.Send(ctx, &mq.Message{Topic: "T"}); return err })
		},
		"SendAsync": func(s sender) float64 {
			return allocs(func() error { return s.SendAsync(ctx, &mq.Message{Topic: "T"}, callback) })
		},
		"SendOneWay": func(s sender) float64 {
			return allocs(func() error { return s.SendOneWay(&mq.Message{Topic: "T"}) })
		},
		"SendBatch": func(s sender) float64 {
			return allocs(func() error { _, err := s.SendBatch(ctx, []*mq.Message{{Topic: "T"}, {Topic: "T"}}); return err })
		},
	}
	for name, send := range sends {
		require.Equal(t, send(plain), send(wrapped), name)
	}
	// Directly, and not through an interface, a message and a slice that do not
	// escape stay where they are.
	m := &mq.Message{Topic: "T"}
	require.Equal(t,
		allocs(func() error { _, err := plain.SendBatch(ctx, []*mq.Message{m, m}); return err }),
		allocs(func() error { _, err := wrapped.SendBatch(ctx, []*mq.Message{m, m}); return err }))
	require.Zero(t, allocs(func() error { _, err := wrapped.Send(ctx, m); return err }))

	plainC, err := b.NewSimpleConsumer("Plain", nil)
	require.NoError(t, err)
	require.NoError(t, plainC.Subscribe("T", mq.All))
	wrappedC, err := off.NewSimpleConsumer(b, "Wrapped", nil)
	require.NoError(t, err)
	require.NoError(t, wrappedC.Subscribe("T", mq.All))
	settle := func(c receiver) float64 {
		return allocs(func() error {
			ms, err := c.Receive(ctx, 1, time.Minute)
			if err == nil {
				err = c.Nack(ctx, ms[0])
			}
			return err
		})
	}
	require.Equal(t, settle(plainC), settle(wrappedC))
}

// TestNothingGlobal: no file but of tests imports the package that has OpenTelemetry's
// globals.
func TestNothingGlobal(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, imported := range tree.Imports {
			path, err := strconv.Unquote(imported.Path.Value)
			require.NoError(t, err)
			require.NotEqual(t, "go.opentelemetry.io/otel", path, name)
		}
	}
}

// modes are what is compared: nothing instrumented at all, instrumented with
// nothing to emit, and what can be emitted, to nowhere.
func modes(b *testing.B) map[string]*Telemetry {
	b.Helper()
	never := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	always := sdktrace.NewTracerProvider()
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	all := map[string]*Telemetry{"mq": nil}
	for name, o := range map[string]*Options{
		"off": nil, "metrics": {MeterProvider: meters}, "unsampled": {TracerProvider: never},
		"sampled": {TracerProvider: always}, "all": {TracerProvider: always, MeterProvider: meters},
	} {
		tel, err := New(o)
		require.NoError(b, err)
		all[name] = tel
	}
	return all
}

var order = []string{"mq", "off", "metrics", "unsampled", "sampled", "all"}

func BenchmarkSend(b *testing.B) {
	all := modes(b)
	for _, name := range order {
		b.Run(name, func(b *testing.B) {
			broker := mqtest.OpenMemory(b, &mq.Options{Durability: mq.Written})
			m := &mq.Message{Topic: "T", Tag: "A", Body: make([]byte, 128)}
			ctx := b.Context()
			b.ReportAllocs()
			if all[name] == nil {
				p, err := broker.NewProducer(nil)
				require.NoError(b, err)
				for b.Loop() {
					if _, err := p.Send(ctx, m); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			p, err := all[name].NewProducer(broker, nil)
			require.NoError(b, err)
			for b.Loop() {
				if _, err := p.Send(ctx, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkHandle is a handler's call alone, of a message with a creation context.
func BenchmarkHandle(b *testing.B) {
	all := modes(b)
	handler := func(context.Context, *mq.Message) error { return nil }
	for _, name := range order {
		b.Run(name, func(b *testing.B) {
			m := &mq.Message{Topic: "T", Tag: "A", Body: make([]byte, 128), Attempt: 1, Properties: map[string]string{
				"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			}}
			h := mq.Handler(handler)
			if all[name] != nil {
				h = all[name].Handler("G", handler)
			}
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if err := h(ctx, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
