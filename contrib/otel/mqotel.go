package mqotel

import (
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/pocketmq/mq"
)

// scope names the instrumentation in what it emits.
const scope = "github.com/pocketmq/mq/contrib/otel"

// Options says what is emitted, and where to. Nil emits nothing.
type Options struct {
	// TracerProvider makes spans. Nil: there are none, and no context is written
	// into messages or read out of them.
	TracerProvider trace.TracerProvider

	// MeterProvider makes metrics. Nil: there are none.
	MeterProvider metric.MeterProvider

	// Propagator writes contexts into properties and reads them. Default
	// propagation.TraceContext{}; what carries baggage too is
	// propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}).
	Propagator propagation.TextMapPropagator

	// System is messaging.system. Default "rocketmq", whatever the broker's own
	// name: the conventions want it where there are messaging.rocketmq.*
	// attributes.
	System string

	// Namespace is messaging.rocketmq.namespace. PocketMQ has no namespaces, so
	// the attribute is only there if this is set.
	Namespace string

	// Parent makes the span of a handler a child of the message's creation
	// context, so that both are one trace. Default: it begins a trace, or is a
	// child of what is in its context, and links to the creation context.
	Parent bool
}

// Telemetry instruments producers and consumers. It is safe for concurrent use.
// One is enough for a program.
type Telemetry struct {
	tracer     trace.Tracer // nil: no spans
	metrics    *metrics     // nil: no metrics
	propagator propagation.TextMapPropagator
	system     attribute.KeyValue
	common     []attribute.KeyValue // of every span
	parent     bool
}

// New returns what instruments producers and consumers. Errors are those of
// making instruments of the MeterProvider.
func New(options *Options) (*Telemetry, error) {
	var o Options
	if options != nil {
		o = *options
	}
	t := &Telemetry{propagator: o.Propagator, system: semconv.MessagingSystemRocketMQ, parent: o.Parent}
	if t.propagator == nil {
		t.propagator = propagation.TraceContext{}
	}
	if o.System != "" {
		t.system = semconv.MessagingSystemKey.String(o.System)
	}
	t.common = []attribute.KeyValue{t.system}
	if o.Namespace != "" {
		t.common = append(t.common, semconv.MessagingRocketMQNamespace(o.Namespace))
	}
	if _, off := o.TracerProvider.(tracenoop.TracerProvider); o.TracerProvider != nil && !off {
		t.tracer = o.TracerProvider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL))
	}
	if _, off := o.MeterProvider.(metricnoop.MeterProvider); o.MeterProvider != nil && !off {
		m, err := newMetrics(o.MeterProvider, t.system)
		if err != nil {
			return nil, fmt.Errorf("mqotel: make instruments: %w", err)
		}
		t.metrics = m
	}
	return t, nil
}

// orNil is nil if nothing is to be emitted: what is instrumented asks just that.
func (t *Telemetry) orNil() *Telemetry {
	if t == nil || t.tracer == nil && t.metrics == nil {
		return nil
	}
	return t
}

// errorTypes are the values of error.type for errors of package mq, and of
// contexts. For others it is the type of the error.
var errorTypes = []struct {
	err  error
	name string
}{
	{mq.ErrTopicNotFound, "topic_not_found"},
	{mq.ErrInvalidName, "invalid_name"},
	{mq.ErrInvalidMessage, "invalid_message"},
	{mq.ErrInvalidArgument, "invalid_argument"},
	{mq.ErrTooLarge, "too_large"},
	{mq.ErrClosed, "closed"},
	{mq.ErrBackpressure, "backpressure"},
	{mq.ErrFull, "full"},
	{mq.ErrDiskFull, "disk_full"},
	{mq.ErrPoisoned, "poisoned"},
	{mq.ErrCorrupt, "corrupt"},
	{mq.ErrReceiptExpired, "receipt_expired"},
	{mq.ErrNotAssigned, "not_assigned"},
	{mq.ErrStale, "stale"},
	{errPanic, "panic"},
}

// errPanic stands for a handler that panicked.
var errPanic = errors.New("mqotel: handler panicked")

func errorType(err error) attribute.KeyValue {
	for _, t := range errorTypes {
		if errors.Is(err, t.err) {
			return semconv.ErrorTypeKey.String(t.name)
		}
	}
	return semconv.ErrorType(err)
}
