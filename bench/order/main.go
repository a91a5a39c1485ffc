// Command order measures an ordered group with a blocked key:
//
//	go run ./bench/order -run O1    1,000 keys on 4 queues: what one key that always fails costs the other 999
//	go run ./bench/order -run O2    a million messages behind a blocked key: memory, time to reopen, time to deliver them
//	go run ./bench/order -run O3    5,000 blocked keys on one queue: what the one that is not blocked gets
//
// It prints one line per figure, or with -json one object. Topics are Written,
// bodies 100 bytes, one sender, one consumer with the options' defaults.
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketmq/mq"
)

var (
	which  = flag.String("run", "O1", "O1, O2 or O3")
	count  = flag.Int("n", 0, "messages; 0: 400,000 a round, a million, 500,000")
	rounds = flag.Int("rounds", 5, "of O1: pairs of runs, one with the poisoned key and one without")
	dir    = flag.String("dir", "", "where to make the stores; empty: a temporary directory")
	asJSON = flag.Bool("json", false, "print one JSON object")
)

const (
	bodyBytes = 100
	group     = "G"
	topic     = "T"
)

func main() {
	flag.Parse()
	log.SetFlags(0)
	work, err := os.MkdirTemp(*dir, "mq-order")
	check(err)
	defer func() { check(os.RemoveAll(work)) }()
	var f figures
	switch *which {
	case "O1":
		f.oneOfAThousand(work, orElse(*count, 400_000))
	case "O2":
		f.largeBacklog(work, orElse(*count, 1_000_000))
	case "O3":
		f.manyKeys(work, orElse(*count, 500_000))
	default:
		log.Fatalf("no measurement %q", *which)
	}
	f.print()
}

