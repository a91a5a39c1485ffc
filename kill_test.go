package mq_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
)

var killCount = flag.Int("kills", 50, "kills of TestKill; a tenth with -short")

// killDir in the environment makes this program the one that is killed.
const killDir = "MQ_TEST_KILL_DIR"

// TestKill kills a process that sends and consumes, again and again, in the
// middle of whatever it does, and reads from a pipe what that process had been
// told. Nothing acknowledged is lost, nothing committed comes again, and offsets
// are dense.
func TestKill(t *testing.T) {
	t.Parallel()
	if os.Getenv(killDir) != "" {
		t.Skip("is the one that is killed")
	}
	kills := *killCount
	if testing.Short() {
		kills = max(1, kills/10)
	}
	k := newKiller(t)
	for n := range kills {
		k.once(n)
		if t.Failed() {
			t.Fatalf("after kill %d", n+1)
		}
		if n%10 == 9 || n == kills-1 { // other times the next process finds what was left
			k.verify()
		}
	}
	k.finish()
	t.Logf("%d kills; %d messages acknowledged, %d committed", kills, k.acknowledged, len(k.committed))
}

// TestKillChild is the process that is killed.
func TestKillChild(t *testing.T) {
	dir := os.Getenv(killDir)
	if dir == "" {
		t.Skip("is started by TestKill")
	}
	c := &killChild{T: t, run: fmt.Sprint(os.Getpid())}
	c.live(dir)
}

// place is where a message lies.
type place struct {
	topic  string
	queue  mq.QueueID
	offset mq.Offset
}

func (p place) String() string { return fmt.Sprintf("%s %d %d", p.topic, p.queue, p.offset) }

func killOptions(disableMmap bool) *mq.Options {
	return &mq.Options{SegmentBytes: 1 << 20, SyncEvery: 20 * time.Millisecond, DisableMmap: disableMmap}
}

var killTopics = map[string]mq.Durability{"S": mq.Synced, "W": mq.Written}

// ---- the process that is killed

type killChild struct {
	*testing.T
	run string
	b   *mq.Broker
	out sync.Mutex // a line is one write
}

// say tells the parent. What is in the pipe survives us.
func (c *killChild) say(lines string) {
	c.out.Lock()
	defer c.out.Unlock()
	_, _ = io.WriteString(os.Stdout, lines) // a parent that is gone will not miss it
}

func (c *killChild) live(dir string) {
	b, err := mq.Open(dir, killOptions(os.Getpid()%3 == 0))
	require.NoError(c, err)
	c.b = b
	c.say("open\n")
	for name, d := range killTopics {
		if _, err := b.Topic(name); err != nil {
			require.NoError(c, b.CreateTopic(name, &mq.TopicConfig{Queues: 3, Durability: d}))
		}
	}
	var all sync.WaitGroup
	for n := range 3 {
		all.Go(func() { c.produce(n) })
	}
	all.Go(c.pull)
	all.Go(c.push)
	all.Wait() // never
}

// produce sends, in every way there is, and says what was acknowledged.
func (c *killChild) produce(n int) {
	p, err := c.b.NewProducer(nil)
	require.NoError(c, err)
	ctx := context.Background()
	rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(n)))
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	seq := 0
	message := func(topic string) *mq.Message {
		seq++
		size := rnd.IntN(300)
		if rnd.IntN(50) == 0 {
			size = rnd.IntN(50_000)
		}
		return &mq.Message{
			Topic: topic, Tag: "tag", Keys: []string{"all"},
			Body: fmt.Appendf(nil, "%s-%d-%d%s", c.run, n, seq, strings.Repeat(".", size)),
		}
	}
	acked := func(r mq.SendResult, m *mq.Message) string {
		name, _, _ := strings.Cut(string(m.Body), ".")
		return fmt.Sprintf("sent %v %v %s %d\n", place{r.Topic, r.Queue, r.Offset}, r.ID, name, len(m.Body))
	}
	for {
		<-pace.C
		for range 4 {
			topic := []string{"S", "W", "W", "W"}[rnd.IntN(4)]
			m := message(topic)
			switch rnd.IntN(8) {
			case 0:
				ms := []*mq.Message{m, message("S"), message("W"), message("W")}
				rs, err := p.SendBatch(ctx, ms)
				require.NoError(c, err)
				lines := ""
				for i := range rs {
					lines += acked(rs[i], ms[i])
				}
				c.say(lines)
			case 1, 2:
				err := p.SendAsync(ctx, m, func(r mq.SendResult, err error) {
					if err == nil {
						c.say(acked(r, m))
					}
				})
				require.NoError(c, err)
			default:
				r, err := p.Send(ctx, m)
				require.NoError(c, err)
				c.say(acked(r, m))
			}
		}
	}
}

