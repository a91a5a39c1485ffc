package mq

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/crashfs"
)

// powerLife is a store that loses its power again and again, on a file system
// that then forgets what was not synced. (The journal is on a real disk that
// forgets nothing, which is one of the things that can happen to it.)
type powerLife struct {
	*testing.T
	rnd *rand.Rand
	dir string
	fs  *crashfs.FS
	b   *Broker
	p   *Producer
	c   *PullConsumer

	log       bytes.Buffer   // of all lives
	sent      []powerMessage // in the order of the log
	ids       map[MessageID]bool
	number    int
	committed map[Queue]map[Offset]bool // synced
	unsynced  []*Message                // committed, and not known to be synced
	out       int                       // polled and not committed
}

type powerMessage struct {
	SendResult
	body  string
	acked bool // as synced
}

// TestPowerCuts: what was acknowledged as synced, messages and acknowledgements,
// survives any power cut; the log is a prefix of what was written, and everything
// else is a fold over it; offsets are dense; ids do not come back.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	histories := 40
	if testing.Short() {
		histories = 10
	}
	for range histories {
		seed := rand.Uint64()
		l := &powerLife{
			T: t, rnd: rand.New(rand.NewPCG(seed, 0)), dir: filepath.Join(t.TempDir(), "store"),
			ids: map[MessageID]bool{}, committed: map[Queue]map[Offset]bool{},
		}
		l.fs = crashfs.New(crashfs.Options{Seed: seed})
		require.NoError(t, l.fs.MkdirAll(l.dir))
		for d := l.dir; d != filepath.Dir(d); d = filepath.Dir(d) {
			require.NoError(t, l.fs.SyncDir(filepath.Dir(d)))
		}
		for life := range 4 {
			l.live()
			if t.Failed() {
				t.Fatalf("seed %d, life %d\n%s", seed, life, l.log.String())
			}
		}
	}
}

// live opens what the last power cut left, looks at it, and works until the
// power goes.
func (l *powerLife) live() {
	if l.rnd.IntN(3) == 0 {
		l.fs.CutAt(1 + l.rnd.Int64N(60)) // perhaps while it is opened
	}
	opts := (&Options{SegmentBytes: mib, Retention: Retention{Age: -1}, SyncEvery: 10 * time.Millisecond}).withDefaults(false)
	opts.Logger = slog.New(slog.NewTextHandler(&l.log, nil))
	l.b = newBroker(opts, l.fs, l.dir)
	end := l.b.Close
	err := l.b.open()
	if err != nil {
		if !l.fs.Off() {
			l.Errorf("does not open: %v", err)
		}
		end = l.b.release
	} else if err = l.looked(); err == nil {
		l.fs.CutAt(1 + l.rnd.Int64N(200))
		err = l.work()
	}
	if err == nil && l.rnd.IntN(4) == 0 { // for once
		l.fs.CutAt(0)
		require.NoError(l, end())
		l.settled()
		return
	}
	left := l.fs.Crash(l.rnd)
	_ = end() // it cannot do what it wants to
	l.fs = left
}

// looked compares what there is with what must be and what may be there.
func (l *powerLife) looked() error {
	l.b.opts.Logger.Info("opened", "recovery", l.b.Recovery(), "written", l.b.log.Written(), "checkpoint", l.b.upkeep.checkpointed.Load())
	if !l.fs.Off() && l.b.Recovery().Corrupt != nil {
		l.Errorf("corrupt: %v", l.b.Recovery().Corrupt)
	}
	gone := false
	var kept []powerMessage
	ends := map[Queue]Offset{}
	for _, m := range l.sent {
		got, err := l.b.MessageByID(m.ID)
		if l.fs.Off() {
			return crashfs.ErrPowerCut
		}
		if err != nil {
			if m.acked {
				l.Errorf("%v offset %d was acknowledged as synced: %v", m.Topic, m.Offset, err)
			}
			gone = true
			continue
		}
		if gone {
			l.Errorf("%v offset %d is there, and something before it is not", m.Topic, m.Offset)
		}
		require.Equal(l, m.body, string(got.Body))
		kept = append(kept, m)
		ends[Queue{m.Topic, m.Queue}] = m.Offset + 1
	}
	l.sent = kept
	for _, name := range l.b.Topics() {
		for _, q := range *l.b.names.topic(name).queues.Load() {
			l.dense(q, ends[q.name()])
		}
	}
	if err := l.b.Check(l.Context()); err != nil && !l.fs.Off() {
		l.Errorf("check: %v", err)
	}
	return l.join()
}

