package mq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pocketmq/mq/internal/history"
)

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
		l.judge.Add(pm.send())
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
	l.judge.Add(history.Op{Kind: history.OpSync, Call: l.calls})
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
		l.judge.Add(m.ended(history.OpFailed))
	}
}

// sent notes how a call ended.
func (l *powerRun) sent(all []*powerMessage, rs []SendResult, err error) bool {
	if err != nil {
		if errors.Is(err, ErrDiskFull) || errors.Is(err, ErrFull) {
			l.refuse(all)
		} // else nobody knows
		return l.goesOn("send", err)
	}
	synced := slices.ContainsFunc(all, func(m *powerMessage) bool { return m.topic.durability == Synced })
	l.mu.Lock()
	for i, m := range all {
		l.placed(m, rs[i])
		l.trace.note("  %d is at %s:%d@%d", m.number, m.Topic, m.Queue, m.Offset)
		l.stats.sent++
		op := m.sent()
		if synced {
			op.Durability = history.Synced
		}
		l.judge.Add(op)
	}
	if synced { // and with it everything before
		l.judge.Add(history.Op{Kind: history.OpSyncDone, Call: all[0].call})
	}
	l.mu.Unlock()
	if synced {
		l.topicsSynced()
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
		l.judge.Add(pm.send(), history.Op{Kind: history.OpSync, Call: pm.call})
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
				l.holders[pm.as] = doubtful
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
		if !m.gone && m.known && m.ID.position >= l.b.log.Start() {
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
	l.judge.Add(repeat.ended(history.OpFailed), m.sent())
}

func (l *powerRun) syncAll() bool {
	call := l.begin(history.Op{Kind: history.OpSync})
	err := l.b.Sync(context.Background())
	if err == nil {
		l.tell(history.Op{Kind: history.OpSyncDone, Call: call})
		l.topicsSynced()
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
	l.mu.Lock()
	l.labels++
	t := &powerTopic{name: name, label: fmt.Sprintf("%s/%d", name, l.labels), durability: d}
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
	l.judge.Add(history.Op{Kind: history.OpDeleted, Topic: t.label})
	l.mu.Unlock()
	err := l.b.DeleteTopic(t.name)
	if err == nil {
		l.mu.Lock()
		l.forgetTopic(t)
		l.mu.Unlock()
	}
	return l.goesOn("delete topic", err)
}
