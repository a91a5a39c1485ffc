package mq

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/crashfs"
	"github.com/pocketmq/mq/internal/record"
)

// delayLife is a store of delayed messages that loses its power again and again.
type delayLife struct {
	*testing.T
	rnd *rand.Rand
	dir string
	fs  *crashfs.FS
	b   *Broker
	p   *Producer

	log    bytes.Buffer
	number int
	sent   map[string]*delayedMessage // by body
}

type delayedMessage struct {
	SendResult
	synced   bool // as a message
	recalled bool // a recall was answered: it never comes
	maybe    bool // a recall was not: it comes once or never
	seen     bool // delivered and synced: it is there for ever
}

// TestDelayPowerCuts: whatever power cut comes at whatever point, a message that
// was acknowledged as synced is delivered, and none is delivered twice; a recall
// that was answered holds; what is counted is what is there.
func TestDelayPowerCuts(t *testing.T) {
	t.Parallel()
	histories := 40
	if testing.Short() {
		histories = 10
	}
	for range histories {
		seed := rand.Uint64()
		l := &delayLife{
			T: t, rnd: rand.New(rand.NewPCG(seed, 0)), dir: filepath.Join(t.TempDir(), "store"),
			sent: map[string]*delayedMessage{},
		}
		l.fs = crashfs.New(crashfs.Options{Seed: seed})
		durableDir(t, l.fs, l.dir)
		for life := range 5 {
			l.live(life == 4)
			if t.Failed() {
				t.Fatalf("seed %d, life %d\n%s", seed, life, l.log.String())
			}
		}
	}
}

// live opens what the last power cut left, and works until the power goes; the
// last life waits for everything.
func (l *delayLife) live(last bool) {
	if !last && l.rnd.IntN(3) == 0 {
		l.fs.CutAt(1 + l.rnd.Int64N(60))
	}
	age := []time.Duration{-1, time.Millisecond}[l.rnd.IntN(2)]
	opts := (&Options{SegmentBytes: mib, Retention: Retention{Age: age}, SyncEvery: 10 * time.Millisecond}).withDefaults(false)
	opts.Logger = slog.New(slog.NewTextHandler(&l.log, nil))
	l.b = newBroker(opts, l.fs, l.dir)
	end := l.b.Close
	err := l.b.open()
	if err != nil {
		if !l.fs.Off() {
			l.Errorf("does not open: %v", err)
		}
		end = l.b.release
	} else if err = l.looked(); err == nil && !last {
		l.fs.CutAt(1 + l.rnd.Int64N(300))
		err = l.work()
	}
	if last {
		l.fs.CutAt(0)
		require.NoError(l, err)
		for l.b.Stats().Waiting > 0 {
			<-time.After(time.Millisecond)
		}
		require.NoError(l, l.looked())
		l.complete()
		require.NoError(l, end())
		return
	}
	if err == nil || l.b.timer.cancel != nil {
		l.b.timer.stop() // no store may be under way
	}
	left := l.fs.Crash(l.rnd)
	_ = end() // it cannot do what it wants to
	l.fs = left
}

// looked reads all there is and compares.
func (l *delayLife) looked() error {
	if !l.fs.Off() && l.b.Recovery().Corrupt != nil {
		l.Errorf("corrupt: %v", l.b.Recovery().Corrupt)
	}
	found := map[string]int{}
	for _, name := range l.b.Topics() {
		for _, q := range *l.b.names.topic(name).queues.Load() {
			for off := q.entries.Min(); off < q.entries.End(); off++ {
				m := l.at(q, off)
				if l.fs.Off() {
					return crashfs.ErrPowerCut
				}
				if m == nil {
					continue
				}
				found[string(m.Body)]++
				d := l.sent[string(m.Body)]
				switch {
				case d == nil:
					continue // its send was not answered
				case d.recalled:
					l.Errorf("message %.10s was recalled, and is delivered", m.Body)
				case m.ID != d.ID:
					l.Errorf("message %.10s has id %v, was sent as %v", m.Body, m.ID, d.ID)
				}
				d.seen = d.seen || visible(l.entry(q, off), l.b.log.Synced())
			}
		}
	}
	for body, n := range found {
		if n > 1 {
			l.Errorf("message %.10s is delivered %d times", body, n)
		}
	}
	for body, d := range l.sent {
		if d.recalled || d.maybe || found[body] > 0 || l.dropped() {
			continue
		}
		_, err := l.b.MessageByID(d.ID)
		if l.fs.Off() {
			return crashfs.ErrPowerCut
		}
		if l.dropped() {
			break // meanwhile
		}
		if err != nil && d.synced {
			l.Errorf("message %.10s was acknowledged as synced, neither waits nor is there: %v", body, err)
		}
		if err != nil {
			delete(l.sent, body)
		}
	}
	if err := l.b.Check(l.Context()); err != nil && !l.fs.Off() {
		l.Errorf("check: %v", err)
	}
	for name, d := range map[string]Durability{"S": Synced, "W": Written} {
		if _, err := l.b.Topic(name); err == nil {
			continue
		}
		if err := l.b.CreateTopic(name, &TopicConfig{Queues: 2, Durability: d}); err != nil {
			return err
		}
	}
	var err error
	l.p, err = l.b.NewProducer(nil)
	return err
}

