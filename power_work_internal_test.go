package mq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// powerPull is a member of a group that polls, with what it has not committed.
type powerPull struct {
	*PullConsumer
	group *powerGroup
	out   []*Message
}

// join makes producer, members and a handler.
func (l *powerRun) join() bool {
	var err error
	if l.p, err = l.b.NewProducer(nil); err != nil {
		return l.goesOn("producer", err)
	}
	l.pulls = nil
	for _, name := range []string{"S", "W", "X"} {
		l.mu.Lock()
		known := l.topics[name] != nil
		l.mu.Unlock()
		if !known && !l.createTopic(name) {
			return false
		}
	}
	for _, name := range []string{"G", "G", "H"} {
		if !l.joinPull(l.groups[name]) {
			return false
		}
	}
	return l.joinPush(l.groups["P"])
}

func (l *powerRun) joinPull(g *powerGroup) bool {
	c, err := l.b.NewPullConsumer(g.name, &PullOptions{AckDurability: g.acks})
	if err != nil {
		return l.goesOn("join", err)
	}
	l.pulls = append(l.pulls, &powerPull{PullConsumer: c, group: g})
	return l.subscribe(g, c.Subscribe, l.names()...)
}

func (l *powerRun) subscribe(g *powerGroup, subscribe func(string, Filter) error, names ...string) bool {
	for _, name := range names {
		l.mu.Lock()
		t := l.topics[name]
		g.sub(t) // also if nobody knows
		l.mu.Unlock()
		if err := subscribe(name, All); err != nil {
			return l.goesOn("subscribe", err)
		}
	}
	return true
}

func (l *powerRun) joinPush(g *powerGroup) bool {
	rnd := rand.New(rand.NewPCG(l.rnd.Uint64(), 1)) // handlers run one at a time, under mu
	ordered := l.rnd.IntN(3) > 0
	poison := fmt.Sprint(l.rnd.IntN(8)) // a key that always fails, or none
	handler := func(_ context.Context, m *Message) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		pm, sub := l.deliveredLocked(g, m)
		if pm == nil {
			return nil
		}
		l.trace.note("  %s handles %s, attempt %d", g.name, described([]*Message{m}), m.Attempt)
		gen := sub.gen
		current := func() bool { return sub.gen == gen && int64(m.origin.start) == m.origin.cursor.current.Load() }
		if ordered && gen%2 == 0 && current() && l.alive(pm.topic) && !l.fs.Off() {
			l.inOrderLocked(sub, pm)
		}
		sub.done[pm.number] = powerTried
		if nap := rnd.IntN(4); nap > 1 {
			l.mu.Unlock()
			time.Sleep(time.Duration(nap) * time.Millisecond)
			l.mu.Lock()
		}
		// What fails without an order is stored again, under another position: the
		// histories do not follow that yet (delay_power_internal_test.go does).
		failed := ordered && (rnd.IntN(6) == 0 || m.ShardingKey == poison)
		switch {
		case !current(): // it was handed out before a reset
			sub.done[pm.number] = powerTried
		case failed:
			sub.done[pm.number] = powerTried
			sub.failing[pm.number] = true
		default:
			sub.done[pm.number] = powerVolatile
			delete(sub.failing, pm.number)
			l.stats.acked++
		}
		if failed {
			return errors.New("not this time")
		}
		return nil
	}
	backoff := func(int) time.Duration { return 5 * time.Millisecond }
	var err error
	o := &PushOptions{Concurrency: 1 + l.rnd.IntN(3), Backoff: backoff, Ordered: ordered, MaxAttempts: -1}
	if ordered {
		o.PrefetchMessages = 1 + l.rnd.IntN(12)
	}
	l.push, err = l.b.NewPushConsumer(g.name, handler, o)
	if err != nil {
		return l.goesOn("join", err)
	}
	return l.subscribe(g, l.push.Subscribe, l.names()...)
}

// names lists the topics that are there for sure.
func (l *powerRun) names() (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(l.topics)) {
		if l.alive(l.topics[name]) {
			names = append(names, name)
		}
	}
	return names
}

