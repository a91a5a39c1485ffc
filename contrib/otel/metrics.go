package mqotel

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/messagingconv"

	"github.com/pocketmq/mq"
)

// boundaries are the buckets that the conventions want, in seconds. A program
// that looks at what takes microseconds changes them by a view.
var boundaries = metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

// metrics are the four instruments of the conventions.
type metrics struct {
	system   attribute.KeyValue
	duration messagingconv.ClientOperationDuration
	process  messagingconv.ProcessDuration
	sent     messagingconv.ClientSentMessages
	consumed messagingconv.ClientConsumedMessages

	setsMu sync.RWMutex
	sets   map[series]metric.MeasurementOption // of what succeeds
}

// series is what the attributes of a measurement depend on. All of it is of low
// cardinality: kinds of operations, topics and groups.
type series struct {
	operation *operation
	topic     string // empty: several
	group     string // empty: a producer
}

func newMetrics(p metric.MeterProvider, system attribute.KeyValue) (*metrics, error) {
	meter := p.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
	m := &metrics{system: system, sets: map[series]metric.MeasurementOption{}}
	var errs [4]error
	m.duration, errs[0] = messagingconv.NewClientOperationDuration(meter, boundaries)
	m.process, errs[1] = messagingconv.NewProcessDuration(meter, boundaries)
	m.sent, errs[2] = messagingconv.NewClientSentMessages(meter)
	m.consumed, errs[3] = messagingconv.NewClientConsumedMessages(meter)
	return m, errors.Join(errs[:]...)
}

// now is the time if it will be asked for.
func (m *metrics) now() time.Time {
	if m == nil {
		return time.Time{}
	}
	return time.Now()
}

// took records how long an operation took, other than a handler.
func (m *metrics) took(ctx context.Context, s series, began time.Time, err error) {
	if m != nil {
		m.duration.Inst().Record(ctx, time.Since(began).Seconds(), m.attributes(s, err))
	}
}

// processed records a handler's call.
func (m *metrics) processed(ctx context.Context, s series, began time.Time, err error) {
	if m != nil {
		m.process.Inst().Record(ctx, time.Since(began).Seconds(), m.attributes(s, err))
	}
}

// sending counts messages that were sent, or could not be.
func (m *metrics) sending(ctx context.Context, s series, n int, err error) {
	if m != nil {
		m.sent.Inst().Add(ctx, int64(n), m.attributes(s, err))
	}
}

// consuming counts messages that were handed to the program.
func (m *metrics) consuming(ctx context.Context, s series, n int) {
	if m != nil {
		m.consumed.Inst().Add(ctx, int64(n), m.attributes(s, nil))
	}
}

// attributes returns those of a series, made once for as long as it succeeds.
func (m *metrics) attributes(s series, err error) metric.MeasurementOption {
	if err != nil {
		return m.failed(s, err)
	}
	m.setsMu.RLock()
	set := m.sets[s]
	m.setsMu.RUnlock()
	if set == nil {
		set = metric.WithAttributeSet(attribute.NewSet(m.of(s)...))
		m.setsMu.Lock()
		m.sets[s] = set
		m.setsMu.Unlock()
	}
	return set
}

func (m *metrics) of(s series) []attribute.KeyValue {
	kvs := append([]attribute.KeyValue{m.system}, s.operation.attributes()...)
	if s.topic != "" {
		kvs = append(kvs, semconv.MessagingDestinationName(s.topic))
	}
	if s.group != "" {
		kvs = append(kvs, semconv.MessagingConsumerGroupName(s.group))
	}
	return kvs
}

// failed makes the attributes of what failed. A topic that is none is not named:
// there may be any number of them.
func (m *metrics) failed(s series, err error) metric.MeasurementOption {
	for _, unbounded := range []error{mq.ErrTopicNotFound, mq.ErrInvalidName} {
		if errors.Is(err, unbounded) {
			s.topic = ""
		}
	}
	return metric.WithAttributeSet(attribute.NewSet(append(m.of(s), errorType(err))...))
}
