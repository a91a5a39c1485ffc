package mqotel

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// lab is a broker in memory and all that is emitted about it.
type lab struct {
	t      *testing.T
	b      *mq.Broker
	tel    *Telemetry
	spans  *tracetest.SpanRecorder
	reader *sdkmetric.ManualReader
	tracer trace.Tracer // of the program around it
}

var withBaggage = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})

func newLab(t *testing.T, o Options) *lab {
	t.Helper()
	l := &lab{t: t, b: mqtest.OpenMemory(t, nil), spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	require.NoError(t, l.b.CreateTopic("T", &mq.TopicConfig{Queues: 1}))
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(l.spans))
	l.tracer = provider.Tracer("program")
	o.TracerProvider = provider
	o.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(l.reader))
	var err error
	l.tel, err = New(&o)
	require.NoError(t, err)
	return l
}

func (l *lab) producer(options *mq.ProducerOptions) *Producer {
	l.t.Helper()
	p, err := l.tel.NewProducer(l.b, options)
	require.NoError(l.t, err)
	return p
}

// ended waits until n spans of an operation have ended, and returns all of them.
func (l *lab) ended(name string, n int) []sdktrace.ReadOnlySpan {
	l.t.Helper()
	find := func() (found []sdktrace.ReadOnlySpan) {
		for _, s := range l.spans.Ended() {
			if s.Name() == name {
				found = append(found, s)
			}
		}
		return found
	}
	mqtest.Eventually(l.t, func() bool { return len(find()) >= n }, "%d spans %q", n, name)
	require.Len(l.t, find(), n, name)
	return find()
}

func (l *lab) one(name string) sdktrace.ReadOnlySpan {
	l.t.Helper()
	return l.ended(name, 1)[0]
}

// attributes are those of a span, but for those that are different each time.
func attributes(s sdktrace.ReadOnlySpan) map[string]any {
	m := map[string]any{}
	for _, kv := range s.Attributes() {
		m[string(kv.Key)] = kv.Value.AsInterface()
	}
	return m
}

// linked are the spans that a span links to.
func linked(s sdktrace.ReadOnlySpan) (ids []trace.SpanID) {
	for _, l := range s.Links() {
		ids = append(ids, l.SpanContext.SpanID())
	}
	return ids
}

// point is a data point: its attributes and value, or how many values it has.
type point struct {
	attributes attribute.Distinct
	value      int64
}

// measured returns what an instrument has, and its unit.
func (l *lab) measured(name string) (points map[attribute.Distinct]int64, unit string) {
	l.t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(l.t, l.reader.Collect(context.Background(), &all))
	points = map[attribute.Distinct]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			unit = m.Unit
			for _, p := range pointsOf(l.t, m.Data) {
				points[p.attributes] = p.value
			}
		}
	}
	return points, unit
}

func pointsOf(t *testing.T, data metricdata.Aggregation) (points []point) {
	t.Helper()
	switch d := data.(type) {
	case metricdata.Sum[int64]:
		require.True(t, d.IsMonotonic)
		for _, p := range d.DataPoints {
			points = append(points, point{p.Attributes.Equivalent(), p.Value})
		}
	case metricdata.Histogram[float64]:
		for _, p := range d.DataPoints {
			require.Len(t, p.Bounds, 14)
			points = append(points, point{p.Attributes.Equivalent(), int64(p.Count)})
		}
	default:
		t.Fatalf("%T", data)
	}
	return points
}

// labels are the attributes of a data point: pairs of names and values.
func labels(pairs ...string) attribute.Distinct {
	kvs := []attribute.KeyValue{attribute.String("messaging.system", "rocketmq")}
	for i := 0; i < len(pairs); i += 2 {
		kvs = append(kvs, attribute.String(pairs[i], pairs[i+1]))
	}
	set := attribute.NewSet(kvs...)
	return set.Equivalent()
}

const (
	opName = "messaging.operation.name"
	opType = "messaging.operation.type"
	topic  = "messaging.destination.name"
	group  = "messaging.consumer.group.name"
	failed = "error.type"
)