// goesOn tells whether work goes on after an error: not without power, nor in a
// poisoned store. Without anything that was to fail it is a flaw.
func (l *powerRun) goesOn(what string, err error) bool {
	if err == nil {
		return !l.fs.Off()
	}
	l.trace.note("%s: %v", what, err)
	full := errors.Is(err, ErrDiskFull) && (l.limited || l.hurt) || errors.Is(err, ErrFull) && l.opts.Retention.MaxBytes > 0
	if !l.fs.Off() && !l.faulty && !l.hurt && !full {
		l.flaw("%s: %v", what, err)
	}
	return full && !l.fs.Off() || !l.fs.Off() && l.b.log.Err() == nil
}

// work does things until the power goes, the log is poisoned, or it is enough.
func (l *powerRun) work() {
	acts := []struct {
		weight int
		name   string
		do     func() bool
	}{
		{10, "send", l.send}, {2, "send async", l.sendAsync}, {1, "send one-way", l.sendOneWay}, {4, "send again", l.sendAgain},
		{10, "consume", l.consume}, {3, "commit later", l.commitLater}, {3, "rest", l.rest}, {2, "sync", l.syncAll},
		{2, "checkpoint", l.checkpoint}, {1, "reset", l.reset}, {1, "join", l.another}, {1, "leave", l.leave},
		{1, "create topic", l.newTopic}, {1, "delete topic", l.deleteTopic},
	}
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	for range 30 + l.rnd.IntN(100) {
		n := l.rnd.IntN(total)
		for _, a := range acts {
			if n -= a.weight; n < 0 {
				l.trace.note("%s", a.name)
				if !a.do() || l.failed() || l.fs.Off() {
					return
				}
				break
			}
		}
	}
}

// rest lets the broker's goroutines do what time tells them.
func (l *powerRun) rest() bool {
	time.Sleep(time.Duration(l.rnd.IntN(30)) * time.Millisecond)
	return true
}

// ---- sending

// messagesOf makes messages of one call.
func (l *powerRun) messagesOf(n int) (ms []*Message, all []*powerMessage) {
	names := l.names()
	if len(names) == 0 {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	for range n {
		pad := 1 + l.rnd.IntN(300)
		if l.rnd.IntN(2) == 0 {
			pad = 1 + l.rnd.IntN(30_000)
		}
		if l.heavy {
			pad *= 4
		}
		pm := &powerMessage{number: len(l.numbers) + 1, pad: pad, call: l.calls, topic: l.topics[names[l.rnd.IntN(len(names))]]}
		l.numbers[pm.number] = pm
		l.messages = append(l.messages, pm)
		m := &Message{Topic: pm.topic.name, Keys: []string{"k"}, Body: []byte(pm.body())}
		if pm.keyed = l.rnd.IntN(2) == 0; pm.keyed {
			m.DedupKey = pm.dedupKey()
		}
		if l.rnd.IntN(3) == 0 {
			pm.key = fmt.Sprint(l.rnd.IntN(4))
			m.ShardingKey = pm.key
		}
		ms, all = append(ms, m), append(all, pm)
	}
	return ms, all
}

func patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}

func (l *powerRun) send() bool {
	ms, all := l.messagesOf(1 + l.rnd.IntN(3)*l.rnd.IntN(3))
	if ms == nil {
		return true
	}
	ctx, cancel := patience()
	defer cancel()
	if len(ms) == 1 {
		r, err := l.p.Send(ctx, ms[0])
		return l.sent(all, []SendResult{r}, err)
	}
	rs, err := l.p.SendBatch(ctx, ms)
	return l.sent(all, rs, err)
}

func (l *powerRun) sendAsync() bool {
	ms, all := l.messagesOf(1)
	if ms == nil {
		return true
	}
	ctx, cancel := patience()
	defer cancel()
	var got SendResult
	var failed error
	called := make(chan struct{})
	err := l.p.SendAsync(ctx, ms[0], func(r SendResult, err error) {
		got, failed = r, err
		close(called)
	})
	if err == nil {
		<-called
		err = failed
	}
	return l.sent(all, []SendResult{got}, err)
}

