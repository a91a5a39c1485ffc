package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketmq/mq"
)

// worker is the process. What it says is said after the call returned, a line in
// one write: what is in the log, somebody was told.
type worker struct {
	Config
	out *logWriter
	b   *mq.Broker

	commits atomic.Int64 // begun

	mu     sync.Mutex // protects topics
	topics []string   // to send to
}

func (w *worker) say(format string, args ...any) {
	w.out.WriteString(fmt.Sprintf(format+"\n", args...))
}

// give ends the process: what it wanted to do failed, and there is nothing to do
// without it.
func (w *worker) give(what string, err error) {
	w.say("gave up %s: %s", what, oneLine(err))
	os.Exit(0)
}

func (w *worker) live() {
	b, err := mq.Open(w.Dir, w.Options())
	if err != nil {
		w.say("refused %s", oneLine(err))
		os.Exit(0)
	}
	w.b = b
	r := b.Recovery()
	w.say("opened %t %d %d", r.Clean, len(r.Cut), len(r.Corrupt))
	switch {
	case w.Fill:
		w.fill()
		return
	case w.Steps > 0:
		w.walk()
		return
	}
	for _, name := range []string{syncedTopic, writtenTopic} {
		if err := w.create(name); err != nil {
			w.give("creating", err)
		}
	}
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() { w.produce(n) })
	}
	all.Go(func() { w.pull(pullGroup, mq.Written) })
	all.Go(func() { w.pull(syncedGroup, mq.Synced) })
	all.Go(w.push)
	all.Go(w.sync)
	all.Wait() // until everything has failed
}

func (w *worker) create(name string) error {
	err := w.b.CreateTopic(name, &mq.TopicConfig{Queues: queues, Durability: durability(name)})
	if err != nil && !errors.Is(err, mq.ErrTopicExists) {
		return err
	}
	w.say("topic %s", name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.topics = append(w.topics, name)
	return nil
}

// someTopic prefers the Written one, for every other producer by far: it shall
// not spend its life waiting for syncs.
func (w *worker) someTopic(g *writer) string {
	synced := 2
	if g.number>>32&1 == 1 {
		synced = 32
	}
	if g.IntN(synced) > 0 || synced == 2 && g.IntN(2) == 0 {
		return writtenTopic
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.topics[g.IntN(len(w.topics))]
}

func (w *worker) random(stream int) *rand.Rand {
	return rand.New(rand.NewPCG(w.Seed, uint64(w.Life)<<8|uint64(stream))) //nolint:gosec // not for secrets
}

// writer makes the messages of one producer.
type writer struct {
	*rand.Rand
	number uint64
}

func (g *writer) message(topic string) *mq.Message {
	g.number++
	size := bodyHead + g.IntN(300)
	if g.IntN(100) == 0 {
		size = g.IntN(50_000)
	}
	return &mq.Message{
		Topic: topic, Tag: "tag", Keys: []string{"key"},
		Body: appendBody(make([]byte, 0, size+8), g.number, size),
	}
}

// acknowledged is the line of an acknowledged message. A batch is promised by its
// strongest topic.
func acknowledged(ms []*mq.Message, rs []mq.SendResult) string {
	promise := 'w'
	for _, r := range rs {
		if durability(r.Topic) == mq.Synced {
			promise = 's'
		}
	}
	var lines strings.Builder
	for i, r := range rs {
		fmt.Fprintf(&lines, "sent %c %s %d %d %v %.16s %d\n", promise, r.Topic, r.Queue, r.Offset, r.ID, ms[i].Body, len(ms[i].Body))
	}
	return lines.String()
}

// produce sends, in every way there is.
func (w *worker) produce(n int) {
	p, err := w.b.NewProducer(nil)
	if err != nil {
		w.give("producing", err)
	}
	g := &writer{Rand: w.random(n), number: firstNumber(w.Life, n)}
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for i := 0; ; i++ {
		<-pace.C
		if n == 0 && i == 20 {
			if err := w.create(lateName(w.Life)); err != nil {
				w.say("failed creating %s", oneLine(err))
			}
		}
		for range 4 {
			w.sendSomehow(p, g)
		}
	}
}

func (w *worker) sendSomehow(p *mq.Producer, g *writer) {
	ctx := context.Background()
	m := g.message(w.someTopic(g))
	var err error
	switch g.IntN(8) {
	case 0:
		ms := []*mq.Message{m, g.message(w.someTopic(g)), g.message(syncedTopic)}
		if g.IntN(4) > 0 {
			ms = []*mq.Message{g.message(writtenTopic), g.message(writtenTopic)}
		}
		w.trying(ms...)
		var rs []mq.SendResult
		if rs, err = p.SendBatch(ctx, ms); err == nil {
			w.out.WriteString(acknowledged(ms, rs))
		}
		w.refused(err, ms...)
	case 1, 2:
		w.trying(m)
		err = p.SendAsync(ctx, m, func(r mq.SendResult, err error) {
			if err == nil {
				w.out.WriteString(acknowledged([]*mq.Message{m}, []mq.SendResult{r}))
			}
		})
		w.refused(err, m)
	default:
		w.trying(m)
		var r mq.SendResult
		if r, err = p.Send(ctx, m); err == nil {
			w.out.WriteString(acknowledged([]*mq.Message{m}, []mq.SendResult{r}))
		}
		w.refused(err, m)
	}
	if err != nil {
		w.say("failed send %s", oneLine(err))
	}
}

// trying says what is about to be sent: somebody may see it before the sender is
// told, and when the power is cut it matters what was under way.
func (w *worker) trying(ms ...*mq.Message) {
	var lines strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&lines, "try %s %.16s %d\n", m.Topic, m.Body, len(m.Body))
	}
	w.out.WriteString(lines.String())
}