func orElse(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// figures are what a run found, in the order it found them.
type figures struct {
	Run   string   `json:"run"`
	Lines []figure `json:"figures"`
}

type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

func (f *figures) add(name string, value float64, unit string) {
	f.Lines = append(f.Lines, figure{name, value, unit})
}

func (f *figures) print() {
	f.Run = *which
	if *asJSON {
		check(json.NewEncoder(os.Stdout).Encode(f))
		return
	}
	for _, l := range f.Lines {
		fmt.Printf("%-58s %12.3f %s\n", l.Name, l.Value, l.Unit)
	}
}

func open(dir string) *mq.Broker {
	// A small cache of blocks, or it would be most of the heap.
	b, err := mq.Open(dir, &mq.Options{Durability: mq.Written, Retention: mq.Retention{Age: -1}, CacheBytes: 4 << 20})
	check(err)
	return b
}

// send stores n messages, numbered per key; key says whose the ith is.
func send(b *mq.Broker, n int, key func(i int) string) {
	p, err := b.NewProducer(nil)
	check(err)
	body := make([]byte, bodyBytes)
	next := map[string]uint64{}
	for i := range n {
		k := key(i)
		binary.LittleEndian.PutUint64(body, next[k])
		next[k]++
		_, err := p.Send(context.Background(), &mq.Message{Topic: topic, ShardingKey: k, Body: body})
		check(err)
	}
}

// consumer checks the order of every key and counts. Messages of the keys that
// poisoned names fail until free is called.
type consumer struct {
	*mq.PushConsumer
	poisoned func(key string) bool
	freed    atomic.Bool
	failed   atomic.Int64
	done     atomic.Int64

	keysMu sync.Mutex // protects next
	next   map[string]*uint64
}

var errPoisoned = errors.New("poisoned")

func consume(b *mq.Broker, poisoned func(key string) bool, next map[string]*uint64) *consumer {
	c := &consumer{poisoned: poisoned, next: next}
	var err error
	c.PushConsumer, err = b.NewPushConsumer(group, c.handle, &mq.PushOptions{Ordered: true})
	check(err)
	check(c.Subscribe(topic, mq.All))
	return c
}

func (c *consumer) handle(_ context.Context, m *mq.Message) error {
	if c.poisoned(m.ShardingKey) && !c.freed.Load() {
		c.failed.Add(1)
		return errPoisoned
	}
	c.keysMu.Lock()
	next := c.next[m.ShardingKey]
	if next == nil {
		next = new(uint64)
		c.next[m.ShardingKey] = next
	}
	c.keysMu.Unlock()
	if n := binary.LittleEndian.Uint64(m.Body); n != *next {
		log.Fatalf("key %s: message %d, want %d", m.ShardingKey, n, *next)
	}
	*next++ // one message of a key at a time
	c.done.Add(1)
	return nil
}

// await waits until n messages are consumed.
func (c *consumer) await(n int) {
	for c.done.Load() < int64(n) {
		time.Sleep(time.Millisecond)
	}
}

func nobody(string) bool { return false }

// ---- O1

func (f *figures) oneOfAThousand(work string, n int) {
	const keys = 1000
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("order-%d", i)
	}
	run := func(at string, poison bool) (others float64, failed int64) {
		b := open(at)
		check(b.CreateTopic(topic, &mq.TopicConfig{Queues: 4, Durability: mq.Written}))
		send(b, n, func(i int) string { return names[i%keys] })
		poisoned := nobody
		if poison {
			poisoned = func(key string) bool { return key == names[0] }
		}
		start := time.Now()
		c := consume(b, poisoned, map[string]*uint64{})
		want := n - n/keys
		if !poison {
			want = n
		}
		c.await(want)
		others = float64(want) / time.Since(start).Seconds()
		failed = c.failed.Load()
		check(c.Close())
		check(b.Close())
		check(os.RemoveAll(at))
		return others, failed
	}
	run(filepath.Join(work, "warm"), false)
	var ratios, plains, poisons []float64
	var failures int64
	for i := range *rounds {
		at := filepath.Join(work, fmt.Sprint(i))
		var plain, poisoned float64
		var failed int64
		if i%2 == 0 {
			plain, _ = run(at, false)
			poisoned, failed = run(at, true)
		} else {
			poisoned, failed = run(at, true)
			plain, _ = run(at, false)
		}
		failures += failed
		plains, poisons, ratios = append(plains, plain), append(poisons, poisoned), append(ratios, poisoned/plain)
	}
	f.add("1,000 keys, none fails: messages/s, median", median(plains), "/s")
	f.add("one key always fails: messages/s of the other 999, median", median(poisons), "/s")
	f.add("ratio, median of the pairs", median(ratios), "")
	f.add("ratio, least", slices.Min(ratios), "")
	f.add("ratio, greatest", slices.Max(ratios), "")
	f.add("deliveries of the poisoned key that failed, all rounds", float64(failures), "")
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// ---- O2

func (f *figures) largeBacklog(work string, n int) {
	const share = 10 // one message in so many is of a key that is not blocked
	bad := func(key string) bool { return key == "bad" }
	b := open(work)
	check(b.CreateTopic(topic, &mq.TopicConfig{Queues: 1, Durability: mq.Written}))
	send(b, n+n/share, func(i int) string {
		if i%(share+1) == 0 {
			return "good"
		}
		return "bad"
	})
	f.add("heap in use, nothing consumed", heap(), "MiB")
	next := map[string]*uint64{}
	start := time.Now()
	c := consume(b, bad, next)
	c.await(n / share)
	f.add("all others consumed after", time.Since(start).Seconds(), "s")
	awaitParked(b, n-1000)
	f.add("messages parked", float64(parked(b)), "")
	f.add("heap in use with them parked", heap(), "MiB")
	check(c.Close())
	start = time.Now()
	check(b.Close())
	f.add("closing", time.Since(start).Seconds(), "s")

	start = time.Now()
	b = open(work)
	f.add("opening with them parked", time.Since(start).Seconds(), "s")
	start = time.Now()
	c = consume(b, bad, next)
	send(b, 1, func(int) string { return "another" })
	c.await(1)
	f.add("from joining to the first message of another key", time.Since(start).Seconds(), "s")
	f.add("heap in use after that", heap(), "MiB")
	start = time.Now()
	c.freed.Store(true)
	c.await(1 + n)
	took := time.Since(start).Seconds()
	f.add("once free, all of the key consumed in order after", took, "s")
	f.add("which is, per second", float64(n)/took, "/s")
	check(c.Close())
	check(b.Close())
}

func parked(b *mq.Broker) int {
	info, err := b.Group(group)
	check(err)
	return int(info.Parked)
}

func awaitParked(b *mq.Broker, n int) {
	for parked(b) < n {
		time.Sleep(10 * time.Millisecond)
	}
}

// heap is what is in use after a collection.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse) / (1 << 20)
}

// ---- O3

func (f *figures) manyKeys(work string, n int) {
	const keys = 5000
	names := make([]string, keys+1)
	for i := range names {
		names[i] = fmt.Sprintf("order-%d", i)
	}
	b := open(work)
	check(b.CreateTopic(topic, &mq.TopicConfig{Queues: 1, Durability: mq.Written}))
	send(b, n, func(i int) string { return names[i%len(names)] })
	before := heap()
	start := time.Now()
	c := consume(b, func(key string) bool { return key != names[0] }, map[string]*uint64{})
	c.await(n / len(names))
	f.add("5,000 keys blocked: all of the other one consumed after", time.Since(start).Seconds(), "s")
	awaitParked(b, n-n/len(names)-1000)
	f.add("messages parked", float64(parked(b)), "")
	f.add("heap in use, more than before", heap()-before, "MiB")
	time.Sleep(3 * time.Second)
	f.add("deliveries that failed so far", float64(c.failed.Load()), "")
	start = time.Now()
	c.freed.Store(true)
	c.await(n - n%len(names))
	f.add("once free, all consumed in order after", time.Since(start).Seconds(), "s")
	check(c.Close())
	check(b.Close())
}
