// Command filter measures push consumption with filters: an SQL condition, a tag,
// and none (then the handler looks at each message itself), when 1 %, 50 % and
// 100 % of the messages are wanted.
//
//	go run ./bench/filter             the table
//	go run ./bench/filter -json       one object per line
//	go run ./bench/filter -quick      less of everything
//
// A topic of 4 queues holds the messages before a group is there: bodies of 100
// bytes, a tag and three properties. A run is a new group that consumes all of it,
// from Subscribe until the last wanted message is handled, which is the last one
// of each queue; the figure is how many messages a second it went past, wanted or
// not. Runs of the three filters take turns, and the median of each counts.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pocketmq/mq"
)

const queues = 4

// filters are what is compared. Each wants what mark marks.
var filters = []struct {
	name   string
	filter mq.Filter
}{
	{"none", mq.All},
	{"tag", mq.Tags("wanted")},
	{"sql", mq.SQL("amount > 100")},
	{"sql, long", mq.SQL("amount BETWEEN 101 AND 1000 AND region IN ('eu', 'us') AND (TAGS IS NULL OR source STARTSWITH 'shop')")},
}

// row is one line of the table.
type row struct {
	Filter  string  `json:"filter"`
	Percent int     `json:"percent"`
	PerSec  float64 `json:"messagesPerSecond"` // gone past
	Allocs  float64 `json:"allocationsPerMessage"`
	Ratio   float64 `json:"ofNone"`
}

func main() {
	n := flag.Int("n", 400_000, "messages of a topic")
	rounds := flag.Int("rounds", 5, "runs of each filter")
	dir := flag.String("dir", "", "`directory` for the store (default: that for temporary files)")
	asJSON := flag.Bool("json", false, "print one JSON object per line instead of a table")
	quick := flag.Bool("quick", false, "a tenth of the messages, 3 rounds")
	flag.Parse()
	if *quick {
		*n, *rounds = *n/10, 3
	}
	rows, err := measure(*dir, *n, *rounds)
	if err != nil {
		fmt.Fprintln(os.Stderr, "filter:", err)
		os.Exit(1)
	}
	if *asJSON {
		for _, r := range rows {
			line, _ := json.Marshal(r) // plain fields: it cannot fail
			fmt.Println(string(line))
		}
		return
	}
	fmt.Printf("%-10s %7s %14s %10s %8s\n", "filter", "wanted", "messages/s", "allocs", "of none")
	for _, r := range rows {
		fmt.Printf("%-10s %6d%% %14.0f %10.3f %7.2fx\n", r.Filter, r.Percent, r.PerSec, r.Allocs, r.Ratio)
	}
}

func measure(parent string, n, rounds int) (rows []row, err error) {
	dir, err := os.MkdirTemp(parent, "mq-filter")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := mq.Open(dir, &mq.Options{Durability: mq.Written})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	for _, percent := range []int{1, 50, 100} {
		topic := fmt.Sprint("wanted", percent)
		wanted, err := load(b, topic, n, percent)
		if err != nil {
			return nil, err
		}
		of, err := compare(b, topic, percent, n, wanted, rounds)
		if err != nil {
			return nil, err
		}
		rows = append(rows, of...)
		if err := b.DeleteTopic(topic); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// load fills a topic and says how many of its messages are wanted.
func load(b *mq.Broker, topic string, n, percent int) (wanted int64, err error) {
	if err := b.CreateTopic(topic, &mq.TopicConfig{Queues: queues}); err != nil {
		return 0, err
	}
	p, err := b.NewProducer(nil)
	if err != nil {
		return 0, err
	}
	m := &mq.Message{Topic: topic, Body: make([]byte, 100), Properties: map[string]string{"region": "eu", "source": "shop-7"}}
	for i := range n {
		m.Tag = "other"
		m.Properties["amount"] = strconv.Itoa(i % 100)
		if i/queues%100 < percent || i >= n-queues {
			wanted++
			m.Tag = "wanted"
			m.Properties["amount"] = strconv.Itoa(101 + i%100)
		}
		if _, err := p.Send(context.Background(), m); err != nil {
			return 0, err
		}
	}
	return wanted, nil
}

// compare runs all filters in turn.
func compare(b *mq.Broker, topic string, percent, n int, wanted int64, rounds int) ([]row, error) {
	took := make([][]time.Duration, len(filters))
	allocs := make([]float64, len(filters))
	for round := range rounds + 1 {
		for i, f := range filters {
			d, mallocs, err := run(b, topic, f.filter, wanted)
			if err != nil {
				return nil, err
			}
			if round > 0 { // the first one is there to make everything warm
				took[i] = append(took[i], d)
				allocs[i] = float64(mallocs) / float64(n)
			}
		}
	}
	var rows []row
	for i, f := range filters {
		slices.Sort(took[i])
		r := row{Filter: f.name, Percent: percent, PerSec: float64(n) / took[i][len(took[i])/2].Seconds(), Allocs: allocs[i], Ratio: 1}
		if i > 0 {
			r.Ratio = r.PerSec / rows[0].PerSec
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// run consumes the topic once.
func run(b *mq.Broker, topic string, f mq.Filter, wanted int64) (took time.Duration, mallocs uint64, err error) {
	const group = "bench"
	var handled atomic.Int64
	done := make(chan struct{})
	handler := func(_ context.Context, m *mq.Message) error {
		if m.Tag == "wanted" && handled.Add(1) == wanted {
			close(done)
		}
		return nil
	}
	c, err := b.NewPushConsumer(group, handler, nil)
	if err != nil {
		return 0, 0, err
	}
	runtime.GC()
	before := memory()
	start := time.Now()
	if err := c.Subscribe(topic, f); err != nil {
		return 0, 0, errors.Join(err, c.Close())
	}
	select {
	case <-done:
		took = time.Since(start)
	case <-time.After(time.Minute):
		err = fmt.Errorf("%d of %d messages in a minute", handled.Load(), wanted)
	}
	mallocs = memory() - before
	return took, mallocs, errors.Join(err, c.Close(), b.DeleteGroup(group))
}

func memory() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
