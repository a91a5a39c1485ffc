// Package mqprom exports what a broker counts and measures to Prometheus, in
// RocketMQ's words under a prefix of our own.
//
//	collector, err := mqprom.NewCollector(b, nil)
//	prometheus.MustRegister(collector)
//
// Everything is read when Prometheus asks, and nothing is kept in between: a
// broker that nobody asks is not slowed down. The README lists the metrics, and
// dashboard.json is a dashboard for Grafana made of them.
package mqprom

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pocketmq/mq"
)

// Other is the value of the labels topic and consumer_group for everything beyond
// Options.MaxSeries. No topic or group can have that name.
const Other = "(other)"

// Options says what a Collector exports. Nil means the defaults.
type Options struct {
	// Prefix of all names. Default "pocketmq". It is not "rocketmq" so that the two
	// can stand side by side.
	Prefix string

	// MaxSeries bounds how many series a metric with labels has, one for Other
	// not counted. Groups and topics are taken in the order of their names; what is
	// beyond is added up as Other. Default 1,000.
	MaxSeries int
}

var prefixes = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	if c.Prefix == "" {
		c.Prefix = "pocketmq"
	}
	if c.MaxSeries == 0 {
		c.MaxSeries = 1000
	}
	switch {
	case !prefixes.MatchString(c.Prefix):
		return c, fmt.Errorf("%w: Prefix %q", mq.ErrInvalidOptions, c.Prefix)
	case c.MaxSeries < 1:
		return c, fmt.Errorf("%w: MaxSeries %d", mq.ErrInvalidOptions, c.MaxSeries)
	}
	return c, nil
}

// Collector is a prometheus.Collector over a broker. It is safe for concurrent
// use, and stays usable when the broker is closed: then it exports what was
// known last.
type Collector struct {
	broker    *mq.Broker
	maxSeries int
	stats     []*prometheus.Desc // of statMetrics, in their order

	lag, lagLatency, inflight, connections *prometheus.Desc
	topicMessages, timing, held, folded    *prometheus.Desc
}

// NewCollector returns a collector over a broker. Two brokers in one registry need
// labels that tell them apart (prometheus.WrapRegistererWith).
//
// Errors: mq.ErrInvalidOptions.
func NewCollector(b *mq.Broker, options *Options) (*Collector, error) {
	o, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(o.Prefix+"_"+name, help, labels, nil)
	}
	c := &Collector{
		broker: b, maxSeries: o.MaxSeries,
		lag:           desc("consumer_lag_messages", "Messages that the group has yet to consume, those that its filter does not want included.", "consumer_group", "topic"),
		lagLatency:    desc("consumer_lag_latency_seconds", "Age of the oldest message that the group has yet to consume, 0 if there is none.", "consumer_group", "topic"),
		inflight:      desc("consumer_inflight_messages", "Messages that simple consumers of the group received and have yet to settle.", "consumer_group"),
		connections:   desc("consumer_connections", "Living consumers of the group.", "consumer_group"),
		topicMessages: desc("topic_messages", "Messages stored.", "topic"),
		timing:        desc("timing_messages", "Delayed messages whose time is to come; under a group's retry topic those that failed and wait to be tried again.", "topic"),
		held:          desc("storage_held_bytes", "Bytes of the log that retention would have dropped but for what has yet to be consumed, by the group that holds the oldest of it.", "consumer_group"),
		folded:        desc("metrics_folded_series", "Series that are not exported alone but added up as "+Other+"."),
	}
	for _, m := range statMetrics {
		c.stats = append(c.stats, desc(m.name, m.help))
	}
	return c, nil
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.stats {
		ch <- d
	}
	for _, d := range []*prometheus.Desc{c.lag, c.lagLatency, c.inflight, c.connections, c.topicMessages, c.timing, c.held, c.folded} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	s := c.broker.Stats()
	for i, m := range statMetrics {
		ch <- prometheus.MustNewConstMetric(c.stats[i], m.kind, m.value(&s))
	}
	groups := c.collectGroups(ch)
	folded := groups.folded + c.collectTopics(ch)
	if s.HeldBy != "" {
		ch <- gauge(c.held, float64(s.HeldBytes), groups.label(s.HeldBy))
	}
	ch <- gauge(c.folded, float64(folded))
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// pair is a group and a topic it ever subscribed to.
type pair struct{ group, topic string }

