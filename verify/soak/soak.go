// Package soak works a broker hard for as long as one likes: producers of all
// kinds, groups whose members join and leave, resets, retention, handlers that
// are slow or fail, closes and reopens. What the clients saw is judged by
// package history; what is left behind (goroutines, descriptors, memory) is
// counted after every round.
package soak

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/internal/history"
)

// round is some lives of a store, and what its clients saw.
type round struct {
	dir     string
	number  int
	seed    uint64
	opts    *mq.Options
	rec     history.Recorder
	b       *mq.Broker
	dealing sync.RWMutex // held while queues are dealt out; polls are recorded under a read lock

	mu   sync.Mutex // guards all below
	sent int
	errs []error
}

// Names of a round. Topics are new in each: a topic of the same name would be
// another one.
func (r *round) topics() []string {
	return []string{fmt.Sprintf("written-%d", r.number), fmt.Sprintf("synced-%d", r.number)}
}

var groups = []string{"pull", "push", "ordered"}

func (r *round) failed(what string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, fmt.Errorf("%s: %w", what, err))
}

// run goes through lives of the given length, drains the store and judges.
func (r *round) run(lives int, length time.Duration) (*history.Report, error) {
	for life := range lives {
		if err := r.open(life == 0); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), length)
		r.live(ctx)
		cancel()
		if err := r.b.Close(); err != nil {
			return nil, fmt.Errorf("close: %w", err)
		}
		r.left()
	}
	if err := r.open(false); err != nil {
		return nil, err
	}
	err := r.drain()
	if err == nil {
		err = r.b.Check(context.Background())
	}
	for _, name := range r.topics() {
		err = errors.Join(err, r.b.DeleteTopic(name))
	}
	err = errors.Join(err, r.b.Close(), errors.Join(r.errs...))
	report := history.Check(r.rec.History())
	return report, errors.Join(err, report.Err())
}

// left notes that all members are gone.
func (r *round) left() {
	for _, g := range groups {
		r.rec.Add(history.Op{Kind: history.OpLeave, Group: g})
	}
}

func (r *round) open(first bool) (err error) {
	if r.b, err = mq.Open(r.dir, r.opts); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if !first {
		return nil
	}
	for i, name := range r.topics() {
		d := []mq.Durability{mq.Written, mq.Synced}[i]
		if err := r.b.CreateTopic(name, &mq.TopicConfig{Queues: 4, Durability: d}); err != nil {
			return fmt.Errorf("create topic: %w", err)
		}
	}
	return nil
}

// live runs everybody until ctx ends. Push consumers go with the broker.
func (r *round) live(ctx context.Context) {
	var all sync.WaitGroup
	start := func(n int, fn func(context.Context, *rand.Rand)) {
		for range n {
			r.seed++
			rnd := rand.New(rand.NewPCG(r.seed, 7))
			all.Go(func() { fn(ctx, rnd) })
		}
	}
	r.pushAs("push", false)
	r.pushAs("ordered", true)
	start(3, r.produce)
	start(3, r.pull)
	start(1, r.come)
	start(1, r.resets)
	start(1, r.trouble)
	all.Wait()
}

// ---- producers

// maxSent is how many messages a round has at most: its history is in memory.
const maxSent = 40_000

func (r *round) message(rnd *rand.Rand) (*mq.Message, history.Op) {
	r.mu.Lock()
	r.sent++
	id := fmt.Sprintf("%d-%d", r.number, r.sent)
	r.mu.Unlock()
	i := rnd.IntN(2)
	d := []history.Durability{history.Written, history.Synced}[i]
	body := id + " " + strings.Repeat("x", rnd.IntN(400))
	if rnd.IntN(20) == 0 {
		body += strings.Repeat("y", 60_000)
	}
	m := &mq.Message{Topic: r.topics()[i], Body: []byte(body), Keys: []string{id}}
	if rnd.IntN(3) == 0 {
		m.ShardingKey = fmt.Sprint("key-", rnd.IntN(20))
	}
	return m, history.Op{Kind: history.OpSend, ID: id, Topic: m.Topic, Hash: hash(m.Body), Durability: d}
}

func hash(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

func idOf(body []byte) string {
	id, _, _ := strings.Cut(string(body), " ")
	return id
}

func (r *round) enough() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent >= maxSent
}

