package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

const childVariable = "POCKETMQ_VERIFY_RIVAL"

// order is what a child process is to do.
type order struct {
	Rival string
	Dir   string
	Look  bool // say what is there, instead of working until killed
}

const (
	senders  = 16
	bodySize = 128
)

// childMain makes this process a rival, if it was started to be one.
func childMain() {
	text := os.Getenv(childVariable)
	if text == "" {
		return
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, "rivals:", err)
		os.Exit(1)
	}
	c := &child{out: os.NewFile(3, "log")}
	for _, r := range rivals {
		if r.name == o.Rival {
			c.run(r, o)
		}
	}
	os.Exit(0)
}

type child struct {
	mu  sync.Mutex // a line is not torn by another
	out *os.File
}

// say writes a line for each body, which says who it is in its first word.
func (c *child) say(what string) func(bodies [][]byte) {
	return func(bodies [][]byte) {
		var lines strings.Builder
		for _, b := range bodies {
			id, _, _ := strings.Cut(string(b), " ")
			fmt.Fprintf(&lines, "%s %s\n", what, id)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		_, _ = c.out.WriteString(lines.String()) // a parent that is gone will not miss it
	}
}

func (c *child) run(r rival, o order) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	b, err := r.open(ctx, o.Dir)
	if err != nil {
		c.say("refused")([][]byte{[]byte(strings.ReplaceAll(err.Error(), " ", "_"))})
		return
	}
	c.say("opened")([][]byte{nil})
	if o.Look {
		if err := b.all(ctx, func(body []byte) { c.say("have")([][]byte{body}) }); err != nil {
			fmt.Fprintln(os.Stderr, "reading all:", err)
		}
		if err := b.consume(ctx, false, c.say("got"), nil); err != nil {
			fmt.Fprintln(os.Stderr, "consuming:", err)
		}
		c.say("end")([][]byte{nil})
		return
	}
	var all sync.WaitGroup
	for n := range senders {
		all.Go(func() {
			for i := 0; ; i++ {
				body := fmt.Appendf(nil, "%d-%d %0*d", n, i, bodySize, 0)[:bodySize]
				if b.send(ctx, body) == nil {
					c.say("sent")([][]byte{body})
				}
			}
		})
	}
	all.Go(func() { _ = b.consume(ctx, true, c.say("got"), c.say("acked")) })
	all.Wait() // until it is killed
}