// behind is how far a group is behind in a topic.
type behind struct {
	messages int64
	latency  time.Duration
}

// exported are the groups that have series of their own.
type exported struct {
	groups map[string]bool
	folded int // series that do not
}

// label is the group's name, or Other if it is not among them. What holds messages
// and is no group keeps its name: there is one such.
func (e exported) label(group string) string {
	if e.groups[group] || group == mq.HeldByWaiting {
		return group
	}
	return Other
}

// collectGroups exports what is known of groups. A group with more topics than there
// is room for is among those added up, as a whole.
func (c *Collector) collectGroups(ch chan<- prometheus.Metric) exported {
	e := exported{groups: map[string]bool{}}
	lag := map[pair]behind{}
	inflight, connections := map[string]int64{}, map[string]int{}
	alone := 0
	for _, group := range c.broker.Groups() { // which are sorted
		info, err := c.broker.Group(group)
		if err != nil {
			continue // deleted meanwhile
		}
		topics := c.topics(group)
		if alone+len(topics) <= c.maxSeries && len(e.groups) < c.maxSeries {
			alone += len(topics)
			e.groups[group] = true
		} else {
			e.folded += max(len(topics), 1)
		}
		label := e.label(group)
		inflight[label] += info.Invisible
		connections[label] += len(info.Members)
		for topic, b := range topics {
			p := pair{label, topic}
			if label == Other {
				p.topic = Other
			}
			lag[p] = behind{lag[p].messages + b.messages, max(lag[p].latency, b.latency)}
		}
	}
	for p, b := range lag {
		ch <- gauge(c.lag, float64(b.messages), p.group, p.topic)
		ch <- gauge(c.lagLatency, b.latency.Seconds(), p.group, p.topic)
	}
	for group, n := range inflight {
		ch <- gauge(c.inflight, float64(n), group)
		ch <- gauge(c.connections, float64(connections[group]), group)
	}
	return e
}

// topics says how far a group is behind in each topic, all its message queues and
// broadcasting instances together.
func (c *Collector) topics(group string) map[string]behind {
	_, queues, err := c.broker.Lag(group)
	if err != nil {
		return nil
	}
	topics := map[string]behind{}
	for _, q := range queues {
		b := topics[q.Queue.Topic]
		b.messages += q.Lag()
		if q.Lag() > 0 {
			b.latency = max(b.latency, c.age(q))
		}
		topics[q.Queue.Topic] = b
	}
	return topics
}

// age is how long the oldest message of a queue has been waiting for a group, 0 if
// it cannot be read.
func (c *Collector) age(q mq.QueueOffset) time.Duration {
	at, err := c.broker.StoredAt(q.Queue, max(q.Committed, q.Start))
	if err != nil {
		return 0
	}
	return max(time.Since(at), 0)
}

// collectTopics exports what is known of topics, and returns how many it added up:
// those of the engine's own first, the retries and dead letters of groups.
func (c *Collector) collectTopics(ch chan<- prometheus.Metric) (folded int) {
	names := c.broker.Topics() // which are sorted
	slices.SortStableFunc(names, func(a, b string) int { return derived(a) - derived(b) })
	var other mq.TopicInfo
	alone := 0
	for _, name := range names {
		info, err := c.broker.Topic(name)
		switch {
		case err != nil: // deleted meanwhile
		case alone < c.maxSeries:
			alone++
			ch <- gauge(c.topicMessages, float64(info.Messages), name)
			ch <- gauge(c.timing, float64(info.Waiting), name)
		default:
			folded++
			other.Messages += info.Messages
			other.Waiting += info.Waiting
		}
	}
	if folded > 0 {
		ch <- gauge(c.topicMessages, float64(other.Messages), Other)
		ch <- gauge(c.timing, float64(other.Waiting), Other)
	}
	return folded
}

// derived is 1 for a topic that the engine made for a group, 0 for others.
func derived(topic string) int {
	if strings.HasPrefix(topic, mq.RetryTopic("")) || strings.HasPrefix(topic, mq.DeadLetterTopic("")) {
		return 1
	}
	return 0
}