func (l *delayLife) entry(q *queue, off Offset) consumequeue.Entry {
	var e [1]consumequeue.Entry
	_, _ = q.entries.Read(off, e[:])
	return e[0]
}

func (l *delayLife) at(q *queue, off Offset) *Message {
	e := l.entry(q, off)
	if !visible(e, l.b.log.Written()) {
		return nil // being stored just now
	}
	m, err := l.b.messageAt(refOf(e), nil)
	if err != nil && !l.fs.Off() && off >= q.entries.Min() {
		l.Errorf("%v offset %d: %v", q.name(), off, err)
	}
	return m
}

// complete checks that everything has come: delivered by the last life, or seen
// by one before.
func (l *delayLife) complete() {
	if l.dropped() {
		return // the messages that came first may be gone by their age
	}
	for body, d := range l.sent {
		if d.recalled || d.maybe || !d.synced && !d.seen {
			continue
		}
		m, err := l.b.MessageByID(d.ID)
		if l.dropped() {
			return
		}
		if err != nil || m.Offset < 0 {
			l.Errorf("message %.10s was never delivered: %v", body, err)
		}
	}
}

// dropped reports whether retention has dropped messages, or is about to.
func (l *delayLife) dropped() bool {
	for _, name := range l.b.Topics() {
		for _, q := range *l.b.names.topic(name).queues.Load() {
			if q.entries.Min() > 0 {
				return true
			}
		}
	}
	return l.b.log.Start() > 0
}

func (l *delayLife) work() error {
	for range 60 + l.rnd.IntN(100) {
		var err error
		switch l.rnd.IntN(12) {
		case 0, 1, 2, 3, 4, 5:
			err = l.send()
		case 6:
			if err = l.b.Sync(l.Context()); err == nil {
				l.settled()
			}
		case 7, 8:
			l.b.upkeep.wantCheckpoint()
		case 9:
			err = l.recall()
		default:
			<-time.After(time.Duration(l.rnd.IntN(3)) * time.Millisecond)
		}
		if l.fs.Off() {
			return crashfs.ErrPowerCut
		}
		if err != nil {
			l.Errorf("while there was power: %v", err)
			return err
		}
	}
	return nil
}

func (l *delayLife) settled() {
	for _, d := range l.sent {
		d.synced = true
	}
}

func (l *delayLife) send() error {
	var ms []*Message
	for range 1 + l.rnd.IntN(3)*l.rnd.IntN(3) {
		l.number++
		ms = append(ms, &Message{
			Topic: []string{"S", "W", "W", "W"}[l.rnd.IntN(4)], Keys: []string{"k"},
			Body:  fmt.Appendf(nil, "%d%*d", l.number, l.rnd.IntN(20_000), 0),
			Delay: time.Duration(l.rnd.IntN(4)*l.rnd.IntN(20)) * time.Millisecond,
		})
	}
	results, err := l.p.SendBatch(l.Context(), ms)
	if err != nil {
		return err
	}
	synced := false
	for i, r := range results {
		l.sent[string(ms[i].Body)] = &delayedMessage{SendResult: r}
		synced = synced || r.Topic == "S"
	}
	if synced {
		l.settled()
	}
	return nil
}

func (l *delayLife) recall() error {
	for _, d := range l.sent {
		if d.maybe {
			continue
		}
		d.maybe = true
		err := l.p.Recall(l.Context(), d.RecallHandle())
		switch {
		case err == nil && d.Topic == "S":
			d.recalled = true
		case isError(err, ErrNotWaiting):
			d.maybe = false
			return nil
		}
		return err
	}
	return nil
}

