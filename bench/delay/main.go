// Command delay measures delayed messages:
//
//	go run ./bench/delay -run D1    a million messages that are due in the same second
//	go run ./bench/delay -run D2    ten million spread over a year, and a thousand a second that are due soon
//
// It prints one line per figure. Topics are Written, bodies 100 bytes, one sender.
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pocketmq/mq"
)

var (
	which = flag.String("run", "D1", "D1 or D2")
	count = flag.Int("n", 0, "messages; 0: a million, ten million")
	dir   = flag.String("dir", "", "where to make the store; empty: a temporary directory")
)

const bodyBytes = 100

func main() {
	flag.Parse()
	log.SetFlags(0)
	parent := *dir
	work, err := os.MkdirTemp(parent, "mq-delay")
	check(err)
	defer func() { check(os.RemoveAll(work)) }()
	switch *which {
	case "D1":
		sameSecond(work, orElse(*count, 1_000_000))
	case "D2":
		overAYear(work, orElse(*count, 10_000_000))
	default:
		log.Fatalf("no measurement %q", *which)
	}
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

func open(dir string) *mq.Broker {
	b, err := mq.Open(dir, &mq.Options{Durability: mq.Written, Retention: mq.Retention{Age: -1}})
	check(err)
	return b
}

// send sends n messages and returns how many a second.
func send(b *mq.Broker, n int, topic string, at func(i int) time.Time) float64 {
	p, err := b.NewProducer(nil)
	check(err)
	ctx := context.Background()
	body := make([]byte, bodyBytes)
	m := &mq.Message{Topic: topic, Body: body}
	start := time.Now()
	for i := range n {
		if at != nil {
			m.DeliverAt = at(i)
			binary.LittleEndian.PutUint64(body, uint64(m.DeliverAt.UnixMicro()))
		}
		_, err := p.Send(ctx, m)
		check(err)
	}
	return float64(n) / time.Since(start).Seconds()
}

// lateness notes how late messages come.
type lateness struct {
	mu   sync.Mutex
	late []time.Duration
}

func (l *lateness) handle(_ context.Context, m *mq.Message) error {
	late := time.Since(time.UnixMicro(int64(binary.LittleEndian.Uint64(m.Body))))
	l.mu.Lock()
	l.late = append(l.late, late)
	l.mu.Unlock()
	return nil
}

func (l *lateness) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.late)
}

func (l *lateness) print() {
	slices.Sort(l.late)
	at := func(q float64) time.Duration {
		return l.late[int(q*float64(len(l.late)-1))].Round(10 * time.Microsecond)
	}
	fmt.Printf("lateness of %d: p50 %v, p99 %v, max %v\n", len(l.late), at(0.5), at(0.99), at(1))
}

func consume(b *mq.Broker, topic string) *lateness {
	l := &lateness{}
	c, err := b.NewPushConsumer("G", l.handle, nil)
	check(err)
	check(c.Subscribe(topic, mq.All))
	return l
}

func sameSecond(dir string, n int) {
	b := open(dir)
	fmt.Printf("plain: %.0f messages/s\n", send(b, n, "plain", nil))
	l := consume(b, "delayed")
	due := time.Now().Add(20 * time.Second).Truncate(time.Second)
	fmt.Printf("delayed: %.0f messages/s\n", send(b, n, "delayed", func(i int) time.Time { return due.Add(time.Duration(i%1000) * time.Millisecond) }))
	if time.Now().After(due) {
		log.Fatal("sent too slowly: some were due already")
	}
	memory("waiting")
	for l.len() < n {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Printf("all %d delivered and handled %v after the first was due\n", n, time.Since(due).Round(time.Millisecond))
	l.print()
	check(b.Close())
}

func overAYear(dir string, n int) {
	b := open(dir)
	memory("before")
	fmt.Printf("plain: %.0f messages/s\n", send(b, n/10, "plain", nil))
	start := time.Now().Add(time.Hour)
	year := 365 * 24 * time.Hour
	rate := send(b, n, "delayed", func(i int) time.Time {
		return start.Add(time.Duration(uint64(i) * 0x9e3779b97f4a7c15 % uint64(year)))
	})
	fmt.Printf("delayed: %.0f messages/s\n", rate)
	memory("waiting")
	soon(b)
	began := time.Now()
	check(b.Close())
	fmt.Printf("closed in %v\n", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	b = open(dir)
	fmt.Printf("opened in %v, %d waiting\n", time.Since(began).Round(time.Millisecond), b.Stats().Waiting)
	memory("opened")
	soon(b)
	check(b.Close())
}

// soon sends a thousand messages a second that are due within a tenth of one.
func soon(b *mq.Broker) {
	const seconds = 5
	l := consume(b, "soon")
	p, err := b.NewProducer(nil)
	check(err)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := range seconds * 1000 {
		<-tick.C
		m := &mq.Message{Topic: "soon", Body: make([]byte, bodyBytes)}
		m.DeliverAt = time.UnixMilli(time.Now().UnixMilli() + 10 + int64(i%90))
		binary.LittleEndian.PutUint64(m.Body, uint64(m.DeliverAt.UnixMicro()))
		_, err := p.Send(context.Background(), m)
		check(err)
	}
	for l.len() < seconds*1000 {
		time.Sleep(10 * time.Millisecond)
	}
	l.print()
}

// memory prints what the process holds.
func memory(when string) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	anon := "?"
	raw, _ := os.ReadFile("/proc/self/status") // Linux
	for line := range strings.Lines(string(raw)) {
		if kib, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kib), "kB"))); err == nil {
				anon = fmt.Sprint(n / 1024)
			}
		}
	}
	fmt.Printf("memory, %s: heap %d MiB, anonymous resident %s MiB\n", when, m.HeapAlloc>>20, anon)
}
