package record_test

import (
	"testing"

	"github.com/pocketmq/mq/internal/record"
)

var benchRows = []struct {
	name string
	m    record.Message
}{
	{"names=tag", record.Message{Topic: 64, Queue: 1, Offset: 1000, StoredAt: 1_700_000_000_000, Tag: "CreateOrder"}},
	{"names=key", record.Message{Topic: 64, Tag: "CreateOrder", Keys: []string{"order-42"}}},
	{"names=all", record.Message{Topic: 64, Tag: "CreateOrder", Keys: []string{"order-42"}, ShardingKey: "user-7",
		Properties: map[string]string{"region": "eu", "attempt": "1", "trace": "0123456789abcdef"}}},
}

func BenchmarkPutHead(b *testing.B) {
	for _, row := range benchRows {
		b.Run(row.name, func(b *testing.B) {
			m := row.m
			n, err := m.HeadSize()
			if err != nil {
				b.Fatal(err)
			}
			dst := make([]byte, n)
			b.ReportAllocs()
			for b.Loop() {
				m.Offset++
				m.PutHead(dst)
			}
		})
	}
}

func BenchmarkDecodeMessage(b *testing.B) {
	for _, row := range benchRows {
		b.Run(row.name, func(b *testing.B) {
			payload := encode(b, row.m, "body")
			var v record.View
			b.ReportAllocs()
			for b.Loop() {
				if err := record.DecodeMessage(payload, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAck(b *testing.B) {
	a := record.Ack{Group: 1 << 20, Start: 1 << 20, Topic: 1 << 16, Queue: 2, Ranges: []record.Range{{From: 1e6, To: 1e6 + 32}}}
	payload := make([]byte, a.Size())
	b.Run("op=put", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			a.Put(payload)
		}
	})
	b.Run("op=decode", func(b *testing.B) {
		got := a
		a.Put(payload)
		b.ReportAllocs()
		for b.Loop() {
			if err := record.DecodeAck(payload, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
}