// refused says what is not stored, and never will be: of other errors nobody
// knows.
func (w *worker) refused(err error, ms ...*mq.Message) {
	if !errors.Is(err, mq.ErrDiskFull) && !errors.Is(err, mq.ErrFull) && !errors.Is(err, mq.ErrBackpressure) {
		return
	}
	var lines strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&lines, "unsent %.16s\n", m.Body)
	}
	w.out.WriteString(lines.String())
}

// sync says what has become safe from a power cut without being waited for: all
// that was said before "sync", once there is "synced".
func (w *worker) sync() {
	pace := time.NewTicker(30 * time.Millisecond)
	defer pace.Stop()
	for n := 0; ; n++ {
		<-pace.C
		w.say("sync %d", n)
		if err := w.b.Sync(context.Background()); err != nil {
			w.say("failed sync %s", oneLine(err))
			continue
		}
		w.say("synced %d", n)
	}
}

func deliveries(group string, ms []*mq.Message) string {
	var lines strings.Builder
	for _, m := range ms {
		number, whole := readBody(m.Body)
		fmt.Fprintf(&lines, "got %s %s %d %d %016x %d %t\n", group, m.Topic, m.Queue, m.Offset, number, len(m.Body), whole)
	}
	return lines.String()
}

// poll says that it begins, and what it got.
func (w *worker) poll(ctx context.Context, c *mq.PullConsumer, group string, most int) ([]*mq.Message, error) {
	w.say("polling %s", group)
	ms, err := c.Poll(ctx, most)
	w.out.WriteString(deliveries(group, ms))
	return ms, err
}

// commit says that it begins, and that it ended well.
func (w *worker) commit(ctx context.Context, c *mq.PullConsumer, group string, d mq.Durability, ms []*mq.Message) error {
	name := fmt.Sprint("commit-", w.commits.Add(1))
	var lines strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&lines, "acking %s %s %s %s %d %d\n", name, promiseOf(d), group, m.Topic, m.Queue, m.Offset)
	}
	w.out.WriteString(lines.String())
	if err := c.Commit(ctx, ms...); err != nil {
		return err
	}
	w.say("acked %s", name)
	return nil
}

// pull consumes with explicit commits, some of them out of order.
func (w *worker) pull(group string, d mq.Durability) {
	ctx := context.Background()
	pc, err := w.b.NewPullConsumer(group, &mq.PullOptions{AckDurability: d})
	if err != nil {
		w.give("pulling", err)
	}
	rnd := w.random(100 + int(d))
	known := 0
	var open []*mq.Message
	for {
		known = w.subscribe(group, pc.Subscribe, known)
		ms, err := w.poll(ctx, pc, group, 1+rnd.IntN(32))
		if err != nil {
			w.say("failed poll %s", oneLine(err))
			<-time.After(10 * time.Millisecond)
			continue
		}
		open = append(open, ms...)
		n := 0
		switch rnd.IntN(3) {
		case 0:
			n = len(open)
		case 1:
			rnd.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
			n = 1 + rnd.IntN(len(open))
		}
		if n == 0 {
			continue
		}
		if err := w.commit(ctx, pc, group, d, open[:n]); err != nil {
			w.say("failed commit %s", oneLine(err))
		}
		open = open[n:]
	}
}

func promiseOf(d mq.Durability) string {
	if d == mq.Synced {
		return "s"
	}
	return "w"
}

// subscribe subscribes to the topics that have come since, and says that queues
// are dealt out.
func (w *worker) subscribe(group string, subscribe func(string, mq.Filter) error, known int) int {
	w.mu.Lock()
	fresh := w.topics[known:]
	w.mu.Unlock()
	for _, name := range fresh {
		if err := subscribe(name, mq.All); err != nil {
			w.say("failed subscribe %s", oneLine(err))
		}
		w.say("dealt %s", group)
	}
	return known + len(fresh)
}

// push consumes with a handler, and says how far it was acknowledged.
func (w *worker) push() {
	pc, err := w.b.NewPushConsumer(pushGroup, func(_ context.Context, m *mq.Message) error {
		w.out.WriteString(deliveries(pushGroup, []*mq.Message{m}))
		return nil
	}, &mq.PushOptions{Concurrency: 4})
	if err != nil {
		w.give("pushing", err)
	}
	known := 0
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for range pace.C {
		known = w.subscribe(pushGroup, pc.Subscribe, known)
		w.mu.Lock()
		topics := w.topics[:known]
		w.mu.Unlock()
		var lines strings.Builder
		for _, name := range topics {
			offsets, err := w.b.Offsets(pushGroup, name)
			if err != nil {
				w.say("failed offsets %s", oneLine(err))
				continue
			}
			for _, o := range offsets {
				fmt.Fprintf(&lines, "done %s %s %d %d\n", pushGroup, name, o.Queue.ID, o.Committed)
			}
		}
		w.out.WriteString(lines.String())
	}
}