// pull consumes with explicit commits, some of them out of order.
func (c *killChild) pull() {
	ctx := context.Background()
	pc, err := c.b.NewPullConsumer("pull", nil)
	require.NoError(c, err)
	for name := range killTopics {
		require.NoError(c, pc.Subscribe(name, mq.All))
	}
	rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), 99))
	var open []*mq.Message
	for {
		ms, err := pc.Poll(ctx, 1+rnd.IntN(32))
		require.NoError(c, err)
		c.say(deliveries("polled", ms))
		open = append(open, ms...)
		switch rnd.IntN(3) {
		case 0:
			require.NoError(c, pc.Commit(ctx))
			c.say(deliveries("committed", open))
			open = nil
		case 1:
			rnd.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
			n := 1 + rnd.IntN(len(open))
			require.NoError(c, pc.Commit(ctx, open[:n]...))
			c.say(deliveries("committed", open[:n]))
			open = open[n:]
		}
	}
}

func deliveries(what string, ms []*mq.Message) string {
	var lines strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&lines, "%s %v\n", what, place{m.Topic, m.Queue, m.Offset})
	}
	return lines.String()
}

// push consumes with a handler, and says how far it was acknowledged.
func (c *killChild) push() {
	pc, err := c.b.NewPushConsumer("push", func(_ context.Context, m *mq.Message) error {
		c.say(deliveries("handled", []*mq.Message{m}))
		return nil
	}, &mq.PushOptions{Concurrency: 4})
	require.NoError(c, err)
	for name := range killTopics {
		require.NoError(c, pc.Subscribe(name, mq.All))
	}
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for range pace.C {
		lines := ""
		for name := range killTopics {
			offsets, err := c.b.Offsets("push", name)
			require.NoError(c, err)
			for _, o := range offsets {
				lines += fmt.Sprintf("done %v\n", place{name, o.Queue.ID, o.Committed})
			}
		}
		c.say(lines)
	}
}

// ---- the process that kills

type killer struct {
	*testing.T
	dir string

	opened       bool // since the store was closed last
	sent         map[place]acknowledged
	unverified   []place
	acknowledged int
	ids          map[string]bool
	polled       map[place]bool
	committed    map[place]bool
	handled      map[place]bool
	done         map[place]mq.Offset // offset 0 of a queue: how far push consumers are acknowledged
}

type acknowledged struct {
	id, name string
	size     int
}

func newKiller(t *testing.T) *killer {
	return &killer{
		T: t, dir: t.TempDir(), sent: map[place]acknowledged{}, ids: map[string]bool{},
		polled: map[place]bool{}, committed: map[place]bool{}, handled: map[place]bool{}, done: map[place]mq.Offset{},
	}
}

// once lives and ends one process.
func (k *killer) once(n int) {
	self, err := os.Executable()
	require.NoError(k, err)
	cmd := exec.Command(self, "-test.run=^TestKillChild$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), killDir+"="+k.dir)
	out, err := cmd.StdoutPipe()
	require.NoError(k, err)
	require.NoError(k, cmd.Start())
	lines := bufio.NewReader(out)
	opened := make(chan struct{})
	ended := make(chan []string)
	go func() {
		var unknown []string
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // what is not a whole line was not acknowledged to anybody
			}
			if line == "open\n" {
				k.opened = true
				close(opened)
			} else if !k.hear(strings.TrimSpace(line)) {
				unknown = append(unknown, line)
			}
		}
		ended <- unknown
	}()
	if n%8 != 7 { // else it may not even have opened the store
		<-opened
	}
	<-time.After(time.Duration(rand.IntN(200)) * time.Millisecond) // any moment will do
	require.NoError(k, cmd.Process.Kill())
	unknown := <-ended
	err = cmd.Wait()
	require.Contains(k, err.Error(), "signal: killed", "it ended by itself: %s", strings.Join(unknown, ""))
}

// hear takes a line of the process. What is told twice, or against what was
// told before, fails the test.
func (k *killer) hear(line string) bool {
	var p place
	var a acknowledged
	if n, _ := fmt.Sscanf(line, "sent %s %d %d %s %s %d", &p.topic, &p.queue, &p.offset, &a.id, &a.name, &a.size); n == 6 {
		if had, ok := k.sent[p]; ok || k.ids[a.id] {
			k.Errorf("%v was %v and is %v", p, had, a)
		}
		k.sent[p], k.ids[a.id] = a, true
		k.unverified = append(k.unverified, p)
		k.acknowledged++
		return true
	}
	var what string
	if n, _ := fmt.Sscanf(line, "%s %s %d %d", &what, &p.topic, &p.queue, &p.offset); n != 4 {
		return false
	}
	switch what {
	case "polled":
		k.delivered("pull", p)
		k.polled[p] = true
	case "committed":
		k.committed[p] = true
	case "handled":
		k.delivered("push", p)
		k.handled[p] = true
	case "done":
		queue := place{p.topic, p.queue, 0}
		if p.offset < k.done[queue] {
			k.Errorf("push: %v was acknowledged up to %d and is up to %d", queue, k.done[queue], p.offset)
		}
		k.done[queue] = p.offset
	default:
		return false
	}
	return true
}