func (l *powerRun) sendOneWay() bool {
	ms, all := l.messagesOf(1)
	if ms == nil {
		return true
	}
	err := l.p.SendOneWay(ms[0])
	if err == nil {
		return true // it is on its way, and nobody will tell
	}
	if errors.Is(err, ErrBackpressure) {
		l.refuse(all)
		return true
	}
	return l.sent(all, nil, err)
}

func (l *powerRun) refuse(all []*powerMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range all {
		m.refused = true
	}
}

// sent notes how a call ended.
func (l *powerRun) sent(all []*powerMessage, rs []SendResult, err error) bool {
	if err != nil {
		if errors.Is(err, ErrDiskFull) || errors.Is(err, ErrFull) {
			l.refuse(all)
		}
		return l.goesOn("send", err)
	}
	synced := false
	l.mu.Lock()
	for i, m := range all {
		l.placed(m, rs[i])
		l.trace.note("  %d is at %s:%d@%d", m.number, m.Topic, m.Queue, m.Offset)
		m.sent = true
		l.stats.sent++
		synced = synced || m.topic.durability == Synced
	}
	l.mu.Unlock()
	if synced { // and with it everything before
		l.synced()
	}
	return true
}

// sendAgain repeats messages that were tried to be sent in some life. What is
// there is not stored again and keeps its place; what is not is stored once, as
// if it was new.
func (l *powerRun) sendAgain() bool {
	l.mu.Lock()
	var ms []*Message
	var old []*powerMessage
	for range 1 + l.rnd.IntN(3) {
		m := l.numbers[1+l.rnd.IntN(max(1, len(l.numbers)))]
		if m == nil || !m.keyed || m.refused || !l.alive(m.topic) || slices.Contains(old, m) || l.holder(m) != m {
			continue
		}
		old = append(old, m)
		ms = append(ms, &Message{Topic: m.topic.name, DedupKey: m.dedupKey(), Keys: []string{"k"}})
	}
	// Each gets a number, in case it is stored, and is a call of its own: some of
	// them may be.
	all := make([]*powerMessage, 0, len(ms))
	for i, m := range old {
		l.calls++
		pm := &powerMessage{number: len(l.numbers) + 1, pad: 1, call: l.calls, topic: m.topic, keyed: true, as: m.dedupKey(), instead: m}
		l.numbers[pm.number] = pm
		l.messages = append(l.messages, pm)
		ms[i].Body = []byte(pm.body())
		all = append(all, pm)
	}
	l.mu.Unlock()
	if len(ms) == 0 {
		return true
	}
	ctx, cancel := patience()
	defer cancel()
	rs, err := l.p.SendBatch(ctx, ms)
	if err != nil {
		ok := l.sent(all, nil, err)
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, pm := range all {
			if !pm.refused { // it may be there
				l.holders[pm.as] = pm
			}
		}
		return ok
	}
	l.mu.Lock()
	var stored []*powerMessage
	var results []SendResult
	for i, m := range old {
		if rs[i].Duplicate {
			l.repeated(m, all[i], rs[i])
			continue
		}
		if !m.gone && m.sent && m.known && m.ID.position >= l.b.log.Start() {
			l.flawLocked("message %d at %+v was sent again and stored again at %+v", m.number, m.SendResult, rs[i])
		}
		l.holders[m.dedupKey()] = all[i]
		stored, results = append(stored, all[i]), append(results, rs[i])
	}
	l.mu.Unlock()
	return l.sent(stored, results, nil)
}

// repeated notes that a message was a repeat of m, and so of no other.
func (l *powerRun) repeated(m, repeat *powerMessage, r SendResult) {
	l.stats.repeats++
	repeat.refused = true
	if m.gone {
		l.flawLocked("message %d is gone, and a repeat of it is one of %+v", m.number, r)
	}
	r.Duplicate = false
	l.placed(m, r)
	m.sent = true
	m.durable = m.durable || m.topic.durability == Synced
}

// ---- consuming

func (l *powerRun) aPull() *powerPull {
	if len(l.pulls) == 0 {
		return nil
	}
	return l.pulls[l.rnd.IntN(len(l.pulls))]
}

