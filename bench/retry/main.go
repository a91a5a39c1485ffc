// Command retry measures messages that failed and wait to come again:
//
//	go run ./bench/retry         a million of them
//	go run ./bench/retry -n N    as many
//
// A group of one push consumer fails every message once; each comes again at the
// same moment, an hour later, so none does within the measurement. Printed are how
// fast that goes, what the process holds before and after, and how long it takes to
// close the store and to open it again. Topics are Written, bodies 100 bytes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/pocketmq/mq"
)

const (
	topic     = "T"
	group     = "G"
	bodyBytes = 100
	wait      = time.Hour
)

func main() {
	count := flag.Int("n", 1_000_000, "messages")
	parent := flag.String("dir", "", "where to make the store; empty: a temporary directory")
	flag.Parse()
	log.SetFlags(0)
	dir, err := os.MkdirTemp(*parent, "mq-retry")
	check(err)
	defer func() { check(os.RemoveAll(dir)) }()
	measure(dir, int64(*count))
}

func measure(dir string, n int64) {
	b := open(dir)
	send(b, n)
	memory("all sent, none handled")
	began := time.Now()
	c, err := b.NewPushConsumer(group, func(context.Context, *mq.Message) error { return errors.New("no") },
		&mq.PushOptions{Backoff: mq.Fixed(wait)})
	check(err)
	check(c.Subscribe(topic, mq.All))
	for b.Stats().Waiting < n {
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(began)
	fmt.Printf("failed and sent back: %d in %v, %.0f a second\n", n, took.Round(time.Millisecond), float64(n)/took.Seconds())
	if took > wait {
		log.Fatal("too slow: some came again")
	}
	memory("all waiting")
	began = time.Now()
	check(b.Close())
	fmt.Printf("closed in %v\n", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	b = open(dir)
	fmt.Printf("opened in %v, %d waiting\n", time.Since(began).Round(time.Millisecond), b.Stats().Waiting)
	memory("opened")
	check(b.Close())
}

func open(dir string) *mq.Broker {
	b, err := mq.Open(dir, &mq.Options{Durability: mq.Written, Retention: mq.Retention{Age: -1}})
	check(err)
	return b
}

func send(b *mq.Broker, n int64) {
	p, err := b.NewProducer(nil)
	check(err)
	m := &mq.Message{Topic: topic, Body: make([]byte, bodyBytes)}
	for range n {
		_, err := p.Send(context.Background(), m)
		check(err)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// memory prints what the process holds: the heap that is in use and, on Linux, the
// resident memory that is no file's.
func memory(when string) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	anon := "?"
	raw, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(raw)) {
		if kib, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kib), "kB"))); err == nil {
				anon = fmt.Sprint(n / 1024)
			}
		}
	}
	fmt.Printf("memory, %s: heap %d MiB, anonymous resident %s MiB\n", when, m.HeapAlloc>>20, anon)
}
