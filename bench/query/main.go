// Command query measures queries in a large store: ten million messages, each with
// a key of its own and one that a hundred others have as well.
//
//	go run ./bench/query              the table
//	go run ./bench/query -json        one object per line
//	go run ./bench/query -n 1000000   fewer messages
//
// Keys, ids, offsets and times are drawn at random. The store is closed and opened
// again before the queries, so that the index is read from its files. How much of
// them the system has in its page cache is not controlled: after loading, all that
// fits.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/pocketmq/mq"
)

const (
	topic  = "T"
	group  = "G"
	queues = 4
	shared = 100 // messages that have the same second key
)

// row is one line of the table.
type row struct {
	Query string        `json:"query"`
	Times int           `json:"times"`
	P50   time.Duration `json:"p50ns"`
	P99   time.Duration `json:"p99ns"`
	Max   time.Duration `json:"maxns"`
}

func main() {
	n := flag.Int("n", 10_000_000, "messages")
	times := flag.Int("times", 10_000, "queries of each kind")
	dir := flag.String("dir", "", "`directory` for the store (default: that for temporary files)")
	asJSON := flag.Bool("json", false, "print one JSON object per line instead of a table")
	flag.Parse()
	rows, err := measure(*dir, *n, *times)
	if err != nil {
		fmt.Fprintln(os.Stderr, "query:", err)
		os.Exit(1)
	}
	if !*asJSON {
		fmt.Printf("%-34s %7s %12s %12s %12s\n", "query", "times", "p50", "p99", "max")
	}
	for _, r := range rows {
		if *asJSON {
			line, _ := json.Marshal(r) // plain fields: it cannot fail
			fmt.Println(string(line))
			continue
		}
		fmt.Printf("%-34s %7d %12v %12v %12v\n", r.Query, r.Times, r.P50, r.P99, r.Max)
	}
}

func measure(parent string, n, times int) (rows []row, err error) {
	dir, err := os.MkdirTemp(parent, "mq-query")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o := &mq.Options{Durability: mq.Written, Retention: mq.Retention{Age: -1}}
	b, err := mq.Open(dir, o)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	ids, err := load(b, n, times)
	if err == nil {
		took := time.Since(began)
		fmt.Fprintf(os.Stderr, "%d messages stored in %v\n", n, took.Round(time.Millisecond))
		err = subscribe(b)
	}
	if err = errors.Join(err, b.Close()); err != nil {
		return nil, err
	}
	began = time.Now()
	if b, err = mq.Open(dir, o); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	fmt.Fprintf(os.Stderr, "opened in %v, heap %d MiB\n", time.Since(began).Round(time.Millisecond), heap())
	rows, err = ask(b, n, times, ids)
	fmt.Fprintf(os.Stderr, "after all queries: heap %d MiB\n", heap())
	return rows, err
}

// load stores the messages and returns the ids of some.
func load(b *mq.Broker, n, sample int) (ids []mq.MessageID, err error) {
	if err := b.CreateTopic(topic, &mq.TopicConfig{Queues: queues}); err != nil {
		return nil, err
	}
	p, err := b.NewProducer(nil)
	if err != nil {
		return nil, err
	}
	batch := make([]*mq.Message, 100)
	for i := range batch {
		batch[i] = &mq.Message{Topic: topic, Tag: "A", Keys: make([]string, 2), Body: make([]byte, 32)}
	}
	every := max(1, n/sample)
	for i := 0; i < n; i += len(batch) {
		for j, m := range batch {
			m.Keys[0], m.Keys[1] = key(i+j), sharedKey((i+j)%max(1, n/shared))
		}
		results, err := p.SendBatch(context.Background(), batch)
		if err != nil {
			return nil, err
		}
		if i%every < len(batch) {
			ids = append(ids, results[0].ID)
		}
	}
	return ids, nil
}

func key(i int) string       { return fmt.Sprintf("order-%012d", i) }
func sharedKey(i int) string { return fmt.Sprintf("customer-%09d", i) }

// subscribe makes a group that has all of it to consume.
func subscribe(b *mq.Broker) error {
	c, err := b.NewPullConsumer(group, nil)
	if err != nil {
		return err
	}
	return errors.Join(c.Subscribe(topic, mq.All), c.Close())
}

// ask measures each kind of query.
func ask(b *mq.Broker, n, times int, ids []mq.MessageID) (rows []row, err error) {
	first, err := b.MessageAt(mq.Queue{Topic: topic}, 0)
	if err != nil {
		return nil, err
	}
	route, err := b.Route(topic)
	if err != nil {
		return nil, err
	}
	last, err := b.MessageAt(route[0].Queue, route[0].End-1)
	if err != nil {
		return nil, err
	}
	span := last.StoredAt.Sub(first.StoredAt)
	wants := func(ms []*mq.Message, err error, want int) error {
		if err == nil && len(ms) != want {
			err = fmt.Errorf("%d messages found, want %d", len(ms), want)
		}
		return err
	}
	kinds := []struct {
		name  string
		times int
		query func() error
	}{
		{"key of one message", times, func() error {
			ms, err := b.MessagesByKey(topic, key(rand.IntN(n)), 64)
			return wants(ms, err, 1)
		}},
		{"key of 100 messages, newest 64", times / 10, func() error {
			ms, err := b.MessagesByKey(topic, sharedKey(rand.IntN(max(1, n/shared))), 64)
			return wants(ms, err, 64)
		}},
		{"key of no message", times, func() error {
			ms, err := b.MessagesByKey(topic, key(n+rand.IntN(n)), 64)
			return wants(ms, err, 0)
		}},
		{"message by id", times, func() error {
			_, err := b.MessageByID(ids[rand.IntN(len(ids))])
			return err
		}},
		{"message by queue and offset", times, func() error {
			q := route[rand.IntN(queues)]
			_, err := b.MessageAt(q.Queue, mq.Offset(rand.Int64N(int64(q.End))))
			return err
		}},
		{"offset by time", times, func() error {
			_, err := b.OffsetAt(route[rand.IntN(queues)].Queue, first.StoredAt.Add(time.Duration(rand.Int64N(max(1, int64(span))))))
			return err
		}},
		{"track of a message", times, func() error {
			_, err := b.MessageTrack(ids[rand.IntN(len(ids))])
			return err
		}},
		{"backlog of all messages", 10, func() error {
			total, _, err := b.Backlog(group)
			if err == nil && total.Messages != int64(n) {
				err = fmt.Errorf("a backlog of %d", total.Messages)
			}
			return err
		}},
		{"browse of 100,000 messages", 5, func() error {
			seen := 0
			for _, err := range b.Browse(topic, first.StoredAt.Add(span/2), time.Time{}, mq.All) {
				if err != nil {
					return err
				}
				if seen++; seen == 100_000 {
					break
				}
			}
			return nil
		}},
	}
	for _, k := range kinds {
		r, err := repeat(k.name, max(1, k.times), k.query)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func repeat(name string, times int, query func() error) (row, error) {
	took := make([]time.Duration, times)
	for i := range took {
		began := time.Now()
		if err := query(); err != nil {
			return row{}, err
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	at := func(q float64) time.Duration { return took[int(q*float64(times-1))].Round(100 * time.Nanosecond) }
	return row{Query: name, Times: times, P50: at(0.5), P99: at(0.99), Max: at(1)}, nil
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc >> 20
}