func (r *round) produce(ctx context.Context, rnd *rand.Rand) {
	p, err := r.b.NewProducer(nil)
	if err != nil {
		r.failed("producer", err)
		return
	}
	defer p.Close()
	var pending sync.WaitGroup
	defer pending.Wait()
	for ctx.Err() == nil {
		pause(ctx, time.Duration(rnd.IntN(3))*time.Millisecond)
		if r.enough() {
			continue
		}
		switch rnd.IntN(4) {
		case 0:
			var ms []*mq.Message
			var ops []history.Op
			for range 1 + rnd.IntN(10) {
				m, op := r.message(rnd)
				ms, ops = append(ms, m), append(ops, op)
			}
			r.rec.Add(ops...)
			rs, err := p.SendBatch(context.Background(), ms)
			for i := range ops {
				r.ended(ops[i].ID, append(rs, make([]mq.SendResult, len(ops))...)[i], err)
			}
		case 1:
			m, op := r.message(rnd)
			r.rec.Add(op)
			pending.Add(1)
			err := p.SendAsync(context.Background(), m, func(res mq.SendResult, err error) {
				defer pending.Done()
				r.ended(op.ID, res, err)
			})
			if err != nil {
				pending.Done()
				r.ended(op.ID, mq.SendResult{}, err)
			}
		default:
			m, op := r.message(rnd)
			r.rec.Add(op)
			res, err := p.Send(context.Background(), m)
			r.ended(op.ID, res, err)
		}
	}
}

