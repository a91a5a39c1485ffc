package mqprom

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pocketmq/mq"
)

// RocketMQ's PermName: what broker_permission says.
const (
	permRead  = 4
	permWrite = 2
)

// statMetrics are the metrics without labels: one field of mq.Stats each, or what
// follows from it. Counters count from when the store was opened, which Prometheus
// takes for a restart.
var statMetrics = []struct {
	name  string
	help  string
	kind  prometheus.ValueType
	value func(s *mq.Stats) float64
}{
	// Names of RocketMQ, whose meaning and unit they have unless the README says
	// otherwise.
	{"messages_in_total", "Messages stored.", prometheus.CounterValue, func(s *mq.Stats) float64 { return float64(s.Sent) }},
	{"throughput_in_total", "Bytes of the bodies of messages stored.", prometheus.CounterValue, func(s *mq.Stats) float64 { return float64(s.SentBytes) }},
	{"messages_out_total", "Messages that groups acknowledged, or passed over because their filter does not want them.", prometheus.CounterValue, func(s *mq.Stats) float64 { return float64(s.Acked) }},
	{"send_to_dlq_messages_total", "Messages that became dead letters.", prometheus.CounterValue, func(s *mq.Stats) float64 { return float64(s.Dead) }},
	{"timer_dequeue_total", "Delayed messages whose time came.", prometheus.CounterValue, func(s *mq.Stats) float64 { return float64(s.Delivered) }},
	{"topic_number", "Topics.", prometheus.GaugeValue, func(s *mq.Stats) float64 { return float64(s.Topics) }},
	{"consumer_group_number", "Groups that ever subscribed, broadcasting members one by one.", prometheus.GaugeValue, func(s *mq.Stats) float64 { return float64(s.Groups) }},
	{"storage_size", "Bytes of the log, preallocated space included.", prometheus.GaugeValue, func(s *mq.Stats) float64 { return float64(s.LogBytes) }},
	{"storage_flush_behind_bytes", "Bytes of the log that are written and not yet safe from a power cut.", prometheus.GaugeValue, func(s *mq.Stats) float64 { return float64(max(s.Written-s.Synced, 0)) }},
	{"broker_permission", "6 if messages can be read and stored, 4 if they can only be read, since writing failed.", prometheus.GaugeValue, permission},

	// Our own.
	{"queue_number", "Message queues of all topics.", prometheus.GaugeValue, func(s *mq.Stats) float64 { return float64(s.Queues) }},
	{"consume_failed_messages_total", "Handlers that returned an error or panicked.", prometheus.CounterValue, func(s *mq.Stats) float64 { return float64(s.Failed) }},
	{"missed_messages_total", "Messages that groups went past since they were dropped or damaged.", prometheus.CounterValue, func(s *mq.Stats) float64 { return float64(s.Missed) }},
	{"pending_callbacks", "Asynchronous sends that wait for their sync.", prometheus.GaugeValue, func(s *mq.Stats) float64 { return float64(s.PendingCallbacks) }},
	{"storage_segments", "Segments of the log.", prometheus.GaugeValue, func(s *mq.Stats) float64 { return float64(s.Segments) }},
	{"storage_dropped_segments_total", "Segments of the log that retention removed.", prometheus.CounterValue, func(s *mq.Stats) float64 { return float64(s.Dropped) }},
	{"storage_syncs_total", "Syncs of the log.", prometheus.CounterValue, func(s *mq.Stats) float64 { return float64(s.Syncs) }},
	{"storage_checkpoints_total", "Checkpoints written.", prometheus.CounterValue, func(s *mq.Stats) float64 { return float64(s.Checkpoints) }},
}

func permission(s *mq.Stats) float64 {
	if s.Poisoned != nil {
		return permRead
	}
	return permRead | permWrite
}
