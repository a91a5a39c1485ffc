package consumequeue_test

import (
	"fmt"
	"testing"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

func benchStore(b *testing.B) *consumequeue.Store {
	b.Helper()
	full := make(chan struct{}, 1)
	s, err := consumequeue.Open(vfs.OS(), b.TempDir(), consumequeue.Options{Full: func() {
		select {
		case full <- struct{}{}:
		default:
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range full {
			if err := s.Flush(); err != nil {
				b.Error(err)
			}
		}
	}()
	b.Cleanup(func() {
		close(full)
		<-done
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// BenchmarkAppend appends with a flusher beside it, as in a broker.
func BenchmarkAppend(b *testing.B) {
	for _, queues := range []int{1, 4, 40_000} {
		b.Run(fmt.Sprintf("queues=%d", queues), func(b *testing.B) {
			s := benchStore(b)
			qs := make([]*consumequeue.Queue, queues)
			for i := range qs {
				qs[i] = s.Queue("t", 8, coord.QueueID(i))
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				qs[i].Append(consumequeue.Entry{Position: 1, Size: 2, Tag: 3})
				if i++; i == queues {
					i = 0
				}
			}
		})
	}
}

// BenchmarkRead reads batches; one operation is one entry.
func BenchmarkRead(b *testing.B) {
	for _, from := range []string{"memory", "file"} {
		for _, batch := range []int{1, 32, 1024} {
			b.Run(fmt.Sprintf("from=%s/batch=%d", from, batch), func(b *testing.B) {
				s := benchStore(b)
				q := s.Queue("t", 8, 0)
				fill(q, 40_000)
				if from == "file" {
					if err := s.Flush(); err != nil {
						b.Fatal(err)
					}
				}
				dst := make([]consumequeue.Entry, batch)
				off := q.Min()
				b.ReportAllocs()
				for n := 0; n < b.N; n += batch {
					if _, err := q.Read(off, dst); err != nil {
						b.Fatal(err)
					}
					if off += coord.Offset(batch); off >= 38_000 {
						off = 0
					}
				}
			})
		}
	}
}