// delivered checks that nothing comes again that was committed.
func (k *killer) delivered(group string, p place) {
	if group == "pull" && k.committed[p] || group == "push" && p.offset < k.done[place{p.topic, p.queue, 0}] {
		k.Errorf("%s: %v was committed and comes again", group, p)
	}
}

// verify opens the store and looks for everything acknowledged since the last
// time.
func (k *killer) verify() {
	b, err := mq.Open(k.dir, killOptions(false))
	require.NoError(k, err)
	require.False(k, k.opened && b.Recovery().Clean)
	require.Empty(k, b.Recovery().Corrupt)
	k.opened = false
	require.NoError(k, b.Check(context.Background()))
	for _, p := range k.unverified {
		want := k.sent[p]
		id, err := mq.ParseID(want.id)
		require.NoError(k, err)
		m, err := b.MessageByID(id)
		require.NoError(k, err, "%v was acknowledged: %v", p, want)
		k.same(m)
	}
	k.unverified = nil
	require.NoError(k, b.Close())
}

// same compares a message with what was acknowledged, if it was.
func (k *killer) same(m *mq.Message) {
	p := place{m.Topic, m.Queue, m.Offset}
	want, ok := k.sent[p]
	if !ok {
		return // stored, and nobody was told
	}
	name, _, _ := strings.Cut(string(m.Body), ".")
	if got := (acknowledged{m.ID.String(), name, len(m.Body)}); got != want {
		k.Errorf("%v is %v, acknowledged was %v", p, got, want)
	}
}

// finish consumes all that is left and looks at the whole.
func (k *killer) finish() {
	b, err := mq.Open(k.dir, killOptions(false))
	require.NoError(k, err)
	defer func() { require.NoError(k, b.Close()) }()
	ends := k.dense(b)
	k.finishPull(b)
	k.finishPush(b)
	for queue, end := range ends {
		for off := range end {
			p := place{queue.Topic, queue.ID, off}
			if !k.polled[p] || !k.handled[p] {
				k.Fatalf("%v was never delivered: pull %v, push %v", p, k.polled[p], k.handled[p])
			}
		}
	}
}

// dense reads everything, by a group of its own: offsets from 0 without gaps.
func (k *killer) dense(b *mq.Broker) map[mq.Queue]mq.Offset {
	ends, next := map[mq.Queue]mq.Offset{}, map[mq.Queue]mq.Offset{}
	total := 0
	for name := range killTopics {
		route, err := b.Route(name)
		require.NoError(k, err)
		for _, q := range route {
			require.Zero(k, q.Start)
			ends[q.Queue] = q.End
			total += int(q.End)
		}
	}
	k.drain(b, "all", total, func(m *mq.Message) {
		q := mq.Queue{Topic: m.Topic, ID: m.Queue}
		require.Equal(k, next[q], m.Offset, "%v", q)
		next[q]++
		k.same(m)
		delete(k.sent, place{m.Topic, m.Queue, m.Offset})
	})
	require.Empty(k, k.sent, "acknowledged and not there")
	return ends
}

// drain polls so many messages as the group.
func (k *killer) drain(b *mq.Broker, group string, n int, visit func(*mq.Message)) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := b.NewPullConsumer(group, nil)
	require.NoError(k, err)
	defer func() { require.NoError(k, c.Close()) }()
	for name := range killTopics {
		require.NoError(k, c.Subscribe(name, mq.All))
	}
	for n > 0 {
		ms, err := c.Poll(ctx, 64)
		require.NoError(k, err, "%d more messages are due", n)
		for _, m := range ms {
			visit(m)
		}
		n -= len(ms)
		require.NoError(k, c.Commit(ctx))
	}
}

func (k *killer) finishPull(b *mq.Broker) {
	lag, _, err := b.Lag("pull")
	require.NoError(k, err)
	k.drain(b, "pull", int(lag), func(m *mq.Message) {
		p := place{m.Topic, m.Queue, m.Offset}
		k.delivered("pull", p)
		k.polled[p] = true
	})
}

func (k *killer) finishPush(b *mq.Broker) {
	lag, _, err := b.Lag("push")
	require.NoError(k, err)
	if lag == 0 {
		return
	}
	var mu sync.Mutex // protects k and lag
	all := make(chan struct{})
	c, err := b.NewPushConsumer("push", func(_ context.Context, m *mq.Message) error {
		mu.Lock()
		defer mu.Unlock()
		p := place{m.Topic, m.Queue, m.Offset}
		k.delivered("push", p)
		k.handled[p] = true
		if lag--; lag == 0 {
			close(all)
		}
		return nil
	}, nil)
	require.NoError(k, err)
	for name := range killTopics {
		require.NoError(k, c.Subscribe(name, mq.All))
	}
	select {
	case <-all:
	case <-time.After(time.Minute):
		mu.Lock()
		defer mu.Unlock()
		k.Fatalf("push: %d messages are still due", lag)
	}
	require.NoError(k, c.Close())
}