// dense checks that the queue has all offsets up to end at least. What was being
// sent when the power went may be there as well.
func (l *powerLife) dense(q *queue, end Offset) {
	if q.entries.Min() != 0 || q.entries.End() < end {
		l.Errorf("%v begins at %d and ends at %d, want 0 and at least %d", q.name(), q.entries.Min(), q.entries.End(), end)
	}
	for off := range q.entries.End() {
		var e [1]consumequeue.Entry
		if n, err := q.entries.Read(off, e[:]); !l.fs.Off() && (n != 1 || err != nil || e[0].Hole()) {
			l.Errorf("%v offset %d of %d is a hole: %v", q.name(), off, q.entries.End(), err)
		}
	}
}

// join makes the consumer and the producer.
func (l *powerLife) join() (err error) {
	for name, d := range map[string]Durability{"S": Synced, "W": Written} {
		if _, err := l.b.Topic(name); err == nil {
			continue
		}
		if err := l.b.CreateTopic(name, &TopicConfig{Queues: 2, Durability: d}); err != nil {
			return err
		}
	}
	if l.p, err = l.b.NewProducer(nil); err != nil {
		return err
	}
	if l.c, err = l.b.NewPullConsumer("G", &PullOptions{AckDurability: Synced}); err != nil {
		return err
	}
	for _, name := range []string{"S", "W"} {
		if err := l.c.Subscribe(name, All); err != nil {
			return err
		}
	}
	l.unsynced, l.out = nil, 0
	return nil
}

// work sends and consumes until the power goes.
func (l *powerLife) work() error {
	for range 40 + l.rnd.IntN(100) {
		var err error
		switch l.rnd.IntN(12) {
		case 0, 1, 2, 3, 4:
			err = l.send()
		case 5:
			if err = l.b.Sync(l.Context()); err == nil {
				l.settled()
			}
		case 6:
			err = l.checkpoint()
		default:
			err = l.consume()
		}
		if err != nil {
			if !l.fs.Off() {
				l.Errorf("while there was power: %v", err)
			}
			return err
		}
	}
	return nil
}

// checkpoint has the broker make one, and waits for it.
func (l *powerLife) checkpoint() error {
	u := &l.b.upkeep
	before := u.checkpoints.Load()
	u.wantCheckpoint()
	for u.checkpoints.Load() == before {
		if l.fs.Off() {
			return crashfs.ErrPowerCut
		}
		<-time.After(100 * time.Microsecond)
	}
	if l.rnd.IntN(3) == 0 { // what it says must hold from now on
		l.fs.CutAt(1 + l.rnd.Int64N(3))
	}
	l.b.opts.Logger.Info("checkpoint", "from", u.checkpointed.Load())
	return nil
}

// settled notes that everything so far is synced.
func (l *powerLife) settled() {
	for i := range l.sent {
		l.sent[i].acked = true
	}
	for _, m := range l.unsynced {
		q := Queue{m.Topic, m.Queue}
		if l.committed[q] == nil {
			l.committed[q] = map[Offset]bool{}
		}
		l.committed[q][m.Offset] = true
	}
	l.unsynced = nil
}

func (l *powerLife) send() error {
	var ms []*Message
	for range 1 + l.rnd.IntN(3)*l.rnd.IntN(3) {
		l.number++
		body := fmt.Sprintf("%d%*d", l.number, l.rnd.IntN(20_000), 0)
		ms = append(ms, &Message{Topic: []string{"S", "W", "W", "W", "W", "W"}[l.rnd.IntN(6)], Keys: []string{"k"}, Body: []byte(body)})
	}
	results, err := l.p.SendBatch(l.Context(), ms)
	if err != nil {
		return err // it may be there, or not
	}
	synced := false
	for i, r := range results {
		if l.ids[r.ID] {
			l.Errorf("id %v again", r.ID)
		}
		l.ids[r.ID] = true
		l.sent = append(l.sent, powerMessage{r, string(ms[i].Body), false})
		synced = synced || r.Topic == "S"
	}
	if synced { // and with it everything before
		l.settled()
	}
	return nil
}

func (l *powerLife) consume() error {
	lag, _, err := l.b.Lag("G")
	if err != nil || lag <= int64(l.out) { // Poll would wait
		return err
	}
	ctx, cancel := context.WithTimeout(l.Context(), time.Second) // without power it may wait all the same
	defer cancel()
	ms, err := l.c.Poll(ctx, 8)
	if err != nil {
		return err
	}
	l.out += len(ms)
	for _, m := range ms {
		if l.committed[Queue{m.Topic, m.Queue}][m.Offset] {
			l.Errorf("%s:%d offset %d was committed as synced and comes again", m.Topic, m.Queue, m.Offset)
		}
	}
	l.rnd.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
	ms = ms[:1+l.rnd.IntN(len(ms))]
	if err := l.c.Commit(l.Context(), ms...); err != nil {
		return err
	}
	l.out -= len(ms)
	l.unsynced = ms
	l.settled() // the log is synced up to that acknowledgement
	return nil
}