func (r *round) ended(id string, res mq.SendResult, err error) {
	switch {
	case err == nil:
		r.rec.Add(history.Op{Kind: history.OpSent, ID: id, Queue: int(res.Queue), Offset: int64(res.Offset)})
	case errors.Is(err, mq.ErrFull), errors.Is(err, mq.ErrBackpressure):
		r.rec.Add(history.Op{Kind: history.OpFailed, ID: id, Error: err.Error()})
	default:
		r.rec.Add(history.Op{Kind: history.OpUnknown, ID: id, Error: err.Error()})
		r.failed("send", err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// ---- consumers

func opOf(kind history.Kind, group, member string, m *mq.Message) history.Op {
	return history.Op{
		Kind: kind, Group: group, Member: member, Topic: m.Topic, Queue: int(m.Queue), Offset: int64(m.Offset),
		ID: idOf(m.Body), Hash: hash(m.Body), Durability: history.Written,
	}
}

var errAgain = errors.New("soak: not this time")

// pushAs joins a group with a handler that is slow at times, and fails at times.
func (r *round) pushAs(group string, ordered bool) *mq.PushConsumer {
	handler := func(_ context.Context, m *mq.Message) error {
		delivered := opOf(history.OpPoll, group, "", m)
		delivered.Unordered = true // handlers run side by side
		r.rec.Add(delivered)
		switch rand.IntN(40) {
		case 0:
			time.Sleep(10 * time.Millisecond)
		case 1:
			return errAgain
		case 2:
			panic(errAgain)
		}
		call := r.rec.Begin(opOf(history.OpAck, group, "", m))
		r.rec.Add(history.Op{Kind: history.OpAcked, Call: call})
		return nil
	}
	c, err := r.b.NewPushConsumer(group, handler, &mq.PushOptions{
		Ordered: ordered, Concurrency: 4, Backoff: func(int) time.Duration { return 5 * time.Millisecond },
	})
	if err != nil {
		r.failed("push", err)
		return nil
	}
	for _, name := range r.topics() {
		if err := c.Subscribe(name, mq.All); err != nil {
			r.failed("subscribe", err)
		}
	}
	return c
}

// pull is a member of a group for a while, and then another one.
func (r *round) pull(ctx context.Context, rnd *rand.Rand) {
	for ctx.Err() == nil {
		c := r.join("pull")
		if c == nil {
			return
		}
		for range 5 + rnd.IntN(200) {
			if ctx.Err() != nil {
				break
			}
			r.poll(c, rnd, time.Millisecond)
		}
		r.dealing.Lock()
		err := c.Close()
		r.rec.Add(history.Op{Kind: history.OpLeave, Group: "pull"})
		r.dealing.Unlock()
		if err != nil {
			r.failed("leave", err)
		}
	}
}

func (r *round) join(group string) *mq.PullConsumer {
	r.dealing.Lock()
	defer r.dealing.Unlock()
	defer r.rec.Add(history.Op{Kind: history.OpJoin, Group: group})
	c, err := r.b.NewPullConsumer(group, nil)
	for _, name := range r.topics() {
		if err == nil {
			err = c.Subscribe(name, mq.All)
		}
	}
	if err != nil {
		r.failed("join", err)
		return nil
	}
	return c
}

// poll takes some messages and commits some of them, in any order; it reports
// whether there were any.
func (r *round) poll(c *mq.PullConsumer, rnd *rand.Rand, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r.dealing.RLock()
	r.rec.Add(history.Op{Kind: history.OpPolling, Group: "pull", Member: c.Name()})
	ms, err := c.Poll(ctx, 1+rnd.IntN(64))
	for _, m := range ms {
		r.rec.Add(opOf(history.OpPoll, "pull", c.Name(), m))
	}
	r.dealing.RUnlock()
	if err != nil {
		if !errors.Is(err, context.DeadlineExceeded) {
			r.failed("poll", err)
		}
		return false
	}
	if rnd.IntN(10) == 0 {
		return true // they come again
	}
	rnd.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
	ops := make([]history.Op, len(ms))
	for i, m := range ms {
		ops[i] = opOf(history.OpAck, "pull", "", m)
	}
	call := r.rec.Begin(ops...)
	switch err := c.Commit(context.Background(), ms...); {
	case err == nil:
		r.rec.Add(history.Op{Kind: history.OpAcked, Call: call})
	default:
		r.rec.Add(history.Op{Kind: history.OpUnacked, Call: call})
		if !errors.Is(err, mq.ErrStale) {
			r.failed("commit", err)
		}
	}
	return true
}

// come has further members of the push groups join and leave.
func (r *round) come(ctx context.Context, rnd *rand.Rand) {
	for ctx.Err() == nil {
		ordered := rnd.IntN(2) == 0
		c := r.pushAs(map[bool]string{true: "ordered", false: "push"}[ordered], ordered)
		if c == nil {
			return
		}
		pause(ctx, time.Duration(rnd.IntN(200))*time.Millisecond)
		if err := c.Close(); err != nil {
			r.failed("leave", err)
		}
	}
}

// resets moves the pulling group now and then.
func (r *round) resets(ctx context.Context, rnd *rand.Rand) {
	for pause(ctx, time.Second); ctx.Err() == nil; pause(ctx, time.Duration(rnd.IntN(2000))*time.Millisecond) {
		name := r.topics()[rnd.IntN(2)]
		to := []mq.Whence{mq.Earliest, mq.Latest}[rnd.IntN(2)]
		r.dealing.Lock()
		call := r.rec.Begin(history.Op{Kind: history.OpReset, Group: "pull", Topic: name})
		err := r.b.ResetOffset("pull", name, to)
		r.rec.Add(history.Op{Kind: history.OpResetDone, Call: call})
		r.dealing.Unlock()
		if err != nil && !errors.Is(err, mq.ErrGroupNotFound) {
			r.failed("reset", err)
		}
	}
}

// trouble is a group that is reset while its slow handlers run, fails much, and
// is deleted, again and again. Nobody judges what it got.
func (r *round) trouble(ctx context.Context, rnd *rand.Rand) {
	handler := func(ctx context.Context, _ *mq.Message) error {
		pause(ctx, time.Duration(rand.IntN(20))*time.Millisecond)
		if rand.IntN(2) == 0 {
			return errAgain
		}
		return nil
	}
	name := r.topics()[0]
	for ctx.Err() == nil {
		c, err := r.b.NewPushConsumer("trouble", handler, &mq.PushOptions{Concurrency: 8, From: mq.Latest, Backoff: func(int) time.Duration { return time.Millisecond }})
		if err == nil {
			err = c.Subscribe(name, mq.All)
		}
		for range 5 {
			pause(ctx, time.Duration(rnd.IntN(50))*time.Millisecond)
			if err == nil {
				err = r.b.ResetOffset("trouble", name, mq.Latest)
			}
		}
		if err == nil {
			err = c.Close()
		}
		if err == nil {
			err = r.b.DeleteGroup("trouble")
		}
		if errors.Is(err, mq.ErrFull) { // no room to make the group again just now
			err = nil
			if c != nil {
				err = c.Close()
			}
		}
		if err != nil {
			r.failed("trouble", err)
			return
		}
	}
}

// ---- the end of a round

// drain has every group consume all there is.
func (r *round) drain() error {
	r.pushAs("push", false)
	r.pushAs("ordered", true)
	c := r.join("pull")
	if c == nil {
		return errors.Join(r.errs...)
	}
	rnd := rand.New(rand.NewPCG(r.seed, 8))
	limit := time.Now().Add(time.Minute)
	for _, g := range groups {
		for {
			total, _, err := r.b.Lag(g)
			if err != nil {
				return fmt.Errorf("lag of %s: %w", g, err)
			}
			if total == 0 {
				break
			}
			if time.Now().After(limit) {
				return fmt.Errorf("group %s has %d messages before it after a minute", g, total)
			}
			if g != "pull" {
				time.Sleep(time.Millisecond)
			} else if !r.poll(c, rnd, 50*time.Millisecond) { // what was not committed comes again to the next member
				r.dealing.Lock()
				err := c.Close()
				r.rec.Add(history.Op{Kind: history.OpLeave, Group: g})
				r.dealing.Unlock()
				if c = r.join(g); err != nil || c == nil {
					return errors.Join(append(r.errs, err)...)
				}
			}
		}
		for _, name := range r.topics() {
			r.rec.Add(history.Op{Kind: history.OpDrained, Group: g, Topic: name})
		}
	}
	return nil
}