func (l *powerRun) consume() bool {
	c := l.aPull()
	if c == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	ms, err := c.Poll(ctx, 1+l.rnd.IntN(20))
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	if err != nil {
		return l.goesOn("poll", err)
	}
	l.trace.note("%s polled %s", c.name, described(ms))
	l.mu.Lock()
	for _, m := range ms {
		l.deliveredLocked(c.group, m)
	}
	l.mu.Unlock()
	l.rnd.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
	n := l.rnd.IntN(len(ms) + 1)
	c.out = append(c.out, ms[n:]...)
	return l.commit(c, ms[:n])
}

// described lists messages by number and place.
func described(ms []*Message) string {
	var b strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&b, " %d=%s:%d@%d", numberOf(m.Body), m.Topic, m.Queue, m.Offset)
	}
	return b.String()
}

func (l *powerRun) commitLater() bool {
	c := l.aPull()
	if c == nil {
		return true
	}
	n := l.rnd.IntN(len(c.out) + 1)
	ms := c.out[:n]
	c.out = c.out[n:]
	return l.commit(c, ms)
}

func (l *powerRun) commit(c *powerPull, ms []*Message) bool {
	if len(ms) == 0 {
		return true
	}
	l.mark(c.group, ms, powerTried)
	err := c.Commit(context.Background(), ms...)
	l.trace.note("%s of %s commits %s: %v", c.name, c.group.name, described(ms), err)
	switch {
	case errors.Is(err, ErrStale): // some of them, and nobody knows which
		return true
	case err != nil:
		return l.goesOn("commit", err)
	}
	l.mark(c.group, ms, powerWritten)
	if c.group.acks == Synced { // and with it everything before
		l.synced()
	}
	return true
}

// mark notes that a group is done with messages.
func (l *powerRun) mark(g *powerGroup, ms []*Message, ack powerAck) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range ms {
		pm := l.numbers[numberOf(m.Body)]
		if pm == nil || !l.alive(pm.topic) {
			continue
		}
		sub := g.sub(pm.topic)
		if sub.done[pm.number] < ack {
			sub.done[pm.number] = ack
			if ack == powerWritten {
				l.stats.acked++
			}
		}
	}
}

func (l *powerRun) another() bool {
	if len(l.pulls) > 5 {
		return true
	}
	return l.joinPull(l.groups[[]string{"G", "H"}[l.rnd.IntN(2)]])
}

func (l *powerRun) leave() bool {
	if len(l.pulls) == 0 {
		return true
	}
	i := l.rnd.IntN(len(l.pulls))
	c := l.pulls[i]
	l.pulls = slices.Delete(l.pulls, i, i+1)
	return l.goesOn("leave", c.Close())
}

// reset moves a group. What it has done since it began to be moved, and before
// that ended, counts for nothing.
func (l *powerRun) reset() bool {
	names := l.names()
	if len(names) == 0 {
		return true
	}
	name := names[l.rnd.IntN(len(names))]
	g := l.groups[[]string{"G", "H", "P"}[l.rnd.IntN(3)]]
	route, err := l.b.Route(name)
	if err != nil {
		return l.goesOn("route", err)
	}
	q := route[l.rnd.IntN(len(route))]
	off := q.Start + Offset(l.rnd.Int64N(int64(q.End-q.Start)+1))
	to := []Whence{Earliest, Latest, AtOffset(q.Queue, off)}[l.rnd.IntN(3)]
	l.trace.note("reset %s in %s to %v", g.name, name, to)
	begun, had := l.movedTo(g, name, to, false)
	err = l.b.ResetOffset(g.name, name, to)
	l.movedTo(g, name, to, true)
	l.mu.Lock()
	if err == nil && to.kind == whenceEarliest {
		clear(begun.excused)
		l.excuseDropped(begun, name)
	}
	for _, n := range had {
		if err != nil { // it may not have been moved
			begun.done[n] = powerTried
		}
	}
	l.mu.Unlock()
	return l.goesOn("reset", err)
}