// TestWaitingIsExact: a replay from a checkpoint that was written while messages
// were sent, delivered and recalled counts each once.
func TestWaitingIsExact(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		fs := crashfs.New(crashfs.Options{Seed: seed})
		dir := filepath.Join(t.TempDir(), "store")
		durableDir(t, fs, dir)
		opts := (&Options{SegmentBytes: mib, Durability: Written, Retention: Retention{Age: -1}}).withDefaults(false)
		b := newBroker(opts, fs, dir)
		require.NoError(t, b.open())
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() { // ended below
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					if b.checkpoint(false) != nil {
						return
					}
				}
			}
		}()
		for range 300 {
			r, err := p.Send(t.Context(), &Message{Topic: "T", Delay: time.Duration(1+rnd.IntN(2000)*rnd.IntN(2)) * time.Millisecond})
			require.NoError(t, err)
			if rnd.IntN(4) == 0 {
				if err := p.Recall(t.Context(), r.RecallHandle()); !isError(err, ErrNotWaiting) {
					require.NoError(t, err)
				}
			}
		}
		close(stop)
		<-done
		require.NoError(t, b.Sync(t.Context()))
		b.timer.stop() // no store may be under way
		left := fs.Crash(rnd)
		_ = b.Close()
		b = newBroker(opts, left, dir)
		require.NoError(t, b.open())
		require.NoError(t, b.Check(t.Context()))
		require.NoError(t, b.Close())
	}
}

// TestNear: the window of what is near gives out the same as a sorted list, in
// whatever sizes it is loaded and shrunk.
func TestNear(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var n near
		n.begin(record.Due{})
		var index []record.Due // all ever
		settled := map[coord.Position]bool{}
		got := map[coord.Position]bool{}
		last := record.Due{}
		pos := coord.Position(64)
		now := int64(1000)
		for range 3000 {
			switch rnd.IntN(8) {
			case 0, 1, 2:
				d := record.Due{At: max(n.floor, now+rnd.Int64N(300)), Position: pos}
				pos += 8
				index = append(index, d)
				n.add(d)
			case 3:
				if len(index) > 0 {
					if d := index[rnd.IntN(len(index))]; !got[d.Position] && !settled[d.Position] {
						settled[d.Position] = true
						n.settle(d)
					}
				}
			case 4:
				if n.len() > 20 && len(n.fresh) > 0 {
					n.cut(n.fresh[rnd.IntN(len(n.fresh))])
				}
			case 5:
				if n.horizon != endOfTime {
					from := n.loading()
					due, end := dueBehind(index, settled, from, 1+rnd.IntN(40))
					if rnd.IntN(5) == 0 {
						due, end = nil, from // it failed
					}
					n.take(due, end)
				}
			case 6:
				now += rnd.Int64N(20)
			default:
				if _, ok := n.first(); !ok && n.horizon != endOfTime {
					break // must be loaded first
				}
				n.launch(now, 1+rnd.IntN(5))
				taken := rnd.IntN(len(n.flight) + 1)
				for _, d := range n.flight[:taken] {
					require.Positive(t, d.Compare(last), "seed %d", seed)
					require.LessOrEqual(t, d.At, now)
					_, late := n.settled[d.Position] // since it was taken out
					require.Equal(t, settled[d.Position], late)
					got[d.Position], last = !late, d
				}
				n.landed(taken)
			}
		}
		for { // all that is left
			if _, ok := n.first(); !ok && len(n.flight) == 0 {
				if n.horizon == endOfTime {
					break
				}
				from := n.loading()
				due, end := dueBehind(index, settled, from, 100)
				n.take(due, end)
				continue
			}
			n.launch(1<<40, 100)
			for _, d := range n.flight {
				require.Positive(t, d.Compare(last), "seed %d", seed)
				_, late := n.settled[d.Position]
				got[d.Position], last = !late, d
			}
			n.landed(len(n.flight))
		}
		for _, d := range index {
			require.NotEqual(t, settled[d.Position], got[d.Position], "seed %d, %v", seed, d)
		}
		require.Empty(t, n.settled)
	}
}

// durableDir makes a directory that a power cut leaves.
func durableDir(t *testing.T, fs *crashfs.FS, dir string) {
	require.NoError(t, fs.MkdirAll(dir))
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		require.NoError(t, fs.SyncDir(filepath.Dir(d)))
	}
}

// dueBehind is what the index would say.
func dueBehind(index []record.Due, settled map[coord.Position]bool, from record.Due, most int) (due []record.Due, end record.Due) {
	sorted := slices.Clone(index)
	slices.SortFunc(sorted, record.Due.Compare)
	seen := 0
	end = endOfTime
	for _, d := range sorted {
		if d.Compare(from) <= 0 {
			continue
		}
		if seen++; !settled[d.Position] {
			due = append(due, d)
		}
		if seen == most {
			end = d
			break
		}
	}
	return due, end
}

func isError(err, want error) bool { return errors.Is(err, want) }

func refOf(e consumequeue.Entry) commitlog.Ref {
	return commitlog.Ref{Position: e.Position, Size: e.Size}
}
