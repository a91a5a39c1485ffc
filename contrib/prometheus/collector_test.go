package mqprom

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// registry holds a collector over b; it is pedantic about what a collector may do.
func registry(t testing.TB, b *mq.Broker, o *Options) *prometheus.Registry {
	t.Helper()
	c, err := NewCollector(b, o)
	require.NoError(t, err)
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(c))
	return r
}

// scrape returns every value, under its name and labels as Prometheus writes them.
func scrape(t testing.TB, r prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			require.NotContains(t, values, name)
			values[name] = m.Gauge.GetValue() + m.Counter.GetValue()
		}
	}
	return values
}

func send(t testing.TB, b *mq.Broker, topic string, n int) {
	t.Helper()
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for range n {
		_, err := p.Send(t.Context(), &mq.Message{Topic: topic, Body: []byte("12345")})
		require.NoError(t, err)
	}
}

func simple(t testing.TB, b *mq.Broker, group string, topics ...string) *mq.SimpleConsumer {
	t.Helper()
	c, err := b.NewSimpleConsumer(group, nil)
	require.NoError(t, err)
	for _, topic := range topics {
		require.NoError(t, c.Subscribe(topic, mq.All))
	}
	return c
}

// TestValues: all that is exported, with the values that what was done has to give.
func TestValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := mq.OpenMemory(&mq.Options{DefaultQueues: 1})
		require.NoError(t, err)
		defer b.Close()
		c := simple(t, b, "G", "T", "U")
		send(t, b, "T", 3)
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		for _, d := range []time.Duration{time.Second, time.Hour} {
			_, err = p.Send(t.Context(), &mq.Message{Topic: "U", Delay: d})
			require.NoError(t, err)
		}
		time.Sleep(5 * time.Second)
		send(t, b, "T", 1)
		var ms []*mq.Message
		for len(ms) < 4 {
			got, err := c.Receive(t.Context(), 1, time.Hour)
			require.NoError(t, err)
			if got[0].Topic == "T" {
				ms = append(ms, got...)
			} else {
				require.NoError(t, c.Ack(t.Context(), got...))
			}
		}
		require.NoError(t, c.Ack(t.Context(), ms[0], ms[2]))
		failing, err := b.NewPushConsumer("H", func(context.Context, *mq.Message) error { return mq.Discard(errors.New("no")) }, nil)
		require.NoError(t, err)
		require.NoError(t, failing.Subscribe("U", mq.All))
		synctest.Wait()
		time.Sleep(5 * time.Second)
		require.NoError(t, failing.Close())

		got := scrape(t, registry(t, b, nil))
		s := b.Stats()
		for name, want := range map[string]float64{
			`pocketmq_consumer_lag_messages{consumer_group="G",topic="T"}`:        2,
			`pocketmq_consumer_lag_messages{consumer_group="G",topic="U"}`:        0,
			`pocketmq_consumer_lag_messages{consumer_group="H",topic="U"}`:        0,
			`pocketmq_consumer_lag_latency_seconds{consumer_group="G",topic="U"}`: 0,
			`pocketmq_consumer_inflight_messages{consumer_group="G"}`:             2,
			`pocketmq_consumer_inflight_messages{consumer_group="H"}`:             0,
			`pocketmq_consumer_connections{consumer_group="G"}`:                   1,
			`pocketmq_consumer_connections{consumer_group="H"}`:                   0,
			`pocketmq_topic_messages{topic="T"}`:                                  4,
			`pocketmq_topic_messages{topic="U"}`:                                  1,
			`pocketmq_timing_messages{topic="T"}`:                                 0,
			`pocketmq_timing_messages{topic="U"}`:                                 1,
			`pocketmq_timer_dequeue_total`:                                        1,
			`pocketmq_send_to_dlq_messages_total`:                                 1,
			`pocketmq_consume_failed_messages_total`:                              1,
			`pocketmq_messages_in_total`:                                          float64(s.Sent),
			`pocketmq_throughput_in_total`:                                        4 * 5,
			`pocketmq_messages_out_total`:                                         float64(s.Acked),
			`pocketmq_missed_messages_total`:                                      0,
			`pocketmq_storage_size`:                                               float64(s.LogBytes),
			`pocketmq_storage_flush_behind_bytes`:                                 float64(s.Written - s.Synced),
			`pocketmq_storage_segments`:                                           float64(s.Segments),
			`pocketmq_storage_dropped_segments_total`:                             0,
			`pocketmq_storage_checkpoints_total`:                                  float64(s.Checkpoints),
			`pocketmq_topic_number`:                                               float64(s.Topics),
			`pocketmq_queue_number`:                                               float64(s.Queues),
			`pocketmq_consumer_group_number`:                                      float64(s.Groups),
			`pocketmq_pending_callbacks`:                                          0,
			`pocketmq_broker_permission`:                                          6,
			`pocketmq_metrics_folded_series`:                                      0,
		} {
			require.Contains(t, got, name)
			require.Equal(t, want, got[name], name)
		}
		// The second of the first three was not acknowledged, ten seconds ago.
		require.InDelta(t, 10, got[`pocketmq_consumer_lag_latency_seconds{consumer_group="G",topic="T"}`], 0.1)
		require.NoError(t, c.Close())
	})
}