// excuseDropped notes what of a topic retention has dropped already.
func (l *powerRun) excuseDropped(sub *powerSub, name string) {
	t := l.b.names.topic(name)
	if t == nil {
		return
	}
	queues := *t.queues.Load()
	for _, m := range l.messages {
		if m.topic.id == t.id && m.known && m.Offset < queues[m.Queue].entries.Min() {
			sub.excused[m.number] = true
		}
	}
}

// movedTo is called before a reset and after it. What a handler has done in
// between may count or not.
func (l *powerRun) movedTo(g *powerGroup, name string, to Whence, over bool) (sub *powerSub, had []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[name]
	sub = g.sub(t)
	sub.gen++
	clear(sub.failing)
	for _, m := range l.messages {
		if m.topic != t {
			continue
		}
		if to.kind == whenceOffset && m.known && m.Queue != to.queue.ID {
			// Acknowledged it stays; what is handled and not yet acknowledged comes
			// again, for it was handed out under the start before.
			if sub.done[m.number] == powerVolatile {
				sub.done[m.number] = powerTried
			}
			continue
		}
		if to.kind == whenceLatest || to.kind == whenceOffset && (!m.known || m.Offset < to.offset) {
			sub.excused[m.number] = true
		}
		if over && sub.done[m.number] != 0 {
			sub.done[m.number] = powerTried
		} else if !over && sub.done[m.number] != 0 {
			delete(sub.done, m.number)
			had = append(had, m.number)
		}
	}
	return sub, had
}

// ---- the store

func (l *powerRun) syncAll() bool {
	err := l.b.Sync(context.Background())
	if err == nil {
		l.synced()
	}
	return l.goesOn("sync", err)
}

// checkpoint has the broker make one, and waits for it.
func (l *powerRun) checkpoint() bool {
	u := &l.b.upkeep
	before := u.checkpoints.Load()
	u.wantCheckpoint()
	for range 1000 {
		if l.fs.Off() || l.faulty || l.limited || l.b.log.Err() != nil {
			return true
		}
		if u.checkpoints.Load() != before {
			if l.rnd.IntN(3) == 0 { // what it says must hold from now on
				l.fs.CutAt(1 + l.rnd.Int64N(3))
			}
			return true
		}
		time.Sleep(time.Millisecond)
	}
	l.flaw("no checkpoint in a second")
	return false
}

func (l *powerRun) newTopic() bool {
	name := fmt.Sprintf("T%d", l.rnd.IntN(4))
	l.mu.Lock()
	known := l.topics[name] != nil
	l.mu.Unlock()
	return known || l.createTopic(name)
}

func (l *powerRun) createTopic(name string) bool {
	d := map[string]Durability{"S": Synced, "W": Written}[name]
	if d == 0 {
		d = []Durability{Synced, Written}[l.rnd.IntN(2)]
	}
	t := &powerTopic{name: name, durability: d}
	l.mu.Lock()
	l.topics[name] = t
	l.mu.Unlock()
	if err := l.b.CreateTopic(name, &TopicConfig{Queues: 1 + l.rnd.IntN(3), Durability: d, Dedup: DedupWindow{For: time.Hour}}); err != nil {
		if errors.Is(err, ErrDiskFull) || errors.Is(err, ErrFull) {
			l.mu.Lock()
			delete(l.topics, name)
			l.mu.Unlock()
		}
		return l.goesOn("create topic", err)
	}
	l.mu.Lock()
	t.id, t.durable = l.b.names.topic(name).id, d == Synced
	l.mu.Unlock()
	for _, c := range l.pulls {
		if !l.subscribe(c.group, c.Subscribe, name) {
			return false
		}
	}
	if l.push != nil && len(l.pulls) > 0 {
		return l.subscribe(l.groups["P"], l.push.Subscribe, name)
	}
	return true
}

func (l *powerRun) deleteTopic() bool {
	names := l.names()
	if len(names) < 3 {
		return true
	}
	l.mu.Lock()
	t := l.topics[names[l.rnd.IntN(len(names))]]
	t.dying = true
	l.mu.Unlock()
	err := l.b.DeleteTopic(t.name)
	if err == nil {
		l.mu.Lock()
		l.forgetTopic(t)
		l.mu.Unlock()
	}
	return l.goesOn("delete topic", err)
}