// TestLint: what Prometheus thinks of the names and texts, of every metric there is.
func TestLint(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, &mq.Options{Retention: mq.Retention{MaxBytes: 4 << 20}})
	simple(t, b, "G", "T")
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for err == nil { // until the group holds what should go
		_, err = p.Send(t.Context(), &mq.Message{Topic: "T", Body: make([]byte, 64<<10)})
	}
	require.ErrorIs(t, err, mq.ErrFull)
	mqtest.Eventually(t, func() bool { return b.Stats().HeldBy != "" }, "the store says who holds it")
	r := registry(t, b, nil)
	problems, err := testutil.GatherAndLint(r)
	require.NoError(t, err)
	require.Empty(t, problems)

	exported := map[string]bool{}
	for series := range scrape(t, r) {
		name, _, _ := strings.Cut(series, "{")
		exported[name] = true
	}
	for name := range described(t) {
		require.True(t, exported[name], "%s was linted", name)
	}
	require.Positive(t, scrape(t, r)[`pocketmq_storage_held_bytes{consumer_group="G"}`])
}

// described are the names of all metrics, and their labels.
func described(t testing.TB) map[string][]string {
	t.Helper()
	c, err := NewCollector(nil, nil)
	require.NoError(t, err)
	ch := make(chan *prometheus.Desc, 100)
	c.Describe(ch)
	close(ch)
	names := map[string][]string{}
	for d := range ch {
		// Desc{fqName: "…", help: "…", constLabels: {}, variableLabels: {a,b}}
		_, rest, _ := strings.Cut(d.String(), `fqName: "`)
		name, rest, _ := strings.Cut(rest, `"`)
		_, rest, _ = strings.Cut(rest, "variableLabels: {")
		labels, _, _ := strings.Cut(rest, "}")
		require.NotContains(t, names, name)
		names[name] = strings.FieldsFunc(labels, func(r rune) bool { return r == ',' })
	}
	require.Greater(t, len(names), 20)
	return names
}

// TestCardinality: whatever there is, a metric has at most MaxSeries series and one
// for the rest, and nothing is lost from the sum.
func TestCardinality(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, &mq.Options{DefaultQueues: 1})
	const groups, topics, each = 12, 7, 3
	var names []string
	for i := range topics {
		names = append(names, fmt.Sprintf("T%d", i))
		send(t, b, names[i], each)
	}
	for i := range groups {
		simple(t, b, fmt.Sprintf("G%02d", i), names[:1+i%3]...)
	}
	pairs := groups * 2
	for _, most := range []int{1, 2, 5, 7, 23, 24, 1000} {
		values := scrape(t, registry(t, b, &Options{MaxSeries: most, Prefix: "x"}))
		series, sums := map[string]int{}, map[string]float64{}
		for name, v := range values {
			family, _, _ := strings.Cut(name, "{")
			series[family]++
			sums[family] += v
		}
		for family, n := range series {
			require.LessOrEqual(t, n, most+1, "%s of %d", family, most)
		}
		require.EqualValues(t, pairs*each, sums["x_consumer_lag_messages"])
		require.EqualValues(t, groups, sums["x_consumer_connections"])
		require.EqualValues(t, topics*each, sums["x_topic_messages"])
		require.Equal(t, most < pairs, values["x_metrics_folded_series"] > 0, "%d", most)
		_, folded := values[`x_consumer_lag_messages{consumer_group="(other)",topic="(other)"}`]
		require.Equal(t, most < pairs, folded, "%d", most)
	}
}

// TestBesideChanges: scraping while topics and groups come and go finds neither
// errors nor races.
func TestBesideChanges(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	r := registry(t, b, &Options{MaxSeries: 3})
	var changing sync.WaitGroup
	for g := range 3 {
		changing.Go(func() {
			for i := range 30 {
				topic, group := fmt.Sprintf("T%d-%d", g, i), fmt.Sprintf("G%d-%d", g, i)
				c := simple(t, b, group, topic)
				send(t, b, topic, 3)
				_ = c.Close()
				_ = b.DeleteGroup(group)
				_ = b.DeleteTopic(topic)
			}
		})
	}
	done := make(chan struct{})
	go func() { changing.Wait(); close(done) }()
	for {
		scrape(t, r)
		select {
		case <-done:
			return
		default:
		}
	}
}

// TestClosed: a broker that is closed, or poisoned, is still described.
func TestClosed(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	simple(t, b, "G", "T")
	send(t, b, "T", 3)
	r := registry(t, b, nil)
	require.NoError(t, b.Close())
	values := scrape(t, r)
	require.EqualValues(t, 3, values["pocketmq_messages_in_total"])
	require.EqualValues(t, 3, values[`pocketmq_consumer_lag_messages{consumer_group="G",topic="T"}`])
	require.EqualValues(t, 6, permission(&mq.Stats{}))
	require.EqualValues(t, 4, permission(&mq.Stats{Poisoned: mq.ErrPoisoned}))
}

// TestOptions: values that cannot be are refused and named.
func TestOptions(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	for value, o := range map[string]*Options{"-1": {MaxSeries: -1}, "a-b": {Prefix: "a-b"}, "1a": {Prefix: "1a"}, "a b": {Prefix: "a b"}} {
		_, err := NewCollector(b, o)
		require.ErrorIs(t, err, mq.ErrInvalidOptions)
		require.ErrorContains(t, err, value)
	}
}

// TestRetries: what failed and waits to be tried again is told as RocketMQ tells
// it, as timed messages of the group's retry topic.
func TestRetries(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	c, err := b.NewPushConsumer("G", func(context.Context, *mq.Message) error { return mq.RetryAfter(time.Hour) }, nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	send(t, b, "T", 3)
	r := registry(t, b, nil)
	mqtest.Eventually(t, func() bool { return scrape(t, r)[`pocketmq_timing_messages{topic="%RETRY%G"}`] == 3 }, "they wait")
	values := scrape(t, registry(t, b, &Options{MaxSeries: 1}))
	require.EqualValues(t, 3, values[`pocketmq_topic_messages{topic="T"}`], "the program's own topics go before the engine's")
	require.EqualValues(t, 3, values[`pocketmq_timing_messages{topic="(other)"}`])
	require.NoError(t, c.Close())
}
